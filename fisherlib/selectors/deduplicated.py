"""Take near-duplicates out of the pool, then choose from what is left with any other selector."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
from datasets import Dataset
from datasketch import MinHash, MinHashLSH
from jaxtyping import Int

from fisherlib._door import checked
from fisherlib.features import TokenFeatures
from fisherlib.greedy import Budget, Selection
from fisherlib.selectors._contract import Ranking, selector
from fisherlib.selectors._text import rows_of, texts
from fisherlib.selectors.uniform import uniform

_PERMUTATIONS = 128


@selector("deduplicated")
def deduplicated(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    examples: int | None,
    tokens: float | int | None,
    seed: int,
    then: Callable[..., Selection] = uniform,
    threshold: float = 0.8,
    refill: bool = False,
    **options,
) -> Ranking | Selection:
    """What `then` selects from the first example of each group of near-duplicates; indices are those of the whole pool.

    `then` is any selector of this package, or any callable with their call; `options` are passed on to it. FisherSFT:
    `then=lambda rows, features, **call: fl.select(features, rule="gain_per_token", **call)`. Upper bounds are dropped, as
    they would be for the smaller pool; `weights`, if any, are for sums over the smaller pool. The features of what is left
    are copied into memory. With `refill`, a budget beyond what is left takes all of it, and then near-duplicates at random.
    Source: our control for pools with copies. Raises `ValueError` for rows without text, a threshold outside (0, 1], or,
    without `refill`, a budget beyond what is left.
    """
    began = time.perf_counter()
    rows = rows_of(rows)
    groups = near_duplicates(rows, threshold=threshold, seed=seed)
    kept = np.flatnonzero(groups == np.arange(len(groups)))
    budget = Budget(features.lengths.numpy().astype(float), examples, tokens)
    left, unit = int(budget.price[kept].sum()), budget.unit
    if budget.amount > left and not refill:
        asked = budget.asked[unit]
        raise ValueError(
            f"expected a budget of at most the {left:,} {unit} that are left without near-duplicates, got {asked:,}: "
            "lower it, raise the threshold, or set refill=True"
        )
    if budget.amount > left:
        copies = np.random.default_rng(seed).permutation(np.setdiff1d(np.arange(len(groups)), kept))
        return Ranking(np.concatenate([kept, copies]), {"threshold": threshold, "removed": 0})
    removal = time.perf_counter() - began
    chosen = then(rows.select(kept), features.subset(kept), seed=seed, **budget.asked, **options)
    if not isinstance(chosen, Selection):
        raise ValueError(f"expected then= to return a Selection, got a {type(chosen).__name__}: give a selector")
    chosen = chosen.of_subset(kept, len(features))
    settings = {
        **chosen.settings,
        "method": f"deduplicated, then {chosen.settings.get('method', 'selection')}",
        "threshold": threshold,
        "removed": len(groups) - len(kept),
        "features": features.info,
    }
    return replace(chosen, seconds=removal + chosen.seconds, settings=settings)


@checked
def near_duplicates(
    rows: Dataset | None, threshold: float = 0.8, seed: int = 0, *, shingle: int = 5
) -> Int[np.ndarray, " N"]:
    """For each example the index of the first example of its group, its own index if it is the first.

    An example joins the group of the earliest first example whose set of character n-grams (n = `shingle`) has a Jaccard
    similarity of at least `threshold` with its own; otherwise it begins a group. So a member is always similar to the
    first of its group, however long a chain of variants is. Candidates come from MinHash with locality-sensitive hashing
    and are checked exactly: no wrong pair is joined, and near the threshold a true one may be missed; exact copies never.
    All of a row's text counts, so a long prompt that all rows share makes them alike: raise the threshold then.
    Time and memory O(characters), more with many variants of one text. Raises `ValueError` for rows without text and for
    a threshold outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"expected a threshold above 0 and at most 1, got {threshold}")
    if shingle < 1:
        raise ValueError(f"expected shingles of at least 1 character, got {shingle}")
    documents = texts(rows)
    index = MinHashLSH(num_perm=_PERMUTATIONS, params=_bands(min(threshold, 0.9)))
    groups = np.arange(len(documents))
    for i, document in enumerate(documents):
        grams = _shingles(document, shingle)
        sketch = MinHash(num_perm=_PERMUTATIONS, seed=seed)
        sketch.update_batch([gram.encode() for gram in sorted(grams)])
        for first in sorted(index.query(sketch)):
            other = _shingles(documents[first], shingle)
            if len(grams & other) / len(grams | other) >= threshold:
                groups[i] = first
                break
        else:
            index.insert(i, sketch)
    return groups


@cache
def _bands(threshold: float) -> tuple[int, int]:
    """How many bands of how many rows. Chosen by integrals, which take longer than the hashing of a small pool."""
    # What is missed is lost, what is found in error is checked: so misses weigh more.
    index = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS, weights=(0.1, 0.9))
    return index.b, index.r


def _shingles(text: str, n: int) -> set[str]:
    return {text[i : i + n] for i in range(max(len(text) - n + 1, 1))}
