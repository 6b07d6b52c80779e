"""Problems whose true parameters are known: what a selection is worth can be measured instead of argued about.

A pool of sentences with token features x is drawn, then a true head Theta [L, d] and one label for each token from
`softmax(Theta x)`. A method picks sentences without seeing a label; a head is fitted to the picks by maximum likelihood and
compared with the truth on the whole pool. The sizes L = 20 and d = 10, the maximum and the mean prediction error and the 20
runs are the paper's; how pools and heads are drawn was not available to us, so all recipes and defaults are *our choice*.
"""

from fisherlib.course.synthetic.experiment import by_metric, error_curves, in_words, intervals, slopes, tally, versus
from fisherlib.course.synthetic.fit import fit_mle
from fisherlib.course.synthetic.methods import clustered, fisher_sft, length_matched, pilot_weighted, placebo
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
    "by_metric",
    "clustered",
    "error_curves",
    "fisher_sft",
    "fit_mle",
    "in_words",
    "intervals",
    "isotropic",
    "length_matched",
    "long_outliers",
    "mean_kl",
    "perturbed",
    "pilot_weighted",
    "placebo",
    "prediction_errors",
    "rare_directions",
    "redundant",
    "relabelled_errors",
    "saturated_half",
    "slopes",
    "tally",
    "versus",
    "with_trace_weights",
    "word_problems",
    "word_vectors",
]
