"""Inverse-propensity sampling: the rarer an example's neighbourhood, the likelier it is drawn (Sachdeva et al. 2024)."""

import numpy as np
from datasets import Dataset
from jaxtyping import Float
from scipy.spatial.distance import pdist

from fisherlib._door import checked
from fisherlib.features import Indices, TokenFeatures
from fisherlib.selectors._contract import selector
from fisherlib.selectors._pooled import centred

_AT_ONCE = 2**22  # kernel values that are computed at once
_FOR_MEDIAN = 2000  # examples that the bandwidth is taken from


@selector("density")
def density(rows: Dataset | None, features: TokenFeatures, *, seed: int, bandwidth: float | None = None) -> Indices:
    """Sample without replacement, with probability proportional to 1 / density (see `density_scores`).

    k copies of an example that is far from all others weigh together about as much as one such example without copies.
    Source: Sachdeva et al., arXiv 2402.09668; there the kernel sum is a sketch, here it is exact (our choice).
    """
    scores = density_scores(features, bandwidth=bandwidth, seed=seed)
    ids = np.flatnonzero(np.isfinite(scores))
    # Gumbel top-k: the falling order of log weight + Gumbel noise is that of drawing one after the other by weight.
    keys = -np.log(scores[ids]) + np.random.default_rng(seed).gumbel(size=len(ids))
    return ids[np.argsort(-keys, kind="stable")]


@checked
def density_scores(features: TokenFeatures, *, bandwidth: float | None = None, seed: int = 0) -> Float[np.ndarray, " N"]:
    """Kernel density of each example: the sum over all z of exp(-||x - z||^2 / 2 h^2), itself included; NaN without tokens.

    x is the mean of an example's token vectors. `bandwidth` h: by default the median distance between different vectors
    (of 2,000 random ones, drawn with `seed`, in a larger pool), our choice. In many dimensions all distances are near
    that median and the density nearly constant, so the sample is nearly uniform: a smaller h tells more examples apart.
    Time O(N^2 d), so for pools of some ten thousands; memory O(N d). Raises `ValueError` unless `bandwidth` is positive.
    """
    if bandwidth is not None and not 0 < bandwidth < np.inf:
        raise ValueError(f"expected a positive bandwidth, got {bandwidth}")
    ids, X = centred(features)
    if bandwidth is None:
        sample = (
            X if len(X) <= _FOR_MEDIAN else X[np.random.default_rng([seed, 1]).choice(len(X), _FOR_MEDIAN, replace=False)]
        )
        distances = pdist(sample)
        apart = distances[distances > 0]  # copies say nothing about the scale
        bandwidth = float(np.median(apart)) if len(apart) else 1.0
    X /= bandwidth
    squares = (X * X).sum(axis=1)
    sums = np.empty(len(X))
    step = max(_AT_ONCE // len(X), 1)
    for i in range(0, len(X), step):
        distances = squares[i : i + step, None] + squares - 2 * X[i : i + step] @ X.T
        sums[i : i + step] = np.exp(-distances.clip(min=0) / 2).sum(axis=1)
    if not np.isfinite(sums).all():
        raise ValueError(f"expected a bandwidth that float64 can divide by, got {bandwidth}: raise it")
    scores = np.full(len(features), np.nan)
    scores[ids] = sums
    return scores
