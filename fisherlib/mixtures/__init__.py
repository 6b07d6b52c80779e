"""Between stages 4 and 5, how much of each source: what to train on when there is more than one."""

from fisherlib.mixtures.information import information_mixture
from fisherlib.mixtures.mixture import Mixture
from fisherlib.mixtures.replay import replayed
from fisherlib.mixtures.unimax import unimax
from fisherlib.mixtures.utilimax import utilimax

__all__ = ["Mixture", "information_mixture", "replayed", "unimax", "utilimax"]
