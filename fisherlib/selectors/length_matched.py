"""Random examples of the lengths that another selection has: the control that takes length out of a comparison."""

import math

import numpy as np
from datasets import Dataset
from jaxtyping import Int

from fisherlib.features import TokenFeatures
from fisherlib.greedy import Selection
from fisherlib.selectors._contract import Ranking, selector


@selector("length-matched", examples_of="like")
def length_matched(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    like: Selection,
    seed: int,
    ratio: float = 1.1,
) -> Ranking:
    """The k-th pick is a random example of the length bucket of the k-th pick of `like`, without replacement.

    A bucket holds the lengths from a up to, but without, `ratio` * a: exact lengths when they are short, within a tenth
    when they are long. So any first n picks have the histogram of `like`'s first n. Without a budget, as many examples as
    `like` has. What a budget leaves over when `like` ends, or when the drawn example does not fit, goes to uniformly
    random examples that fit. Picks of `like` may be drawn again: it is a random choice, not its complement. Source: our
    control. Raises `ValueError` if `like` is from a pool of another size, and unless `ratio` is above 1.
    """
    if like.pool_size != len(features):
        raise ValueError(
            f"expected a selection from this pool of {len(features):,}, got one from {like.pool_size:,} examples"
        )
    if not 1 < ratio < math.inf:
        raise ValueError(f"expected a ratio above 1, got {ratio}")
    bucket = length_buckets(features.lengths.numpy(), ratio)
    shuffled = np.random.default_rng(seed).permutation(len(features))
    drawers = {b: iter(shuffled[bucket[shuffled] == b].tolist()) for b in np.unique(bucket).tolist()}
    matched = [next(drawers[b]) for b in bucket[like.indices].tolist()]  # a bucket holds at least the picks of `like`
    order = np.concatenate([matched, shuffled[~np.isin(shuffled, matched)]]).astype(np.int64)
    return Ranking(order, {"ratio": ratio, "like": like.settings.get("method", "selection")})


def length_buckets(lengths: Int[np.ndarray, " N"], ratio: float) -> Int[np.ndarray, " N"]:
    """The number of each length's bucket. Bucket 0 is for examples without tokens."""
    edges = [1]
    while edges[-1] <= lengths.max():
        edges.append(max(edges[-1] + 1, math.ceil(edges[-1] * ratio)))
    return np.searchsorted(edges, lengths, side="right")
