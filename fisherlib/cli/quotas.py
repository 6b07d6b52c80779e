"""What `--quota` asks for: floors and ceilings of groups; the shares that keep them; asked against got."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fisherlib.cli.session import USAGE, Stop
from fisherlib.features import TokenFeatures
from fisherlib.greedy import Selection

Bound = tuple[float | int | None, float | int | None]  # floor and ceiling: a float is a share, an int so many tokens
POOL = "pool"  # all groups as the pool has them


def quotas_of(given: dict[str, Any]) -> dict[str, Bound] | str:
    """`code=0.2` and `code=0.1:0.5` as floor and ceiling, or "pool". Raises `Stop`."""
    found: dict[str, Bound] = {}
    if POOL in given["quota"]:
        if len(given["quota"]) > 1:
            raise Stop(USAGE, "expected --quota pool alone, which is of all groups, got others beside it: leave one out")
        return POOL
    for text in given["quota"]:
        name, equals, said = text.rpartition("=")
        if name in found:
            raise Stop(USAGE, f"expected one --quota for each group, got two of {name!r}: leave one out")
        low, colon, high = said.partition(":")
        try:
            pair = _number(low), _number(high if colon else low)
        except ValueError:
            equals = ""
        if not (equals and name and pair != (None, None)):
            raise Stop(
                USAGE,
                "expected --quota like code=0.2, a share from 0 to 1, or code=0.1:0.5 (floor, ceiling), code=4000 (tokens), "
                f"pool, got {text!r}: change it",
            )
        found[name] = pair
    for budget in given["tokens"]:
        bounds = in_tokens(found, budget)
        if wrong := next((name for name, (low, high) in bounds.items() if low > high), None):
            raise Stop(
                USAGE, f"expected the floor of {wrong!r} below its ceiling, got {', '.join(given['quota'])}: swap them"
            )
        if (all_of_it := sum(low for low, _ in bounds.values())) > budget * (1 + 1e-9):
            raise Stop(
                USAGE, f"expected quotas of at most 1 in all, got {all_of_it / budget:g} of {budget:,.15g} tokens: lower one"
            )
    return found


def _number(text: str) -> float | int | None:
    """A share up to 1; above, tokens. Raises `ValueError`."""
    if not text.strip():
        return None
    value = float(text)
    if not 0 <= value < math.inf or (value > 1 and value != int(value)):
        raise ValueError(text)
    return int(value) if value > 1 else value


def in_tokens(quotas: Mapping[str, Bound], budget: float) -> dict[str, tuple[float, float]]:
    """Floors and ceilings in tokens of a budget: 0 and infinity where nothing is asked."""

    def tokens(bound: float | int | None, none: float) -> float:
        return none if bound is None else float(bound) if isinstance(bound, int) else bound * budget

    return {name: (tokens(low, 0.0), tokens(high, math.inf)) for name, (low, high) in quotas.items()}


def of_groups(quotas: dict[str, Bound] | str, groups: Sequence[str], lengths: np.ndarray) -> dict[str, Bound]:
    """The quotas by group, where "pool" is written out."""
    if not isinstance(quotas, str):
        return quotas
    held = tokens_of(groups, lengths)
    return {name: (tokens / max(sum(held.values()), 1.0),) * 2 for name, tokens in held.items()}


def tokens_of(groups: Sequence[str | None], lengths: np.ndarray) -> dict[str, float]:
    """The tokens of each group, sorted by its name; None is no group."""
    held: dict[str, float] = {}
    for group, length in zip(groups, lengths.tolist(), strict=True):
        if group is not None:
            held[group] = held.get(group, 0.0) + length
    return dict(sorted(held.items()))


def shares_of(
    bounds: Mapping[str, tuple[float, float]], held: Mapping[str, float], most: Mapping[str, float], budget: float
) -> dict[str, float]:
    """A share of the budget for each group: within its bounds, and otherwise as the pool has it.

    `held`: the tokens of each group; `most`: those that may be drawn. A group that would be below
    its floor gets that, one that would be above its ceiling (or above what there is) gets that, and the others share what is
    left, by their tokens. The shares sum to less than 1 if no group may take more.
    """
    limits = {}
    for name in held:
        low, high = bounds.get(name, (0.0, math.inf))
        limits[name] = low / budget, max(min(high, most.get(name, 0.0)), low) / budget
    fixed = {name: low for name, (low, high) in limits.items() if low == high}
    while free := [name for name in held if name not in fixed]:
        left, others = 1 - sum(fixed.values()), sum(held[name] for name in free)
        wanted = {name: left * held[name] / max(others, 1.0) for name in free}
        under = {name: limits[name][0] for name in free if wanted[name] < limits[name][0]}
        over = {name: limits[name][1] for name in free if wanted[name] > limits[name][1]}
        if not under and not over:
            return {name: fixed[name] if name in fixed else wanted[name] for name in held}
        lacking = sum(low - wanted[name] for name, low in under.items())
        spare = sum(wanted[name] - high for name, high in over.items())
        fixed |= under if lacking >= spare else over  # the other side may be within its bounds after this
    return fixed if not held else {name: fixed[name] for name in held}


def by_group(
    selection: Selection, groups: Sequence[str], features: TokenFeatures, quotas: Mapping[str, Bound], budget: float
) -> dict[str, dict]:
    """Of each group its share of the pool's tokens, what was asked for, what it got, and what is `missing` or `over`, in
    tokens: a quota is kept to one example."""
    lengths, chosen = features.lengths.numpy(), set(selection.indices.tolist())
    bounds, held, in_all = in_tokens(quotas, budget), tokens_of(groups, lengths), max(float(lengths.sum()), 1.0)
    of_picks: dict[str, list[float]] = {name: [] for name in held}
    of_rest: dict[str, list[float]] = {name: [] for name in held}
    for i, (name, length) in enumerate(zip(groups, lengths.tolist(), strict=True)):
        (of_picks if i in chosen else of_rest)[name].append(length)
    found = {}
    for name, tokens in held.items():
        spent, (low, high) = sum(of_picks[name]), bounds.get(name, (0.0, math.inf))
        missing, over = max(low - spent, 0.0), max(spent - high, 0.0)
        asked = [low / budget if low > 0 else None, high / budget if high < math.inf else None]
        found[name] = {
            "pool": tokens / in_all,
            "asked": asked if name in bounds else None,
            "got": spent / max(float(selection.costs.sum()), 1.0),
            "tokens": spent,
            "rows": len(of_picks[name]),
            "missing": missing if missing > max(of_rest[name], default=0.0) else 0.0,
            "over": over if over > max(of_picks[name], default=0.0) else 0.0,
        }
    return found


def kept(
    selection: Selection, groups: Sequence[str], lengths: np.ndarray, bounds: Mapping[str, tuple[float, float]]
) -> bool:
    """Whether a selection is within all bounds, to the token."""
    spent = tokens_of([groups[i] for i in selection.indices], lengths[selection.indices])
    return all(low <= spent.get(name, 0.0) <= high for name, (low, high) in bounds.items())


def words(group: dict) -> str:
    """What was asked for a group, or nothing."""
    if group["asked"] is None:
        return ""
    low, high = group["asked"]
    if low == high:
        return f", asked for {low or 0:.1%}"
    if low is not None and high is not None:
        return f", asked for {low:.1%} to {high:.1%}"
    return f", asked for at least {low:.1%}" if low is not None else f", asked for at most {high or 0:.1%}"
