"""The checkers of notebooks 02 and 03: a wrong answer is refused with what to look at, and never with the answer."""

import numpy as np
import pytest
import torch

from fisherlib.course.exercises import engine, greedy

I6 = torch.eye(6, dtype=torch.float64)


def blank(*_):
    return ...


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (greedy.gain, blank),
        (greedy.misses, ...),
        (greedy.lazy_greedy, blank),
        (greedy.certificate, blank),
        (engine.finalists, ...),
        (engine.one_token_update, blank),
        (engine.corner, ...),
        (engine.removal, blank),
    ],
)
def test_an_open_exercise_says_so_and_stops_nothing(check, answer, capsys):
    going_on = check(answer)
    assert "○ not answered yet" in capsys.readouterr().out
    assert going_on is None or going_on is not answer  # the lesson goes on with a right one


def naive(blocks, n, V0, B, gain):  # right picks, all gains
    V, S = V0, []
    for _ in range(n):
        gains = [-1.0 if i in S else gain(V.inverse(), X) for i, X in enumerate(blocks)]
        S.append(int(np.argmax(gains)))
        V = V + blocks[S[-1]].T @ blocks[S[-1]]
    return S


def forgetful(blocks, n, V0, B, gain):  # V never grows
    gains = [gain(V0.inverse(), X) for X in blocks]
    return np.argsort(gains)[::-1][:n].tolist()


@pytest.mark.parametrize(
    ("check", "answer", "says"),
    [
        (greedy.gain, lambda V_inverse, X: float(torch.logdet(torch.eye(len(X)) + X @ X.T)), "See"),
        (greedy.misses, [torch.eye(2)[:1], torch.eye(2)[1:], torch.zeros(1, 2)], "finds the best pair"),
        (greedy.misses, [torch.eye(2)] * 3, r"three tensors of shape \[1, 2\]"),
        (greedy.lazy_greedy, naive, "gains, .* will do"),
        (greedy.lazy_greedy, forgetful, "Does V grow"),
        (greedy.certificate, lambda blocks, S, V0: 0.0, "is below the right side"),
        (engine.finalists, [4], "Is that too low"),
        (engine.finalists, range(6), "is out"),
        (engine.one_token_update, lambda R, x: R, "R R.T is not the new inverse"),
        (engine.one_token_update, lambda R, x: (R / (1 + (x @ R).square().sum()).sqrt())[:1], r"expected a matrix \[4, 4\]"),
        (engine.corner, 8, "still limited by memory"),
        (engine.corner, 64, "limited by arithmetic already"),
        (engine.removal, lambda R, X: R, "Which signs"),
    ],
)
def test_a_wrong_answer_is_refused_with_what_to_look_at(check, answer, says):
    with pytest.raises(AssertionError, match=says):
        check(answer)


def test_watched_tells_apart_what_was_skipped_evaluated_picked_and_picked_before():
    blocks = greedy.small_pool(5, 6, torch.Generator().manual_seed(0))
    picks, looked = greedy.watched(naive, blocks, 3, I6, 1)
    for k, i in enumerate(picks):
        assert (looked[:k, i] == 1).all() and looked[k, i] == 2 and (looked[k + 1 :, i] == 3).all()
    assert (np.isin(looked, (1, 2)).sum(1) == [5, 4, 3]).all()
    after = greedy.gains_after(blocks, picks, I6)
    assert (after[1:] <= after[:-1] + 1e-9).all()


def test_times_within_a_tenth_are_a_tie():
    assert engine.against(1.0, 1.05) == engine.against(1.05, 1.0) == "a tie with"
    assert engine.against(3.0, 1.0) == "3.0 times faster than" and engine.against(1.0, 3.0) == "3.0 times slower than"
