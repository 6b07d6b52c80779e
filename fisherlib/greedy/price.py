"""What quotas cost, in nats. (Extension.)"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fisherlib._door import checked
from fisherlib.features import TokenFeatures
from fisherlib.greedy.groups import Labels
from fisherlib.greedy.select import select
from fisherlib.greedy.selection import Selection


@checked
def quota_price(features: TokenFeatures, selection: Selection, **options) -> float:
    """The objective of the same selection without its quotas, minus this one: what they cost, in nats.

    Selects once more: as long as `select` without quotas takes. Greedy finds no optimum, so a price can be negative: a quota
    can by chance lead to more. Budget, rule, weighting and a prior that is a number are those of the selection's settings;
    `options` of `select` are what these do not hold (costs, a matrix prior, start, device, memory).
    Raises `ValueError` for a selection without groups, for costs or a matrix prior that are missing, and as `select`.

    >>> blocks = [np.eye(3)[[i]] * size for i, size in ((0, 9.0), (1, 8.0), (2, 1.0))]
    >>> features, kinds = fl.TokenFeatures.from_list(blocks), ["a", "a", "b"]
    >>> selection = fl.select(features, examples=2, groups=kinds, quotas={"b": (1, None)})
    >>> round(fl.greedy.quota_price(features, selection), 2)  # log(1 + 8^2) - log(1 + 1^2)
    3.48
    """
    known = _settings(features, selection, options)
    return select(features, **(known | options)).objective - selection.objective


@checked
def quota_prices(features: TokenFeatures, selection: Selection, groups: Labels, **options) -> dict[Any, float]:
    """The same for each quota by itself: what would be gained if it alone were lifted, {label: nats}.

    They do not sum to `quota_price`: two quotas may bind together. Selects once more for each group that has a bound.
    `groups`: as the selection got them. Raises `ValueError` as `quota_price`.

    >>> features = fl.TokenFeatures.from_list([np.eye(3)[[i]] * size for i, size in ((0, 9.0), (1, 8.0), (2, 1.0))])
    >>> selection = fl.select(features, examples=2, groups=["a", "a", "b"], quotas={"b": (1, None), "a": (1, None)})
    >>> prices = fl.greedy.quota_prices(features, selection, ["a", "a", "b"])
    >>> {label: round(price, 2) for label, price in prices.items()}
    {'a': 0.0, 'b': 3.48}
    """
    known, prices = _settings(features, selection, options), {}
    (amount,) = selection.settings["budget"].values()
    bounds = {
        row["group"]: (row["low"] / amount, None if row["high"] is None else min(row["high"] / amount, 1.0))
        for row in selection.settings["groups"]
        if row["low"] > 0 or row["high"] is not None
    }
    for label in bounds:
        others = {other: bound for other, bound in bounds.items() if other != label}
        lifted = select(features, groups=groups, quotas=others, **(known | options))
        prices[label] = lifted.objective - selection.objective
    return prices


def _settings(features: TokenFeatures, selection: Selection, options: Mapping[str, Any]) -> dict[str, Any]:
    """What the selection was asked for, but for its quotas."""
    settings = selection.settings
    if selection.groups is None:
        raise ValueError("expected a selection with quotas, got one without groups: there is no price")
    lengths = features.lengths.numpy().astype(float)
    paid = selection.pool_size == len(features) and np.allclose(lengths[selection.indices], selection.costs)
    if "costs" not in options and not paid:
        raise ValueError("expected the features and costs that the picks were paid with, got others: give costs=")
    if "prior" not in options and not isinstance(settings["prior"], float):
        raise ValueError(f"expected the prior of the selection, a {settings['prior']}, got none: give prior=")
    names = ("rule", "weighting", "prior", "stochastic", "seed", "stop")
    return settings["budget"] | {name: settings[name] for name in names if name in settings}
