"""Verbs that look at a run that was: `status`, `report` and `replay`."""

import hashlib
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fisherlib._files import explained
from fisherlib.cli.choose import seen, work_folder
from fisherlib.cli.look import read_json
from fisherlib.cli.methods import beside, groups_of, selected
from fisherlib.cli.pool import candidates, extracted, model_words, opened
from fisherlib.cli.session import FAILED, USAGE, Session, Stop, alive
from fisherlib.features import TokenFeatures
from fisherlib.greedy import Reasons, Selection
from fisherlib.model import load_tokenizer
from fisherlib.text import check_same_rows

_CLOSE = 1e-9  # relative: gains of one selection on one machine, in another order of summation


def loaded(path: Path) -> tuple[Selection, dict]:
    """A selection, and the run that made it. Raises `Stop` for a manifest that this command did not write."""
    selection = Selection.load(path)
    if "run" not in selection.settings:
        raise Stop(FAILED, f"expected a manifest of `fisherlib select`, got one of Python in {path}: use Selection.load")
    return selection, selection.settings["run"]


def of_run(manifest: Path, ending: str) -> Path:
    """Another file of the same run."""
    return manifest.with_name(f"{manifest.name.removesuffix('.manifest.json')}.{ending}")


def reasons_in(path: Path, selection: Selection, most: int | None = None) -> list[dict]:
    """The first lines of a file of reasons, or all. Raises `Stop` if they are not those of the selection."""
    with path.open(encoding="utf-8") as file:
        try:
            lines = [json.loads(line) for line in itertools.islice(file, most)]
            fits = [one["index"] for one in lines][: len(selection)] == selection.indices.tolist()
        except (ValueError, TypeError, KeyError):
            fits = False
    if not fits:
        raise Stop(FAILED, f"expected the reasons of this selection in {path}, got others: run the command again")
    return lines


# --- status ------------------------------------------------------------------------------------------------------------


def status_command(session: Session, given: dict[str, Any]) -> None:
    """How far a run is, or how it ended."""
    out = Path(given["out"])
    run = read_json(record := _record_of(out), "the record of a run")
    kinds = {"state": str, "command": str, "pid": int, "steps": list, "arguments": dict}
    if not all(isinstance(run.get(name), kind) for name, kind in kinds.items()):
        raise Stop(FAILED, f"expected the record of a run, got something else in {record}: check the path")
    state, steps = run["state"], run["steps"]
    if state == "running" and not alive(run["pid"]):
        state = "killed: the same command goes on from what is kept"
    session.result(f"state: {state}" + (f": {run['error']}" if run.get("error") else ""))
    for step in steps:
        spent = "begun" if step["seconds"] is None else f"{step['seconds']:,.1f} s"
        session.result(f"  {step['name']}: {spent}")
    progress = None
    folder = _features_of(run)
    if folder is not None and (folder / "info.json").exists():
        info = read_json(folder / "info.json", "a folder of features")
        progress = {"done": info["done"], "examples": info["examples"]}
        session.result(f"features: {info['done']:,} of {info['examples']:,} rows")
    session.event("summary", state=state, steps=steps, features=progress, got=run.get("got"), error=run.get("error"))


def _record_of(out: Path) -> Path:
    """The record of the run that wrote a subset, one of several (subset.300.jsonl) or a folder of features."""
    if out.name.endswith("run.json"):
        return out
    record, whole = beside(out, "run.json"), out.with_name(f"{Path(out.stem).stem}{out.suffix}")
    others = [out.with_name(f"{out.name}.run.json"), *([beside(whole, "run.json")] if out.exists() else [])]
    return next((path for path in (record, *others) if path.exists()), record)


def _features_of(run: dict) -> Path | None:
    then = Path(run.get("folder", "."))
    if run["command"] == "select":
        return then / work_folder(run["arguments"]) / "features"
    return then / run["arguments"]["out"] if run["command"] == "extract" else None


# --- report ------------------------------------------------------------------------------------------------------------


def report_command(session: Session, given: dict[str, Any]) -> None:
    """One page about a subset."""
    from fisherlib.report import report

    manifest = Path(given["manifest"])
    out = Path(given["out"] or of_run(manifest, "html"))
    if out.suffix.lower() not in (".html", ".htm"):
        raise Stop(USAGE, f"expected --out to be a .html file, got {str(out)!r}: rename it")
    selection, run = loaded(manifest)
    command = as_then(run, manifest)
    tokenizer, most = load_tokenizer(command["model"])
    found = candidates(session, command, tokenizer, most, keep=False)
    more: dict[str, Any] = {"groups": groups_of(command, found.rows)}
    if (folder := work_folder(command) / "features").is_dir():
        more["features"] = TokenFeatures.load(folder)
        check_same_rows(found.rows, more["features"].provenance)
    else:
        session.hint(f"without features, which were in {folder}: lengths are in letters")
    if (file := of_run(manifest, "reasons.jsonl")).exists():
        lines = reasons_in(file, selection)
        more["reasons"] = Reasons(lines[: len(selection)], lines[len(selection) :])
        more |= {"tokenizer": tokenizer, "turns": command["turns"], "max_tokens": most}
    if command["seen"]:
        more["seen"] = candidates(session, command | {"data": [command["seen"]]}, tokenizer, most, keep=False).rows
    with session.step("report"), explained(out):
        report(selection, found.rows, out=out, **more)
    session.result(f"report: {out}")
    session.event("summary", out=str(out))


# --- replay ------------------------------------------------------------------------------------------------------------


def replay_command(session: Session, given: dict[str, Any]) -> None:
    """Do a run again and compare. Raises `Stop` with what differs."""
    manifest = Path(given["manifest"])
    selection, run = loaded(manifest)
    command = as_then(run, manifest) | {"overwrite": True}
    with tempfile.TemporaryDirectory(prefix="fisherlib-replay-") as scratch:
        work = Path(given["work"]) if given["work"] else Path(scratch) / "work"
        tokenizer, most = load_tokenizer(command["model"])
        found = candidates(session, command, tokenizer, most)
        differences = []
        if found.data["rows"] != run["data"]["rows"]:
            differences.append(f"the rows are others ({found.data['count']:,} here, {run['data']['count']:,} then)")
        model, tokenizer = opened(session, command)
        features = extracted(session, command, model, tokenizer, found, work / "features")
        start = seen(session, command, model, tokenizer, work)
        if run.get("seen") and session.said["seen"]["rows"] != run["seen"]["rows"]:
            differences.append("the rows that were seen are others")
        now, then = model_words(model, features), run["model"]
        differences += [
            f"{name} ({then[name]!s:.12} then, {now[name]!s:.12} now)" for name in now if now[name] != then.get(name)
        ]
        asked = run["subset"]["asked"]
        (again,) = (
            s for budget, _, s in selected(session, command, found, features, start, Path(scratch)) if budget == asked
        )
        out = Path(scratch) / "subset.jsonl"
        again.to_jsonl(found.rows, out)
        same = hashlib.sha256(out.read_bytes()).hexdigest() == run["subset"]["sha256"]
    notes = [f"{name} {then} then, {session.said['versions'].get(name)} now" for name, then in _changed(run, session)]
    if len(again) != len(selection) or not np.array_equal(again.indices, selection.indices):
        pairs = zip(again.indices, selection.indices, strict=False)
        first = next((k for k, (new, old) in enumerate(pairs) if new != old), min(len(again), len(selection)))
        differences.append(f"the picks are others, from pick {first + 1} on")
    elif not np.allclose(again.gains, selection.gains, rtol=_CLOSE, atol=_CLOSE):
        differences.append(f"gains differ by up to {np.abs(again.gains - selection.gains).max():.2g} nats")
    session.said["got"] = {"same_bytes": same, "differences": differences, "versions": notes}
    session.event("summary", **session.said["got"])
    if same:
        session.result(f"replay: the same {len(again):,} rows, byte for byte (SHA-256 {run['subset']['sha256'][:12]})")
        for text in differences:
            session.hint(f"though {text}")
        return
    raise Stop(
        FAILED, f"expected the same bytes, got others: {'; '.join([*differences, *notes]) or 'the lines were edited'}"
    )


def _changed(run: dict, session: Session) -> list[tuple[str, str]]:
    import importlib.metadata

    for name in run["versions"]:
        if name != "python":
            session.said["versions"][name] = importlib.metadata.version(name)
    return [(name, then) for name, then in run["versions"].items() if session.said["versions"].get(name) != then]


def as_then(run: dict, manifest: Path, *, data: bool = True) -> dict[str, Any]:
    """The arguments of a run, with paths that hold here: it may have been run in another folder, or been moved since."""
    command = run["command"] | {"out": str(of_run(manifest, Path(run["command"]["out"]).suffix.removeprefix(".")))}
    work, then = work_folder(run["command"]), Path(run.get("folder", "."))
    for name, said, places in (
        ("work", work, (manifest.parent / work.name, then / work)),
        ("model", command["model"], (then / command["model"], manifest.parent / command["model"])),
        ("seen", command["seen"], (then / (command["seen"] or ""), manifest.parent / (command["seen"] or ""))),
    ):
        if said is not None:
            command[name] = str(next((path for path in places if path.exists()), said))
    return command | ({"data": _found_again(run, manifest)} if data else {})


def _found_again(run: dict, manifest: Path) -> list[str]:
    """The files of a run: as they were named, where they were, or beside the manifest. Raises `Stop` for an altered one."""
    files = run["data"]["files"]
    if not files:
        return run["command"]["data"]
    found = []
    for one in files:
        path = Path(one["file"])
        here = [candidate for candidate in (path, Path(path.name), manifest.parent / path.name) if candidate.is_file()]
        if not here:
            raise Stop(FAILED, f"expected {path}, which the subset was chosen from, got no such file: put it there")
        same = [other for other in here if hashlib.sha256(other.read_bytes()).hexdigest() == one["sha256"]]
        if not same:
            raise Stop(
                FAILED, f"expected {here[0]} as it was (SHA-256 {one['sha256'][:12]}), got another: put the old one there"
            )
        found.append(str(same[0]))
    return found
