"""Sampling guided by the entropy of a two-component mixture, and the plateau of more data (ISA, Khera et al. 2024)."""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from jaxtyping import Float
from scipy.optimize import OptimizeWarning, curve_fit
from scipy.special import entr
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from fisherlib.selection import Selection
from fisherlib.selectors._budget import check_call, fill_in_order, without_tokens
from fisherlib.selectors._pooled import centred, principal
from fisherlib.token_features import TokenFeatures


def isa(
    pool: Dataset | None,
    features: TokenFeatures,
    *,
    examples: int | None = None,
    tokens: float | int | None = None,
    seed: int = 0,
    entropy: str = "high",
    dimensions: int = 8,
) -> Selection:
    """Sample without replacement, with probability proportional to the entropy H of `isa_entropies` ("high").

    `entropy="low"`: proportional to log 2 - H. The paper says that H guides the sampling, not how: the direction, the
    proportionality and the mixture's details are our choice.
    Source: Khera et al., arXiv 2411.10545, for pairs of preferences; on the means of token vectors, an extension.
    """
    began = time.perf_counter()
    check_call(pool, features, examples, tokens)
    if entropy not in ("high", "low"):
        raise ValueError(f"expected entropy to be 'high' or 'low', got {entropy!r}")
    H = isa_entropies(features, dimensions=dimensions, seed=seed)
    ids = np.flatnonzero(np.isfinite(H))
    weights = np.maximum(H[ids] if entropy == "high" else np.log(2) - H[ids], np.finfo(float).tiny)  # 0 would be last
    # Gumbel top-k: the falling order of log weight + Gumbel noise is that of drawing one after the other by weight.
    keys = np.log(weights) + np.random.default_rng(seed).gumbel(size=len(ids))
    return fill_in_order(
        features,
        np.concatenate([ids[np.argsort(-keys, kind="stable")], without_tokens(features)]),
        method="ISA",
        examples=examples,
        tokens=tokens,
        seed=seed,
        began=began,
        entropy=entropy,
        dimensions=dimensions,
    )


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


@dataclass(frozen=True)
class Plateau:
    """The curve a - b exp(-c n): it tends to a, of which it misses b at n = 0 and a factor of e less after each 1 / c."""

    a: float
    b: float
    c: float

    def __call__(self, n):
        return self.a - self.b * np.exp(-self.c * np.asarray(n, dtype=float))


def fit_plateau(sizes: Sequence[float | int] | np.ndarray, performance: Sequence[float | int] | np.ndarray) -> Plateau:
    """The least-squares `Plateau` of performance against the number of examples (or tokens), rising or falling.

    a and b are linear given c, so a grid of c gives the start, and `scipy.optimize.curve_fit` the end. Source: the curve is
    that of Khera et al., arXiv 2411.10545; how to fit it is our choice. Raises `ValueError` with fewer than four different
    sizes (three always fit), or values that are not finite, and for a performance that does not change, or that does not
    bend within the sizes, a line or a jump at the smallest, or that no curve fits best: no plateau can be told from those.
    """
    n, y = np.asarray(sizes, dtype=float), np.asarray(performance, dtype=float)
    if n.ndim != 1 or n.shape != y.shape:
        raise ValueError(f"expected one performance for each size, got arrays of shapes {n.shape} and {y.shape}")
    if not (np.isfinite(n).all() and np.isfinite(y).all() and (n >= 0).all()):
        raise ValueError("expected finite performances, and finite sizes of at least 0: leave out what was not measured")
    if (different := len(np.unique(n))) < 4:
        raise ValueError(f"expected at least 4 different sizes for a curve of 3 parameters, got {different}: measure more")
    if np.ptp(y) <= 1e-12 * np.abs(y).max():
        raise ValueError(f"expected a performance that changes with the size, got {y[0]:g} everywhere: measure less data")
    x, middle, scale = n / n.max(), y.mean(), np.ptp(y)
    y = (y - middle) / scale  # the fit knows no units

    def curve(x, a, b, log_c):
        return a - b * np.exp(-np.exp(log_c) * x)

    def linear(log_c):
        basis = np.column_stack([np.ones_like(x), -np.exp(-np.exp(log_c) * x)])
        ab = np.linalg.lstsq(basis, y, rcond=None)[0]
        return ((basis @ ab - y) ** 2).sum(), *ab, log_c

    line, jump = np.log(0.01), np.log(30 / x[x > 0].min())  # what the curve is within the sizes, at these log c and beyond
    *ab, log_c = min(linear(log_c) for log_c in np.linspace(line, jump, 200))[1:]
    if line < log_c < jump:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)  # of the covariance, which is not used
            try:
                a, b, log_c = curve_fit(curve, x, y, p0=[*ab, log_c], xtol=1e-14, ftol=1e-14, maxfev=10_000)[0]
            except RuntimeError as error:
                raise ValueError("expected a performance with a best curve, got none: measure it with less noise") from error
        if line < log_c < jump:
            return Plateau(float(a * scale + middle), float(b * scale), float(np.exp(log_c) / n.max()))
    got = "a line: measure more data" if log_c <= line else "a jump at the smallest: measure less data"
    raise ValueError(f"expected a performance that bends within sizes up to {n.max():g}, got {got}")
