"""Differences between paired numbers, with intervals and corrections for many comparisons."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class Paired:
    """Mean difference of two arms over the seeds, its t interval, the p-value of "no difference", and the bootstrap's."""

    mean: float
    low: float
    high: float
    p: float
    seeds: int
    bootstrap_low: float = np.nan
    bootstrap_high: float = np.nan


def paired_t(differences: Sequence[float] | Float[np.ndarray, " S"]) -> Paired:
    """Student's interval and test for the mean of one difference per seed. Raises `ValueError` for fewer than two seeds."""
    d = np.asarray(differences, dtype=float)
    if len(d) < 2 or not np.isfinite(d).all():
        raise ValueError(f"expected finite differences of at least two seeds, got {d.tolist()}: run more seeds")
    if np.ptp(d) <= 1e-12 * np.abs(d).max():  # arms that are the same in every seed: scipy would divide by zero
        return Paired(float(d[0]), float(d[0]), float(d[0]), 1.0 if d[0] == 0 else 0.0, len(d))
    test = stats.ttest_1samp(d, 0.0)
    interval = test.confidence_interval(LEVEL)
    return Paired(float(d.mean()), float(interval.low), float(interval.high), float(test.pvalue), len(d))


def two_level_bootstrap(
    sums: Sequence[Float[np.ndarray, " N"]],
    tokens: Sequence[Float[np.ndarray, " N"]],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile interval of the mean over seeds of (summed difference / tokens), for one array per seed.

    Seeds are drawn with replacement, and for each one drawn its test examples are.
    """
    rng = np.random.default_rng(seed)
    which = rng.integers(len(sums), size=(resamples, len(sums)))
    means = np.empty(which.shape)
    for s, (total, count) in enumerate(zip(sums, tokens, strict=True)):
        total, count = total[count > 0], count[count > 0]
        drawn = rng.multinomial(len(total), np.full(len(total), 1 / len(total)), size=int((which == s).sum()))
        means[which == s] = drawn @ total / (drawn @ count)
    values = means.mean(axis=1)
    tail = (1 - LEVEL) / 2
    return float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail))


def holm(p: Sequence[float] | Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Adjusted p-values of Holm's step-down procedure: the chance of any false rejection stays below the level.

    The smallest of n is multiplied by n, the next by n - 1, ..., and none may be below the one before it.
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def verdict(mean: float, p: float) -> str:
    """ "better" or "worse" (lower is better), or "tie" unless p < 0.05."""
    return "tie" if not p < 1 - LEVEL else "better" if mean < 0 else "worse"


def coverage(
    interval: Callable[[np.ndarray], tuple[float, float]], seeds: int, *, trials: int, rng: np.random.Generator
) -> float:
    """How often an interval for the mean of `seeds` normal numbers covers the truth, in `trials` drawings."""
    hits = 0
    for _ in range(trials):
        low, high = interval(rng.normal(size=seeds))
        hits += low <= 0 <= high
    return hits / trials
