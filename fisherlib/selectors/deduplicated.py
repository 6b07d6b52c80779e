"""Take near-duplicates out of the pool, then choose from what is left with any other selector."""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from datasets import Dataset
from jaxtyping import Int

from fisherlib._door import checked
from fisherlib.features import TokenFeatures
from fisherlib.greedy import Budget, Selection
from fisherlib.selectors._contract import Ranking, selector
from fisherlib.selectors._minhash import grams, keys, sketch
from fisherlib.selectors._text import rows_of, texts
from fisherlib.selectors.uniform import uniform


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
    copies: Callable[..., np.ndarray] | None = None,
    **options,
) -> Ranking | Selection:
    """What `then` selects from the first example of each group of near-duplicates; indices are those of the whole pool.

    `then` is any selector of this package, or any callable with their call; `options` are passed on to it. FisherSFT:
    `then=lambda rows, features, **call: fl.select(features, rule="gain_per_token", **call)`. Upper bounds are dropped, as
    they would be for the smaller pool; `weights`, if any, are for sums over the smaller pool. The features of what is left
    are copied into memory. With `refill`, a budget beyond what is left takes all of it, and then near-duplicates at random.
    `copies`: what finds them, called like `near_duplicates`, which it is by default.
    Source: our control for pools with copies. Raises `ValueError` for rows without text, a threshold outside (0, 1], or,
    without `refill`, a budget beyond what is left.
    """
    began = time.perf_counter()
    rows = rows_of(rows)
    groups = (copies or near_duplicates)(rows, threshold=threshold, seed=seed)
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
        others = np.random.default_rng(seed).permutation(np.setdiff1d(np.arange(len(groups)), kept))
        return Ranking(np.concatenate([kept, others]), {"threshold": threshold, "removed": 0})
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
    and are checked in full: no wrong pair is joined, one in a thousand is missed where the similarity is just the threshold,
    fewer above it, and exact copies never.
    All of a row's text counts, so a long prompt that all rows share makes them alike: raise the threshold then.
    Time O(characters), more with many rows that are nearly alike; memory 4 KB for each row. Source: Broder 1997; which
    packages were slower: `benchmarks/README.md`. Raises `ValueError` for rows without text and for a threshold outside
    (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"expected a threshold above 0 and at most 1, got {threshold}")
    if shingle < 1:
        raise ValueError(f"expected shingles of at least 1 character, got {shingle}")
    documents = texts(rows)
    groups = np.arange(len(documents))
    if not len(documents):
        return groups
    sketches = sketch(documents, shingle, seed)
    of = keys(sketches, threshold)
    bands = np.arange(of.shape[1])
    latest = np.full(of.max() + 1, -1, dtype=np.int32)  # of each key the latest first example that has it,
    before = np.full(of.shape, -1, dtype=np.int32)  # and of that one the first example before it: a chain for each key
    slack = 2.5 / sketches.shape[1] ** 0.5  # five standard errors of the similarity that two sketches show
    for i, document in enumerate(documents):
        found, at, band = [], latest[of[i]], bands
        while len(at):
            there = at >= 0
            at, band = at[there], band[there]
            found.append(at)
            at = before[at, band]
        near = np.unique(np.concatenate(found))
        if len(near):
            near = near[(sketches[near] == sketches[i]).mean(axis=1) >= threshold - slack]
        own = grams(document, shingle) if len(near) else near
        for first in near.tolist():
            other = grams(documents[first], shingle)
            both = len(np.intersect1d(own, other, assume_unique=True))
            if both / (len(own) + len(other) - both) >= threshold:
                groups[i] = first
                break
        else:
            before[i], latest[of[i]] = latest[of[i]], i
    return groups
