"""The ways to choose that the command offers, each for one budget or several, with quotas or without."""

import hashlib
import json
from pathlib import Path
from typing import Any

from datasets import Dataset

from fisherlib import selectors
from fisherlib.cli.pool import Candidates
from fisherlib.cli.quotas import Bound, in_tokens, kept, of_groups, quotas_of, shares_of, tokens_of
from fisherlib.cli.session import FAILED, Session, Stop
from fisherlib.features import TokenFeatures
from fisherlib.greedy import Selection, nested, select
from fisherlib.text import SOURCE, as_stored

WHY = {
    "recipe": (
        "near-copies out, then chance at the pool's own mix. Of the ways that we compared, none beat chance on text of one "
        "kind without copies, and taking near-copies out helped wherever there were many (README, first screen)"
    ),
    "fisher": "FisherSFT, by information gained. Rare kinds of text gain and the majority pays (README, first screen)",
    "uniform": "chance alone: what every other method must beat",
}
_COPIES = 0.5  # two words in ten may differ: the recipe's own threshold


def beside(out: Path, ending: str) -> Path:
    """A file beside the output: subset.jsonl has subset.manifest.json."""
    return out.with_name(f"{out.stem}.{ending}")


def outputs(given: dict[str, Any]) -> list[tuple[float, Path]]:
    """Each budget, the largest first, with the file that it is written to."""
    out, budgets = Path(given["out"]), sorted(set(given["tokens"]), reverse=True)
    if len(budgets) == 1:
        return [(budgets[0], out)]
    return [(budget, out.with_name(f"{out.stem}.{budget:.15g}{out.suffix}")) for budget in budgets]


def groups_of(given: dict[str, Any], rows: Dataset) -> list[str] | None:
    """The group of each row, as text. Raises `Stop` for a column, or for groups, that are not there."""
    name = given["group_by"]
    if not name:
        return None
    there = [column for column in rows.column_names if column != SOURCE]
    if name not in there:
        raise Stop(FAILED, f"expected --group-by to be a column of the rows, got {name!r}: name one of {there}")
    labels = [str(label) for label in as_stored(rows)[name]]
    quotas = quotas_of(given)
    if unknown := sorted(set() if isinstance(quotas, str) else set(quotas) - set(labels)):
        raise Stop(
            FAILED, f"expected --quota of groups in {name!r}, got {unknown[0]!r}: name one of {sorted(set(labels))[:20]}"
        )
    return labels


def selected(
    session: Session,
    given: dict[str, Any],
    found: Candidates,
    features: TokenFeatures,
    start: TokenFeatures | None,
    work: Path,
) -> list[tuple[float, Path, Selection]]:
    """A selection for each budget."""
    groups, plans = groups_of(given, found.rows), outputs(given)
    lengths = features.lengths.numpy()
    quotas = of_groups(quotas_of(given), groups or [], lengths)
    if given["method"] == "fisher":
        return fisher(session, given, features, start, work, groups, quotas, plans)
    made = []
    for budget, path in plans:
        with session.step(f"select {budget:.15g} tokens"):
            call: dict[str, Any] = {"tokens": budget, "seed": given["seed"]}
            if given["method"] == "uniform":
                selection = selectors.uniform(found.rows, features, **call)
            else:
                selection = selectors.recipe(found.rows, features, groups=groups, **call)
            bounds = in_tokens(quotas, budget)
            if groups is not None and not kept(selection, groups, lengths, bounds):
                drawn = without_copies(found, groups, given) if given["method"] == "recipe" else groups
                shares = shares_of(bounds, tokens_of(groups, lengths), tokens_of(drawn, lengths), budget)
                ceilings = sum(min(bounds.get(name, (0, budget))[1], budget) for name in shares) / budget
                call["tokens"] = budget * min(ceilings, 1.0)  # when all ceilings are reached, the rest is not spent
                selection = selectors.quotas(found.rows, features, groups=drawn, shares=shares, **call)
        made.append((budget, path, selection))
    return made


def without_copies(found: Candidates, groups: list[str], given: dict[str, Any]) -> list[str | None]:
    """The groups, without a label for near-copies: these come last."""
    first = selectors.near_duplicates(found.rows, threshold=_COPIES, seed=given["seed"])
    return [label if first[i] == i else None for i, label in enumerate(groups)]


def fisher(
    session: Session,
    given: dict[str, Any],
    features: TokenFeatures,
    start: TokenFeatures | None,
    work: Path,
    groups: list[str] | None,
    quotas: dict[str, Bound],
    plans: list[tuple[float, Path]],
) -> list[tuple[float, Path, Selection]]:
    """FisherSFT. Of several budgets without quotas a smaller subset is the beginning of a larger one, by one rule."""
    largest = plans[0][0]
    rule = "best" if given["stop"] is None else "gain_per_token"  # exchanges leave no order that could end
    asked: dict[str, Any] = {"rule": rule, "device": given["device"], "progress": session.progress}
    if given["memory"] is not None:
        asked["memory"] = given["memory"]
    if quotas:
        asked |= {"groups": groups, "quotas": quotas}
    if start is not None:
        asked["start"] = start
    if given["stop"] is not None:
        asked["stop"] = given["stop"]
    said = json.dumps([largest, sorted(quotas.items()), given["group_by"], given["stop"], given["seen"]])
    key = hashlib.sha256(said.encode()).hexdigest()[:8]
    asked["checkpoint"] = work / f"picks-{key}.json"
    if len(plans) == 1 or quotas:  # a beginning does not keep the quotas of the whole
        made = []
        for budget, path in plans:
            with session.step(f"select {budget:.15g} tokens"):
                asked["checkpoint"] = work / f"picks-{key}-{budget:.15g}.json"
                made.append((budget, path, select(features, tokens=budget, **asked)))
        return made
    with session.step(f"select {largest:.15g} tokens"):
        order = nested(features, tokens=[budget for budget, _ in plans], **asked)
    session.result(f"budgets: each begins the next larger one, by rule {order[0].settings['rule']} and without exchanges")
    return [(budget, path, selection) for (budget, path), selection in zip(plans, order, strict=True)]
