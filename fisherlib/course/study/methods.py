"""The one table of methods: what each is called in committed rows and for a reader, and how it chooses.

A new method is a row here, see CONTRIBUTING.md: the tables of the study, titles and the tests of selectors are read from
it. Names of arms stand in committed rows and never change.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from datasets import Dataset

from fisherlib import selectors
from fisherlib.course.study import copies, quotas, related, variants
from fisherlib.course.study.arms import ALL, EARLIER, NONE, REFERENCE, everything, fisher, fisher_per_token, fisher_weighted
from fisherlib.features import TokenFeatures
from fisherlib.greedy import Selection


@dataclass(frozen=True)
class Method:
    """One row. `choose(rows, features, *, seed, examples=... | tokens=...)` gives the `Selection`.

    `table`: where it stands, "arms" (notebook 05), "variants" or "recipes" (05b), "recipe" (05b and 07), "related" or
    "neighbours" (07), "quotas" (05c), or "" for none. `title`: by default what its selector says, or its name. `scores`: of
    who chooses by what a model says, the file to keep that in, and what computes it.
    """

    name: str
    choose: Callable[..., Selection] | None
    table: str
    title: str = ""
    scores: tuple[str, Callable[..., related.Scores]] | None = None

    def __post_init__(self):
        usual = getattr(self.choose, "title", self.name.replace("_", " "))
        object.__setattr__(self, "title", self.title or usual)


# Two words in ten may differ: low enough to find nearly every variant of the redundant pool, and next to nothing in
# the others.
_dedup = partial(copies.deduplicated, threshold=0.5)
_clusters, _inside = selectors.in_clusters, variants.inside
_asked, _helped = ("answers", related.asked), ("ifd", related.helped)

# Some need one argument more, which a `Bench` gives: length_matched the selection that it is `like`, minhash_oracle the mix
# that is `wanted`, and those with `scores` these.
# fmt: off
METHODS = (
    Method(REFERENCE, selectors.uniform, "arms"),
    Method("fisher_gain", partial(fisher, rule="gain"), "arms", "FisherSFT, by gain"),
    Method("fisher_per_token", fisher_per_token, "arms", "FisherSFT"),
    Method("fisher_weighted", fisher_weighted, "arms", "FisherSFT, trace-weighted"),
    Method("longest", selectors.longest, "arms"),
    Method("dedup_uniform", _dedup, "arms", "deduplicated, then uniform"),
    Method("dedup_fisher", partial(_dedup, then=fisher_per_token), "arms", "deduplicated, then FisherSFT"),
    Method("length_matched", selectors.length_matched, "arms"),
    Method("uniform_in_clusters", selectors.uniform_in_clusters, "arms"),
    Method("nearest_to_centre", selectors.nearest_to_centre, "arms"),
    Method("clustered", selectors.clustered, "arms"),
    Method("density", selectors.density, "arms"),
    Method("farthest_point", selectors.farthest_point, "arms"),
    Method("sentence_optimal", selectors.sentence_optimal, "arms"),
    Method("ask_llm", selectors.ask_llm, "arms", scores=_asked),
    Method(ALL, everything, "arms", "all the data"),
    # FisherSFT with one thing changed, and uniform with one thing that FisherSFT does
    Method("prior_1e3", partial(fisher_per_token, prior=1e3), "variants", "prior times 1,000"),
    Method("prior_1e5", partial(fisher_per_token, prior=1e5), "variants", "prior times 100,000"),
    Method("target_prior", variants.target_prior, "variants", "target-aware prior"),
    Method("i_optimal", partial(selectors.i_optimal, rule="gain_per_token"), "variants", "I-optimal"),
    Method("half_uniform", variants.half_uniform, "variants", "half uniform, half FisherSFT"),
    Method("fisher_in_clusters", partial(_clusters, then=fisher_per_token), "variants", "FisherSFT inside clusters"),
    Method("without_memorised", partial(_inside, keep=variants.not_memorised, then=fisher_per_token), "variants",
           "without memorised examples"),
    Method("without_extremes", partial(_inside, keep=variants.not_extreme, then=fisher_per_token), "variants",
           "without memorised and extreme examples"),
    Method("fisher_of_common", partial(_inside, keep=variants.common, then=fisher_per_token), "variants",
           "FisherSFT among common targets"),
    Method("uniform_of_uncommon", partial(_inside, keep=variants.uncommon, then=selectors.uniform), "variants",
           "uniform among rare targets"),
    Method("uniform_where_fisher", partial(_clusters, like=fisher_per_token), "variants", "uniform where FisherSFT looks"),
    # what `fl.recipe` was chosen from, on the pools of notebook 05, and itself
    Method("dedup_where_fisher", partial(_dedup, then=_clusters, like=fisher_per_token), "recipes",
           "deduplicated, uniform where FisherSFT looks"),
    Method("dedup_in_clusters", partial(_dedup, then=selectors.uniform_in_clusters), "recipes",
           "deduplicated, uniform in clusters"),
    Method("dedup_half_fisher", partial(_dedup, then=variants.half_uniform), "recipes",
           "deduplicated, half uniform, half FisherSFT"),
    Method("recipe", partial(copies.recipe, mix="fisher"), "recipe"),
    # of related papers
    Method("ifd", selectors.ifd, "related", scores=_helped),
    Method("ifd_then_fisher", related.ifd_then_fisher, "related", "IFD, then FisherSFT", _helped),
    Method("slearn", selectors.slearn, "related", scores=("token_accuracy", related.known)),
    Method("adaicl", selectors.adaicl, "related"),
    Method("adaicl_plus", partial(selectors.adaicl, discounted=True), "related", "AdaICL+"),
    Method("llmaaa_k_means", selectors.llmaaa, "related", "LLMaAA, k-means"),
    Method("llmaaa_entropy", partial(selectors.llmaaa, acquisition="entropy"), "related", "LLMaAA, entropy",
           ("entropy", related.unsure)),
    Method("sparft", selectors.sparft, "related"),
    Method("isa", selectors.isa, "related"),
    # of known packages; farthest points are an arm already, which these are compared with
    Method("facility_location", selectors.facility_location, "neighbours"),
    Method("semhash", selectors.semhash, "neighbours"),
    # near-duplicates out, and a share of the budget for each group
    Method("minhash_uniform", quotas.minhash, "quotas", "MinHash, then uniform"),
    Method("minhash_proportional", partial(quotas.minhash, shares=quotas.proportional), "quotas",
           "MinHash, proportional quotas"),
    Method("minhash_equal", partial(quotas.minhash, shares=partial(quotas.proportional, power=0.0)), "quotas",
           "MinHash, equal quotas"),
    Method("minhash_root", partial(quotas.minhash, shares=partial(quotas.proportional, power=0.5)), "quotas",
           "MinHash, square-root quotas"),
    Method("minhash_fisher", partial(quotas.minhash, shares=quotas.fisher), "quotas", "MinHash, FisherSFT's quotas"),
    Method("minhash_permuted", partial(quotas.minhash, shares=quotas.permuted), "quotas",
           "MinHash, FisherSFT's quotas permuted"),
    Method("length_matched_weighted", quotas.length_matched_weighted, "quotas", "length-matched to trace-weighted"),
    Method("minhash_oracle", quotas.minhash_oracle, "quotas", "MinHash, the test's mix"),
    # not in the study
    Method("in_clusters", selectors.in_clusters, ""),
    Method("quotas", selectors.quotas, ""),
    Method("llmaaa_least_confidence", partial(selectors.llmaaa, acquisition="least confidence"), "",
           "LLMaAA, least confidence"),
    Method(NONE, None, "", "no fine-tuning"),
)
# fmt: on


def table(name: str) -> dict[str, Callable[..., Selection]]:
    """The methods that stand in a table, by name."""
    return {method.name: method.choose for method in METHODS if method.choose is not None and method.table == name}


ARMS, VARIANTS, RECIPES, RELATED, QUOTAS = map(table, ("arms", "variants", "recipes", "related", "quotas"))
NEIGHBOURS = {"farthest_point": ARMS["farthest_point"]} | table("neighbours")
SCORES = {method.name: method.scores for method in METHODS if method.scores}


def title(method: str) -> str:
    """The name of an arm for a reader."""
    if method.startswith(EARLIER):
        return f"features after layer {method.removeprefix(EARLIER)}"
    return {known.name: known.title for known in METHODS}.get(method, method.replace("_", " "))


def choose(method: str, rows: Dataset, features: TokenFeatures, *, seed: int, **call) -> Selection:
    """The selection of a method of the study. Raises `ValueError` for an unknown one, and what the method raises."""
    known = {row.name: row.choose for row in METHODS if row.choose is not None and row.table}
    if method not in known:
        raise ValueError(f"expected method to be one of {(*known, NONE)}, got {method!r}")
    return known[method](rows, features, seed=seed, **call)
