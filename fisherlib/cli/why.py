"""`fisherlib explain`: why a row was chosen, and which of its tokens carried the gain."""

import hashlib
from pathlib import Path
from typing import Any

from fisherlib._files import first_line
from fisherlib.assets import AssetError
from fisherlib.cli.back import as_then, loaded, of_run, reasons_in
from fisherlib.cli.pool import parsed_columns
from fisherlib.cli.session import FAILED, Session, Stop
from fisherlib.model import load_tokenizer
from fisherlib.text import encode, heat, load_pool


def explain_command(session: Session, given: dict[str, Any]) -> None:
    """Why one row was chosen, and which of its tokens carried the gain."""
    manifest = Path(given["manifest"])
    selection, run = loaded(manifest)
    if not 1 <= given["pick"] <= len(selection):
        raise Stop(FAILED, f"expected --pick from 1 to {len(selection)}, got {given['pick']}: change it")
    subset = of_run(manifest, Path(run["command"]["out"]).suffix.removeprefix("."))
    reasons = of_run(manifest, "reasons.jsonl")
    if not reasons.exists():
        raise Stop(FAILED, f"expected {reasons}, which --no-reasons leaves out: run the command again without it")
    lines = reasons_in(reasons, selection, len(selection))
    if subset.exists() and hashlib.sha256(subset.read_bytes()).hexdigest() != run["subset"]["sha256"]:
        raise Stop(FAILED, f"expected {subset} as it was written, got another: run the command again")
    why = lines[given["pick"] - 1]
    earlier = {one["index"]: one for one in lines[: given["pick"] - 1]}
    session.result(f"pick {why['pick']} of {len(selection)}: {_place(why)}")
    session.result(
        f"gain: {why['gain']:.3f} nats, {why['gain_per_token']:.4f} a token; first of all it would have added "
        f"{why['first_gain']:.3f} (rank {why['rank']:,} of {selection.pool_size:,}); earlier picks took {why['taken']:.0%}"
    )
    if why.get("nearest") in earlier:
        near = earlier[why["nearest"]]
        session.result(f"nearest earlier pick: {near['pick']}: {_place(near)}, cosine {why['cosine']:.2f}")
    try:
        spans = _heat(session, run, manifest, subset, why)
    except (ValueError, OSError, AssetError) as error:
        spans = [(f"token {k + 1}", gain) for k, gain in enumerate(why["tokens"])]
        session.hint(f"without the text of the tokens, by number: {first_line(error)}")
    else:
        session.result(f"tokens: {marked(spans)}")
        gains = [gain for _, gain in spans if gain is not None]
        session.hint(
            f"marked: ⟦the highest quarter⟧ and [the next] of what a token added, given those before it: "
            f"{min(gains, default=0):.2f} to {max(gains, default=0):.2f} nats; together the gain"
        )
    top = sorted(((gain, text) for text, gain in spans if gain is not None), key=lambda pair: -pair[0])[:5]
    session.result("most: " + ", ".join(f"{text!r} {gain:.2f}" for gain, text in top))
    session.event("summary", **why, texts=[text for text, gain in spans if gain is not None])


def _heat(session: Session, run: dict, manifest: Path, subset: Path, why: dict) -> list[tuple[str, float | None]]:
    """The text of a pick, with what each part added. Raises if the subset or the tokenizer is not at hand."""
    command = as_then(run, manifest, data=False)
    tokenizer, most = load_tokenizer(command["model"])
    columns = parsed_columns(command["columns"])
    rows = load_pool(subset, test_fraction=0, shape=command["shape"], columns=columns).train
    (example,) = encode(
        rows.select([why["pick"] - 1]), tokenizer, turns=command["turns"], too_long="truncate", max_tokens=most
    )
    return heat(example, tokenizer, why["tokens"])


def marked(spans: list[tuple[str, float | None]]) -> str:
    """The answers in one line: ⟦what brought the most⟧, [what brought more], the rest. What stands between them is cut out.

    The marks divide the way from the least to the most in four: in features of many dimensions every token brings a lot.
    """
    gains = [gain for _, gain in spans if gain is not None]
    low, high = min(gains, default=0.0), max(gains, default=0.0)
    said, before = "", None
    for text, gain in spans:
        if gain is not None:
            part = (gain - low) / (high - low) if high > low else 0.0
            left, right = ("⟦", "⟧") if part > 0.75 else ("[", "]") if part > 0.5 else ("", "")
            said += (" … " if said and before is None else "") + f"{left}{text}{right}"
        before = gain
    return said.replace("\r", "").replace("\n", "⏎")


def _place(one: dict) -> str:
    known = f", id {one['id']}" if one.get("id") else ""
    return f"{Path(one['file']).name} line {one['line']}{known}" if one.get("file") else f"row {one['index']}{known}"
