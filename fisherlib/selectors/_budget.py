"""Fill a budget in a given order: what the selectors that only rank examples share."""

import time

from fisherlib.arguments import check_budget
from fisherlib.greedy import score_selection
from fisherlib.selection import Selection
from fisherlib.token_features import Indices, TokenFeatures


def fill_in_order(
    features: TokenFeatures,
    order: Indices,
    *,
    method: str,
    examples: int | None,
    tokens: float | int | None,
    seed: int | None = None,
) -> Selection:
    """Take examples in `order` until the budget is met; under a token budget, skip what no longer fits.

    The information of the result is computed as for FisherSFT (prior 1), and its time is not counted as selection.
    Raises `ValueError` for a bad budget, or if nothing fits.
    """
    began = time.perf_counter()
    costs = features.lengths.numpy().astype(float)
    check_budget(features, costs, examples, tokens)
    if examples is not None:
        picks = [int(i) for i in order[:examples]]
    else:
        picks, left = [], tokens
        for i in order:
            if 0 < costs[i] <= left:
                picks.append(int(i))
                left -= costs[i]
    if not picks:
        raise ValueError(f"expected a budget of at least the cheapest example ({costs[costs > 0].min():g}), got {tokens:g}")
    seconds = time.perf_counter() - began
    budget = {"examples": examples} if examples is not None else {"tokens": tokens}
    settings = {"method": method, "budget": budget, "seed": seed, "features": features.info}
    return score_selection(features, picks, seconds=seconds, settings=settings)
