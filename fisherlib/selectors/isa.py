"""Sampling guided by the entropy of a two-component mixture, and the plateau of more data (ISA, Khera et al. 2024)."""

import warnings

import numpy as np
from datasets import Dataset
from jaxtyping import Float
from scipy.special import entr
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from fisherlib._door import checked
from fisherlib.features import Indices, TokenFeatures
from fisherlib.selectors._contract import selector
from fisherlib.selectors._pooled import centred, principal


@selector("ISA")
def isa(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    seed: int,
    entropy: str = "high",
    dimensions: int = 8,
) -> Indices:
    """Sample without replacement, with probability proportional to the entropy H of `isa_entropies` ("high").

    `entropy="low"`: proportional to log 2 - H. The paper says that H guides the sampling, not how: the direction, the
    proportionality and the mixture's details are our choice.
    Source: Khera et al., arXiv 2411.10545, for pairs of preferences; on the means of token vectors, an extension.
    """
    if entropy not in ("high", "low"):
        raise ValueError(f"expected entropy to be 'high' or 'low', got {entropy!r}")
    H = isa_entropies(features, dimensions=dimensions, seed=seed)
    ids = np.flatnonzero(np.isfinite(H))
    weights = np.maximum(H[ids] if entropy == "high" else np.log(2) - H[ids], np.finfo(float).tiny)  # 0 would be last
    # Gumbel top-k: the falling order of log weight + Gumbel noise is that of drawing one after the other by weight.
    keys = np.log(weights) + np.random.default_rng(seed).gumbel(size=len(ids))
    return ids[np.argsort(-keys, kind="stable")]


@checked
def isa_entropies(features: TokenFeatures, *, dimensions: int = 8, seed: int = 0) -> Float[np.ndarray, " N"]:
    """H = -sum_k r_k log r_k of each example's posterior in a mixture of two Gaussians, in [0, log 2]; NaN without tokens.

    The mixture is scikit-learn's, of full covariances, on the first principal coordinates of the centred means of token
    vectors: `dimensions` of them, and at most a tenth as many as there are examples (our choice: a full covariance needs
    more examples than dimensions, and in many dimensions nearly every posterior is 0 or 1, so that H tells nothing). An
    outlier is not between the components: one of them widens until it is its own, and then H is near 0.
    Time O(N d min(N, d)) for the coordinates. Raises `ValueError` for less than one dimension.
    """
    if dimensions < 1:
        raise ValueError(f"expected at least 1 of dimensions, got {dimensions}: raise it")
    ids, X = centred(features)
    H = np.full(len(features), np.nan)
    H[ids] = 0.0
    if len(ids) > 1:
        Z = principal(X, max(min(dimensions, len(ids) // 10), 1))
        H[ids] = np.minimum(entr(mixture(Z, seed).predict_proba(Z).clip(0, 1)).sum(axis=1), np.log(2))  # up to rounding
    return H


def mixture(Z: Float[np.ndarray, "n k"], seed: int = 0) -> GaussianMixture:
    """Two Gaussians with full covariances, fitted by EM from k-means, until the likelihood stands still."""
    with warnings.catch_warnings(), threadpool_limits(1):  # one thread: sums in one order, so one answer per seed
        warnings.simplefilter("ignore", ConvergenceWarning)  # copies: fewer distinct rows than components is no harm
        return GaussianMixture(2, tol=1e-6, max_iter=1000, random_state=seed).fit(Z)
