"""What quotas cost, in nats. (Extension.)"""

import numpy as np

from fisherlib._door import checked
from fisherlib.features import TokenFeatures
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
    settings = selection.settings
    if selection.groups is None:
        raise ValueError("expected a selection with quotas, got one without groups: there is no price")
    lengths = features.lengths.numpy().astype(float)
    paid = selection.pool_size == len(features) and np.allclose(lengths[selection.indices], selection.costs)
    if "costs" not in options and not paid:
        raise ValueError("expected the features and costs that the picks were paid with, got others: give costs=")
    if "prior" not in options and not isinstance(settings["prior"], float):
        raise ValueError(f"expected the prior of the selection, a {settings['prior']}, got none: give prior=")
    known = {
        name: settings[name] for name in ("rule", "weighting", "prior", "stochastic", "seed", "stop") if name in settings
    }
    return select(features, **settings["budget"], **(known | options)).objective - selection.objective
