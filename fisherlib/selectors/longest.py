"""The longest examples: a control. A gain is nearly a token count, so a method that beats only this measured length."""

import numpy as np
from datasets import Dataset

from fisherlib.features import TokenFeatures
from fisherlib.greedy import Selection
from fisherlib.selectors._budget import check_call, fill_in_order


def longest(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    examples: int | None = None,
    tokens: float | int | None = None,
    seed: int = 0,
) -> Selection:
    """Examples by falling number of response tokens, lowest index on ties. `seed` is not used. Source: our control."""
    check_call(rows, features, examples, tokens)
    order = np.argsort(-features.lengths.numpy(), kind="stable")
    return fill_in_order(features, order, method="longest", examples=examples, tokens=tokens)
