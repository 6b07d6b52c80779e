"""Softmax heads on frozen features, from scratch or as an update of the pretrained head, against the head of the full pool.

The features stand still here, as in the theory. A head is fitted to the picks; the head fitted to the whole pool is what it
should have become, and how far off its logits are is the prediction error of the paper.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from threadpoolctl import threadpool_limits

from fisherlib.features import Indices, TokenFeatures
from fisherlib.training import head_frame


@dataclass(frozen=True)
class Tokens:
    """The tokens whose label is one of the head's classes: inputs `X` [m, k], class numbers `y` [m], the example of each,
    and the logits that the pretrained head gives to the classes (zeros for a head from scratch)."""

    X: Float[np.ndarray, "m k"]
    y: Int[np.ndarray, " m"]
    owner: Int[np.ndarray, " m"]
    base: Float[np.ndarray, "m L"]
    examples: int

    def of(self, indices: Indices) -> "Tokens":
        """The tokens of some examples, in the order of the pool."""
        kept = np.isin(self.owner, np.asarray(indices))
        return Tokens(self.X[kept], self.y[kept], self.owner[kept], self.base[kept], self.examples)


def head_tokens(
    features: TokenFeatures,
    others: TokenFeatures,
    pretrained: Float[torch.Tensor, "V d"] | None,
    *,
    classes: int,
    dimensions: int,
) -> tuple[Tokens, Tokens]:
    """The pool's tokens and those of `others`, in the frame of the pool: its most frequent labels, its whitened axes."""
    frame = head_frame(features, classes=classes, dimensions=dimensions)
    sides = []
    for part in (features, others):
        X, y, owner = frame.inputs(part)
        base = np.zeros((len(y), len(frame.classes)), dtype=np.float32)
        if pretrained is not None:
            known = torch.from_numpy(np.isin(part.labels.cpu().numpy(), frame.classes))
            theta = pretrained[torch.from_numpy(frame.classes)].cpu().float()
            base = (part.values[known].cpu().float() @ theta.T).numpy()
        sides.append(Tokens(X, y, owner, base, len(part)))
    return sides[0], sides[1]


def fit_head(tokens: Tokens, *, ridge: float, tolerance: float = 1e-4) -> Float[np.ndarray, "L k"]:
    """Minimise the summed loss of logits `base + X D^T` plus ridge / 2 ||D||^2 over D: a ridge towards the pretrained head.

    With `base` 0 this is the head from scratch of `fisherlib.fit_heads`. L-BFGS until no component of the gradient is above
    `tolerance` times the number of tokens. Raises `ValueError` without tokens, or if it does not converge.
    """
    from scipy.optimize import minimize

    X, y, base = tokens.X, tokens.y, tokens.base
    m, k, L = len(y), X.shape[1], base.shape[1]
    if m == 0:
        raise ValueError("expected tokens of the head's classes in the selection, got none: choose more examples")

    def objective(flat):
        D = flat.reshape(L, k)
        loss, p = _losses(tokens, D)
        p[np.arange(m), y] -= 1
        return loss.sum() + ridge / 2 * flat @ flat, (p.T @ X + ridge * D).ravel()

    with threadpool_limits(1):  # the matrices are so small that threads only wait for each other
        found = minimize(
            objective, np.zeros(L * k), jac=True, method="L-BFGS-B", options={"maxiter": 2000, "gtol": tolerance * m}
        )
    if not found.success:
        raise ValueError(f"expected the head to converge ({found.message}): raise the ridge")
    return found.x.reshape(L, k)


def nll_sums(tokens: Tokens, D: Float[np.ndarray, "L k"]) -> Float[np.ndarray, " N"]:
    """Negative log-likelihood of each example's tokens, summed."""
    return np.bincount(tokens.owner, _losses(tokens, D)[0], tokens.examples)


def kl(tokens: Tokens, D: Float[np.ndarray, "L k"], reference: Float[np.ndarray, "L k"]) -> float:
    """Mean over the tokens of KL(reference's prediction || D's)."""
    p, q = (_losses(tokens, weights)[1] for weights in (reference, D))
    tiny = np.finfo(p.dtype).tiny
    return float((p * (np.log(p + tiny) - np.log(q + tiny))).sum(1).mean())


def logit_errors(tokens: Tokens, D: Float[np.ndarray, "L k"], reference: Float[np.ndarray, "L k"]) -> tuple[float, float]:
    """Maximum and mean over the examples of the mean over tokens of ||(D - reference) x||_2, centred over the classes.

    The paper's metric with the full pool's head in place of the truth; mean over the tokens: our choice.
    """
    difference = D - reference
    difference = difference - difference.mean(0)  # a softmax does not see a shift that all classes share
    norms = np.linalg.norm(tokens.X @ difference.T, axis=1)
    counts = np.bincount(tokens.owner, minlength=tokens.examples)
    means = np.bincount(tokens.owner, norms, tokens.examples)[counts > 0] / counts[counts > 0]
    return float(means.max()), float(means.mean())


def _losses(tokens: Tokens, D: Float[np.ndarray, "L k"]) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, "m L"]]:
    """Negative log-likelihood of each token, and the predicted probabilities."""
    logits = tokens.X @ D.T
    logits += tokens.base
    logits -= logits.max(1, keepdims=True)
    at_label = logits[np.arange(len(tokens.y)), tokens.y]
    np.exp(logits, out=logits)
    total = logits.sum(1, keepdims=True)
    logits /= total
    return np.log(total[:, 0]) - at_label, logits
