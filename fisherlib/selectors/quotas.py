"""Give each group of examples a share of the budget, and draw inside by chance."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from datasets import Dataset

from fisherlib._door import numbers
from fisherlib.features import TokenFeatures
from fisherlib.greedy import Budget, Labels, plain_labels, share_of
from fisherlib.selectors._contract import Ranking, selector
from fisherlib.selectors.groups import cluster_labels


@selector("quotas")
def quotas(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    examples: int | None,
    tokens: float | int | None,
    seed: int,
    groups: str | Labels | None = None,
    shares: Mapping[Any, float | int] | None = None,
) -> Ranking:
    """A share of the budget for each group, and chance inside, in the order of one permutation: uniform's own.

    >>> features = fl.TokenFeatures.from_list([np.ones((2, 3))] * 6)
    >>> kinds = ["code", "code", "code", "code", "text", "text"]
    >>> chosen = fl.selectors.quotas(None, features, groups=kinds, shares={"code": 1, "text": 1}, tokens=8)
    >>> [kinds[i] for i in chosen.indices]
    ['code', 'code', 'text', 'text']

    `groups`: a label for each example, or the name of a column of `rows`; by default the eight k-means clusters of
    `in_clusters`. Examples with the label None come last, when all others are taken. `shares`: {label: share}, on any scale;
    by default what each group has of the labelled tokens (of the examples, for a budget of examples), so that the mix stays
    as it is. A group without a share gets what is left over.
    Shares are rounded down. What a group cannot fill, and what rounding leaves, goes to whoever is next in the permutation.
    With the same seed two calls differ by their shares and not by their luck (common random numbers).
    Source: extension. Time O(N log N). Raises `ValueError` for another number of labels than examples, a label that is no
    value (a list, NaN) or is written like another (1 and "1"), a column that is not there, shares of unknown groups, or
    shares that are no numbers, negative, not finite or all zero.
    """
    labels = labels_of(rows, groups, features, seed)
    budget = Budget(features.lengths.numpy().astype(float), examples, tokens)
    own = share_of(labels, budget.price)
    if not own:
        raise ValueError("expected a label for at least one example, got None for all: name their groups")
    shares = own if shares is None else dict(shares)
    if unknown := [label for label in shares if label not in own]:
        raise ValueError(f"expected shares of the groups {list(own)}, got {unknown}: name groups that are there")
    parts = numbers(list(shares.values()), "shares")
    if not (np.isfinite(parts).all() and (parts >= 0).all() and parts.sum() > 0):
        raise ValueError(f"expected shares of at least 0, one of them above, got {shares}: change shares=")
    permutation = np.random.default_rng(seed).permutation(len(features)).tolist()
    members: dict[Any, list[int]] = {label: [] for label in own}
    for i in permutation:
        if labels[i] is not None:
            members[labels[i]].append(i)
    order: list[int] = []
    for label, quota in zip(shares, np.floor(parts / parts.sum() * budget.amount), strict=True):
        for i in members[label]:
            if 0 < budget.price[i] <= quota:
                order.append(i)
                quota -= budget.price[i]
    order += sorted(permutation, key=lambda i: labels[i] is None)  # stable: whoever is next, and None last of all
    noted = {str(label): share for label, share in zip(shares, (parts / parts.sum()).tolist(), strict=True)}
    return Ranking(list(dict.fromkeys(order)), {"shares": noted})


def labels_of(rows: Dataset | None, groups: str | Labels | None, features: TokenFeatures, seed: int) -> list:
    """The label of each example, as a plain value.

    Raises `ValueError` for a column that is not there, another number of labels, and labels that make no groups.
    """
    if groups is None:
        return [None if label < 0 else label for label in cluster_labels(features, seed=seed).tolist()]
    if isinstance(groups, str):
        if rows is None or groups not in rows.column_names:
            names = "no rows" if rows is None else f"the columns {rows.column_names}"
            raise ValueError(f"expected groups to be a column of the rows, got {groups!r} and {names}: name another")
        groups = rows.with_format(None)[groups]
    return plain_labels(groups, len(features))
