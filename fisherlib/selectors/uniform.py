"""Uniform random choice: the baseline that every other method has to beat."""

import numpy as np
from datasets import Dataset

from fisherlib.features import Indices, TokenFeatures
from fisherlib.selectors._contract import selector


@selector("uniform")
def uniform(rows: Dataset | None, features: TokenFeatures, *, seed: int) -> Indices:
    """Examples in random order, without replacement, until the budget is met. Source: paper's baseline."""
    return np.random.default_rng(seed).permutation(len(features))
