"""The examples nearest to the centres of as many k-means clusters as there are picks: the most typical ones."""

import time

import numpy as np
from datasets import Dataset

from fisherlib.features import TokenFeatures
from fisherlib.greedy import Selection
from fisherlib.selectors._budget import check_call, fill_in_order, without_tokens
from fisherlib.selectors._pooled import centred, clusters, round_robin


def nearest_to_centre(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    examples: int | None = None,
    tokens: float | int | None = None,
    seed: int = 0,
    n_clusters: int | None = None,
) -> Selection:
    """The example nearest to the centre of each cluster, largest cluster first; then the second nearest of each.

    `n_clusters`: by default one for each pick; under a token budget, one for each mean length that the budget holds.
    Ties go to the lowest index. Source: our control, the opposite of a design that looks for the unusual.
    """
    began = time.perf_counter()
    check_call(rows, features, examples, tokens)
    ids, X = centred(features)
    if n_clusters is None:
        picks = examples if examples is not None else round(tokens / features.lengths.numpy()[ids].mean())
        n_clusters = min(max(picks, 1), len(ids))
    labels, distances = clusters(X, n_clusters, seed)
    order = round_robin(labels, within=distances, among=-np.bincount(labels).astype(float))
    return fill_in_order(
        features,
        np.concatenate([ids[order], without_tokens(features)]),
        method="nearest to centre",
        examples=examples,
        tokens=tokens,
        seed=seed,
        began=began,
        n_clusters=n_clusters,
    )
