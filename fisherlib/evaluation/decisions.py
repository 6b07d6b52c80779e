"""Answer with what the metric wants: the closed forms of RAIL, regression-aware inference (Lukasik et al. 2024).

A language model says with which chance it would write each of some answers. Squared error wants the mean of these, absolute
error the median, an exact match the mode. Nothing is trained. Source: arXiv 2403.04182; of its table of metrics we know
these three rows only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from jaxtyping import Float, Int

from fisherlib._door import checked, numbers
from fisherlib._types import Model, Tokenizer
from fisherlib.model import answer_distribution as answer_distribution

METRICS = ("squared", "absolute", "exact")


@checked
def number_distribution(
    model: Model, tokenizer: Tokenizer, rows: Dataset, values: Sequence[float | int], **options
) -> Float[np.ndarray, "N R"]:
    """The chance that the model writes each of `values` in place of each row's response; `options` of `answer_distribution`.

    A number is written as Python prints it. Source: arXiv 2403.04182. Errors and cost are those of `answer_distribution`.
    """
    return answer_distribution(model, tokenizer, rows, [f"{value:g}" for value in values], **options)


@checked
def decide(
    p: Float[np.ndarray, "N R"],
    values: Sequence[float | int] | Float[np.ndarray, " R"] | Int[np.ndarray, " R"],
    metric: str = "squared",
) -> Float[np.ndarray, " N"]:
    """The number to answer for each row of chances `p`, the one with the least expected loss if they are true.

    >>> fl.decisions.decide(np.array([[0.1, 0.1, 0.1, 0.3, 0.4]]), [1, 2, 3, 4, 5])
    array([3.8])

    `metric`: "squared" error → the mean; "absolute" error → the median, of several the lowest; an "exact" match → the mode,
    of several the first. A row of `p` need not sum to one: it is divided by its sum. Under "exact", an answer is one of
    `values`; under "squared" it may lie between. Source: arXiv 2403.04182. Cost: O(N R log R).
    Raises `ValueError` for another metric, for chances that are negative, not finite or all zero in a row, and for values
    that are not as many finite numbers as `p` has columns.
    """
    if metric not in METRICS:
        raise ValueError(f"expected a metric out of {METRICS}, got {metric!r}: change metric=")
    values = numbers(values, "values")
    if p.ndim != 2 or values.shape != (p.shape[1],) or not np.isfinite(values).all():
        raise ValueError(
            f"expected a column of chances for each of some finite values, got {p.shape} and {values}: check both"
        )
    p = _shares(p)
    if metric == "squared":
        return p @ values
    if metric == "exact":
        return values[p.argmax(1)]
    order = np.argsort(values, kind="stable")
    below = p[:, order].cumsum(1)
    return values[order][(below >= 0.5 - 1e-12).argmax(1)]


@checked
def draws(p: Float[np.ndarray, "N R"], samples: int, *, seed: int = 0) -> Float[np.ndarray, "N R"]:
    """How often each answer comes among `samples` draws from each row of chances: the paper's first estimator.

    `decide(draws(p, k), values, metric)` is what k sampled texts would say, without writing them. A row of `p` is divided by
    its sum, as if texts that are none of the answers were drawn again (our choice). Shares that sum to one.
    Raises `ValueError` for less than one sample, and for chances as `decide` does.
    """
    if samples < 1:
        raise ValueError(f"expected at least 1 sample, got {samples}")
    return np.random.default_rng(seed).multinomial(samples, _shares(p)) / samples


def _shares(p: Float[np.ndarray, "N R"]) -> Float[np.ndarray, "N R"]:
    """Each row divided by its sum. Raises `ValueError` for a row that has none."""
    bad = ~(np.isfinite(p).all(1) & (p >= 0).all(1) & (p.sum(1) > 0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(f"row {row}: expected chances of at least 0, and one above it, got {p[row]}: check what made them")
    return p / p.sum(1, keepdims=True)


@dataclass(frozen=True)
class Line:
    """A recalibration: `intercept` + `slope` times the answer."""

    intercept: float
    slope: float

    def __call__(self, answers: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        return self.intercept + self.slope * answers


@checked
def recalibrate(answers: Float[np.ndarray, " n"], truths: Float[np.ndarray, " n"]) -> Line:
    """The least-squares line from a model's answers to the truths of some labelled rows: to be applied to others.

    >>> fl.decisions.recalibrate(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.5, 3.0]))
    Line(intercept=1.5, slope=0.5)

    Answers that are all the same get the mean of the truths, the best constant. A line keeps the order of the answers (or
    turns it), so it changes no rank correlation but the sign. Source: our choice; what the paper does about a biased model
    we do not know. Raises `ValueError` for lengths that differ, fewer than two rows, or numbers that are not finite.
    """
    if answers.shape != truths.shape or answers.ndim != 1 or len(answers) < 2:
        raise ValueError(
            f"expected a truth for each of two or more answers, got {answers.shape} and {truths.shape}: check both"
        )
    if not (np.isfinite(answers).all() and np.isfinite(truths).all()):
        raise ValueError("expected finite answers and truths, got NaN or infinity: drop those rows")
    centred = answers - answers.mean()
    spread = float(centred @ centred)
    slope = float(centred @ truths) / spread if spread > 1e-12 * max(1.0, float(answers @ answers)) else 0.0
    return Line(float(truths.mean() - slope * answers.mean()), slope)
