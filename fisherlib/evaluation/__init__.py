"""Stage 6, the honest table: held-out loss, statistics of differences, judges of text (`fisherlib.evaluation.judging`)."""

from fisherlib.evaluation.held_out import Difference, HeldOut, held_out_nll, paired_difference
from fisherlib.evaluation.statistics import LEVEL, Paired, coverage, holm, paired_t, two_level_bootstrap, verdict

__all__ = [
    "LEVEL",
    "Difference",
    "HeldOut",
    "Paired",
    "coverage",
    "held_out_nll",
    "holm",
    "paired_difference",
    "paired_t",
    "two_level_bootstrap",
    "verdict",
]
