"""Farthest-point sampling, the greedy k-centre algorithm: no example of the pool is far from a pick (Gonzalez 1985)."""

import numpy as np
from datasets import Dataset
from scipy.spatial.distance import cdist

from fisherlib.features import Indices, TokenFeatures
from fisherlib.greedy import Budget
from fisherlib.selectors._contract import selector
from fisherlib.selectors._pooled import pooled


@selector("farthest point")
def farthest_point(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    examples: int | None,
    tokens: float | int | None,
    seed: int,
    start: int | np.integer | str = "centre",
) -> Indices:
    """Each pick is the example farthest from all picks so far, among those that fit. Ties go to the lowest index.

    Distances are between the means of the examples' token vectors (the same, centred or not). `start`: "centre", the
    example nearest to the mean of all; "random", drawn with `seed`; or an index. With n examples as the budget, the
    largest distance to a pick is at most twice the least possible for n. Time O(picks N d), memory O(N d). Source:
    Gonzalez 1985. Raises `ValueError` for a start that does not exist, has no tokens or exceeds the budget.
    """
    ids, X, lengths = pooled(features)
    budget = Budget(lengths.astype(float), examples, tokens)
    if isinstance(start, str):
        if start not in ("centre", "random"):
            raise ValueError(f"expected start to be 'centre', 'random' or an index, got {start!r}")
        centre = X.mean(axis=0, keepdims=True)
        away = cdist(X, centre)[:, 0] if start == "centre" else np.random.default_rng(seed).random(len(ids))
        score = -away
    else:
        if start not in ids[budget.affordable()]:
            raise ValueError(f"expected a start with tokens that fits the budget of {budget.left:g}, got example {start}")
        score = (ids == start).astype(float)
    distance = np.full(len(ids), np.inf)
    picks = []
    while (fits := budget.affordable()).any():
        best = int(np.where(fits, score, -np.inf).argmax())  # the first of equals
        picks.append(best)
        budget.take(best)
        score = distance = np.minimum(distance, cdist(X, X[best : best + 1], "sqeuclidean")[:, 0])
    return ids[picks]
