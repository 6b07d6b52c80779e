"""Which neighbourhood each example belongs to."""

import numpy as np
from jaxtyping import Int

from fisherlib._door import checked
from fisherlib.features import TokenFeatures
from fisherlib.selectors._pooled import centred, clusters


@checked
def cluster_labels(
    features: TokenFeatures, n_clusters: int = 8, *, seed: int = 0, among: Int[np.ndarray, " m"] | None = None
) -> Int[np.ndarray, " N"]:
    """The k-means cluster of each example by its centred mean token vector, -1 without tokens: those of `in_clusters`.

    `among`: clusters of these examples only, as if there were no others, which have -1 too. At most one cluster for each
    example with tokens. Time O(M d) and k-means. Raises `ValueError` for a number below 1, or examples that
    do not exist.
    """
    if n_clusters < 1:
        raise ValueError(f"expected n_clusters of at least 1, got {n_clusters}: change it")
    if among is not None and not (among.dtype.kind in "iu" and np.isin(among, np.arange(len(features))).all()):
        raise ValueError(f"expected among= to be indices from 0 to {len(features) - 1}, got {among}: use np.flatnonzero")
    ids, X = centred(features, among)
    labels = np.full(len(features), -1)
    labels[ids] = clusters(X, min(n_clusters, len(ids)), seed)[0]
    return labels
