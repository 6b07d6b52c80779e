"""Problems whose true parameters are known: what a selection is worth can be measured instead of argued about.

A pool of sentences with token features x is drawn, then a true head Theta [L, d] and one label for each token from
`softmax(Theta x)`. A method picks sentences without seeing a label; a head is fitted to the picks by maximum likelihood and
compared with the truth on the whole pool. The sizes L = 20 and d = 10, the maximum and the mean prediction error and the 20
runs are the paper's; how pools and heads are drawn was not available to us, so all recipes and defaults are *our choice*.
"""

from fisherlib.course.synthetic.experiment import (
    by_method,
    by_metric,
    by_pool,
    crossed,
    error_curves,
    in_words,
    intervals,
    one_at_a_time,
    slope_table,
    slopes,
    tally,
    verdicts,
    versus,
)
from fisherlib.course.synthetic.fit import fit_mle
from fisherlib.course.synthetic.methods import (
    clustered,
    fisher_sft,
    in_tokens,
    length_matched,
    pilot_weighted,
    placebo,
    rivals,
)
from fisherlib.course.synthetic.pools import (
    isotropic,
    long_outliers,
    perturbed,
    rare_directions,
    redundant,
    saturated_half,
    word_vectors,
)
from fisherlib.course.synthetic.problem import (
    Problem,
    mean_kl,
    prediction_errors,
    relabelled_errors,
    with_trace_weights,
    word_problems,
)

__all__ = [
    "Problem",
    "by_method",
    "by_metric",
    "by_pool",
    "clustered",
    "crossed",
    "error_curves",
    "fisher_sft",
    "fit_mle",
    "in_tokens",
    "in_words",
    "intervals",
    "isotropic",
    "length_matched",
    "long_outliers",
    "mean_kl",
    "one_at_a_time",
    "perturbed",
    "pilot_weighted",
    "placebo",
    "prediction_errors",
    "rare_directions",
    "redundant",
    "relabelled_errors",
    "rivals",
    "saturated_half",
    "slope_table",
    "slopes",
    "tally",
    "verdicts",
    "versus",
    "with_trace_weights",
    "word_problems",
    "word_vectors",
]
