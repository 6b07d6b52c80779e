"""A uniform choice inside each k-means cluster, one cluster after the other: the same share for every neighbourhood."""

import numpy as np
from datasets import Dataset

from fisherlib.features import Indices, TokenFeatures
from fisherlib.selectors._contract import selector
from fisherlib.selectors._pooled import centred, clusters, round_robin


@selector("uniform in clusters")
def uniform_in_clusters(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    seed: int,
    n_clusters: int | None = None,
) -> Indices:
    """One random example of each cluster, then a second one of each, and so on; the clusters in a random order.

    `n_clusters`: by default round(sqrt(N)), our choice. Source: our control for `clustered`, which differs from it by its
    probabilities alone.
    """
    ids, X = centred(features)
    labels, _ = clusters(X, n_clusters, seed)
    rng = np.random.default_rng(seed)
    return ids[round_robin(labels, within=rng.random(len(ids)), among=rng.random(labels.max() + 1))]
