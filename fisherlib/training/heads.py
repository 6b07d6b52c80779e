"""Softmax heads on frozen features, from scratch or as an update of the pretrained head: the setting of the theory.

The features stand still here. A head is fitted to the picks; the head fitted to the whole pool is what it should have
become, and how far off its logits are is the prediction error of the paper.

There are two fits of one objective: `fit_heads` is scikit-learn's, `fit_head` a plain L-BFGS that starts from a pretrained
head too. They end at the same head up to rounding, but committed results hold every digit of either, so neither takes the
other's place.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from fisherlib._door import checked
from fisherlib.evaluation import HeldOut
from fisherlib.features import Indices, TokenFeatures
from fisherlib.model import all_finite


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


@dataclass(frozen=True)
class HeadFrame:
    """What the heads of a pool share: the most frequent target tokens as classes, and the whitened principal axes."""

    classes: Int[np.ndarray, " L"]
    mean: Float[np.ndarray, " d"]
    whitening: Float[np.ndarray, "d k"]

    def tokens(self, features: TokenFeatures, pretrained: Float[torch.Tensor, "V d"] | None = None) -> Tokens:
        """The tokens of known classes: whitened features with a constant column, and the logits of the pretrained head."""
        labels = features.column("labels").cpu().numpy()
        known = np.isin(labels, self.classes)
        X = (features.values.cpu().double().numpy()[known] - self.mean) @ self.whitening
        owner = np.repeat(np.arange(len(features)), features.lengths.numpy())[known]
        base = np.zeros((len(X), len(self.classes)), dtype=np.float32)
        if pretrained is not None:
            theta = pretrained[torch.from_numpy(self.classes)].cpu().float()
            base = (features.values[torch.from_numpy(known)].cpu().float() @ theta.T).numpy()
        y = np.searchsorted(self.classes, labels[known])
        return Tokens(np.column_stack([X, np.ones(len(X))]), y, owner, base, len(features))


def head_frame(features: TokenFeatures, *, classes: int = 200, dimensions: int = 64) -> HeadFrame:
    """The frame of a pool: its most frequent labels and its first principal axes.

    Raises `ValueError` without labels, for less than two classes or one dimension, and for features of less than two tokens,
    or that are not finite or all the same.
    """
    from sklearn.decomposition import PCA

    features.check_whole()
    if classes < 2 or dimensions < 1:
        raise ValueError(f"expected at least 2 classes and 1 dimension, got {classes} and {dimensions}")
    if features.labels is None:
        raise ValueError("expected features with labels: extract them with extract_features")
    if len(features.values) < 2 or not all_finite(features.values):
        raise ValueError("expected finite features of at least two tokens, got others: extract the features again")
    frequent, counts = np.unique(features.labels.cpu().numpy(), return_counts=True)
    kept = np.sort(frequent[np.argsort(-counts, kind="stable")[:classes]])
    pca = PCA(min(dimensions, features.dim, len(features.values)), whiten=True, svd_solver="covariance_eigh")
    X = features.values.cpu().float().numpy()
    if not np.ptp(X, axis=0).any():
        raise ValueError("expected features that differ, got the same of all tokens: there is nothing to learn from them")
    pca.fit(X)
    axes, variance = pca.components_, pca.explained_variance_
    if not variance.all():  # an axis along which nothing differs cannot be whitened
        axes, variance = axes[variance > 0], variance[variance > 0]
    return HeadFrame(kept, pca.mean_, (axes / np.sqrt(variance)[:, None]).T)


@dataclass(frozen=True)
class Head:
    """A softmax regression from features to the most frequent target tokens, and the frame in front of it."""

    frame: HeadFrame
    classifier: Any  # scikit-learn's LogisticRegression

    @property
    def classes(self) -> Int[np.ndarray, " L"]:
        return self.frame.classes

    def held_out(self, features: TokenFeatures) -> HeldOut:
        """Negative log-likelihood of the tokens of `features` whose label is one of the head's classes."""
        tokens = self.frame.tokens(features)
        nll = -self.classifier.predict_log_proba(tokens.X)[np.arange(len(tokens.y)), tokens.y]
        counts = np.bincount(tokens.owner, minlength=len(features))
        return HeldOut(np.bincount(tokens.owner, nll, len(features)), counts.astype(float))


@checked
def fit_heads(
    features: TokenFeatures,
    selections: Sequence[Indices],
    *,
    classes: int = 200,
    dimensions: int = 64,
    ridge: float = 10.0,
) -> list[Head]:
    """Fit a softmax head from scratch on the frozen features of each selection: the setting of the theory.

    The pool fixes what all heads share: the `classes` most frequent label tokens (tokens of other labels are left out) and
    the whitened principal `dimensions`. The fit is scikit-learn's ridge-penalised multinomial logistic regression
    (penalty ridge / 2 * ||Theta||^2 on the summed loss; the default is our choice, the best of 1, 3, 10, 30 and 100 for
    *uniform* picks). Raises `ValueError` without labels or with too few of them, and for a ridge that is not positive.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    if not 0 < ridge < np.inf:
        raise ValueError(f"expected a positive, finite ridge, got {ridge}")
    if any(np.ndim(indices) != 1 for indices in selections):
        raise ValueError(
            "expected a list of selections, of each the list of its indices, got others: give [selection.indices]"
        )
    frame = head_frame(features, classes=classes, dimensions=dimensions)
    heads = []
    for indices in selections:
        # The constant column is the intercept, under the same ridge: a free one would run off to minus infinity for the
        # classes that a selection never shows.
        head = Head(frame, LogisticRegression(C=1 / ridge, fit_intercept=False, max_iter=1000, tol=1e-4))
        tokens = frame.tokens(features.subset(indices))
        X, y = tokens.X, tokens.y
        if len(np.unique(y)) < 2:
            raise ValueError(f"expected tokens of at least two of the {classes} classes in a selection, got {len(y)} tokens")
        # One row of weight zero for every class, so that the model knows the classes which this selection never shows.
        L = len(frame.classes)
        X = np.concatenate([X, np.zeros((L, X.shape[1]))])
        weights = np.concatenate([np.ones(len(y)), np.zeros(L)])
        # So many classes beside few tokens make scikit-learn suspect that they are numbers; they are class numbers.
        # One thread: the matrices are so small that threads only wait for each other.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%", UserWarning)
            head.classifier.fit(X, np.concatenate([y, np.arange(L)]), sample_weight=weights)
        heads.append(head)
    return heads


def fit_head(tokens: Tokens, *, ridge: float, tolerance: float = 1e-4) -> Float[np.ndarray, "L k"]:
    """Minimise the summed loss of logits `base + X D^T` plus ridge / 2 ||D||^2 over D: a ridge towards the pretrained head.

    With `base` 0 this is the head from scratch of `fit_heads`. L-BFGS until no component of the gradient is above
    `tolerance` times the number of tokens. Raises `ValueError` without tokens, or if it does not converge.
    """
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits

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
