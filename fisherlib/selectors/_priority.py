"""Priority sampling within a budget: a weighted sample without replacement whose weighted sums are unbiased."""

import numpy as np
from jaxtyping import Float, Int


def priority_sample(
    p: Float[np.ndarray, " n"], costs: Float[np.ndarray, " n"], budget: float | int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " m"], Float[np.ndarray, " m"], Int[np.ndarray, " n"]]:
    """`(picks, weights, order)`: items in falling order of p_i / u_i with u_i uniform, as long as they fit the budget.

    An item that does not fit is skipped. Given the priorities q of all others, item i is picked if and only if q_i exceeds
    a threshold tau_i: the priority of the other item after which i would no longer fit. That has the probability
    min(1, p_i / tau_i), and the weight is its inverse; so the weighted sum of any function over the picks is an unbiased
    estimate of its sum over all items. With equal costs tau is the first priority that is not picked (Duffield, Lund and
    Thorup 2007); unequal costs are our extension. `p` positive. Time O(n log n + picks^2).
    """
    q = p / (1 - rng.random(len(p)))  # u in (0, 1]
    order = np.argsort(-q, kind="stable")
    cost, left = costs[order], budget
    places, lefts = [], []
    for place in range(len(order)):
        if cost[place] <= left:
            places.append(place)
            lefts.append(left)
            left -= cost[place]
    thresholds = [_threshold(cost, q[order], place, left) for place, left in zip(places, lefts, strict=True)]
    picks = order[np.array(places, dtype=np.int64)]
    return picks, np.maximum(1.0, np.array(thresholds) / p[picks]), order


def _threshold(cost: Float[np.ndarray, " n"], q: Float[np.ndarray, " n"], place: int, left: float | int) -> float:
    """The priority below which the item at `place` is not picked: fill without it until it fits no longer."""
    for other in range(place + 1, len(q)):
        if cost[other] <= left:
            left -= cost[other]
            if left < cost[place]:
                return float(q[other])
    return 0.0  # it fits even last
