"""LLMaAA: what to have annotated next, by place or by the model's doubt (Zhang et al. 2023). Its weights: `meta_weights`."""

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float, Int
from scipy.spatial.distance import cdist

from fisherlib._door import checked
from fisherlib.features import Matrix, TokenFeatures, check_head, logits_in_blocks
from fisherlib.selectors._contract import Ranking, selector
from fisherlib.selectors._pooled import centred, clusters, round_robin
from fisherlib.selectors._scored import check_scores

_DOUBTS, _REDUCTIONS = ("entropy", "least confidence"), ("mean", "sum", "max")


@selector("LLMaAA")
def llmaaa(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    examples: int | None,
    tokens: float | int | None,
    seed: int,
    acquisition: str = "k-means",
    head: Matrix | None = None,
    scores: Float[np.ndarray, " N"] | None = None,
    reduction: str = "mean",
) -> Ranking:
    """One acquisition of the paper: "k-means", "entropy" or "least confidence".

    "k-means": as many clusters as picks, of the centred means of the examples' token vectors; each centre, that of the
    largest cluster first, takes the nearest example in the pool that no other took. The authors' code takes the nearest, and
    so may take one twice; here all picks differ. A centre may take an example that lies in another cluster, otherwise this
    is `nearest_to_centre`. Under a token budget there is a cluster for each mean length that it holds, and what the nearest
    leave over goes to the next nearest of each cluster (our choice).
    "entropy" and "least confidence": the highest `llmaaa_scores`, lowest index on ties. They need `scores` [N], or the
    output `head` to compute them with, `head_matrix(model)`. `seed` is of k-means.
    The paper queries, annotates and trains in turns; this is one query. Source: Zhang et al., arXiv 2310.19596.
    Raises `ValueError` for an unknown acquisition, a doubt without head and scores, "k-means" with one, or what
    `llmaaa_scores` refuses.
    """
    if acquisition == "k-means":
        if head is not None or scores is not None:
            raise ValueError(f"expected no head or scores beside 'k-means', got one: give acquisition= as one of {_DOUBTS}")
        ids, X = centred(features)
        n = examples if examples is not None else round(tokens / features.lengths.numpy()[ids].mean())
        labels, distances = clusters(X, min(max(n, 1), len(ids)), seed)
        first = _nearest_distinct(X, labels)
        rest = round_robin(labels, within=distances, among=-np.bincount(labels).astype(float))
        order = np.concatenate([first, rest[~np.isin(rest, first)]])
        return Ranking(ids[order], {"method": "LLMaAA, k-means"})
    if acquisition not in _DOUBTS:
        raise ValueError(f"expected acquisition to be one of {('k-means', *_DOUBTS)}, got {acquisition!r}")
    how = reduction if scores is None else "scores given"
    if scores is None:
        scores = llmaaa_scores(features, head, doubt=acquisition, reduction=reduction)
    scores = check_scores(features, scores)
    settings = {"method": f"LLMaAA, {acquisition}", "seed": None, "reduction": how}
    return Ranking(np.argsort(-scores, kind="stable"), settings)


def _nearest_distinct(X: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " k"]:
    """For each cluster, largest first, the vector nearest to its centre of those that were not taken. O(n k d)."""
    sizes, taken = np.bincount(labels), np.zeros(len(X), dtype=bool)
    picks = []
    for cluster in np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]:
        (distances,) = cdist(X[labels == cluster].mean(axis=0, keepdims=True), X)
        picks.append(int(np.where(taken, np.inf, distances).argmin()))
        taken[picks[-1]] = True
    return np.array(picks)


@checked
def llmaaa_scores(
    features: TokenFeatures, head: Matrix | None, *, doubt: str = "entropy", reduction: str = "mean"
) -> Float[np.ndarray, " N"]:
    """How unsure the model is of the tokens of each example [N]; NaN for one without tokens.

    `doubt` at a token: "entropy" of the softmax of Theta x, in nats, or "least confidence", 1 - max p. `head` is Theta,
    `head_matrix(model)`: the distributions follow from the features, and the model does not run again. `reduction` over an
    example's tokens: "mean", "sum" (which mostly counts tokens) or "max". The responses are read as they stand in the pool
    (the paper predicts on texts without labels). A cheaper doubt is at hand: `features.trace_weights` are 1 - sum p^2, and

        1 - sqrt(1 - w) <= 1 - max p <= w,          -log(1 - w) <= entropy <= log V.

    O(M V d) time for M tokens, in float32, or float64 where the features are; memory bounded.
    Source: Zhang et al., arXiv 2310.19596. Raises `ValueError` for an unknown doubt or reduction, or no head that fits.
    """
    if doubt not in _DOUBTS or reduction not in _REDUCTIONS:
        raise ValueError(f"expected a doubt of {_DOUBTS} and a reduction of {_REDUCTIONS}, got {doubt!r} and {reduction!r}")
    theta = check_head(features, head)
    values = torch.empty(len(features.values), dtype=torch.float64)
    for tokens, _, logits in logits_in_blocks(features, theta):
        log_p = logits.log_softmax(1)
        values[tokens] = (-(log_p.exp() * log_p).sum(1) if doubt == "entropy" else 1 - log_p.amax(1).exp()).double()
    how = getattr(torch, {"max": "amax"}.get(reduction, reduction))
    parts = values.split(features.lengths.tolist())
    return np.array([float(how(part)) if len(part) else np.nan for part in parts])
