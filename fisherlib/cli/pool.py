"""What is chosen from: the files with their fingerprints, the rows that can be used, the model, and the features."""

import hashlib
import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset

from fisherlib._device import is_accelerator, resolve
from fisherlib._files import explained, replacing
from fisherlib._version import __version__
from fisherlib.cli.session import FAILED, FOREIGN, NO_ROOM, UNUSABLE, USAGE, Session, Stop
from fisherlib.features import TokenFeatures, extract_features
from fisherlib.model import load_model, output_head, weights_of
from fisherlib.text import Audit, audit_rows, files_in, is_file, load_pool, provenance

_TOKEN_BYTES = 16  # of a token, beside its vector: weight, loss and label


@dataclass
class Candidates:
    """The rows that can be chosen, and what of the input cannot: `reasons`, of every row that is left out or cut."""

    rows: Dataset
    read: int
    data: dict
    audit: Audit
    reasons: list[dict] = field(default_factory=list)

    @property
    def left_out(self) -> int:
        return self.read - len(self.rows)


def parsed_columns(text: str | None) -> dict[str, str] | None:
    """`prompt=question,response=answer` as a dict. Raises `Stop`."""
    if not text:
        return None
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(ours.strip() and theirs.strip() for ours, _, theirs in pairs):
        raise Stop(USAGE, f"expected --columns like prompt=question,response=answer, got {text!r}: change it")
    named = [ours.strip() for ours, _, _ in pairs]
    if len(set(named)) < len(named):
        raise Stop(USAGE, f"expected one column for each of ours in --columns, got one twice in {text!r}: leave one out")
    return dict(zip(named, (theirs.strip() for _, _, theirs in pairs), strict=True))


def apart(given: dict[str, Any], *paths: Path) -> None:
    """Raise `Stop` for a file to write that would replace one of the data, or be read with them the next time."""
    sources = [*map(str, given["data"]), *([given["seen"]] if given.get("seen") else [])]
    files = {Path(name).resolve() for source in sources for name in ([source] if is_file(source) else files_in(source))}
    folders = {Path(source).resolve() for source in sources if os.path.isdir(source)}
    for path in paths:
        if path.resolve() in files:
            raise Stop(USAGE, f"expected to write to another file than the data, got {path}: rename --out")
        if path.resolve().parent in folders:
            raise Stop(
                USAGE, f"expected to write outside the folder of the data, which is read whole, got {path}: move --out"
            )


def fingerprint(sources: list[str], rows: Dataset) -> dict:
    """What the rows came from: of each file its SHA-256, and of all that is trained on one more."""
    files = [name for source in sources for name in ([source] if is_file(source) else files_in(source))]
    found = []
    for name in files:
        with Path(name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found.append({"file": str(Path(name).resolve()), "sha256": digest, "bytes": Path(name).stat().st_size})
    hashes = provenance(rows)["hash"][:]
    return {"files": found, "rows": hashlib.sha256("\n".join(hashes).encode()).hexdigest(), "count": len(rows)}


def candidates(
    session: Session, given: dict[str, Any], tokenizer: Any, most: int | None, *, strict: bool = True, keep: bool = True
) -> Candidates:
    """Read all rows, and leave out those that cannot be trained on, each with its reason. `keep`: for their features.

    Raises `Stop` if none is left, or, if `strict`, one that is too long while nobody said what to do with it.
    """
    sources = [str(source) for source in given["data"]]
    datasets.disable_progress_bars()  # they would write over ours
    with session.step("read"):
        try:
            pool = load_pool(
                sources if len(sources) > 1 else sources[0],
                test_fraction=0,
                shape=given["shape"],
                columns=parsed_columns(given["columns"]),
                bad_rows="skip",
            )
        except ValueError as error:
            if "can be used, got none" in str(error):
                said = str(error).replace("rename your columns", "name yours: --columns prompt=question,response=answer")
                raise Stop(UNUSABLE, said) from error
            raise
        rows = pool.train
        data = fingerprint(sources, rows)
    with session.step("mask audit"):
        audit = audit_rows(
            rows,
            tokenizer,
            max_tokens=most,
            turns=given["turns"],
            too_long=given["too_long"],
            keep=keep,
            progress=session.progress,
        )
    unread = [{"row": None, **one, "code": "not usable"} for one in pool.skipped]
    found = Candidates(rows.select(audit.usable), len(rows) + len(unread), data, audit, [*unread, *audit.reasons])
    if not len(found.rows):
        first = Counter(one["reason"] for one in found.reasons).most_common(1)[0][0]
        raise Stop(UNUSABLE, f"expected rows to learn from, got none of {found.read:,} that can be used: {first}")
    if strict and given["too_long"] == "error" and (long := [one for one in audit.reasons if one["code"] == "too long"]):
        where = ", ".join(_place(one) for one in long[:5])
        raise Stop(
            FAILED,
            f"expected rows of at most {most:,} tokens (the model's context), got {len(long):,} longer ones, first {where}: "
            "give --too-long drop or --too-long truncate",
        )
    return found


def _place(reason: dict) -> str:
    known = f" ({reason['id']})" if reason["id"] else ""
    return f"line {reason['line']}{known}" if reason["line"] else f"row {reason['row']}{known}"


def counts(found: Candidates) -> dict[str, int]:
    return dict(Counter(one["code"] for one in found.reasons))


def summed_up(found: Candidates) -> str:
    """The line about what is used of the input."""
    said = "; ".join(f"{count:,} {code}" for code, count in counts(found).items())
    return f"rows: {len(found.rows):,} of {found.read:,} can be used" + (f" ({said})" if said else "")


def write_reasons(found: Candidates, path: Path) -> None:
    """Of each row that was left out or cut its file, line, id and reason, one line of JSON each; no empty file."""
    if not found.reasons:
        path.unlink(missing_ok=True)
        return
    with explained(path), replacing(path) as scratch:
        scratch.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in found.reasons), encoding="utf-8")


# --- the model, and its features -----------------------------------------------------------------------------------------


def opened(session: Session, given: dict[str, Any]) -> tuple[Any, Any]:
    """The model and its tokenizer. Raises `Stop` if its weights are larger than the memory."""
    import psutil

    size, free = weights_of(given["model"]), psutil.virtual_memory().available
    if size is not None and size > free and not is_accelerator(resolve(given["device"])):
        raise Stop(
            NO_ROOM, f"expected {size / 1e9:,.1f} GB of memory for the weights, got {free / 1e9:,.1f} GB: a smaller model"
        )
    with session.step("load the model"):
        return load_model(given["model"], dtype=given["dtype"], device=given["device"])


def bytes_of(tokens: int, model: Any) -> int:
    """What the features of so many response tokens take on a disk."""
    head = output_head(model)
    half = model.device.type not in ("cpu", "mps") and model.dtype.itemsize == 2
    return tokens * ((head.weight.shape[1] + (head.bias is not None)) * (2 if half else 4) + _TOKEN_BYTES)


def extracted(
    session: Session, given: dict[str, Any], model: Any, tokenizer: Any, found: Candidates, folder: Path
) -> TokenFeatures:
    """The features of the candidates, in a folder that a second call opens. Raises `Stop` if they do not fit on the disk."""

    responses = sum(found.audit.responses[i] for i in found.audit.usable)
    needed = bytes_of(responses, model)
    with explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    there = sum(path.stat().st_size for path in folder.glob("*.bin")) if folder.is_dir() else 0
    free = shutil.disk_usage(folder.parent).free
    if needed - there > free:
        raise Stop(
            NO_ROOM,
            f"expected {needed / 1e9:,.1f} GB of free disk for the features in {folder}, got {free / 1e9:,.1f} GB: "
            "name a --work folder on a larger disk, or give fewer rows",
        )

    def so_far() -> str:
        try:
            info = json.loads((folder / "info.json").read_text())
        except (OSError, ValueError):
            return ""
        return f"{info['done']:,} of {info['examples']:,} examples"

    with session.step("features", so_far):
        try:
            features = extract_features(
                model,
                tokenizer,
                found.rows,
                out_dir=folder,
                turns=given["turns"],
                too_long=given["too_long"],
                encoded=found.audit.encoded or None,
                progress=session.progress,
            )
            found.audit.encoded.clear()  # what chooses needs the memory
            return features
        except ValueError as error:
            if "was begun with" in str(error) or "another process" in str(error) or "expected a new out_dir" in str(error):
                raise Stop(FOREIGN, foreign(str(error), folder)) from error
            raise


def foreign(words: str, folder: Path) -> str:
    """What to say of a folder that is not ours: the library speaks of its own arguments, which this command has not."""
    if "another process" in words:
        return f"expected {folder} to itself, but another command fills it now: wait for it, or name another --work folder"
    _, known, differences = words.partition("got another ")
    if known:
        differences = differences.partition(": give the same")[0]
        return (
            f"expected the rows and the model that {folder} was made for, got others ({differences}): give another --out, "
            f"or another --work folder, or remove {folder}"
        )
    return f"expected a new folder, or features of ours, in {folder}, got other files: name another --work folder"


def model_words(model: Any, features: TokenFeatures) -> dict:
    """What the model is: its name, its revision where the hub says one, and the fingerprints of weights and template."""
    known = ("model", "model_weights", "model_positions", "chat_template", "precision")
    return {
        **{name: features.info.get(name) for name in known},
        "revision": getattr(model.config, "_commit_hash", None),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "fisherlib": __version__,
    }
