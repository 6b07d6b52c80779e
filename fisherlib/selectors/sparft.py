"""Few examples that are far from each other, from each cluster of meaning and difficulty (SPaRFT, Do et al. 2025)."""

import numpy as np
from datasets import Dataset
from jaxtyping import Float, Int
from scipy.spatial.distance import cdist

from fisherlib._door import checked
from fisherlib.features import Indices, TokenFeatures
from fisherlib.selectors._contract import selector
from fisherlib.selectors._pooled import centred, clusters, mean_nll, principal, round_robin


@selector("SPaRFT")
def sparft(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    seed: int,
    n_clusters: int = 8,
    dimensions: int = 32,
    difficulty: float | int = 1.0,
) -> Indices:
    """The reduction step of SPaRFT: the same number from each cluster (see `sparft_clusters`), farthest first inside.

    One pick of each cluster, in a random order of the clusters, then a second one of each, and so on; a cluster that has no
    more is left out. Inside a cluster the first is the example nearest to its mean, each next one the farthest from all
    before (see `farthest_first`). The other half of the paper, a curriculum over the clusters, is in `fisherlib.training`.
    Source: Do et al., arXiv 2508.05015; where an order begins, and how clusters take turns, is our choice.
    Cost: principal components O(N d min(N, d)), k-means, and O(dimensions * sum of squared cluster sizes).
    """
    ids, Z, labels = _clustered(features, n_clusters, dimensions, difficulty, seed)
    within = np.empty(len(ids))
    for cluster in np.unique(labels):
        members = np.flatnonzero(labels == cluster)
        within[members[farthest_first(Z[members])]] = np.arange(len(members))
    order = round_robin(labels, within, among=np.random.default_rng(seed).random(labels.max() + 1))
    return ids[order]


@checked
def sparft_clusters(
    features: TokenFeatures,
    *,
    n_clusters: int = 8,
    dimensions: int = 32,
    difficulty: float | int = 1.0,
    seed: int = 0,
) -> Int[np.ndarray, " N"]:
    """The cluster of each example, -1 without tokens: k-means on [principal coordinates; difficulty].

    The coordinates are the first `dimensions` of the centred means of token vectors, the difficulty is the mean `nll` per
    token. Each of the two parts has variance 1 in all, before the difficulty is multiplied by the option of that name.
    Source: Do et al., arXiv 2508.05015, where an embedding model and another model's rate of success stand for the two; the
    scales, the `dimensions` and the number of clusters (at most one for each example with tokens) are our choice.
    Raises `ValueError` for features without `nll`, or an option that is not positive (`difficulty`: below 0).
    """
    ids, _, labels = _clustered(features, n_clusters, dimensions, difficulty, seed)
    everyone = np.full(len(features), -1)
    everyone[ids] = labels
    return everyone


def farthest_first(Z: Float[np.ndarray, "n k"]) -> Int[np.ndarray, " n"]:
    """An order of all rows: first the one nearest to their mean, then always the one farthest from all before it.

    Whatever n is, from the first n no row is farther than twice the least possible distance for n (Gonzalez 1985), and
    their least distance to each other is at least half the largest possible. Ties: the lowest. O(n^2 k) time.
    """
    score, distance = -cdist(Z, Z.mean(axis=0, keepdims=True))[:, 0], np.full(len(Z), np.inf)
    order = np.empty(len(Z), dtype=np.int64)
    for place in range(len(Z)):
        order[place] = score.argmax()
        distance = np.minimum(distance, cdist(Z, Z[order[place], None])[:, 0])
        score = distance.copy()
        score[order[: place + 1]] = -1  # below a copy's 0
    return order


def _clustered(
    features: TokenFeatures, n_clusters: int, dimensions: int, difficulty: float | int, seed: int
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n k"], Int[np.ndarray, " n"]]:
    """The examples that have tokens, what describes each, and its cluster."""
    for name, value, least in (("n_clusters", n_clusters, 1), ("dimensions", dimensions, 1), ("difficulty", difficulty, 0)):
        if not least <= value < np.inf:
            raise ValueError(f"expected {name} of at least {least}, got {value}: change it")
    nll = mean_nll(features)
    ids, X = centred(features)
    hardness = principal((nll - nll.mean())[:, None], 1)
    Z = np.column_stack([principal(X, dimensions), difficulty * hardness])
    return ids, Z, clusters(Z, min(n_clusters, len(ids)), seed)[0]
