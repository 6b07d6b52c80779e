"""The ways to choose that the command offers, each for one budget or several, with quotas or without."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from fisherlib import selectors
from fisherlib.cli.pool import Candidates
from fisherlib.cli.session import FAILED, USAGE, Session, Stop
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


def quotas_of(given: dict[str, Any]) -> dict[str, float]:
    """`code=0.2` as a dict. Raises `Stop`."""
    found = {}
    for text in given["quota"]:
        name, equals, share = text.rpartition("=")
        if name in found:
            raise Stop(USAGE, f"expected one --quota for each group, got two of {name!r}: leave one out")
        try:
            found[name] = float(share)
        except ValueError:
            equals = ""
        if not (equals and name and 0 <= found.get(name, -1) <= 1):
            raise Stop(USAGE, f"expected --quota like code=0.2, a share from 0 to 1, got {text!r}: change it")
    if sum(found.values()) > 1 + 1e-9:
        raise Stop(USAGE, f"expected quotas of at most 1 in all, got {sum(found.values()):g}: lower one")
    return found


def groups_of(given: dict[str, Any], rows: Dataset) -> list[str] | None:
    """The group of each row, as text. Raises `Stop` for a column, or for groups, that are not there."""
    name = given["group_by"]
    if not name:
        return None
    there = [column for column in rows.column_names if column != SOURCE]
    if name not in there:
        raise Stop(FAILED, f"expected --group-by to be a column of the rows, got {name!r}: name one of {there}")
    labels = [str(label) for label in as_stored(rows)[name]]
    if unknown := sorted(set(quotas_of(given)) - set(labels)):
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
    groups, quotas, plans = groups_of(given, found.rows), quotas_of(given), outputs(given)
    if given["method"] == "fisher":
        return fisher(session, given, features, start, work, groups, quotas, plans)
    made = []
    for budget, path in plans:
        with session.step(f"select {budget:.15g} tokens"):
            call: dict[str, Any] = {"tokens": budget, "seed": given["seed"]}
            if quotas:
                call |= {"groups": groups, "shares": shares_of(quotas, groups or [], features.lengths.numpy())}
            if given["method"] == "uniform":
                selection = (selectors.quotas if quotas else selectors.uniform)(found.rows, features, **call)
            elif quotas:
                selection = selectors.quotas(
                    found.rows, features, **call | {"groups": without_copies(found, groups or [], given)}
                )
            else:
                selection = selectors.recipe(found.rows, features, groups=groups, **call)
        made.append((budget, path, selection))
    return made


def without_copies(found: Candidates, groups: list[str], given: dict[str, Any]) -> list[str | None]:
    """The groups, without a label for near-copies: these come last."""
    first = selectors.near_duplicates(found.rows, threshold=_COPIES, seed=given["seed"])
    return [label if first[i] == i else None for i, label in enumerate(groups)]


def shares_of(quotas: Mapping[str, float], groups: Sequence[str], lengths: np.ndarray) -> dict[str, float]:
    """The shares of all groups: the quotas, and what is left to the others as the pool has it."""
    held = {label: float(lengths[[i for i, g in enumerate(groups) if g == label]].sum()) for label in sorted(set(groups))}
    others = sum(tokens for label, tokens in held.items() if label not in quotas)
    left = 1 - sum(quotas.values())
    return {label: quotas[label] if label in quotas else left * tokens / max(others, 1.0) for label, tokens in held.items()}


def fisher(
    session: Session,
    given: dict[str, Any],
    features: TokenFeatures,
    start: TokenFeatures | None,
    work: Path,
    groups: list[str] | None,
    quotas: dict[str, float],
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
    key = hashlib.sha256(json.dumps([largest, sorted(quotas.items()), given["stop"], given["seen"]]).encode()).hexdigest()[
        :8
    ]
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


def by_group(selection: Selection, groups: list[str], features: TokenFeatures, quotas: dict[str, float]) -> dict:
    """Of each group its share of the pool's tokens, what was asked for, what it got, and what it is short of, in tokens."""
    lengths, chosen = features.lengths.numpy(), selection.indices.tolist()
    found = {}
    for label in sorted(set(groups)):
        members = [i for i, group in enumerate(groups) if group == label]
        picked = [i for i in chosen if groups[i] == label]
        spent, asked = float(lengths[picked].sum()), quotas.get(label)
        wanted = 0.0 if asked is None else asked * float(selection.costs.sum())
        rest = [i for i in members if i not in set(picked)]
        within = max(wanted - spent, 0.0)
        one = float(lengths[rest].max()) if rest else 0.0  # a quota is met to one example
        found[label] = {
            "pool": float(lengths[members].sum()) / max(float(lengths.sum()), 1.0),
            "asked": asked,
            "got": spent / max(float(selection.costs.sum()), 1.0),
            "rows": len(picked),
            "missing": within if within > one or (within > 0 and not rest) else 0.0,
        }
    return found
