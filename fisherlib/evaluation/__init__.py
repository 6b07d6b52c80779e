"""Stage 6, the honest table: held-out loss, statistics of differences, judges of text (`fisherlib.evaluation.judging`)."""

from fisherlib.evaluation.held_out import HeldOut, held_out_nll, paired_difference
from fisherlib.evaluation.statistics import (
    LEVEL,
    Interval,
    after_holm,
    coverage,
    holm,
    paired_t,
    resample,
    student,
    two_level_bootstrap,
)

__all__ = [
    "LEVEL",
    "HeldOut",
    "Interval",
    "after_holm",
    "coverage",
    "held_out_nll",
    "holm",
    "paired_difference",
    "paired_t",
    "resample",
    "student",
    "two_level_bootstrap",
]
