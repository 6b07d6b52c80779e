"""Checkers of the exercises of notebook 05."""

from collections.abc import Callable, Sequence

import numpy as np
import scipy  # its stats come on first use

from fisherlib.course.notebook import attempt
from fisherlib.evaluation import holm as library_holm

_OPEN = "○ not answered yet: {}"


def pairing(answer, a: Sequence[float] | np.ndarray, u: Sequence[float] | np.ndarray) -> None:
    """Which share of var(a) + var(u) the differences a - u still have."""
    claim, wanted = "what pairing leaves of the variance", np.var(np.subtract(a, u)) / (np.var(a) + np.var(u))
    if answer is not ... and abs(float(answer) - np.std(np.subtract(a, u)) / (np.std(a) + np.std(u))) < 1e-9:
        raise AssertionError(f"{claim}: expected variances, got standard deviations: square them")
    attempt(claim, answer, wanted, atol=1e-9)


def holm(answer) -> None:
    """A function from p-values to adjusted ones, in the order in which they came."""
    claim = "Holm in a few lines is the library's"
    if answer is ...:
        print(_OPEN.format(claim))
        return
    cases = {
        "one p-value": [0.03],
        "p-values in order": [0.01, 0.02, 0.04],
        "p-values that are not in order: give each arm its own back": [0.04, 0.01, 0.02],
        "a product that is below the one before it: no p may be": [0.01, 0.011, 0.9],
        "large p-values: a probability is at most 1": [0.7, 0.8, 0.9],
        "two equal p-values": [0.02, 0.02, 0.5],
    }
    for kind, p in cases.items():
        got, wanted = _numbers(answer, p), library_holm(p)
        if got.shape != wanted.shape or not np.allclose(got, wanted, atol=1e-12):
            raise AssertionError(f"{claim}: of {kind}, {p}, expected {wanted.tolist()}, got {got.tolist()}")
    many = np.random.default_rng(0).uniform(size=38) ** 3
    attempt(claim, _numbers(answer, many), library_holm(many), atol=1e-12)


def _numbers(function: Callable, p: Sequence[float] | np.ndarray) -> np.ndarray:
    return np.asarray(function(np.array(p)), dtype=float)


def what_seeds_can_see(answer, arms: int, seeds: Sequence[int] = (5, 10)) -> None:
    """How many standard deviations the best of so many arms must be from 0, for each number of seeds."""
    claim = f"what {' and '.join(map(str, seeds))} seeds can see"
    expected = [scipy.stats.t.ppf(1 - 0.025 / arms, S - 1) / np.sqrt(S) for S in seeds]
    if answer is not ... and np.allclose(answer, np.multiply(expected, np.sqrt(seeds))):
        raise AssertionError(f"{claim}: expected mean / standard deviation, got the statistic T: divide by the root of S")
    attempt(claim, answer, expected, atol=1e-6)
