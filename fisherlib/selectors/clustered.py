"""Sensitivity sampling around k-means centres: far from a centre, or where the loss is high (Axiotis et al. 2024)."""

import numpy as np
from datasets import Dataset
from jaxtyping import Float

from fisherlib.features import TokenFeatures
from fisherlib.greedy import Budget
from fisherlib.selectors._contract import Ranking, selector
from fisherlib.selectors._pooled import centred, clusters
from fisherlib.selectors._priority import priority_sample


@selector("clustered")
def clustered(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    examples: int | None,
    tokens: float | int | None,
    seed: int,
    n_clusters: int | None = None,
    z: float | int = 2,
    scale: float | int | None = None,
    losses: Float[np.ndarray, " N"] | None = None,
) -> Ranking:
    """A weighted sample with p(x) proportional to scale * dist(x, c)^z + loss(c), c being the centre nearest to x.

    k-means runs on the centred means of the examples' token vectors. The loss at a centre is that of the example nearest
    to it: its mean `nll` per token, or its entry in `losses` [N]. `scale`, the paper's lambda: by default such that both
    terms have the same mean over the pool; `n_clusters`: by default round(sqrt(N)). Both are our choice. Sampling is
    without replacement and within the budget (priority sampling): the result's `weights` make weighted sums over the
    picks unbiased for sums over the examples with tokens.
    Source: Axiotis et al., arXiv 2402.17327; priority sampling in place of independent draws is our choice.
    Raises `ValueError` for features without `nll` if no losses are given, and for losses that are negative or not finite.
    """
    if losses is None and features.nll is None:
        raise ValueError("expected features with nll, got none: extract them with fl.extract_features, or give losses=")
    if losses is not None and not (len(losses) == len(features) and np.isfinite(losses).all() and (losses >= 0).all()):
        raise ValueError(f"expected a finite loss of at least 0 for each of {len(features):,} examples: check losses=")
    if not (0 < z < np.inf and (scale is None or 0 <= scale < np.inf)):
        raise ValueError(f"expected a positive z and a scale of at least 0, got z={z}, scale={scale}")
    ids, X = centred(features)
    labels, distances = clusters(X, n_clusters, seed)
    loss = np.empty(len(ids))
    for cluster in np.unique(labels):
        members = np.flatnonzero(labels == cluster)
        nearest = int(ids[members[distances[members].argmin()]])
        loss[members] = _mean_nll(features, nearest) if losses is None else losses[nearest]
    if not np.isfinite(loss).all():
        raise ValueError("expected a finite nll, got NaN or infinity: extract the features again, or give losses=")
    p = sensitivities(distances**z, loss, scale)
    budget = Budget(features.lengths.numpy()[ids].astype(float), examples, tokens)
    picks, weights, order = priority_sample(p, budget.price, budget.amount, np.random.default_rng(seed))
    weight_of = np.ones(len(features))  # an example without tokens stands for itself
    weight_of[ids[picks]] = weights
    options = {"n_clusters": n_clusters, "z": z, "scale": scale, "losses": "nll" if losses is None else "given"}
    return Ranking(ids[order], options, weight_of)


def sensitivities(
    spread: Float[np.ndarray, " n"], loss: Float[np.ndarray, " n"], scale: float | int | None
) -> Float[np.ndarray, " n"]:
    """Unnormalised p. What is at its centre and has no loss still has a chance: without one, no weight would be right."""
    if scale is None:
        scale = loss.mean() / spread.mean() if spread.any() and loss.any() else 1.0
    p = scale * spread + loss
    return np.maximum(p, 1e-9 * p.max()) if p.any() else np.ones(len(p))


def _mean_nll(features: TokenFeatures, i: int | np.integer) -> float:
    begin, end = (int(o) for o in features.offsets[i : i + 2])
    return max(float(features.column("nll")[begin:end].double().mean()), 0.0)  # rounding may take a certain token below 0
