"""Numbers with intervals: one type with one verdict, the ways to make an interval, and a correction for many comparisons."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import scipy  # not its stats, which take a second: they come on first use
from jaxtyping import Float, Int

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval: a difference of losses, unless a subclass says another kind of number.

    >>> from fisherlib.evaluation import Interval
    >>> Interval(-0.2, -0.3, -0.1)
    -0.2000 [-0.3000, -0.1000] (better)

    `p`, of the hypothesis that the number is `null`, is there where a test was made, and `count` where it says of how many
    (seeds, judgements) the number is the mean.
    """

    mean: float
    low: float
    high: float
    p: float | None = None
    count: int | None = None

    null: ClassVar[float] = 0.0  # the value that says nothing
    words: ClassVar[tuple[str, str]] = ("better", "worse")  # below it and above it
    form: ClassVar[str] = "+.4f"

    @property
    def value(self) -> float:
        """The same as `mean`, for numbers that are not a difference."""
        return self.mean

    @property
    def verdict(self) -> str:
        """One of `words`, or "tie" unless p < 0.05 (without a p: if the interval holds `null`); "not judged" of nothing."""
        if self.count == 0:
            return "not judged"
        if self.p is None:
            below, above = self.high < self.null, self.low > self.null
        else:
            sure = self.p < 1 - LEVEL
            below, above = sure and self.mean < self.null, sure and self.mean > self.null
        return self.words[0] if below else self.words[1] if above else "tie"

    def __repr__(self) -> str:
        if self.count == 0:
            return "not judged"
        mean, low, high = (format(number, self.form) for number in (self.mean, self.low, self.high))
        return f"{mean} [{low}, {high}]" + (f" of {self.count:,}" if self.count else "") + f" ({self.verdict})"


# --- Student's t: the unit that varies is a seed, a run ---------------------------------------------------------------


def student(values: Float[np.ndarray, " S"]) -> Interval:
    """The mean with Student's interval; of one value, an interval without end."""
    if len(values) < 2:
        return Interval(float(values.mean()), -np.inf, np.inf, count=len(values))
    mean = values.mean()
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return Interval(float(mean), float(mean - half), float(mean + half), count=len(values))


def paired_t(differences: Sequence[float] | Float[np.ndarray, " S"], *, at_least: float = 0.0) -> Interval:
    """Student's interval and test for the mean of one difference per seed. Raises `ValueError` for fewer than two seeds.

    `at_least`: a standard deviation that is known to be there, such as that of the test sample. Five lucky seeds may lie
    closer together than that; then it is used in place of theirs.
    """
    d = np.asarray(differences, dtype=float)
    if len(d) < 2 or not np.isfinite(d).all():
        raise ValueError(f"expected finite differences of at least two seeds, got {d.tolist()}: run more seeds")
    mean, alike = float(d.mean()), np.ptp(d) <= 1e-12 * np.abs(d).max()  # alike: the same in every seed, up to rounding
    error = max(0.0 if alike else float(d.std(ddof=1)), at_least) / np.sqrt(len(d))
    if not error:
        return Interval(mean, mean, mean, 1.0 if mean == 0 else 0.0, len(d))
    half = float(scipy.stats.t.ppf((1 + LEVEL) / 2, len(d) - 1)) * error
    return Interval(mean, mean - half, mean + half, float(2 * scipy.stats.t.sf(abs(mean) / error, len(d) - 1)), len(d))


def equivalence_margin(result: Interval) -> float:
    """The smallest margin at which two arms are *equivalent* at 5 %: both one-sided tests reject (TOST).

    `result`: of `paired_t`. A difference of more than this, to either side, is excluded; a smaller one is not.
    Source: D. J. Schuirmann, 1987.
    """
    if result.count is None:
        raise ValueError(f"expected an interval of paired_t, which knows of how many seeds, got {result}")
    two_sided, one_sided = scipy.stats.t.ppf([(1 + LEVEL) / 2, LEVEL], result.count - 1)
    return float(abs(result.mean) + (result.high - result.low) / 2 * one_sided / two_sided)


# --- without a normal distribution, and the noise of a test sample ----------------------------------------------------


def sign_flip(differences: Sequence[float] | Float[np.ndarray, " S"]) -> tuple[float, float]:
    """An exact two-sided p-value that assumes no normal distribution, and the smallest that so few seeds allow.

    If neither arm is better, each difference might as well have the other sign (R. A. Fisher, 1935): of all 2^S ways to set
    the signs, the share whose mean is at least as far from 0. Cost: 2^S sums; raises `ValueError` for more than 20 seeds.
    """
    d = np.asarray(differences, dtype=float)
    if not 0 < len(d) <= 20:
        raise ValueError(f"expected 1 to 20 seeds, got {len(d)}: with more, Student's test and this one agree")
    signs = 1 - 2 * ((np.arange(2 ** len(d))[:, None] >> np.arange(len(d))) & 1)
    as_far = np.abs(signs @ d) >= np.abs(d.sum()) - 1e-12 * np.abs(d).sum()
    return float(as_far.mean()), 2.0 / 2 ** len(d)


def ratio_variance(
    sums: Float[np.ndarray, " N"], tokens: Float[np.ndarray, " N"], strata: Sequence[str] | np.ndarray | None = None
) -> float:
    """Variance of sum(sums) / sum(tokens) over the draw of the N examples that were tested, by the usual linearisation.

    With `strata`, one label for each example, so many of each label were drawn (W. G. Cochran, Sampling Techniques, 1977,
    chapter 6). A stratum of one example says nothing of its variance and counts as 0.
    """
    influence = (sums - sums.sum() / tokens.sum() * tokens) / tokens.sum()
    labels = np.zeros(len(sums)) if strata is None else np.asarray(strata)
    parts = [influence[labels == label] for label in np.unique(labels)]
    return float(sum(len(u) * u.var(ddof=1) for u in parts if len(u) > 1))


# --- bootstraps: the unit that varies is an example, a prompt ---------------------------------------------------------


def resample(n: int, resamples: int, rng: np.random.Generator) -> Int[np.ndarray, "R {n}"]:
    """How often each of n things occurs when n are drawn with replacement, `resamples` times."""
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples)


def percentile_bootstrap(
    sums: Float[np.ndarray, " N"], tokens: Float[np.ndarray, " N"], *, resamples: int, seed: int
) -> tuple[float, float]:
    """95 % percentile interval of (sum of `sums` / sum of `tokens`) over drawings of the examples (`scipy.stats`)."""

    def mean(total, count, axis=-1):
        return total.sum(axis=axis) / count.sum(axis=axis)

    result = scipy.stats.bootstrap(
        (sums, tokens),
        mean,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


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
        drawn = resample(len(total), int((which == s).sum()), rng)
        means[which == s] = drawn @ total / (drawn @ count)
    values = means.mean(axis=1)
    tail = (1 - LEVEL) / 2
    return float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail))


# --- many comparisons, and what an interval is worth ------------------------------------------------------------------


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


def after_holm(table: pd.DataFrame, mean: str = "mean", same_as: str | None = None) -> pd.DataFrame:
    """The table with `p_holm`, Holm's correction of its column `p`, and the `verdict` on the column `mean` that is left.

    `same_as`: a column with the index of the row that a row is a copy of, its own if of none. Copies are no more chances to
    be lucky: they are not counted, and share the p of what they copy (1 if that is not in the table: the reference).
    """
    counted = np.ones(len(table), bool) if same_as is None else (table[same_as] == table.index).to_numpy()
    adjusted = dict(zip(table.index[counted], holm(table.loc[counted, "p"].to_numpy(dtype=float)), strict=True))
    p = [adjusted.get(of, 1.0) for of in (table.index if same_as is None else table[same_as])]
    left = [Interval(m, np.nan, np.nan, one).verdict for m, one in zip(table[mean], p, strict=True)]
    return table.assign(p_holm=p, verdict=left)


def coverage(
    interval: Callable[[np.ndarray], tuple[float, float]], seeds: int, *, trials: int, rng: np.random.Generator
) -> float:
    """How often an interval for the mean of `seeds` normal numbers covers the truth, in `trials` drawings."""
    hits = 0
    for _ in range(trials):
        low, high = interval(rng.normal(size=seeds))
        hits += low <= 0 <= high
    return hits / trials
