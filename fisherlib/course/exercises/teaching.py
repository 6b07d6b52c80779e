"""Checkers of the exercises of notebook 10b."""

import numpy as np
import torch

from fisherlib.course.notebook import attempt
from fisherlib.training import objectives, teacher


def smallest_spread(my_spread) -> None:
    """How far the best of four answers must be above the worst, so that no pair adds to the loss, at scale 0.01.

    Found by giving the answers equal distances, smaller and smaller, until the library's loss is above 0.
    """
    loss = objectives.Ranking([[np.nan, 3, 2, 1, 0]], weight=1, scale=0.01)

    def lost(spread: float) -> bool:
        scores = -torch.linspace(0, spread, 4, dtype=torch.float64)
        return float(loss(0, [torch.zeros(1, dtype=torch.float64), *scores.unsqueeze(1)])) > 1e-9

    low, high = 0.0, 1.0
    while high - low > 1e-7:
        middle = (low + high) / 2
        low, high = (middle, high) if lost(middle) else (low, middle)
    attempt("the smallest spread without a loss", my_spread, high, atol=1e-4)


def ranks(my_ranks) -> None:
    """Ranks of scores, the first of which is the target. Raises `AssertionError` that shows both."""
    if my_ranks is not ...:
        rng = np.random.default_rng(0)
        for count in (1, 3, 4, 6):
            scores = rng.integers(-4, 0, count + 1) / 2
            mine, expected = np.asarray(my_ranks(scores), dtype=float), teacher.ranks_of(scores)
            if mine.shape != expected.shape or not np.array_equal(mine, expected, equal_nan=True):
                raise AssertionError(f"for the scores {scores} the library's ranks are {expected}, yours are {mine}")
    attempt("my ranks are the library's", my_ranks if my_ranks is ... else True, True)


def ranking_loss(my_loss) -> None:
    """The loss of sums, lengths and ranks, compared with the library's. Raises `AssertionError` that shows both."""
    if my_loss is not ...:
        rng = np.random.default_rng(1)
        for case in range(20):
            count = int(rng.integers(1, 6))
            given = rng.permutation(count) if case % 3 else np.zeros(count)  # every third: all tie
            lengths = rng.integers(1, 9, count)
            log_p = [torch.from_numpy(-rng.exponential(0.02, length)) for length in lengths]
            own = objectives.Ranking([[np.nan, *given]], weight=1, scale=0.01)
            expected = float(own(0, [torch.zeros(1, dtype=torch.float64), *log_p]))
            sums = np.array([float(one.sum()) for one in log_p])
            mine = float(my_loss(sums, lengths, given))
            if not abs(mine - expected) < 1e-9:
                raise AssertionError(f"ranks {given}: the library's loss is {expected:.6f}, yours is {mine:.6f}")
    attempt("my ranking loss is the library's", my_loss if my_loss is ... else True, True)
