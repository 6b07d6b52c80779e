import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fisherlib.course.synthetic.experiment import Ratio
from fisherlib.evaluation import Interval, after_holm, holm, paired_t, student
from fisherlib.evaluation.judging import Share

numbers = st.floats(-3, 3)


@given(st.tuples(numbers, numbers, numbers).map(sorted), st.sampled_from([Interval, Ratio, Share]))
def test_one_verdict_for_every_kind_of_number(ends, kind):
    low, mean, high = ends
    found = kind(mean, low, high)
    assert (found.verdict == "tie") == (low <= kind.null <= high)
    if found.verdict != "tie":
        assert found.verdict == kind.words[mean > kind.null]
    assert found.value == found.mean


def test_a_p_value_that_was_corrected_decides_in_place_of_the_interval():
    sure = Interval(-0.2, -0.3, -0.1)
    assert sure.verdict == "better" and Interval(0.2, 0.1, 0.3).verdict == "worse"
    assert dataclasses.replace(sure, p=0.06).verdict == "tie" and dataclasses.replace(sure, p=0.04).verdict == "better"
    assert dataclasses.replace(sure, p=np.nan).verdict == "tie"


def test_what_is_printed():
    assert str(Interval(-0.2, -0.3, -0.1)) == "-0.2000 [-0.3000, -0.1000] (better)"
    assert str(Share(0.75, 0.5, 0.9, count=1200)) == "75% [50%, 90%] of 1,200 (tie)"
    assert str(Ratio(1.5, 1.25, 2.0)) == "1.50 [1.25, 2.00] (worse)"
    nothing = Share(np.nan, np.nan, np.nan, count=0)
    assert str(nothing) == nothing.verdict == "not judged"
    with pytest.raises(dataclasses.FrozenInstanceError):
        nothing.mean = 1.0


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=9, unique=True))
def test_students_interval_is_that_of_the_test(values):
    values = np.array(values, dtype=float)
    plain, tested = student(values), paired_t(values)
    assert (plain.mean, plain.low, plain.high) == pytest.approx((tested.mean, tested.low, tested.high), rel=1e-9, abs=1e-9)
    assert plain.count == tested.count == len(values)
    if abs(tested.p - 0.05) > 1e-6:
        assert plain.verdict == tested.verdict


def test_verdicts_after_holm_are_of_the_adjusted_p():
    table = pd.DataFrame({"moved": [-1.0, 1.0, -1.0], "p": [0.001, 0.02, 0.04]}, index=["a", "b", "c"])
    left = after_holm(table, "moved")
    assert left["p_holm"].tolist() == holm([0.001, 0.02, 0.04]).tolist() == pytest.approx([0.003, 0.04, 0.04])
    assert left["verdict"].tolist() == ["better", "worse", "better"]
    assert after_holm(table.assign(p=0.02), "moved")["verdict"].tolist() == ["tie"] * 3
