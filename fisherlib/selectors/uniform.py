"""Uniform random choice: the baseline that every other method has to beat."""

import numpy as np
from datasets import Dataset

from fisherlib.features import Indices, TokenFeatures
from fisherlib.selectors._contract import selector


@selector("uniform")
def uniform(rows: Dataset | None, features: TokenFeatures, *, seed: int) -> Indices:
    """Examples in random order, without replacement, until the budget is met. Source: paper's baseline.

    >>> features = fl.TokenFeatures.from_list([np.ones((length, 2)) for length in (3, 1, 2, 4)])
    >>> chosen = fl.selectors.uniform(None, features, tokens=6, seed=0)
    >>> chosen.indices, chosen.costs
    (array([2, 0, 1]), array([2., 3., 1.]))
    """
    return np.random.default_rng(seed).permutation(len(features))
