"""`fisherlib select`: from files to a subset, a manifest and a record."""

import hashlib
import json
import math
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from fisherlib._files import explained, plain, replacing
from fisherlib.cli.methods import WHY, beside, groups_of, outputs, selected
from fisherlib.cli.pool import (
    Candidates,
    apart,
    candidates,
    counts,
    extracted,
    model_words,
    opened,
    summed_up,
    write_reasons,
)
from fisherlib.cli.quotas import POOL, by_group, of_groups, quotas_of
from fisherlib.cli.quotas import words as asked_words
from fisherlib.cli.session import FAILED, FOREIGN, USAGE, Session, Stop, sweep
from fisherlib.features import TokenFeatures
from fisherlib.greedy import Selection, explain, quota_price, quota_prices, with_seen
from fisherlib.model import context_length, load_tokenizer
from fisherlib.text import TRAINERS, as_stored, hand_over


def check(given: dict[str, Any]) -> None:
    """Raise `Stop` for options that do not go together, or an output that is not ours to replace."""
    out = Path(given["out"])
    for name, fits, words in (
        ("tokens", given["tokens"] and all(0 < budget < math.inf for budget in given["tokens"]), "above 0"),
        ("seed", 0 <= given["seed"] < 2**32, f"from 0 to {2**32 - 1}"),
        ("stop", given["stop"] is None or 0 < given["stop"] < 1, "between 0 and 1"),
        ("memory", given["memory"] is None or 0 < given["memory"] < math.inf, "above 0, in gigabytes"),
    ):
        if not fits:
            raise Stop(USAGE, f"expected --{name} {words}, got {given[name]}: change it")
    if given["method"] not in WHY:
        raise Stop(USAGE, f"expected --method {', '.join(WHY)}, got {given['method']!r}: change it")
    if out.suffix.lower() not in (".jsonl", ".json", ".ndjson"):
        raise Stop(USAGE, f"expected --out to be a .jsonl file, got {str(out)!r}: rename it")
    if unknown := [trainer for trainer in given["trainers"] if trainer not in TRAINERS]:
        raise Stop(USAGE, f"expected --for {', '.join(TRAINERS)}, got {unknown[0]!r}: change it")
    quotas_of(given)
    if given["quota"] and not given["group_by"]:
        raise Stop(USAGE, "expected --group-by COLUMN beside --quota: name the column that the groups are in")
    for name, why in (("stop", "it ends when gains are small"), ("seen", "it is what gains are counted from")):
        if given[name] is not None and given["method"] != "fisher":
            raise Stop(USAGE, f"expected --{name} with --method fisher, got {given['method']}: {why}")
    endings = ("manifest.json", "run.json", "reasons.jsonl", "skipped.jsonl", *(f"{name}.jsonl" for name in TRAINERS))
    written_to = [path for _, path in outputs(given)]
    apart(given, *written_to, *(beside(path, ending) for path in (out, *written_to) for ending in endings))
    for path in written_to:
        if path.exists() and not path.is_file():
            raise Stop(USAGE, f"expected --out to be a file, got {path}, a folder or a device: rename it")
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
    sweep(work, ".picks-")
    session.result(f"method: {given['method']}: {WHY[given['method']]}")
    session.hint(f"model: {given['model']}, whose tokens, template and features are used (--model for another)")
    with session.step("load the tokenizer"):
        tokenizer, most = load_tokenizer(given["model"])
    found = candidates(session, given, tokenizer, most)
    session.said["fingerprints"] = {"data": found.data}
    if given.get("plan"):
        check_plan(Path(given["plan"]), found)
    session.said["skipped"] = counts(found)
    session.result(summed_up(found))
    check_rows(given, found)
    model, tokenizer = opened(session, given)
    features = extracted(session, given, model, tokenizer, found, work / "features")
    write_reasons(found, beside(out, "skipped.jsonl"))  # now that the files are known to be ours
    session.said["fingerprints"]["model"] = model_words(model, features)
    start = seen(session, given, model, tokenizer, work)
    made = []
    for budget, path, selection in selected(session, given, found, features, start, work):
        words = model_words(model, features)
        made.append(written(session, given, found, features, start, budget, path, selection, words))
    session.said["got"] = made if len(made) > 1 else made[0]
    if given.get("plan"):
        promised = json.loads(Path(given["plan"]).read_text())["forecast"]["seconds"]["all"]
        session.result(f"time: {session.spent():,.0f} s; the plan said {promised:,.0f} s")
    if found.left_out:
        session.partial.append(f"skipped {found.left_out:,} of {found.read:,} rows: see {beside(out, 'skipped.jsonl')}")
    session.event("summary", **session.said["got"] if len(made) == 1 else {"budgets": made})


def check_rows(given: dict[str, Any], found: Candidates) -> None:
    """Raise `Stop`, before the model runs, for groups that are not there or a budget beyond all rows."""
    groups_of(given, found.rows)
    lengths = [found.audit.responses[i] for i in found.audit.usable]
    most, least = sum(lengths), min(lengths)
    if min(given["tokens"]) < least:
        asked = min(given["tokens"])
        raise Stop(FAILED, f"expected --tokens of at least {least:,}, the shortest response, got {asked:,.15g}: raise it")
    if max(given["tokens"]) > most:
        raise Stop(
            FAILED,
            f"expected --tokens of at most {most:,}, all that there are, got {max(given['tokens']):,.15g}: lower it",
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


def written(
    session: Session,
    given: dict[str, Any],
    found: Candidates,
    features: TokenFeatures,
    start: TokenFeatures | None,
    budget: float,
    path: Path,
    selection: Selection,
    model: dict,
) -> dict:
    """Write a subset and its manifest. Returns what was asked for and what it is."""
    groups = groups_of(given, found.rows)
    with session.step(f"write {path.name}"), explained(path):
        selection.to_jsonl(found.rows, path)
        subset = hashlib.sha256(path.read_bytes()).hexdigest()
        spent = float(selection.costs.sum())
        got: dict[str, Any] = {
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
            "folder": os.getcwd(),
            "data": found.data,
            "model": model,
            "versions": session.said["versions"],
            "skipped": counts(found),
            "seen": session.said.get("seen"),
            "subset": {"sha256": subset, "rows": len(selection), "tokens": spent, "asked": budget},
        }
        if selection.stopped is not None:
            got["stopped"] = selection.stopped
        if given["method"] == "fisher" and given["quota"]:
            options: dict[str, Any] = {"device": given["device"], "memory": given["memory"], "progress": session.progress}
            if start is not None:
                options["start"] = start
            if given["quota"] == [POOL]:  # once, and not once for each group
                got["prices"] = {POOL: quota_price(features, selection, **options)}
            else:
                got["prices"] = quota_prices(features, selection, groups or [], **options)
            run["prices"] = got["prices"]
        if groups is not None:
            quotas = of_groups(quotas_of(given), groups, features.lengths.numpy())
            got["groups"] = run["groups"] = by_group(selection, groups, features, quotas, budget)
        replace(selection, settings=selection.settings | {"run": run}).save(beside(path, "manifest.json"))
    for trainer in given["trainers"]:
        chat = model["chat_template"] is not None
        for file in hand_over(selection.to_dataset(found.rows), path.parent, trainer, name=path.stem, chat=chat):
            session.result(f"for {trainer}: {file}")
    if given["reasons"]:
        with session.step(f"reasons of {path.name}"):
            prior = with_seen(start) if given["method"] == "fisher" and start is not None else None
            got["reasons"] = write_why(given, features, selection, groups, prior, beside(path, "reasons.jsonl"))
    session.result(f"subset: {path}: {len(selection):,} rows, {spent:,.0f} of {budget:,.15g} response tokens")
    if selection.stopped is not None:
        session.result(f"stopped: {selection.stopped}")
    for name, nats in got.get("prices", {}).items():
        more = "it costs" if nats >= 0 else "by chance greedy finds more with it than without:"
        session.result(f"price: the quota of {name}: {more} {abs(nats):,.2f} of {selection.objective:,.1f} nats")
    for name, group in got.get("groups", {}).items():
        session.result(f"  {name}: {group['got']:.1%} of the tokens{asked_words(group)}; {group['pool']:.1%} of the pool")
        if group["missing"] > 0:
            session.partial.append(f"the quota of {name} is short of {group['missing']:,.0f} tokens")
        if group["over"] > 0:
            session.partial.append(f"the quota of {name} is passed by {group['over']:,.0f} tokens")
    session.hint(f"what it is made of: {beside(path, 'manifest.json')}; how it went: {session.record}")
    return got


def write_why(
    given: dict[str, Any],
    features: TokenFeatures,
    selection: Selection,
    groups: list[str] | None,
    prior: Any,
    path: Path,
) -> dict[str, int]:
    """Of each row why it was chosen, or why not, one line of JSON each: the chosen first, as they were picked.

    Returns how many rows have each reason.
    """
    why = explain(features, selection, groups=groups, prior=prior, device=given["device"], memory=given["memory"])
    of = as_stored(features.provenance) if features.provenance is not None else None
    with explained(path), replacing(path) as scratch, scratch.open("w", encoding="utf-8") as file:
        for one in (*why.chosen, *why.rejected):
            where = {} if of is None else {name: of[one["index"]][name] for name in ("file", "line", "id")}
            file.write(json.dumps(where | one, ensure_ascii=False, default=plain) + "\n")
    return {"chosen": len(why.chosen), **Counter(one["reason"] for one in why.rejected)}
