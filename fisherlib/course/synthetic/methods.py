"""The methods of notebook 04 that `fl.selectors` does not have as they are; each is called as `error_curves` calls it."""

from collections.abc import Callable, Mapping

import numpy as np

from fisherlib import selectors
from fisherlib.course.synthetic.fit import fit_mle
from fisherlib.course.synthetic.pools import perturbed
from fisherlib.course.synthetic.problem import with_trace_weights
from fisherlib.greedy import Selection, select

Method = Callable[..., Selection]  # method(rows, features, *, examples=... | tokens=..., seed=...), as in fl.selectors


def fisher_sft(weighting: str = "none", rule: str = "gain", noise: float = 0.0) -> Method:
    """`fl.select` in float64, the quickest dtype for features this small; with `noise` it sees `perturbed` features."""

    def method(rows, features, *, seed=0, **budget):
        seen = perturbed(features, noise, seed=seed) if noise else features
        return select(seen, weighting=weighting, rule=rule, dtype="float64", **budget)

    return method


def pilot_weighted(classes: int, *, pilot: int = 20, ridge: float = 1e-3) -> Method:
    """FisherSFT with the trace weights of a head fitted to `pilot` uniform sentences, which are part of the selection."""

    def method(rows, features, *, seed=0, **budget):
        start = selectors.uniform(rows, features, examples=pilot, seed=seed)
        guess = fit_mle(features.subset(start.indices), classes=classes, ridge=ridge)
        seen = with_trace_weights(features, guess)
        return select(seen, weighting="trace", start=start, dtype="float64", **budget)

    return method


def clustered(rows, features, *, seed: int = 0, **budget) -> Selection:
    """`fl.selectors.clustered` with the same loss for all sentences: before there are labels, there are no losses."""
    return selectors.clustered(rows, features, losses=np.ones(len(features)), seed=seed, **budget)


def length_matched(like: Method) -> Method:
    """Random sentences with the lengths of those that another method picks."""

    def method(rows, features, *, seed=0, **budget):
        picks = like(rows, features, seed=seed, **budget)
        return selectors.length_matched(rows, features, like=picks, seed=seed, **budget)

    return method


def placebo(rows, features, *, seed: int = 0, **budget) -> Selection:
    """Uniform with another seed: against uniform, each of its verdicts is false."""
    return selectors.uniform(rows, features, seed=seed + 1_000_000, **budget)


def rivals() -> dict[str, Method]:
    """Five other ways to choose by features alone."""
    names = ("sentence_optimal", "farthest_point", "density", "uniform_in_clusters")
    return {name.replace("_", " "): getattr(selectors, name) for name in names} | {"clustered": clustered}


def in_tokens(methods: Mapping[str, Method]) -> dict[str, Method]:
    """The methods for a budget in tokens: FisherSFT by gain per token, and the controls that lengths call for."""
    per_token = fisher_sft(rule="gain_per_token")
    return dict(methods) | {
        "FisherSFT": per_token,
        "FisherSFT, plain gain": fisher_sft(),
        "FisherSFT, trace-weighted": fisher_sft("trace", "gain_per_token"),
        "length-matched": length_matched(per_token),
        "longest": selectors.longest,
    }
