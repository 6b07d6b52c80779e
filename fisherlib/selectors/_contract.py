"""What all selectors do around their own idea, written once: check the call, time it, fill the budget, note what led here.

The idea is a function `order(rows, features, *, ...)`. It returns indices of examples, the best first; what it leaves out
follows by index. Of `examples`, `tokens` and `seed` it takes what it needs, and any options of its own.
"""

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Protocol, get_type_hints, runtime_checkable

import numpy as np
from datasets import Dataset
from jaxtyping import Float

from fisherlib._door import check_kinds
from fisherlib.features import Indices, TokenFeatures
from fisherlib.greedy import Budget, Selection, check_budget, score_selection
from fisherlib.text import check_same_rows


@runtime_checkable
class Selector(Protocol):
    """The call of every selector. `title`: what it is called in tables, figures and settings."""

    title: str

    def __call__(
        self, rows: Dataset | None, features: TokenFeatures, *,
        examples: int | None = None, tokens: float | int | None = None, seed: int = 0, **options: Any,
    ) -> Selection: ...  # fmt: skip


@dataclass(frozen=True)
class Ranking:
    """An order with more to say: what the settings note instead of the options of the call ("method" or "seed" among it
    replaces the usual one), and the weight of each example, should it be picked."""

    order: Indices
    settings: dict | None = None
    weights: Float[np.ndarray, " N"] | None = None


def selector(title: str, *, examples_of: str = "") -> Callable[[Callable], Selector]:
    """Make a selector of an `order`, whose docstring and options stay visible: see above.

    It may return a `Ranking` too, or the `Selection` of another selector, which stays as it is. `examples_of`: the option
    whose length is the number of examples if no budget is given.
    """
    common = list(inspect.signature(Selector.__call__).parameters.values())[1:-1]

    def contract(order: Callable[..., Indices | Ranking | Selection]) -> Selector:
        own = inspect.signature(order).parameters
        hints = get_type_hints(Selector.__call__) | get_type_hints(order)
        more = [parameter for name, parameter in own.items() if name not in {p.name for p in common}]

        @wraps(order)
        def select(rows, features, *, examples=None, tokens=None, seed=0, **options):
            began = time.perf_counter()
            if examples is None and tokens is None and examples_of in options:
                examples = len(options[examples_of])
            call = {"examples": examples, "tokens": tokens, "seed": seed}
            options = check_kinds({"rows": rows, "features": features} | call | options, hints)
            rows, features = options.pop("rows"), options.pop("features")
            call = {name: options.pop(name) for name in call}
            check_call(rows, features, call["examples"], call["tokens"])
            found = order(rows, features, **{name: call[name] for name in call if name in own}, **options)
            if isinstance(found, Selection):
                return found
            if not isinstance(found, Ranking):
                found = Ranking(found, {p.name: p.default for p in more if p.kind is p.KEYWORD_ONLY} | options)
            budget = Budget(features.lengths.numpy().astype(float), call["examples"], call["tokens"])
            picks = fill(features, found.order, budget)
            seconds = time.perf_counter() - began
            settings = {"method": title, "budget": budget.asked, "seed": call["seed"] if "seed" in own else None}
            settings |= (found.settings or {}) | {"features": features.info}
            chosen = score_selection(features, picks, seconds=seconds, settings=settings)
            return chosen if found.weights is None else replace(chosen, weights=found.weights[chosen.indices])

        made: Any = select
        made.__signature__ = inspect.Signature(common + more, return_annotation=Selection)
        made.title = title
        return made

    return contract


def check_call(rows: Dataset | None, features: TokenFeatures, examples: int | None, tokens: float | int | None) -> None:
    """Raise `ValueError` for a bad budget, or if `rows`, where given, are not what the features were extracted from."""
    features.check_whole()
    n, costs = len(features), features.lengths.numpy().astype(float)
    if rows is not None and len(rows) != n:
        raise ValueError(f"expected the {n:,} rows that the features are of, got {len(rows):,} rows: give the same dataset")
    if rows is not None:
        check_same_rows(rows, features.provenance)
    check_budget(features, costs, examples, tokens)
    if tokens is not None and tokens < (cheapest := costs[costs > 0].min()):
        raise ValueError(f"expected a budget of at least the cheapest example ({cheapest:g}), got {tokens:g}: raise it")


def fill(features: TokenFeatures, order: Indices, budget: Budget) -> list[int]:
    """The picks: in order until the budget is met; under a token budget, what no longer fits is skipped.

    Examples without tokens come last whatever the order, under a token budget never. Raises `ValueError` for no indices.
    """
    order, costs = np.asarray(order), features.lengths.numpy()
    if order.size and order.dtype.kind not in "iu":
        raise ValueError(f"expected the indices of examples, the best first, got {order.dtype}: sort with np.argsort")
    order = np.concatenate([order.astype(np.int64), np.setdiff1d(np.arange(len(features)), order)])
    order = np.concatenate([order[costs[order] > 0], order[costs[order] == 0]])
    picks: list[int] = []
    for i in (order if budget.unit == "examples" else order[costs[order] > 0]).tolist():
        if budget.price[i] <= budget.left:
            picks.append(i)
            budget.take(i)
    return picks
