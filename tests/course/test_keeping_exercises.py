"""The checkers of notebook 09: open answers are no stop, right ones pass, wrong ones say what to look at."""

import math

import pandas as pd
import pytest

from fisherlib.course.exercises import keeping

TABLES = {"weak": pd.DataFrame({"A": [3.0, 2.5, 2.0], "B": [1.5, 1.6, 2.2]}, [0.0, 0.2, 0.5])}
RATE = 0.1 + 0.45 * (1 + math.cos(math.pi * 0.65 / 0.9))


def test_open_answers_are_no_stop(capsys):
    keeping.rate_at(..., 0.75, 0.1, 0.1)
    keeping.first_steps(..., ..., 10.0)
    keeping.share_for(..., TABLES)
    assert capsys.readouterr().out.count("○ not answered yet") == 4


def test_right_answers_pass():
    keeping.rate_at(RATE, 0.75, 0.1, 0.1)
    keeping.first_steps(1.0, 1.9 / math.sqrt(1.099), 10.0)
    keeping.share_for(lambda table, weight: (weight * table["A"] + (1 - weight) * table["B"]).idxmin(), TABLES)


def test_wrong_answers_say_what_to_look_at():
    with pytest.raises(AssertionError, match="begins after the warm-up"):
        keeping.rate_at(0.1 + 0.45 * (1 + math.cos(math.pi * 0.75)), 0.75, 0.1, 0.1)
    with pytest.raises(AssertionError, match="first step of a fresh Adam"):
        keeping.first_steps(10.0, ..., 10.0)
    with pytest.raises(AssertionError, match="with the moments of A"):
        keeping.first_steps(1.0, 1.0, 10.0)
    with pytest.raises(AssertionError, match="weight 0 of A: 0%, got 20%"):
        keeping.share_for(lambda table, weight: 0.2, TABLES)
    with pytest.raises(AssertionError, match="expected one of the shares"):
        keeping.share_for(lambda table, weight: 0.3, TABLES)
