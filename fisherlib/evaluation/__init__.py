"""Stage 6, the honest table: held-out loss, statistics of differences, judges of text (`fisherlib.evaluation.judging`)."""

from fisherlib.evaluation.held_out import HeldOut, held_out_nll, paired_difference
from fisherlib.evaluation.statistics import (
    LEVEL,
    Interval,
    after_holm,
    coverage,
    equivalence_margin,
    holm,
    paired_t,
    ratio_variance,
    resample,
    sign_flip,
    student,
    two_level_bootstrap,
)

__all__ = [
    "LEVEL",
    "HeldOut",
    "Interval",
    "after_holm",
    "coverage",
    "equivalence_margin",
    "held_out_nll",
    "holm",
    "paired_difference",
    "paired_t",
    "ratio_variance",
    "resample",
    "sign_flip",
    "student",
    "two_level_bootstrap",
]
