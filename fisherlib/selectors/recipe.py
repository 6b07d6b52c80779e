"""Near-copies out, then chance, at the mix of kinds of text that you ask for."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from datasets import Dataset

from fisherlib.features import TokenFeatures
from fisherlib.greedy import Budget, Labels, Selection, select, share_of
from fisherlib.selectors._contract import selector
from fisherlib.selectors._text import rows_of
from fisherlib.selectors.deduplicated import deduplicated, near_duplicates
from fisherlib.selectors.groups import cluster_labels
from fisherlib.selectors.in_clusters import in_clusters
from fisherlib.selectors.quotas import labels_of, quotas

_THRESHOLD = 0.5  # two words in ten may differ


@selector("recipe")
def recipe(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    examples: int | None,
    tokens: float | int | None,
    seed: int,
    mix: str | float | int | Mapping = "keep",
    groups: str | Labels | None = None,
    copies: Callable[..., np.ndarray] | None = None,
) -> Selection:
    """Near-duplicates out, then a random choice, with a share of the budget for each kind of text.

    `mix`: "keep", the pool's own shares, counted after near-duplicates are out; "fisher", the shares that FisherSFT spends;
    a number between 0 (keep) and 1 (FisherSFT's); or the share of each kind by name, a `Mixture` of `fl.mixtures` for
    one. `groups`: what the kinds are, a label for each row or the name of a column of `rows` (for shares by name it must be
    given); by default the eight k-means clusters of `in_clusters`. `settings["shares"]` says for each kind what it has of
    the pool and what it was to get: the price of a mix that is not kept.
    FisherSFT's shares go to kinds that the rest of the pool does not stand for, and the majority pays: in notebook 05b a
    gain where all kinds count alike, a loss at the pool's own mix. So the default keeps the mix.
    `copies`: what finds near-duplicates, as in `deduplicated`.
    Draws are in uniform's own order (`selectors.quotas`). Only "fisher" without `groups` is the recipe of notebook 05b,
    which draws anew in each cluster (`deduplicated`, `in_clusters`); 1.0 has the same shares.
    Indices are those of the whole pool. A budget beyond what is left without near-duplicates takes all of that, and then
    near-duplicates at random. Source: extension; notebook 05b tells how it was chosen and tried.
    Cost: near-duplicates O(characters), k-means without `groups`, and one `select` by gain per token unless the mix is kept:
    only then are the features of what is left copied into memory.
    Raises `ValueError` for rows without text, another mix, groups that do not fit the rows, and another number of rows than
    the features are of.
    """
    asked = dict(mix) if isinstance(mix, Mapping) else None  # the share of each kind
    toward: Any = {"keep": 0.0, "fisher": 1.0}.get(mix, mix) if isinstance(mix, str) else mix if asked is None else 0.0
    if isinstance(toward, str) or not 0 <= toward <= 1:
        raise ValueError(f"expected mix to be 'keep', 'fisher' or a number from 0 to 1, got {mix!r}: change mix=")
    if asked is not None and groups is None:
        raise ValueError("expected groups beside the shares of a mix, got None: give their labels, or name a column")
    if mix == "fisher" and groups is None:
        parts = {"threshold": _THRESHOLD, "refill": True, "copies": copies, "then": in_clusters, "like": _informative}
        chosen = deduplicated(rows, features, examples=examples, tokens=tokens, seed=seed, **parts)
        return replace(chosen, settings=chosen.settings | {"method": "recipe", "mix": mix})
    budget = Budget(features.lengths.numpy().astype(float), examples, tokens)
    firsts = (copies or near_duplicates)(rows_of(rows), threshold=_THRESHOLD, seed=seed)
    kept = np.flatnonzero(firsts == np.arange(len(features)))
    if groups is None:  # clusters of what is left, as `in_clusters` would see it
        given = [None if label < 0 else label for label in cluster_labels(features, seed=seed, among=kept).tolist()]
    else:
        given = labels_of(rows, groups, features, seed)
    of_kept = [given[i] for i in kept]
    labels: list = [None] * len(features)
    for i, label in zip(kept.tolist(), of_kept, strict=True):
        labels[i] = label
    pool = _shares(share_of(of_kept, budget.price[kept]))
    wanted = pool if asked is None else {label: asked.get(label, 0.0) for label in pool} | asked
    if toward and budget.amount < budget.price[kept].sum():
        picks = _informative(None, features.subset(kept), seed=seed, **budget.asked).indices
        spent = _shares(share_of([of_kept[i] for i in picks], budget.price[kept][picks]))
        wanted = {label: (1 - toward) * own + toward * spent.get(label, 0.0) for label, own in pool.items()}
    chosen = quotas(rows, features, seed=seed, groups=labels, shares=wanted, examples=examples, tokens=tokens)
    shares = {str(label): {"pool": own, "wanted": wanted[label]} for label, own in pool.items()}
    noted = mix if asked is None else {str(label): float(share) for label, share in asked.items()}
    settings = {"method": "recipe", "mix": noted, "removed": len(features) - len(kept), "shares": shares}
    return replace(chosen, settings=chosen.settings | settings)


def _informative(_, kept: TokenFeatures, *, seed: int, **budget) -> Selection:
    return select(kept, rule="gain_per_token", **budget)


def _shares(held: dict) -> dict:
    total = sum(held.values())
    return {label: cost / total for label, cost in held.items()}
