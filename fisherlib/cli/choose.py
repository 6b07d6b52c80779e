"""`fisherlib select`: from files to a subset, a manifest and a record."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from fisherlib import selectors
from fisherlib._files import plain, replacing
from fisherlib.cli.pool import Candidates, candidates, counts, extracted, model_words, opened, summed_up, write_reasons
from fisherlib.cli.session import FAILED, FOREIGN, USAGE, Session, Stop
from fisherlib.features import TokenFeatures
from fisherlib.greedy import Selection, explain, nested, select
from fisherlib.model import context_length, load_tokenizer
from fisherlib.text import TRAINERS, as_stored, hand_over

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
    return [(budget, out.with_name(f"{out.stem}.{budget:g}{out.suffix}")) for budget in budgets]


def check(given: dict[str, Any]) -> None:
    """Raise `Stop` for options that do not go together, or an output that is not ours to replace."""
    out = Path(given["out"])
    if not given["tokens"] or min(given["tokens"]) <= 0:
        raise Stop(USAGE, "expected --tokens above 0, the budget of response tokens: name one")
    if given["method"] not in WHY:
        raise Stop(USAGE, f"expected --method {', '.join(WHY)}, got {given['method']!r}: change it")
    if out.suffix.lower() not in (".jsonl", ".json", ".ndjson"):
        raise Stop(USAGE, f"expected --out to be a .jsonl file, got {str(out)!r}: rename it")
    if unknown := [trainer for trainer in given["trainers"] if trainer not in TRAINERS]:
        raise Stop(USAGE, f"expected --for {', '.join(TRAINERS)}, got {unknown[0]!r}: change it")
    quotas_of(given)
    if given["quota"] and not given["group_by"]:
        raise Stop(USAGE, "expected --group-by COLUMN beside --quota: name the column that the groups are in")
    if given["stop"] is not None and given["method"] != "fisher":
        raise Stop(USAGE, f"expected --stop with --method fisher, got {given['method']}: it ends when gains are small")
    for _, path in outputs(given):
        ours = beside(path, "manifest.json").exists() or beside(out, "run.json").exists()
        if path.exists() and not ours and not given["overwrite"]:
            raise Stop(
                FOREIGN, f"expected a new file as --out, got {path}, which no run of ours wrote: --overwrite, or rename"
            )


def work_folder(given: dict[str, Any]) -> Path:
    out = Path(given["out"])
    return Path(given["work"]) if given["work"] else out.with_name(f"{out.stem}.work")


def select_command(session: Session, given: dict[str, Any]) -> None:
    """The whole of `fisherlib select`."""
    check(given)
    out, work = Path(given["out"]), work_folder(given)
    session.keep_in(beside(out, "run.json"))
    session.result(f"method: {given['method']}: {WHY[given['method']]}")
    with session.step("load the tokenizer"):
        tokenizer, most = load_tokenizer(given["model"])
    found = candidates(session, given, tokenizer, most)
    write_reasons(found, beside(out, "skipped.jsonl"))
    session.said["fingerprints"] = {"data": found.data}
    if given.get("plan"):
        check_plan(Path(given["plan"]), found)
    session.said["skipped"] = counts(found)
    session.result(summed_up(found))
    check_rows(given, found)
    model, tokenizer = opened(session, given)
    features = extracted(session, given, model, tokenizer, found, work / "features")
    session.said["fingerprints"]["model"] = model_words(model, features)
    start = seen(session, given, model, tokenizer, work)
    made = []
    for budget, path, selection in selected(session, given, found, features, start, work):
        made.append(written(session, given, found, features, budget, path, selection, model_words(model, features)))
    session.said["got"] = made if len(made) > 1 else made[0]
    if found.left_out:
        session.partial.append(f"{found.left_out:,} rows were skipped: see {beside(out, 'skipped.jsonl')}")
    session.event("summary", **session.said["got"] if len(made) == 1 else {"budgets": made})


def check_rows(given: dict[str, Any], found: Candidates) -> None:
    """Raise `Stop`, before the model runs, for groups that are not there or a budget beyond all rows."""
    groups_of(given, found.rows)
    most = sum(sum(found.audit.encoded[i].is_response) for i in found.audit.usable)
    if max(given["tokens"]) > most:
        raise Stop(
            FAILED, f"expected --tokens of at most {most:,}, all that there are, got {max(given['tokens']):,g}: lower it"
        )


def check_plan(plan: Path, found: Candidates) -> None:
    """Raise `Stop` if the rows are not those that the plan was made for."""
    if json.loads(plan.read_text())["data"]["rows"] != found.data["rows"]:
        raise Stop(FOREIGN, f"expected the rows that {plan} was made for, got others: run `fisherlib forecast` again")


def seen(session: Session, given: dict[str, Any], model: Any, tokenizer: Any, work: Path) -> TokenFeatures | None:
    """The features of what was trained on already."""
    if not given["seen"]:
        return None
    old = candidates(session, given | {"data": [given["seen"]]}, tokenizer, context_length(model))
    session.said["seen"] = old.data
    return extracted(session, given, model, tokenizer, old, work / "seen")


def quotas_of(given: dict[str, Any]) -> dict[str, float]:
    """`code=0.2` as a dict. Raises `Stop`."""
    found = {}
    for text in given["quota"]:
        name, equals, share = text.rpartition("=")
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
    if name not in rows.column_names:
        there = [column for column in rows.column_names if not column.startswith("_")]
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
        with session.step(f"select {budget:g} tokens"):
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
                selection = selectors.recipe(found.rows, features, **call, **({"groups": groups} if groups else {}))
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
    asked: dict[str, Any] = {"rule": "best", "device": given["device"], "progress": session.progress}
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
            with session.step(f"select {budget:g} tokens"):
                asked["checkpoint"] = work / f"picks-{key}-{budget:g}.json"
                made.append((budget, path, select(features, tokens=budget, **asked)))
        return made
    with session.step(f"select {largest:g} tokens"):
        order = nested(features, tokens=[budget for budget, _ in plans], **asked)
    session.result(f"budgets: each begins the next larger one, by rule {order[0].settings['rule']} and without exchanges")
    return [(budget, path, selection) for (budget, path), selection in zip(plans, order, strict=True)]


def written(
    session: Session,
    given: dict[str, Any],
    found: Candidates,
    features: TokenFeatures,
    budget: float,
    path: Path,
    selection: Selection,
    model: dict,
) -> dict:
    """Write a subset and its manifest. Returns what was asked for and what it is."""
    groups = groups_of(given, found.rows)
    with session.step(f"write {path.name}"):
        selection.to_jsonl(found.rows, path)
        subset = hashlib.sha256(path.read_bytes()).hexdigest()
        spent = float(selection.costs.sum())
        got = {
            "out": str(path),
            "asked": {"tokens": budget},
            "tokens": spent,
            "rows": len(selection),
            "of_rows": len(found.rows),
            "of_tokens": int(features.lengths.sum()),
            "information": selection.objective,
            "certificate": selection.certificate,
            "sha256": subset,
        }
        run = {
            "command": given,
            "data": found.data,
            "model": model,
            "versions": session.said["versions"],
            "skipped": counts(found),
            "subset": {"sha256": subset, "rows": len(selection), "tokens": spent, "asked": budget},
        }
        if groups is not None:
            got["groups"] = run["groups"] = by_group(selection, groups, features, quotas_of(given))
        replace(selection, settings=selection.settings | {"run": run}).save(beside(path, "manifest.json"))
    for trainer in given["trainers"]:
        chat = model["chat_template"] is not None
        for file in hand_over(selection.to_dataset(found.rows), path.parent, trainer, name=path.stem, chat=chat):
            session.result(f"for {trainer}: {file}")
    if given["reasons"]:
        with session.step(f"reasons of {path.name}"):
            got["reasons"] = write_why(given, features, selection, groups, beside(path, "reasons.jsonl"))
    session.result(f"subset: {path}: {len(selection):,} rows, {spent:,.0f} of {budget:,g} response tokens")
    for name, group in got.get("groups", {}).items():
        asked = "" if group["asked"] is None else f", asked for {group['asked']:.1%}"
        session.result(f"  {name}: {group['got']:.1%} of the tokens{asked}; {group['pool']:.1%} of the pool")
        if group["asked"] is not None and group["missing"] > 0:
            session.partial.append(f"the quota of {name} is short of {group['missing']:,.0f} tokens")
    session.hint(f"what it is made of: {beside(path, 'manifest.json')}; how it went: {session.record}")
    return got


def write_why(
    given: dict[str, Any], features: TokenFeatures, selection: Selection, groups: list[str] | None, path: Path
) -> dict[str, int]:
    """Of each row why it was chosen, or why not, one line of JSON each: the chosen first, as they were picked.

    Returns how many rows have each reason.
    """
    why = explain(features, selection, groups=groups, device=given["device"], memory=given["memory"])
    of = as_stored(features.provenance) if features.provenance is not None else None
    with replacing(path) as scratch, scratch.open("w", encoding="utf-8") as file:
        for one in (*why.chosen, *why.rejected):
            where = {} if of is None else {name: of[one["index"]][name] for name in ("file", "line", "id")}
            file.write(json.dumps(where | one, ensure_ascii=False, default=plain) + "\n")
    return {"chosen": len(why.chosen), **Counter(one["reason"] for one in why.rejected)}


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
