"""Verbs that choose nothing: `audit`, `extract`, and `notebook`."""

import json
from pathlib import Path
from typing import Any

from fisherlib.cli.pool import apart, candidates, counts, extracted, model_words, opened, summed_up, write_reasons
from fisherlib.cli.session import FAILED, USAGE, Session, Stop
from fisherlib.model import context_length, load_tokenizer
from fisherlib.text import MaskAudit


def audit_command(session: Session, given: dict[str, Any]) -> None:
    """Which tokens of every row count, and which rows cannot be used, without the weights of the model."""
    if given["out"]:
        apart(given, Path(given["out"]))
    with session.step("load the tokenizer"):
        tokenizer, most = load_tokenizer(given["model"])
    found = candidates(session, given, tokenizer, most, strict=False, keep=False)
    if given["show"] > 0:
        shown = MaskAudit(found.rows.select(range(min(given["show"], len(found.rows)))), tokenizer, show=given["show"])
        for text in repr(shown).split("\n\n")[:-1]:
            session.result(text)
    session.result(summed_up(found))
    share = sum(found.audit.responses) / max(sum(found.audit.lengths), 1)
    session.result(f"tokens: {sum(found.audit.responses):,} of {sum(found.audit.lengths):,} count ({share:.0%})")
    for one in found.reasons[:10]:
        where = f"{one['file']} line {one['line']}" if one["line"] else f"row {one['row']}"
        session.hint(f"{where}: {one['code']}: {one['reason']}")
    if given["out"] and found.reasons:
        write_reasons(found, Path(given["out"]))
    if found.left_out:
        more = f"all of them are in {given['out']}" if given["out"] else "--out FILE lists all of them"
        session.partial.append(f"{found.left_out:,} of {found.read:,} rows cannot be used; {more}")
    session.event(
        "summary",
        rows=len(found.rows),
        of_rows=found.read,
        tokens=sum(found.audit.lengths),
        response_tokens=sum(found.audit.responses),
        reasons=counts(found),
    )


def extract_command(session: Session, given: dict[str, Any]) -> None:
    """The features of all rows that can be used, in a folder."""
    out = Path(given["out"])
    apart(given, out, *(out.with_name(f"{out.name}.{ending}") for ending in ("run.json", "skipped.jsonl")))
    session.keep_in(out.with_name(f"{out.name}.run.json"))
    model, tokenizer = opened(session, given)
    found = candidates(session, given, tokenizer, context_length(model))
    session.result(summed_up(found))
    features = extracted(session, given, model, tokenizer, found, out)
    write_reasons(found, out.with_name(f"{out.name}.skipped.jsonl"))
    session.said["fingerprints"] = {"data": found.data, "model": model_words(model, features)}
    size = sum(path.stat().st_size for path in out.iterdir())
    session.result(f"features: {out}: {len(features):,} rows, {len(features.values):,} tokens, {size / 1e9:.2f} GB")
    session.said["got"] = {"out": str(out), "rows": len(features), "tokens": len(features.values), "bytes": size}
    if found.left_out:
        session.partial.append(f"skipped {found.left_out:,} of {found.read:,} rows: see {out.name}.skipped.jsonl")
    session.event("summary", **session.said["got"])


def notebook_command(session: Session, given: dict[str, Any]) -> None:
    """Run a notebook of the course, as `python -m fisherlib.notebook run` does."""
    from fisherlib.course.notebook.__main__ import main

    rest, call = list(given["parameters"]), ["run", given["name"]]
    while rest:
        if rest[0] not in ("-p", "--parameter") or len(rest) < 3:
            raise Stop(USAGE, f"expected -p NAME VALUE for each parameter, got {' '.join(rest)}: change it")
        call += ["-p", rest[1], rest[2]]
        rest = rest[3:]
    if given["output"]:
        call += ["--output", given["output"]]
    try:
        main(call)
    except SystemExit as ended:
        if ended.code in (130, 143):
            raise KeyboardInterrupt from ended
        if ended.code not in (0, None):
            words = str(ended.code).removeprefix("fisherlib: ")
            raise Stop(FAILED, words if isinstance(ended.code, str) else f"the notebook ended with {words}") from ended


def read_json(path: Path, what: str) -> dict:
    """Raises `Stop` for a file that holds none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Stop(FAILED, f"expected {what}, could not read {path} ({error}): check the path") from None
    if not isinstance(found, dict):
        raise Stop(FAILED, f"expected {what}, got something else in {path}: check the path")
    return found
