"""D-optimal design on one vector per example: what is left of FisherSFT when its tokens are pooled first."""

import torch
from datasets import Dataset

from fisherlib.features import Indices, TokenFeatures
from fisherlib.greedy import select
from fisherlib.selectors._contract import selector
from fisherlib.selectors._pooled import pooled


@selector("sentence-optimal")
def sentence_optimal(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    examples: int | None,
    tokens: float | int | None,
    pooling: str = "mean",
    rule: str = "gain",
    prior: float | int = 1.0,
) -> Indices:
    """Greedy log det(prior I + sum x_i x_i^T) over one vector x_i per example: the "mean", "sum" or "last" of its tokens.

    The result's gains are those of all tokens, as for every selector; its picks saw the pooled vectors only. `rule` and
    `prior` as in `fl.select`; `seed` is not used. Ties go to the lowest index. Under a token budget, what adds nothing
    comes last. Source: a plausible reading of the paper's sentence-level baseline (unverified), our choice in all details.
    """
    _, X, _ = pooled(features, pooling)
    has_tokens = features.lengths > 0
    vectors = TokenFeatures(torch.from_numpy(X), torch.cat([torch.zeros(1, dtype=torch.long), has_tokens.cumsum(0)]))
    costs = features.lengths.numpy().astype(float)
    if not X.any():  # no example adds anything: the first ones
        return []
    return select(vectors, examples=examples, tokens=tokens, costs=costs, rule=rule, prior=prior).indices
