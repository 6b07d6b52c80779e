"""How near-duplicates were found when the rows of the study were made.

Committed rows keep what made them. `selectors.near_duplicates` finds more of the pairs that are just at the threshold, so on
most pools of the study a few groups differ, and with them the picks.
"""

from functools import cache, partial

import numpy as np
from datasets import Dataset
from datasketch import MinHash, MinHashLSH
from jaxtyping import Int

from fisherlib import selectors

_PERMUTATIONS, _SHINGLE = 128, 5
_PARTS = ("system", "prompt", "response", "text")


def first_of_group(rows: Dataset, threshold: float, seed: int) -> Int[np.ndarray, " N"]:
    """What `selectors.near_duplicates` says, but of pairs just at the threshold one in eight is missed."""
    documents = ["\n".join(filter(None, map(row.get, _PARTS))) for row in rows]
    index = MinHashLSH(num_perm=_PERMUTATIONS, params=_bands(min(threshold, 0.9)))
    groups = np.arange(len(documents))
    for i, document in enumerate(documents):
        grams = _shingles(document)
        sketch = MinHash(num_perm=_PERMUTATIONS, seed=seed)
        sketch.update_batch([gram.encode() for gram in sorted(grams)])
        for first in sorted(index.query(sketch)):
            other = _shingles(documents[first])
            if len(grams & other) / len(grams | other) >= threshold:
                groups[i] = first
                break
        else:
            index.insert(i, sketch)
    return groups


deduplicated = partial(selectors.deduplicated, copies=first_of_group)
recipe = partial(selectors.recipe, copies=first_of_group)


@cache
def _bands(threshold: float) -> tuple[int, int]:
    """How many bands of how many rows. Chosen by integrals, which take longer than the hashing of a small pool."""
    # What is missed is lost, what is found in error is checked: so misses weigh more.
    index = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS, weights=(0.1, 0.9))
    return index.b, index.r


def _shingles(text: str) -> set[str]:
    return {text[i : i + _SHINGLE] for i in range(max(len(text) - _SHINGLE + 1, 1))}
