"""A uniform choice inside each k-means cluster, one cluster after the other: the same share for every neighbourhood."""

import time

import numpy as np
from datasets import Dataset

from fisherlib.features import TokenFeatures
from fisherlib.greedy import Selection
from fisherlib.selectors._budget import check_call, fill_in_order, without_tokens
from fisherlib.selectors._pooled import centred, clusters, round_robin


def uniform_in_clusters(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    examples: int | None = None,
    tokens: float | int | None = None,
    seed: int = 0,
    n_clusters: int | None = None,
) -> Selection:
    """One random example of each cluster, then a second one of each, and so on; the clusters in a random order.

    `n_clusters`: by default round(sqrt(N)), our choice. Source: our control for `clustered`, which differs from it by its
    probabilities alone.
    """
    began = time.perf_counter()
    check_call(rows, features, examples, tokens)
    ids, X = centred(features)
    labels, _ = clusters(X, n_clusters, seed)
    rng = np.random.default_rng(seed)
    order = round_robin(labels, within=rng.random(len(ids)), among=rng.random(labels.max() + 1))
    return fill_in_order(
        features,
        np.concatenate([ids[order], without_tokens(features)]),
        method="uniform in clusters",
        examples=examples,
        tokens=tokens,
        seed=seed,
        began=began,
        n_clusters=n_clusters,
    )
