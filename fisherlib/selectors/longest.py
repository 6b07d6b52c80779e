"""The longest examples: a control. A gain is nearly a token count, so a method that beats only this measured length."""

import numpy as np
from datasets import Dataset

from fisherlib.features import Indices, TokenFeatures
from fisherlib.selectors._contract import selector


@selector("longest")
def longest(rows: Dataset | None, features: TokenFeatures) -> Indices:
    """Examples by falling number of response tokens, lowest index on ties. `seed` is not used. Source: our control."""
    return np.argsort(-features.lengths.numpy(), kind="stable")
