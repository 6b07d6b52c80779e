"""Uniform random choice: the baseline that every other method has to beat."""

import numpy as np
from datasets import Dataset

from fisherlib.features import TokenFeatures
from fisherlib.greedy import Selection
from fisherlib.selectors._budget import check_call, fill_in_order


def uniform(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    examples: int | None = None,
    tokens: float | int | None = None,
    seed: int = 0,
) -> Selection:
    """Examples in random order, without replacement, until the budget is met. Source: paper's baseline."""
    check_call(rows, features, examples, tokens)
    order = np.random.default_rng(seed).permutation(len(features))
    return fill_in_order(features, order, method="uniform", examples=examples, tokens=tokens, seed=seed)
