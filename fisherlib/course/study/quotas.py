"""The arms of the experiment on quotas: near-duplicates out, a share of the budget for each group, chance inside.

Every draw is in the order of one permutation of the whole pool, uniform's own for that seed. So two arms differ by their
rule and not by their luck (*common random numbers*), and the spread of their difference is small. What each share is, and
what was asked of these arms before they ran: `notebooks/results/05c_quotas/protocol.md`. All of it is our choice.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from datasets import Dataset
from jaxtyping import Float, Int

from fisherlib import selectors
from fisherlib.course.study.arms import fisher_per_token, fisher_weighted
from fisherlib.course.study.copies import first_of_group
from fisherlib.features import TokenFeatures
from fisherlib.greedy import Selection
from fisherlib.selectors import cluster_labels, length_matched

Groups = Int[np.ndarray, " N"]  # of each example, -1: none
Shares = Float[np.ndarray, " k"]  # of the budget, one for each group; they need not sum to 1
Quotas = tuple[Groups, Shares]
_CLUSTERS, _THRESHOLD = 8, 0.5  # those of `fl.recipe`


def minhash(
    rows: Dataset,
    features: TokenFeatures,
    *,
    seed: int,
    tokens: int,
    shares: Callable[..., Quotas] | None = None,
) -> Selection:
    """Near-duplicates out, then the permutation: group by group as far as its share goes, and at the end whoever fits.

    `shares(rows, features, seed, tokens)` is asked about the examples that are left. Copies come last, when all others are
    taken.
    """
    began = time.perf_counter()
    kept = np.flatnonzero(first_of_group(rows, threshold=_THRESHOLD, seed=seed) == np.arange(len(features)))
    groups, share = np.zeros(len(kept), dtype=int), np.ones(1)
    if shares is not None:
        groups, share = shares(rows.select(kept), features.subset(kept), seed, tokens)
    labels: list = [None] * len(features)
    for i, group in zip(kept.tolist(), groups.tolist(), strict=True):
        labels[i] = None if group < 0 else group
    here = {group: float(part) for group, part in enumerate(share) if group in set(labels)}
    chosen = selectors.quotas(rows, features, groups=labels, shares=here, tokens=tokens, seed=seed)
    return replace(chosen, seconds=time.perf_counter() - began)


# --- shares: called with rows, features, seed and budget, they return the group of each row and a share for each group -----


def proportional(rows: Dataset, features: TokenFeatures, seed: int, tokens: int, power: float = 1.0) -> Quotas:
    """A cluster's tokens to some power: 1 is its own share, 0 an equal one, 1/2 lies between."""
    groups = cluster_labels(features, _CLUSTERS, seed=seed)
    held = np.bincount(groups[groups >= 0], features.lengths.numpy()[groups >= 0], _CLUSTERS)
    return groups, np.where(held > 0, held**power, 0.0)


def fisher(rows: Dataset, features: TokenFeatures, seed: int, tokens: int) -> Quotas:
    """The tokens that FisherSFT, by gain per token, spends in each cluster."""
    groups = cluster_labels(features, _CLUSTERS, seed=seed)
    chosen = fisher_per_token(rows, features, seed=seed, tokens=tokens)
    return groups, np.bincount(groups[chosen.indices], chosen.costs, _CLUSTERS)


def permuted(rows: Dataset, features: TokenFeatures, seed: int, tokens: int) -> Quotas:
    """FisherSFT's shares dealt to other clusters: no cluster keeps its own."""
    groups, shares = fisher(rows, features, seed, tokens)
    rng = np.random.default_rng(seed)
    deal = np.arange(_CLUSTERS)
    while (deal == np.arange(_CLUSTERS)).any():  # about one permutation in three moves all
        deal = rng.permutation(_CLUSTERS)
    return groups, shares[deal]


def oracle(rows: Dataset, features: TokenFeatures, seed: int, tokens: int, wanted: dict[str, float]) -> Quotas:
    """Each domain gets its share of the test's response tokens, `wanted`, which no honest method knows."""
    names = sorted(wanted)
    return np.array([names.index(domain) for domain in rows["domain"]]), np.array([wanted[name] for name in names])


def minhash_oracle(rows: Dataset, features: TokenFeatures, *, seed: int, tokens: int, wanted: dict[str, float]) -> Selection:
    """The arm that is told the test's mix: how much a perfect choice of quotas could be worth."""
    return minhash(rows, features, seed=seed, tokens=tokens, shares=partial(oracle, wanted=wanted))


def length_matched_weighted(rows: Dataset, features: TokenFeatures, *, seed: int, tokens: int) -> Selection:
    """Examples of the lengths that trace-weighted FisherSFT picks, otherwise in the order of the permutation."""
    like = fisher_weighted(rows, features, seed=seed, tokens=tokens)
    return length_matched(rows, features, like=like, tokens=tokens, seed=seed)
