"""Say how much of the budget each neighbourhood gets by one method, and choose inside it by another."""

from collections.abc import Callable

import numpy as np
from datasets import Dataset

from fisherlib.features import TokenFeatures
from fisherlib.greedy import Budget, Selection
from fisherlib.selectors._contract import Ranking, selector
from fisherlib.selectors._pooled import centred, clusters
from fisherlib.selectors.uniform import uniform


@selector("in clusters")
def in_clusters(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    examples: int | None,
    tokens: float | int | None,
    seed: int,
    n_clusters: int = 8,
    like: Callable[..., Selection] | None = None,
    then: Callable[..., Selection] = uniform,
) -> Ranking:
    """`then` inside each k-means cluster, with the share of the budget that `like` spends there.

    `like` and `then` are selectors of this package, or any callables with their call. Without `like`, a cluster's share is
    that of its tokens (of its examples, for a budget of examples). Shares are rounded down; what they leave over goes to
    what `then` takes from the whole pool. `n_clusters`: few, so that each has enough examples to choose among (our choice;
    at most one for each example with tokens). Source: extension. Cost: `like` and `then` on the whole pool, `then` in each
    cluster, and k-means.
    """
    ids, X = centred(features)
    k = min(n_clusters, len(ids))
    cluster, costs = clusters(X, k, seed)[0], features.lengths.numpy().astype(float)
    where = np.full(len(features), -1)
    where[ids] = cluster
    budget = Budget(costs, examples, tokens)
    model = ids if like is None else like(rows, features, seed=seed, **budget.asked).indices
    model = model[where[model] >= 0]
    spent = np.bincount(where[model], budget.price[model], k)
    order: list[int] = []
    for group, quota in enumerate(np.floor(spent / spent.sum() * budget.amount)):
        members = np.flatnonzero(where == group)
        if len(members) and quota >= budget.price[members].min():
            share = min(quota, budget.price[members].sum())
            some = None if rows is None else rows.select(members)
            its_own = {budget.unit: share if examples is None else int(share)}
            part = then(some, features.subset(members), seed=seed, **its_own)
            order += part.of_subset(members, len(features)).indices.tolist()
    order += then(rows, features, seed=seed, **budget.asked).indices.tolist()
    order += np.random.default_rng(seed).permutation(len(features)).tolist()  # for the last few tokens, whoever fits
    return Ranking(list(dict.fromkeys(order)), {"n_clusters": n_clusters})
