"""Methods that users know from maintained packages, as arms beside those of the papers: facility location, SemHash.

They need the extra `neighbours`. Farthest-point sampling, as in scikit-matter, is `selectors.farthest_point`; a test says
that the picks are the same. All settings are our choice.
"""

from importlib.util import find_spec
from typing import Any

import numpy as np
from datasets import Dataset

from fisherlib.features import Indices, TokenFeatures
from fisherlib.selectors._contract import Ranking, selector
from fisherlib.selectors._pooled import centred

PACKAGES = {"facility_location": "submodlib", "semhash": "semhash"}  # what must be importable


@selector("facility location")
def facility_location(rows: Dataset | None, features: TokenFeatures, *, seed: int) -> Indices:
    """Every example has a pick like it: greedy for the sum over the pool of the largest similarity to a pick.

    The similarity is (1 + cosine) / 2 of the centred means of token vectors; submodlib's lazy greedy ranks the whole pool,
    and the ranking is followed as far as the budget goes. Deterministic, `seed` is only noted; but ties are common (two
    that have only each other gain the same), and the package breaks them. Time O(N^2 d) and more for the ranking, memory
    O(N^2). Source: Lin and Bilmes 2011. Raises `ImportError` without the package, `ValueError` for a bad budget.
    """
    _needs("facility_location")
    from submodlib import FacilityLocationFunction

    ids, X = centred(features)
    ranked = np.array([], dtype=np.int64)
    if len(ids) > 1:  # submodlib ranks at most all but one
        unit = X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), np.finfo(float).tiny)
        alike = (1 + unit @ unit.T) / 2
        function = FacilityLocationFunction(n=len(ids), mode="dense", sijs=alike, separate_rep=False)
        found = function.maximize(budget=len(ids) - 1, optimizer="LazyGreedy", stopIfZeroGain=False, show_progress=False)
        ranked = np.array([i for i, _ in found], dtype=np.int64)
    return ids[ranked]


@selector("SemHash, then uniform")
def semhash(rows: Dataset | None, features: TokenFeatures, *, seed: int, threshold: float = 0.9) -> Ranking:
    """Uniform among what SemHash leaves: no two examples that mean the same; then, if the budget asks for it, the others.

    Two examples mean the same if the cosine of their centred mean token vectors is at least `threshold`, so the embeddings
    are those that FisherSFT reads, not the small model that SemHash would fetch; and its exact index, so that a seed says
    all. Time O(N^2 d). Source: SemHash, `self_deduplicate`. Raises `ImportError` without the package, `ValueError` for a
    bad budget.
    """
    _needs("semhash")
    if not 0 <= threshold <= 1:
        raise ValueError(f"expected a threshold from 0 to 1, a cosine, got {threshold}: change threshold=")
    from semhash import SemHash

    ids, X = centred(features)
    records = [{"example": str(i)} for i in ids]  # never equal: only meaning counts
    no_model: Any = None  # the vectors are there
    index = SemHash.from_embeddings(X.astype(np.float32), records, model=no_model, columns=["example"], ann_backend="basic")
    kept = np.array([int(record["example"]) for record in index.self_deduplicate(threshold).selected], dtype=np.int64)
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(kept), rng.permutation(np.setdiff1d(np.arange(len(features)), kept))])
    return Ranking(order, {"threshold": threshold, "removed": len(ids) - len(kept)})


def installed() -> list[str]:
    """The neighbours whose packages are here. Farthest-point sampling needs none."""
    return ["farthest_point", *(name for name in PACKAGES if find_spec(PACKAGES[name]))]


def _needs(name: str) -> None:
    if not find_spec(PACKAGES[name]):
        raise ImportError(f"{name} needs {PACKAGES[name]}: pip install 'fisherlib[neighbours]' (or -e '.[neighbours]')")
