"""Every other way to choose examples, one file each, all with the same call:

selector(pool, features, *, examples=... | tokens=..., seed=0) -> Selection

`pool`: the rows that the features are of; `None` will do where no text is read. The budget is met exactly: as many
examples as asked for, or as many tokens as can be filled with what still fits. Examples without tokens come last.
"""

from fisherlib.selectors.adaicl import adaicl
from fisherlib.selectors.ask_llm import ask_llm, ask_llm_scores
from fisherlib.selectors.clustered import clustered
from fisherlib.selectors.deduplicated import deduplicated, near_duplicates
from fisherlib.selectors.density import density, density_scores
from fisherlib.selectors.farthest_point import farthest_point
from fisherlib.selectors.i_optimal import i_optimal
from fisherlib.selectors.in_clusters import in_clusters
from fisherlib.selectors.isa import fit_plateau, isa, isa_entropies
from fisherlib.selectors.length_matched import length_matched
from fisherlib.selectors.longest import longest
from fisherlib.selectors.nearest_to_centre import nearest_to_centre
from fisherlib.selectors.sentence_optimal import sentence_optimal
from fisherlib.selectors.sparft import sparft, sparft_clusters
from fisherlib.selectors.uniform import uniform
from fisherlib.selectors.uniform_in_clusters import uniform_in_clusters

__all__ = [
    "adaicl",
    "ask_llm",
    "ask_llm_scores",
    "clustered",
    "deduplicated",
    "density",
    "density_scores",
    "farthest_point",
    "fit_plateau",
    "i_optimal",
    "in_clusters",
    "isa",
    "isa_entropies",
    "length_matched",
    "longest",
    "near_duplicates",
    "nearest_to_centre",
    "sentence_optimal",
    "sparft",
    "sparft_clusters",
    "uniform",
    "uniform_in_clusters",
]
