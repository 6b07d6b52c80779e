"""The arms of the study: what each method chooses from a pool for a budget. Their options are our choice."""

from collections.abc import Callable
from functools import partial

from datasets import Dataset

from fisherlib import selectors
from fisherlib.features import TokenFeatures
from fisherlib.greedy import Selection, score_selection, select

REFERENCE = "uniform"
# The two that choose nothing: the model as it is, and every example (which spends far more tokens than the others).
NONE, ALL = "no_fine_tuning", "all_data"
EARLIER = "layer_"  # layer_k: FisherSFT on the features after k layers; they need the model, see `rows`
# Two words in ten may differ: low enough to find nearly every variant of the redundant pool, and next to nothing in
# the others.
_THRESHOLD = 0.5


def _fisher(rows: Dataset, features: TokenFeatures, *, seed: int, rule: str, weighting: str = "none", **budget) -> Selection:
    return select(features, rule=rule, weighting=weighting, **budget)


def _everything(rows: Dataset, features: TokenFeatures, *, seed: int, **budget) -> Selection:
    return score_selection(features, range(len(features)), settings={"method": ALL})


_per_token = partial(_fisher, rule="gain_per_token")
# Each is called as arm(rows, features, seed=..., examples=... or tokens=...), and two of them with one argument more:
# length_matched with the selection that it is `like`, ask_llm with its `scores`.
ARMS: dict[str, Callable[..., Selection]] = {
    REFERENCE: selectors.uniform,
    "fisher_gain": partial(_fisher, rule="gain"),
    "fisher_per_token": _per_token,
    "fisher_weighted": partial(_fisher, rule="gain_per_token", weighting="trace"),
    "longest": selectors.longest,
    "dedup_uniform": partial(selectors.deduplicated, threshold=_THRESHOLD),
    "dedup_fisher": partial(selectors.deduplicated, threshold=_THRESHOLD, then=_per_token),
    "length_matched": selectors.length_matched,
    "uniform_in_clusters": selectors.uniform_in_clusters,
    "nearest_to_centre": selectors.nearest_to_centre,
    "clustered": selectors.clustered,
    "density": selectors.density,
    "farthest_point": selectors.farthest_point,
    "sentence_optimal": selectors.sentence_optimal,
    "ask_llm": selectors.ask_llm,
    ALL: _everything,
}
# How they are called in tables and figures, where that is not the name.
TITLES = {
    "fisher_gain": "FisherSFT, by gain",
    "fisher_per_token": "FisherSFT",
    "fisher_weighted": "FisherSFT, trace-weighted",
    "dedup_uniform": "deduplicated, then uniform",
    "dedup_fisher": "deduplicated, then FisherSFT",
    "length_matched": "length-matched",
    "sentence_optimal": "sentence-optimal",
    "ask_llm": "AskLLM",
    # of `variants`
    "prior_1e3": "prior times 1,000",
    "prior_1e5": "prior times 100,000",
    "target_prior": "target-aware prior",
    "i_optimal": "I-optimal",
    "half_uniform": "half uniform, half FisherSFT",
    "fisher_in_clusters": "FisherSFT inside clusters",
    "without_memorised": "without memorised examples",
    "without_extremes": "without memorised and extreme examples",
    "fisher_of_common": "FisherSFT among common targets",
    "uniform_of_uncommon": "uniform among rare targets",
    "uniform_where_fisher": "uniform where FisherSFT looks",
    "dedup_where_fisher": "deduplicated, uniform where FisherSFT looks",
    "dedup_in_clusters": "deduplicated, uniform in clusters",
    "dedup_half_fisher": "deduplicated, half uniform, half FisherSFT",
    # of `related`
    "ifd": "IFD",
    "ifd_then_fisher": "IFD, then FisherSFT",
    "slearn": "SLearnLLM",
    "adaicl": "AdaICL",
    "adaicl_plus": "AdaICL+",
    "llmaaa_k_means": "LLMaAA, k-means",
    "llmaaa_entropy": "LLMaAA, entropy",
    "sparft": "SPaRFT",
    "isa": "ISA",
    # of `quotas`
    "minhash_uniform": "MinHash, then uniform",
    "minhash_proportional": "MinHash, proportional quotas",
    "minhash_equal": "MinHash, equal quotas",
    "minhash_root": "MinHash, square-root quotas",
    "minhash_fisher": "MinHash, FisherSFT's quotas",
    "minhash_permuted": "MinHash, FisherSFT's quotas permuted",
    "minhash_oracle": "MinHash, the test's mix",
    "length_matched_weighted": "length-matched to trace-weighted",
    # of `neighbours`
    "semhash": "SemHash, then uniform",
    NONE: "no fine-tuning",
    ALL: "all the data",
}


def title(method: str) -> str:
    """The name of an arm for a reader."""
    if method.startswith(EARLIER):
        return f"features after layer {method.removeprefix(EARLIER)}"
    return TITLES.get(method, method.replace("_", " "))
