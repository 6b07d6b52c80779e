"""Between stages 4 and 5, how much of each source: what to train on when there is more than one."""

from fisherlib.mixtures.information import information_mixture
from fisherlib.mixtures.medu import EndpointReader, ModelReader, medu_utilities
from fisherlib.mixtures.mixture import Mixture
from fisherlib.mixtures.replay import replayed
from fisherlib.mixtures.unimax import unimax
from fisherlib.mixtures.utilimax import utilimax
from fisherlib.mixtures.utilities import ablation_utilities, in_context_utilities

__all__ = [
    "EndpointReader",
    "Mixture",
    "ModelReader",
    "ablation_utilities",
    "in_context_utilities",
    "information_mixture",
    "medu_utilities",
    "replayed",
    "unimax",
    "utilimax",
]
