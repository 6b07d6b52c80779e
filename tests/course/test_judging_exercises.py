"""The checkers of notebooks 06 and 07: what is open says so, a wrong answer is told what is wrong with it."""

import numpy as np
import pytest

from fisherlib.course.exercises import judging, related

SPEECHES = {
    "true": ["I pray you, bid him enter.", "Then why comes he so late?"] * 6,
    "shuffled": ["him enter pray bid. I you,", "late? why so comes he Then"] * 6,
    "loop": ["I pray you, bid I pray", "Then why comes he Then why"] * 6,
}


def capital_and_stop(a, b):
    points = [text[:1].isupper() + (text[-1:] in ".!?") for text in (a, b)]
    return "tie" if points[0] == points[1] else "AB"[points[1] > points[0]]


def falling_strengths(wins):
    return -np.arange(len(wins), dtype=float)


RIGHT = {judging.orders_by_chance: 0.32, judging.prompts_needed: [96.04, 384.16], related.dead_pull: 0.898}


def test_what_is_open_says_so(capsys):
    judging.blind_rule(..., SPEECHES)
    related.overlap_by_chance(..., 200, 25)
    for checker in (*RIGHT, judging.bradley_terry, related.falls_short, related.farthest):
        checker(...)
    assert capsys.readouterr().out.count("○ not answered yet") == 8


@pytest.mark.parametrize("checker", RIGHT, ids=lambda checker: checker.__name__)
def test_a_right_number_passes_and_a_wrong_one_does_not(checker, capsys):
    checker(RIGHT[checker])
    assert "✓" in capsys.readouterr().out
    with pytest.raises(AssertionError):
        checker(np.asarray(RIGHT[checker]) + 5)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: judging.blind_rule(lambda a, b: "A", SPEECHES), "shuffled: expected the true text more often"),
        (lambda: judging.blind_rule(lambda a, b: a, SPEECHES), 'expected "A", "B" or "tie"'),
        (lambda: judging.bradley_terry(falling_strengths), "the library's scores are"),
        (lambda: related.falls_short(np.eye(4, dtype=bool)), "as many as the best two"),
        (lambda: related.falls_short([True, False]), "expected a square table"),
        (lambda: related.farthest(lambda Z: range(len(Z))), "the library's order is"),
    ],
    ids=["always A", "no letter", "made up scores", "greedy is best", "no table", "no order"],
)
def test_a_wrong_answer_is_told_what_is_wrong(wrong, said):
    with pytest.raises(AssertionError, match=said):
        wrong()


def test_a_rule_that_understands_nothing_passes(capsys):
    judging.blind_rule(capital_and_stop, SPEECHES)
    assert "✓" in capsys.readouterr().out
