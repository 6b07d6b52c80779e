"""Softmax heads from scratch on frozen features: the setting of the theory."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from fisherlib.evaluation import HeldOut
from fisherlib.features import Indices, TokenFeatures, check_features


@dataclass(frozen=True)
class HeadFrame:
    """What the heads of a pool share: the most frequent target tokens as classes, and the whitened principal axes."""

    classes: Int[np.ndarray, " L"]
    mean: Float[np.ndarray, " d"]
    whitening: Float[np.ndarray, "d k"]

    def inputs(
        self, features: TokenFeatures
    ) -> tuple[Float[np.ndarray, "m _"], Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
        """Whitened features with a constant column, class numbers and example numbers of the tokens of known classes."""
        labels = features.labels.cpu().numpy()
        known = np.isin(labels, self.classes)
        X = (features.values.cpu().double().numpy()[known] - self.mean) @ self.whitening
        owner = np.repeat(np.arange(len(features)), features.lengths.numpy())[known]
        return np.column_stack([X, np.ones(len(X))]), np.searchsorted(self.classes, labels[known]), owner


def head_frame(features: TokenFeatures, *, classes: int = 200, dimensions: int = 64) -> HeadFrame:
    """The frame of a pool: its most frequent labels and its first principal axes. Raises `ValueError` without labels."""
    from sklearn.decomposition import PCA

    check_features(features)
    if features.labels is None:
        raise ValueError("expected features with labels: extract them with extract_features")
    frequent, counts = np.unique(features.labels.cpu().numpy(), return_counts=True)
    kept = np.sort(frequent[np.argsort(-counts, kind="stable")[:classes]])
    pca = PCA(min(dimensions, features.dim, len(features.values)), whiten=True, svd_solver="covariance_eigh")
    pca.fit(features.values.cpu().float().numpy())
    return HeadFrame(kept, pca.mean_, (pca.components_ / np.sqrt(pca.explained_variance_)[:, None]).T)


@dataclass(frozen=True)
class Head:
    """A softmax regression from features to the most frequent target tokens, and the frame in front of it."""

    frame: HeadFrame
    classifier: object

    @property
    def classes(self) -> Int[np.ndarray, " L"]:
        return self.frame.classes

    def held_out(self, features: TokenFeatures) -> HeldOut:
        """Negative log-likelihood of the tokens of `features` whose label is one of the head's classes."""
        X, y, owner = self.frame.inputs(features)
        nll = -self.classifier.predict_log_proba(X)[np.arange(len(y)), y]
        count = len(features)
        return HeldOut(np.bincount(owner, nll, count), np.bincount(owner, minlength=count).astype(float))


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
    *uniform* picks). Raises `ValueError` without labels or with too few of them.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    frame = head_frame(features, classes=classes, dimensions=dimensions)
    heads = []
    for indices in selections:
        # The constant column is the intercept, under the same ridge: a free one would run off to minus infinity for the
        # classes that a selection never shows.
        head = Head(frame, LogisticRegression(C=1 / ridge, fit_intercept=False, max_iter=1000, tol=1e-4))
        X, y, _ = frame.inputs(features.subset(indices))
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
