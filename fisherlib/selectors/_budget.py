"""Check a call and fill a budget in a given order: what all selectors share."""

import time
from numbers import Real

import numpy as np
from datasets import Dataset

from fisherlib.features import Indices, TokenFeatures, check_features
from fisherlib.greedy import Selection, check_budget, score_selection
from fisherlib.text import check_rows


def check_call(rows: Dataset | None, features: TokenFeatures, examples: int | None, tokens: float | int | None) -> None:
    """Raise `ValueError` for a bad budget, or if `rows`, where given, are not what the features were extracted from."""
    if rows is not None:
        check_rows(rows)
    check_features(features)
    if rows is not None and len(rows) != len(features):
        raise ValueError(
            f"expected the {len(features):,} rows that the features are of, got {len(rows):,} rows: give the same dataset"
        )
    for unit, amount in (("examples", examples), ("tokens", tokens)):
        if amount is not None and (isinstance(amount, bool) or not isinstance(amount, Real)):
            raise ValueError(f"expected a number of {unit}, got {amount!r}: change it")
    costs = features.lengths.numpy().astype(float)
    check_budget(features, costs, examples, tokens)
    if tokens is not None and tokens < (cheapest := costs[costs > 0].min()):
        raise ValueError(f"expected a budget of at least the cheapest example ({cheapest:g}), got {tokens:g}: raise it")


def fill_in_order(
    features: TokenFeatures,
    order: Indices,
    *,
    method: str,
    examples: int | None,
    tokens: float | int | None,
    seed: int | None = None,
    began: float | None = None,
    **options,
) -> Selection:
    """Take examples in `order` until the budget is met; under a token budget, skip what no longer fits.

    Examples without tokens come last whatever the order, under a token budget never. The information of the result is
    computed as for FisherSFT (prior 1), and its time is not counted as selection. `began`: `time.perf_counter()` at the
    start of the call; `options` are noted in the settings.
    """
    began = time.perf_counter() if began is None else began
    costs = features.lengths.numpy().astype(float)
    order = np.asarray(order)
    order = np.concatenate([order[costs[order] > 0], order[costs[order] == 0]])
    if examples is not None:
        picks = [int(i) for i in order[:examples]]
    else:
        picks, left = [], tokens
        for i in order:
            if 0 < costs[i] <= left:
                picks.append(int(i))
                left -= costs[i]
    seconds = time.perf_counter() - began
    budget = {"examples": examples} if examples is not None else {"tokens": tokens}
    settings = {"method": method, "budget": budget, "seed": seed, **options, "features": features.info}
    return score_selection(features, picks, seconds=seconds, settings=settings)


def without_tokens(features: TokenFeatures) -> Indices:
    """The examples without tokens: the end of every order."""
    return np.flatnonzero(features.lengths.numpy() == 0)
