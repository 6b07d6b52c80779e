"""The checkers of notebook 12 tell open, right and wrong answers apart."""

import numpy as np
import pytest

from fisherlib.course.exercises import deciding

ONE = np.ones((1, 1))


@pytest.mark.parametrize(
    ("checker", "right", "wrong"),
    [
        (deciding.samples_needed, (2,), (1,)),
        (deciding.samples_needed, (2,), (3,)),
        (deciding.lopsided, ([0.5, 0, 0, 0, 0.5],), ([0.6, 0.4, 0, 0, 0],)),
        (deciding.lopsided, ([0.5, 0, 0, 0.25, 0.25],), ([0.4, 0, 0, 0, 0.6],)),
        (deciding.lopsided, ([0.6, 0, 0, 0, 0.4],), ([0.5, 0, 0, 0, 0.4],)),
        (deciding.factors, ([ONE, -ONE], [ONE, -ONE]), ([ONE, ONE], [ONE, ONE])),
        (deciding.factors, ([2 * ONE, -2 * ONE], [ONE, -ONE]), ([ONE, -ONE], [ONE, ONE])),
        (deciding.factors, ([ONE, -ONE], [ONE, -ONE]), ([0 * ONE, 0 * ONE], [ONE, -ONE])),
        (deciding.factors, ([ONE, -ONE], [ONE, -ONE]), ([ONE], [ONE])),
    ],
)
def test_open_right_and_wrong(capsys, checker, right, wrong):
    checker(*(... for _ in right))
    assert "○ not answered yet" in capsys.readouterr().out
    checker(*right)
    assert "✓" in capsys.readouterr().out
    with pytest.raises(AssertionError):
        checker(*wrong)
