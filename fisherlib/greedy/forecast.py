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

    Selects the same share of two random samples of the pool, of `sample` and of half as many examples, and continues the
    growth between them as a power law; a pool that is no larger than `sample` is simply selected from. Of rule="best" the
    exchanges do not grow with the pool: there are at most so many. `options` are those of `select`, but `costs`, `start`,
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
    rule = options.pop("rule", "gain")
    rng = np.random.default_rng(seed)
    sizes = [min(sample, n)] if n <= sample else [sample // 2, sample]
    rules = (rule,) if rule != "best" or len(sizes) == 1 else ("gain", "gain_per_token", "best")
    found = []
    for size in sizes:
        part = features.subset(np.sort(rng.choice(n, size, replace=False)))
        share = len(part.values) / max(len(features.values), 1)
        if whole_budget.unit == "examples":
            budget: dict[str, Any] = {"examples": max(round(whole_budget.amount * size / n), 1)}
        else:  # an example at least
            budget = {"tokens": max(whole_budget.amount * share, float(part.lengths.max()))}
        made = [select(part, **budget, rule=by, device=device, memory=memory, **options) for by in rules]
        found.append([(selection.evaluations, selection.seconds) for selection in made])
    if len(sizes) == 1:
        return Forecast(*found[0][0], gigabytes)
    small, large = np.array(found)
    exponent = np.log(large / small) / np.log(sizes[1] / sizes[0])
    exponent = exponent.clip(1, 2)  # a pass over the pool at least, naive at most
    grown = large * (n / sizes[1]) ** exponent
    exchanges = (large[2:] - large[:2].sum(0)).clip(min=0).sum(0)
    evaluations, seconds = grown[:2].sum(0) + exchanges
    return Forecast(int(evaluations), float(seconds), gigabytes)
