"""Stage 4 again, every other way to choose examples: one file each, all with the same call.

selector(rows, features, *, examples=... | tokens=..., seed=0) -> Selection

`rows`: the `datasets.Dataset` that the features are of (of a `Pool`, its `train`); None will do where no text is read. The
budget is met exactly: as many examples as asked for, or as many tokens as can be filled with what still fits. Examples
without tokens come last.
"""

from fisherlib.model import head_matrix as head_matrix
from fisherlib.selectors._contract import Ranking as Ranking
from fisherlib.selectors._contract import selector as selector
from fisherlib.selectors.adaicl import adaicl as adaicl
from fisherlib.selectors.ask_llm import ask_llm as ask_llm
from fisherlib.selectors.ask_llm import ask_llm_scores as ask_llm_scores
from fisherlib.selectors.clustered import clustered as clustered
from fisherlib.selectors.deduplicated import deduplicated as deduplicated
from fisherlib.selectors.deduplicated import near_duplicates as near_duplicates
from fisherlib.selectors.density import density as density
from fisherlib.selectors.density import density_scores as density_scores
from fisherlib.selectors.farthest_point import farthest_point as farthest_point
from fisherlib.selectors.groups import cluster_labels as cluster_labels
from fisherlib.selectors.i_optimal import i_optimal as i_optimal
from fisherlib.selectors.ifd import ifd as ifd
from fisherlib.selectors.ifd import ifd_scores as ifd_scores
from fisherlib.selectors.ifd import ifd_warm_up as ifd_warm_up
from fisherlib.selectors.in_clusters import in_clusters as in_clusters
from fisherlib.selectors.isa import isa as isa
from fisherlib.selectors.isa import isa_entropies as isa_entropies
from fisherlib.selectors.length_matched import length_matched as length_matched
from fisherlib.selectors.llmaaa import llmaaa as llmaaa
from fisherlib.selectors.llmaaa import llmaaa_scores as llmaaa_scores
from fisherlib.selectors.longest import longest as longest
from fisherlib.selectors.meta_weights import meta_gradients as meta_gradients
from fisherlib.selectors.meta_weights import meta_weights as meta_weights
from fisherlib.selectors.nearest_to_centre import nearest_to_centre as nearest_to_centre
from fisherlib.selectors.neighbours import facility_location as facility_location
from fisherlib.selectors.neighbours import installed as installed
from fisherlib.selectors.neighbours import semhash as semhash
from fisherlib.selectors.plateau import Plateau as Plateau
from fisherlib.selectors.plateau import fit_plateau as fit_plateau
from fisherlib.selectors.quotas import quotas as quotas
from fisherlib.selectors.recipe import recipe as recipe
from fisherlib.selectors.sentence_optimal import sentence_optimal as sentence_optimal
from fisherlib.selectors.slearn import read_grade as read_grade
from fisherlib.selectors.slearn import slearn as slearn
from fisherlib.selectors.slearn import slearn_grades as slearn_grades
from fisherlib.selectors.slearn import slearn_kept as slearn_kept
from fisherlib.selectors.slearn import slearn_scores as slearn_scores
from fisherlib.selectors.sparft import sparft as sparft
from fisherlib.selectors.sparft import sparft_clusters as sparft_clusters
from fisherlib.selectors.uniform import uniform as uniform
from fisherlib.selectors.uniform_in_clusters import uniform_in_clusters as uniform_in_clusters
