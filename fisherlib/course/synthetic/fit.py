"""Maximum likelihood for a softmax head, in float64: many small fits, quickly, and a few large ones."""

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.linalg import solve_triangular
from scipy.optimize import minimize
from torch import Tensor

from fisherlib.features import TokenFeatures


def fit_mle(
    features: TokenFeatures,
    *,
    classes: int,
    weights: Float[np.ndarray, " M"] | None = None,
    ridge: float = 1e-3,
    tolerance: float = 1e-5,
    steps: int = 5000,
) -> Float[Tensor, "L d"]:
    """The head [L, d] that minimises the summed negative log-likelihood of `features.labels` + ridge / 2 * ||Theta||^2.

    `weights` multiply the tokens' terms of the sum, for methods that sample with weights; 1 by default. The ridge (our
    choice) makes the optimum finite and unique, and its class mean zero. L-BFGS (SciPy) in coordinates in which the
    Hessian is about the identity, V / L + ridge: the largest entry of the gradient there, which ends below `tolerance`, is
    the distance from the optimum in standard errors, where the classes are about equally likely. O(M L d) a step; some 20
    steps where the data decide, some hundreds where the ridge has to.
    Raises `ValueError` without labels, for labels outside of the classes, features or weights that are not finite, or a
    ridge that is not positive; `RuntimeError` if `steps` steps do not reach the tolerance.
    """
    if features.labels is None:
        raise ValueError("expected features with labels, got none: use those of a Problem")
    X, y = features.values.double().numpy(), features.labels.numpy()
    if not np.isfinite(X).all():
        raise ValueError("expected finite features, got NaN or infinity: check the features")
    if len(y) and not 0 <= y.min() <= y.max() < classes:
        raise ValueError(f"expected labels from 0 to {classes - 1}, got {y.min()} to {y.max()}: raise classes")
    w = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=float)
    if w.shape != y.shape or not (np.isfinite(w).all() and (w >= 0).all()):
        raise ValueError(f"expected a finite weight of at least 0 for each of {len(y):,} tokens, got shape {w.shape}")
    if not 0 < ridge < np.inf:
        raise ValueError(f"expected a ridge > 0, got {ridge}: without one, classes that were never seen run off to infinity")
    root = np.linalg.cholesky(X.T @ (w[:, None] * X) / classes + ridge * np.eye(X.shape[1]))
    inverse = solve_triangular(root, np.eye(len(root)), lower=True)  # Theta = Phi @ inverse

    def whitened(flat):
        loss, gradient = loss_and_gradient(flat.reshape(classes, -1) @ inverse, X, y, w, ridge)
        return loss, (gradient @ inverse.T).ravel()

    options = {"maxiter": steps, "maxfun": 2 * steps, "gtol": tolerance, "ftol": 0.0, "maxcor": 20}
    found = minimize(whitened, np.zeros(classes * X.shape[1]), jac=True, method="L-BFGS-B", options=options)
    if not np.abs(found.jac).max() <= tolerance:
        raise RuntimeError(
            f"expected a gradient of at most {tolerance:g}, got {np.abs(found.jac).max():.2g} after {found.nit} steps: "
            "raise steps, tolerance or ridge"
        )
    return torch.from_numpy(found.x.reshape(classes, -1) @ inverse)


def loss_and_gradient(
    Theta: Float[np.ndarray, "L d"],
    X: Float[np.ndarray, "M d"],
    y: Int[np.ndarray, " M"],
    w: Float[np.ndarray, " M"],
    ridge: float,
) -> tuple[float, Float[np.ndarray, "L d"]]:
    """The negative log-likelihood of labels `y` [M] with weights `w` [M], + ridge / 2 * ||Theta||^2, and its gradient."""
    logits = Theta @ X.T  # [L, M]: sums over classes run along whole rows, which is quicker
    logits -= logits.max(0)
    own = logits[y, np.arange(len(y))]
    P = np.exp(logits, out=logits)
    total = P.sum(0)
    loss = w @ (np.log(total) - own) + ridge / 2 * np.square(Theta).sum()
    P *= w / total
    P[y, np.arange(len(y))] -= w
    return float(loss), P @ X + ridge * Theta
