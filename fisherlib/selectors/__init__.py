"""Stage 4 again, every other way to choose examples: one file each, all with the same call.

selector(rows, features, *, examples=... | tokens=..., seed=0) -> Selection

`rows`: the `datasets.Dataset` that the features are of (of a `Pool`, its `train`); None will do where no text is read. The
budget is met exactly: as many examples as asked for, or as many tokens as can be filled with what still fits. Examples
without tokens come last.
"""

from fisherlib.model import head_matrix
from fisherlib.selectors.adaicl import adaicl
from fisherlib.selectors.ask_llm import ask_llm, ask_llm_scores
from fisherlib.selectors.clustered import clustered
from fisherlib.selectors.deduplicated import deduplicated, near_duplicates
from fisherlib.selectors.density import density, density_scores
from fisherlib.selectors.farthest_point import farthest_point
from fisherlib.selectors.groups import cluster_labels
from fisherlib.selectors.i_optimal import i_optimal
from fisherlib.selectors.ifd import ifd, ifd_scores, ifd_warm_up
from fisherlib.selectors.in_clusters import in_clusters
from fisherlib.selectors.isa import isa, isa_entropies
from fisherlib.selectors.length_matched import length_matched
from fisherlib.selectors.llmaaa import llmaaa, llmaaa_scores
from fisherlib.selectors.longest import longest
from fisherlib.selectors.meta_weights import meta_gradients, meta_weights
from fisherlib.selectors.nearest_to_centre import nearest_to_centre
from fisherlib.selectors.neighbours import NEIGHBOURS, facility_location, installed, semhash
from fisherlib.selectors.plateau import Plateau, fit_plateau
from fisherlib.selectors.recipe import recipe
from fisherlib.selectors.sentence_optimal import sentence_optimal
from fisherlib.selectors.slearn import read_grade, slearn, slearn_grades, slearn_kept, slearn_scores
from fisherlib.selectors.sparft import sparft, sparft_clusters
from fisherlib.selectors.uniform import uniform
from fisherlib.selectors.uniform_in_clusters import uniform_in_clusters

__all__ = [
    "NEIGHBOURS",
    "Plateau",
    "adaicl",
    "ask_llm",
    "ask_llm_scores",
    "cluster_labels",
    "clustered",
    "deduplicated",
    "density",
    "density_scores",
    "facility_location",
    "farthest_point",
    "fit_plateau",
    "head_matrix",
    "i_optimal",
    "ifd",
    "ifd_scores",
    "ifd_warm_up",
    "in_clusters",
    "installed",
    "isa",
    "isa_entropies",
    "length_matched",
    "llmaaa",
    "llmaaa_scores",
    "longest",
    "meta_gradients",
    "meta_weights",
    "near_duplicates",
    "nearest_to_centre",
    "read_grade",
    "recipe",
    "semhash",
    "sentence_optimal",
    "slearn",
    "slearn_grades",
    "slearn_kept",
    "slearn_scores",
    "sparft",
    "sparft_clusters",
    "uniform",
    "uniform_in_clusters",
]
