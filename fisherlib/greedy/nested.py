"""Several budgets in one run: the beginnings of one order. (Extension.)"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fisherlib._door import checked
from fisherlib.features import TokenFeatures
from fisherlib.greedy.information import TIE
from fisherlib.greedy.select import select
from fisherlib.greedy.selection import Selection


@checked
def nested(
    features: TokenFeatures,
    *,
    examples: Sequence[int] | None = None,
    tokens: Sequence[float | int] | None = None,
    rule: str = "gain",
    checkpoint: str | Path | None = None,
    **options,
) -> list[Selection]:
    """One selection for each budget, each the beginning of the next larger one, for the price of the largest.

    Selects for the largest budget and cuts its order. For budgets of examples each is what `select` would pick for it alone.
    For budgets of tokens it is that up to the first pick that no longer fits; alone, `select` would go on from there with
    what still fits, so a nested selection leaves less unspent than its next pick costs. `rule="best"` is the better of
    "gain" and "gain_per_token" at the largest budget; there are no exchanges, which belong to one budget only. The settings
    say which rule it was, and `nested_in` which budget. Shares in `quotas` are of the largest budget, and only there are
    they kept. After a `stop`, budgets that are not reached get all that was picked.

    The largest has a certificate; give the others to `certify` for theirs. `options` are those of `select`; with
    `checkpoint`, "best" keeps a file beside it for each of its two rules. Raises `ValueError` as `select`, unless exactly
    one list of budgets is given, and for a budget that does not pay for the first pick.

    >>> features = fl.TokenFeatures.from_list([np.eye(4)[[i]] * (9 - i) for i in range(4)])
    >>> [selection.indices.tolist() for selection in fl.greedy.nested(features, tokens=[1, 3])]
    [[0], [0, 1, 2]]
    """
    given = {unit: list(budgets) for unit, budgets in (("examples", examples), ("tokens", tokens)) if budgets is not None}
    if len(given) != 1 or not next(iter(given.values())):
        raise ValueError(f"expected a list of budgets, examples= or tokens=, got {given}: give one of them")
    ((unit, budgets),) = given.items()
    largest: dict[str, Any] = {unit: max(budgets)}
    rules = ("gain", "gain_per_token") if rule == "best" else (rule,)
    if unit == "examples" and rule == "best":
        raise ValueError("expected budgets of tokens for rule='best', got examples=: with these all rules are rule='gain'")
    made = []
    for by in rules:
        file = checkpoint if len(rules) == 1 or checkpoint is None else f"{checkpoint}.{by}"
        made.append(select(features, **largest, rule=by, checkpoint=file, **options))
    whole = made[-1] if made[-1].objective > made[0].objective * (1 + TIE) else made[0]
    asked = {"rule_asked": "best, the better of two rules at the largest budget, without exchanges"} if len(made) > 1 else {}
    return [_cut(whole, unit, budget, asked | {"nested_in": largest}) for budget in budgets]


def _cut(whole: Selection, unit: str, budget: float | int, noted: dict) -> Selection:
    """The picks that a budget pays for, in the order of a larger one."""
    paid = whole.costs if unit == "tokens" else whole.costs * 0 + 1
    if budget < paid[0] * (1 - TIE):
        raise ValueError(f"expected budgets that pay for the first pick ({paid[0]:g} {unit}), got {budget:g}: raise it")
    asked: dict[str, Any] = {unit: budget}
    all_of_it = paid.sum() <= budget * (1 + TIE)
    part = whole if all_of_it else whole.prefix(**asked)
    bound = whole.upper_bound if budget == whole.settings["budget"][unit] else None
    return replace(part, upper_bound=bound, settings={**part.settings, "budget": asked, **noted})
