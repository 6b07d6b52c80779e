"""What every table of the study is measured with: uniform's name, FisherSFT as an arm, and the two that choose nothing.

All methods are in `methods`. Their options are our choice.
"""

from functools import partial

from datasets import Dataset

from fisherlib.features import TokenFeatures
from fisherlib.greedy import Selection, score_selection, select

REFERENCE = "uniform"
# The two that choose nothing: the model as it is, and every example (which spends far more tokens than the others).
NONE, ALL = "no_fine_tuning", "all_data"
EARLIER = "layer_"  # layer_k: FisherSFT on the features after k layers; they need the model, see `rows`


def fisher(rows: Dataset, features: TokenFeatures, *, seed: int, rule: str, weighting: str = "none", **budget) -> Selection:
    """FisherSFT with the call of the others."""
    return select(features, rule=rule, weighting=weighting, **budget)


fisher_per_token = partial(fisher, rule="gain_per_token")
fisher_weighted = partial(fisher, rule="gain_per_token", weighting="trace")


def everything(rows: Dataset, features: TokenFeatures, *, seed: int, **budget) -> Selection:
    """All the data."""
    return score_selection(features, range(len(features)), settings={"method": ALL})
