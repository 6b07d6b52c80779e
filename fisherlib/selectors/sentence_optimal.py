"""D-optimal design on one vector per example: what is left of FisherSFT when its tokens are pooled first."""

import time

import numpy as np
import torch
from datasets import Dataset

from fisherlib.features import TokenFeatures
from fisherlib.greedy import Selection, select
from fisherlib.selectors._budget import check_call, fill_in_order
from fisherlib.selectors._pooled import pooled


def sentence_optimal(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    examples: int | None = None,
    tokens: float | int | None = None,
    seed: int = 0,
    pooling: str = "mean",
    rule: str = "gain",
    prior: float | int = 1.0,
) -> Selection:
    """Greedy log det(prior I + sum x_i x_i^T) over one vector x_i per example: the "mean", "sum" or "last" of its tokens.

    The result's gains are those of all tokens, as for every selector; its picks saw the pooled vectors only. `rule` and
    `prior` as in `fl.select`; `seed` is not used. Ties go to the lowest index. Under a token budget, what adds nothing
    comes last. Source: a plausible reading of the paper's sentence-level baseline (unverified), our choice in all details.
    """
    began = time.perf_counter()
    check_call(rows, features, examples, tokens)
    _, X, _ = pooled(features, pooling)
    has_tokens = features.lengths > 0
    vectors = TokenFeatures(torch.from_numpy(X), torch.cat([torch.zeros(1, dtype=torch.long), has_tokens.cumsum(0)]))
    costs = features.lengths.numpy().astype(float)
    best = np.zeros(0, dtype=np.int64)
    if X.any():
        best = select(vectors, examples=examples, tokens=tokens, costs=costs, rule=rule, prior=prior).indices
    order = np.concatenate([best, np.setdiff1d(np.arange(len(features)), best)])
    options = {"pooling": pooling, "rule": rule, "prior": prior, "began": began}
    return fill_in_order(features, order, method="sentence-optimal", examples=examples, tokens=tokens, **options)
