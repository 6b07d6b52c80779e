"""The rivals for one vector per example, T = 1: packages that solve the same problem under another name.

With one vector x_i each and V0 = I, det(I + X_S^T X_S) = det(I + X_S X_S^T) = det K_SS for the kernel K = I + X X^T. So the
gain log(1 + x_i^T V^-1 x_i) is the log of the Schur complement of K_SS, the *residual variance* of a pivoted Cholesky
factorisation: the largest pivot first is the greedy for log det, and a determinantal point process' greedy MAP as well.

A rival is `(X [n, d] float64, k) -> k indices in pick order`; building its kernel is part of its work.
"""

import numpy as np
import torch
from scipy.linalg import lapack


def cached_gains(X: np.ndarray, k: int, dtype: torch.dtype = torch.float64) -> np.ndarray:
    """All gains kept exact by rank-one updates (Sherman and Morrison); the loop to write if T = 1 is all that you need."""
    X = torch.as_tensor(X, dtype=dtype)
    inverse = torch.eye(X.shape[1], dtype=dtype)
    leverage = X.square().sum(1)  # x_i^T V^-1 x_i; the gain is log1p of it, which has the same order
    picks = []
    for _ in range(k):
        best = int(leverage.argmax())
        picks.append(best)
        u = inverse @ X[best]
        scale = 1 + float(X[best] @ u)
        inverse -= torch.outer(u, u) / scale
        leverage -= (X @ u).square() / scale
        leverage[picks] = -1.0
    return np.array(picks)


def botorch_pivoted_cholesky(X: np.ndarray, k: int, dtype: torch.dtype = torch.float64) -> np.ndarray:
    """BoTorch's inducing-point allocator (Chen et al. 2018, greedy DPP), quality 1. It returns inputs: give it indices."""
    from botorch.models.utils.inducing_point_allocators import _pivoted_cholesky_init

    kernel = _kernel(torch.as_tensor(X, dtype=dtype))
    rows = torch.arange(len(X))[:, None]
    return _pivoted_cholesky_init(rows, kernel, k, torch.ones(len(X), dtype=dtype))[:, 0].numpy()


def linear_operator_pivoted_cholesky(X: np.ndarray, k: int) -> np.ndarray:
    """GPyTorch's pivoted Cholesky; residuals are at least 1 here, so its error tolerance never stops it early."""
    from linear_operator import to_linear_operator

    kernel = to_linear_operator(_kernel(torch.as_tensor(X)))
    return kernel.pivoted_cholesky(rank=k, return_pivots=True)[1][:k].numpy()


def lapack_dpstrf(X: np.ndarray, k: int) -> np.ndarray:
    """LAPACK's pivoted Cholesky. It has no way to stop after k pivots: it factorises all of K."""
    kernel = X @ X.T
    kernel.flat[:: len(X) + 1] += 1.0
    _, pivots, _, _ = lapack.dpstrf(kernel.T, lower=1, overwrite_a=1)  # .T: Fortran order without a copy
    return pivots[:k].astype(int) - 1


def submodlib_lazy(X: np.ndarray, k: int) -> np.ndarray:
    """submodlib's LogDeterminant, lazy greedy in C++; its lambdaVal is the I of the kernel."""
    from submodlib import LogDeterminantFunction

    function = LogDeterminantFunction(n=len(X), mode="dense", lambdaVal=1, sijs=X @ X.T)
    picks = function.maximize(budget=k, optimizer="LazyGreedy", show_progress=False)
    return np.array([i for i, _ in picks])


def skmatter_farthest_points(X: np.ndarray, k: int) -> np.ndarray:
    """Farthest-point sampling, from the longest vector on: another objective, a cheap stand-in for this one."""
    from skmatter.sample_selection import FPS

    return FPS(n_to_select=k, initialize=int(np.square(X).sum(1).argmax())).fit(X).selected_idx_


def apricot_facility_location(X: np.ndarray, k: int) -> np.ndarray:
    """Facility location, the usual choice for representative subsets: another objective."""
    from apricot import FacilityLocationSelection

    return FacilityLocationSelection(k, metric="euclidean", optimizer="lazy").fit(X).ranking


def random_picks(X: np.ndarray, k: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(len(X))[:k]


def _kernel(X: torch.Tensor) -> torch.Tensor:
    kernel = X @ X.T
    kernel.diagonal().add_(1.0)
    return kernel


def synthetic(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Vectors of very different norms and a decaying spectrum, as embeddings have: here a good choice beats a random one."""
    random = np.random.default_rng(seed)
    norms = np.exp(0.8 * random.standard_normal((n, 1)))
    return random.standard_normal((n, d)) * np.linspace(1.5, 0.2, d) * norms


# name -> (rival, "exact" if it is the same greedy in exact arithmetic, the distribution it needs)
RIVALS = {
    "cached gains, 12 lines, float64": (cached_gains, "exact", "torch"),
    "cached gains, 12 lines, float32": (lambda X, k: cached_gains(X, k, torch.float32), "exact", "torch"),
    "botorch pivoted Cholesky, float64": (botorch_pivoted_cholesky, "exact", "botorch"),
    "botorch pivoted Cholesky, float32": (
        lambda X, k: botorch_pivoted_cholesky(X, k, torch.float32),
        "exact",
        "botorch",
    ),
    "submodlib LogDeterminant, LazyGreedy": (submodlib_lazy, "exact", "submodlib-py"),
    "LAPACK dpstrf (scipy)": (lapack_dpstrf, "exact", "scipy"),
    "linear-operator pivoted Cholesky": (linear_operator_pivoted_cholesky, "exact", "linear-operator"),
    "skmatter farthest points": (skmatter_farthest_points, "other objective", "skmatter"),
    "apricot facility location": (apricot_facility_location, "other objective", "apricot-select"),
    "random": (random_picks, "other objective", "numpy"),
}
