"""Floors and ceilings for groups of examples, kept inside the greedy choice. (Extension.)

A ceiling makes a partition matroid: an example that its group has no room for is not available. A floor is kept by
reservation: what the other groups still need for their floors is not available either. With C_g, F_g the ceiling and the
floor of group g, s_g what it got so far, and `left` of the budget, its next example may cost at most

    min(C_g - s_g, left - sum over the other groups h of max(F_h - s_h, 0))

This limit never rises from pick to pick. So a ceiling is never passed, and a floor is missed by less than one example of its
group: by what was reserved and is too little for any that is still there. When nothing is available any more, what is still
reserved is given free, and picking goes on with what fits. A selection that would keep the quotas anyway is never changed:
each of its picks leaves enough for what it takes later.

For a matroid and examples of one price, greedy reaches at least half of the constrained optimum (Fisher, Nemhauser and
Wolsey 1978). With floors, or with prices in tokens, no such bound is known to us.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from fisherlib.greedy.groups import Labels, plain_labels

_SLACK = 1e-9  # of the budget: what rounding leaves of costs like 0.1 breaks no quota


@dataclass(frozen=True, eq=False)
class Quotas:
    """The groups of a pool, and how much of a budget each may get; nothing here changes.

    `labels` of the G groups; `group` [N], the number of each example's group; `low` and `high` [G], floors and ceilings in
    units of the budget (0 and infinity where nothing was asked); `pool` and `longest` [G], what each group costs in all, and
    its dearest example; `amount` of the budget.
    """

    labels: tuple
    group: Int[np.ndarray, " N"]
    low: Float[np.ndarray, " G"]
    high: Float[np.ndarray, " G"]
    pool: Float[np.ndarray, " G"]
    longest: Float[np.ndarray, " G"]
    amount: float

    def spent(self, price: Float[np.ndarray, " N"], picks) -> Float[np.ndarray, " G"]:
        """What these examples cost, by group."""
        return np.bincount(self.group[picks], price[picks], len(self.labels)).astype(float)  # of none: whole numbers

    def open(self, spent: Float[np.ndarray, " G"]) -> Float[np.ndarray, " G"]:
        """How far each group is below its floor."""
        below = (self.low - spent).clip(min=0)
        return np.where(below > _SLACK * self.amount, below, 0.0)

    def limits(self, spent: Float[np.ndarray, " G"], left: float, reserving: bool) -> Float[np.ndarray, " G"]:
        """The most that the next example of each group may cost."""
        reserved = self.open(spent) if reserving else np.zeros(len(spent))
        return np.minimum(self.high - spent, left - (reserved.sum() - reserved))

    def keep(
        self, spent: Float[np.ndarray, " G"], price: Float[np.ndarray, " N"], out: int, others: Int[np.ndarray, " B"]
    ) -> Bool[np.ndarray, " B"]:
        """Whether each of some examples may come in for one that goes out: over no ceiling, and no further below a floor."""
        g, h, slack = self.group[out], self.group[others], _SLACK * self.amount
        after = spent[h] - np.where(h == g, price[out], 0.0) + price[others]
        lost = spent[g] - price[out] + np.where(h == g, price[others], 0.0)
        return (after <= self.high[h] + slack) & (lost >= min(self.low[g], spent[g]) - slack)

    def allows_any(self, price: Float[np.ndarray, " N"]) -> bool:
        """Whether the ceiling of some group has room for an example of it."""
        return bool((price <= self.high[self.group] + _SLACK * self.amount)[price > 0].any())

    def check_start(self, spent: Float[np.ndarray, " G"], left: float) -> None:
        """Raise `ValueError` if a selection to continue is over a ceiling, or leaves too little for the floors."""
        slack = _SLACK * self.amount
        for label, got, most in zip(self.labels, spent, self.high, strict=True):
            if got > most + slack:
                raise ValueError(f"expected a start within the quotas, got {got:g} of {label!r}, over {most:g}: raise it")
        if left >= -slack and (needed := self.open(spent).sum()) > left + slack:
            short = [label for label, open_ in zip(self.labels, self.open(spent), strict=True) if open_ > 0]
            raise ValueError(
                f"expected a start that leaves {needed:g} for the floors of {short}, got {left:g}: raise the budget"
            )

    def rows(self) -> list[dict[str, Any]]:
        """One for each group, as JSON can hold it: what it holds of the pool, and its floor and ceiling (None: without)."""
        return [
            {"group": label, "pool": pool, "longest": longest, "low": low, "high": None if np.isinf(high) else high}
            for label, pool, longest, low, high in zip(
                self.labels, *(x.tolist() for x in (self.pool, self.longest, self.low, self.high)), strict=True
            )
        ]


def quotas_of(
    groups: Labels | None, quotas: Mapping[Any, Any] | str | None, price: Float[np.ndarray, " N"], amount: float, unit: str
) -> Quotas | None:
    """What `select` is asked to keep; None without groups.

    `price` [N] and `amount` of the budget, in its `unit`. Raises `ValueError`, before any work, for quotas without groups,
    unknown groups, bounds that are none, and floors that the pool or the budget cannot fill, by the name of the group.
    """
    if groups is None:
        if quotas is not None:
            raise ValueError("expected groups= beside quotas=, a label for each example, got none: give them")
        return None
    labels = plain_labels(groups, len(price))
    names = _ordered(labels)
    number = {label: g for g, label in enumerate(names)}
    group = np.array([number[label] for label in labels], dtype=np.int64)
    pool = np.bincount(group, price, len(names))
    longest = np.zeros(len(names))
    np.maximum.at(longest, group, price)
    low, high = np.zeros(len(names)), np.full(len(names), np.inf)
    for label, asked in _asked(quotas, names, pool).items():
        low[number[label]], high[number[label]] = _bounds(label, asked, amount, unit)
    slack = _SLACK * amount
    for label, floor, there in zip(names, low, pool, strict=True):
        if floor > there + slack:
            raise ValueError(
                f"expected a floor that the pool can fill, got {floor:g} {unit} of {label!r}, of which it holds {there:g}: "
                "lower it"
            )
    if low.sum() > amount + slack:
        raise ValueError(f"expected floors within the budget of {amount:g} {unit}, got {low.sum():g} in all: lower them")
    return Quotas(tuple(names), group, low, high, pool, longest, float(amount))


def _ordered(labels: list) -> list:
    """Each label once, in their order, or as they come where they have none."""
    names = list(dict.fromkeys(labels))
    try:
        return sorted(names)
    except TypeError:
        return names


def _asked(quotas: Mapping[Any, Any] | str | None, names: list, pool: Float[np.ndarray, " G"]) -> dict[Any, Any]:
    if quotas is None:
        return {}
    if isinstance(quotas, str):
        if quotas != "pool":
            raise ValueError(f"expected quotas as a dict, a bound for each group, or 'pool', got {quotas!r}: change quotas=")
        return dict(zip(names, (pool / pool.sum()).tolist(), strict=True))
    if unknown := [label for label in quotas if label not in names]:
        raise ValueError(f"expected quotas of the groups {names!r:.200}, got {unknown!r:.60}: name groups that are there")
    return dict(quotas)


def _bounds(label: Any, asked: Any, amount: float, unit: str) -> tuple[float, float]:
    """Floor and ceiling in units of the budget."""
    pair = tuple(asked) if isinstance(asked, (tuple, list)) else (asked, asked)
    usable = len(pair) == 2 and pair != (None, None) and all(_is_bound(bound) for bound in pair)
    if not usable:
        raise ValueError(
            f"expected as quota of {label!r} a share from 0.0 to 1.0, a whole number of {unit}, or (floor, ceiling) of "
            f"these, got {asked!r:.60}: change quotas="
        )
    scale = [1.0 if isinstance(bound, Integral) else amount for bound in pair]
    low = 0.0 if pair[0] is None else float(pair[0]) * scale[0]
    high = np.inf if pair[1] is None else float(pair[1]) * scale[1]
    if unit == "examples":  # to within one example: 0.25 of 10 is 2 or 3
        low, high = float(np.floor(low + _SLACK * amount)), float(np.ceil(high - _SLACK * amount))
    if low > high:
        raise ValueError(f"expected a floor below the ceiling of {label!r}, got {asked!r:.60}: change quotas=")
    return low, high


def _is_bound(bound: Any) -> bool:
    if bound is None:
        return True
    number = isinstance(bound, Real) and not isinstance(bound, (bool, np.bool_))
    return number and bool(bound >= 0 and (isinstance(bound, Integral) or bound <= 1))
