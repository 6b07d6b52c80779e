"""One vector per example, for the selectors that see no tokens, and k-means on these vectors.

Hidden states of language models share a large common part, which hides all differences from distances and clusters:
everything here that measures distances takes the mean over the pool away first.
"""

import warnings

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from fisherlib.features import TokenFeatures

_AT_ONCE = 2**22  # numbers that are read at once: mapped features may be larger than memory


def pooled(
    features: TokenFeatures, pooling: str = "mean"
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n d"], Int[np.ndarray, " n"]]:
    """The examples that have tokens, one float64 vector for each ("mean", "sum" or "last" of its tokens), their lengths.

    Time O(M d), memory O(n d). Raises `ValueError` if no example has tokens, or if features are not finite.
    """
    if pooling not in ("mean", "sum", "last"):
        raise ValueError(f"expected pooling to be one of ('mean', 'sum', 'last'), got {pooling!r}")
    lengths = features.lengths.numpy()
    ids = np.flatnonzero(lengths)
    if not len(ids):
        raise ValueError(f"expected an example with tokens, got none in {len(features)} examples: check the features")
    bounds = np.append(features.offsets.numpy()[ids], len(features.values))  # what has no tokens has no rows either
    X = np.empty((len(ids), features.dim))
    first = 0
    while first < len(ids):
        last = int(np.searchsorted(bounds, bounds[first] + _AT_ONCE // features.dim, side="right")) - 1
        last = min(max(last, first + 1), len(ids))
        block = features.values[int(bounds[first]) : int(bounds[last])].to("cpu", torch.float64).numpy()
        cuts = bounds[first : last + 1] - bounds[first]
        X[first:last] = block[cuts[1:] - 1] if pooling == "last" else np.add.reduceat(block, cuts[:-1], axis=0)
        features.release()
        first = last
    if pooling == "mean":
        X /= lengths[ids][:, None]
    if not np.isfinite(X).all():
        bad = int(ids[~np.isfinite(X).all(1)][0])
        raise ValueError(f"expected finite features, got NaN or infinity in example {bad}: extract the features again")
    return ids, X, lengths[ids]


def centred(
    features: TokenFeatures, among: Int[np.ndarray, " m"] | None = None
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n d"]]:
    """The examples that have tokens, and the mean of each one's tokens less the mean of all these means.

    `among`: only of these examples, as if there were no others; their features are not copied.
    """
    ids, X, _ = pooled(features)
    if among is not None:
        inside = np.isin(ids, among)
        ids, X = ids[inside], X[inside]
        if not len(ids):
            raise ValueError(f"expected an example with tokens, got none in {len(among)} examples: check the features")
    X -= X.mean(axis=0)
    return ids, X


def mean_nll(features: TokenFeatures) -> Float[np.ndarray, " n"]:
    """The mean negative log-likelihood per token of the examples that have tokens, in float64.

    Raises `ValueError` for features without `nll`, or with values that are not finite.
    """
    if features.nll is None:
        raise ValueError("expected features with nll, got none: extract them with fl.extract_features")
    lengths = features.lengths.numpy()
    ids = np.flatnonzero(lengths)
    nll = features.nll.to("cpu", torch.float64).numpy()
    means = np.add.reduceat(nll, features.offsets.numpy()[ids]) / lengths[ids] if len(ids) else np.empty(0)
    if not np.isfinite(means).all():
        bad = int(ids[~np.isfinite(means)][0])
        raise ValueError(f"expected a finite nll, got NaN or infinity in example {bad}: extract the features again")
    return means


def principal(X: Float[np.ndarray, "n d"], dimensions: int) -> Float[np.ndarray, "n k"]:
    """The first principal coordinates, all divided by one number, such that their variances sum to 1 (0 for copies)."""
    if not np.ptp(X, axis=0).any():
        return np.zeros((len(X), 1))
    with threadpool_limits(1):
        Z = PCA(min(dimensions, *X.shape), svd_solver="full").fit_transform(X)
    return Z / np.sqrt(Z.var(axis=0).sum())


def clusters(
    X: Float[np.ndarray, "n d"], n_clusters: int | None, seed: int
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """k-means: the cluster of each vector, and its distance to the centre of that cluster. O(n k d) an iteration.

    `n_clusters`: by default round(sqrt(n)), at least 2 (our choice). Raises `ValueError` unless it is from 1 to n.
    """
    n = len(X)
    k = min(max(2, round(n**0.5)), n) if n_clusters is None else n_clusters
    if not 1 <= k <= n:
        raise ValueError(f"expected n_clusters from 1 to {n:,}, the examples with tokens, got {k}: change it")
    with warnings.catch_warnings(), threadpool_limits(1):  # one thread: sums in one order, so one answer per seed
        warnings.simplefilter("ignore", ConvergenceWarning)  # copies: fewer distinct vectors than clusters is no harm
        model = KMeans(k, n_init=1, random_state=seed).fit(X)
    labels = model.labels_.astype(np.int64)
    return labels, np.linalg.norm(X - model.cluster_centers_[labels], axis=1)


def round_robin(
    labels: Int[np.ndarray, " n"], within: Float[np.ndarray, " n"], among: Float[np.ndarray, " k"]
) -> Int[np.ndarray, " n"]:
    """An order that visits the clusters in turn: positions by rank inside their cluster, then by cluster.

    Lowest first: `within` [n] ranks inside a cluster, `among` [k] ranks the clusters. Ties go to the lowest position.
    """
    rank = np.empty(len(labels), dtype=np.int64)
    for cluster in np.unique(labels):
        members = np.flatnonzero(labels == cluster)
        rank[members[np.argsort(within[members], kind="stable")]] = np.arange(len(members))
    return np.lexsort((among[labels], rank))
