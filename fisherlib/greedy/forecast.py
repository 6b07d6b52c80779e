"""What a selection will take, measured on small samples of the pool. (Extension.)"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fisherlib._door import checked
from fisherlib.features import TokenFeatures
from fisherlib.greedy.budget import Budget
from fisherlib.greedy.checks import check_budget, check_memory
from fisherlib.greedy.memory import plan_memory
from fisherlib.greedy.select import select

_PICKS = 4  # of a sample's share of the budget, below which it says little about a selection of many
_FEW = 0.1  # of the smaller sample's tokens or examples: what is chosen from both then


@dataclass(frozen=True)
class Forecast:
    """`evaluations` of a gain, `seconds`, and `gigabytes` of working memory at most (beside features in memory)."""

    evaluations: int
    seconds: float
    gigabytes: float

    def __repr__(self) -> str:
        return f"about {self.evaluations:,} gain evaluations, {self.seconds:,.1f} s, {self.gigabytes:.2f} GB"


@checked
def forecast(
    features: TokenFeatures,
    *,
    examples: int | None = None,
    tokens: float | int | None = None,
    sample: int = 600,
    seed: int = 0,
    device: str | torch.device = "auto",
    memory: float | int | None = None,
    **options,
) -> Forecast:
    """Evaluations, seconds and memory that `select` with these arguments will need, to within a factor of two or so.

    Selects from two random samples of the pool, of `sample` and of half as many examples, and continues the growth between
    them as a power law; a pool that is no larger than `sample` is simply selected from. Both have the whole budget's share,
    or, where that is a few picks only, one budget that shows what the whole one takes. Of rule="best" the exchanges do not
    grow with the pool: there are at most so many. `options` are those of `select`, but `costs`, `start`,
    `groups` and `checkpoint`, which belong to the whole pool. Raises `ValueError` for these, and for what `select` would
    refuse: a bad budget, or too little memory.
    """
    if whole := {"costs", "start", "groups", "checkpoint"} & set(options):
        raise ValueError(f"expected options that hold for a sample of the pool too, got {sorted(whole)}: leave them out")
    features.check_whole()
    if sample < 2:
        raise ValueError(f"expected a sample of at least 2 examples, got {sample}: change sample=")
    check_memory(memory)
    n = len(features)
    costs = features.lengths.numpy().astype(float)
    check_budget(features, costs, examples, tokens)
    whole_budget = Budget(costs, examples, tokens)
    room = None if memory is None else int(memory * 1e9)
    gigabytes = plan_memory(features, options.get("weighting", "none"), device, room).total / 1e9
    drawn = np.random.default_rng(seed).choice(n, min(sample, n), replace=False)
    part = features if n <= sample else features.subset(drawn)
    more = {"device": device, "memory": memory} | options
    evaluations, seconds = grown(part, n, len(features.values), whole_budget.asked, **more)
    return Forecast(int(evaluations), float(seconds), gigabytes)


def grown(
    sample: TokenFeatures, examples: int, tokens: int, budget: dict[str, Any], rule: str = "gain", **options
) -> tuple[float, float]:
    """Evaluations and seconds of a selection from a pool of so many examples and tokens, of which `sample` is a random part.

    The sample and its half are selected from. Their budgets are the whole one's share, if that is some picks; else one
    budget for both and half of it show how the work grows with the pool, and how with the budget. Growth is a power law.
    """
    n, ((unit, amount),) = len(sample), budget.items()
    rules = (rule,) if rule != "best" or n == examples else ("gain", "gain_per_token", "best")

    def took(part: TokenFeatures, of: float | int) -> list[tuple[int, float]]:
        least = 1 if unit == "examples" else float(part.lengths.max())
        asked: dict[str, Any] = {unit: max(round(of), 1) if unit == "examples" else max(of, least)}
        made = [select(part, **asked, rule=by, **options) for by in rules]
        return [(selection.evaluations, selection.seconds) for selection in made]

    if n == examples:
        evaluations, seconds = took(sample, amount)[0]
        return float(evaluations), seconds
    half = sample.subset(range(n // 2))
    held = {"examples": (n // 2, n, examples), "tokens": (len(half.values), len(sample.values), tokens)}[unit]
    share = amount / max(held[2], 1)
    if share * (n // 2) >= _PICKS:
        small, large = np.array([took(half, share * held[0]), took(sample, share * held[1])])
        growth = _power(large / small, n / (n // 2), 1, 2, examples / n)  # a pass over the pool at least, naive at most
    else:
        few = min(amount, _FEW * held[0])
        small, large, less = np.array([took(part, of) for part, of in ((half, few), (sample, few), (sample, few / 2))])
        growth = _power(large / small, n / (n // 2), 0.5, 1, examples / n)
        growth *= _power(large / less, 2, 0, 1, max(amount / few, 1))
    exchanges = (large[2:] - large[:2].sum(0)).clip(min=0).sum(0)
    evaluations, seconds = (large * growth)[:2].sum(0) + exchanges
    return float(evaluations), float(seconds)


def _power(ratio: np.ndarray, over: float | int, least: float | int, most: float | int, times: float | int) -> np.ndarray:
    """What becomes of a quantity that grew by `ratio` while its cause grew `over` times, once that grows `times` more."""
    return times ** (np.log(ratio) / np.log(over)).clip(least, most)
