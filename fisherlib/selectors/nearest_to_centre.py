"""The examples nearest to the centres of as many k-means clusters as there are picks: the most typical ones."""

import numpy as np
from datasets import Dataset

from fisherlib.features import TokenFeatures
from fisherlib.selectors._contract import Ranking, selector
from fisherlib.selectors._pooled import centred, clusters, round_robin


@selector("nearest to centre")
def nearest_to_centre(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    examples: int | None,
    tokens: float | int | None,
    seed: int,
    n_clusters: int | None = None,
) -> Ranking:
    """The example nearest to the centre of each cluster, largest cluster first; then the second nearest of each.

    `n_clusters`: by default one for each pick; under a token budget, one for each mean length that the budget holds.
    Ties go to the lowest index. Source: our control, the opposite of a design that looks for the unusual.
    """
    ids, X = centred(features)
    if n_clusters is None:
        picks = examples if examples is not None else round(tokens / features.lengths.numpy()[ids].mean())
        n_clusters = min(max(picks, 1), len(ids))
    labels, distances = clusters(X, n_clusters, seed)
    order = round_robin(labels, within=distances, among=-np.bincount(labels).astype(float))
    return Ranking(ids[order], {"n_clusters": n_clusters})
