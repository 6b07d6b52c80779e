"""MinHash: a short sketch of each text, in which two texts agree as often as their sets of n-grams do.

In NumPy, for all texts at once. Only whole numbers are counted with, so a sketch is the same on every machine.
"""

import numpy as np
from jaxtyping import Int, UInt32, UInt64

_PERMUTATIONS = 512
_FOUND = 0.999  # of the pairs whose similarity is just the threshold, how many share a key
_AT_ONCE = 2**17  # characters: what a processor's own cache holds
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # of SplitMix64: every bit of the input moves every bit of the output


def sketch(documents: list[str], shingle: int, seed: int) -> UInt32[np.ndarray, "N P"]:
    """Of each of P random orders of all n-grams the place of the document's first one.

    Two documents have the same number at a place with a probability of their Jaccard similarity. Time O(P characters).
    """
    rng = np.random.default_rng(seed)
    factors, terms = rng.integers(0, 2**32, (2, _PERMUTATIONS), dtype=np.uint32)
    factors |= np.uint32(1)  # odd: then it is a permutation of the numbers below 2^32
    ends = np.cumsum([max(len(document), shingle) for document in documents])
    out = np.empty((len(documents), _PERMUTATIONS), dtype=np.uint32)
    begin = 0
    while begin < len(documents):
        done = ends[begin - 1] if begin else 0
        end = max(int(np.searchsorted(ends, done + _AT_ONCE)), begin + 1)
        hashes, starts = _hashes(documents[begin:end], shingle)
        high = (hashes >> np.uint64(32)).astype(np.uint32)
        moved = np.empty_like(high)
        for p in range(_PERMUTATIONS):
            np.multiply(high, factors[p], out=moved)
            moved += terms[p]
            out[begin:end, p] = np.minimum.reduceat(moved, starts)
        begin = end
    return out


def keys(sketches: UInt32[np.ndarray, "N P"], threshold: float) -> Int[np.ndarray, "N b"]:
    """A number for each band of a sketch: documents that have one in common are candidates. No two bands share a number.

    As many places make a band as still let `_FOUND` of the pairs at the threshold share one: more places, fewer candidates
    in vain.
    """
    places = max((r for r in range(1, _PERMUTATIONS + 1) if _chance(threshold, r) >= _FOUND), default=1)
    bands = _PERMUTATIONS // places
    out = np.empty((len(sketches), bands), dtype=np.int32)
    above = 0
    for band in range(bands):
        own = np.ascontiguousarray(sketches[:, band * places : (band + 1) * places])
        _, number = np.unique(own.view(f"V{own.itemsize * places}").ravel(), return_inverse=True)
        out[:, band] = number + above
        above = out[:, band].max() + 1
    return out


def _chance(similarity: float, places: int) -> float:
    """That two documents share a band of so many places."""
    return 1 - (1 - similarity**places) ** (_PERMUTATIONS // places)


def grams(document: str, shingle: int) -> UInt64[np.ndarray, " n"]:
    """The set of a document's n-grams, sorted, each as a number of 64 bits. A shorter document is one n-gram.

    Two that differ have the same number once in 10^19.
    """
    return np.unique(_hashes([document], shingle)[0])


def _hashes(documents: list[str], shingle: int) -> tuple[UInt64[np.ndarray, " n"], Int[np.ndarray, " N"]]:
    """All n-grams, one document after the other, as numbers; and where each document begins."""
    padded = [document.ljust(shingle, "\0") for document in documents]
    lengths = np.array([len(document) for document in padded])
    letters = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    hashes = np.zeros(len(letters) - shingle + 1, dtype=np.uint64)
    for k in range(shingle):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + letters[k : k + len(hashes)]
    for shift, factor in zip((30, 27), _FACTORS, strict=True):
        hashes = (hashes ^ (hashes >> np.uint64(shift))) * np.uint64(factor)
    hashes ^= hashes >> np.uint64(31)
    own = np.ones(len(hashes), dtype=bool)  # not those that begin in one document and end in the next
    for k in range(1, shingle):
        across = np.cumsum(lengths)[:-1] - k
        own[across] = False
    return hashes[own], np.cumsum(lengths - shingle + 1) - (lengths - shingle + 1)
