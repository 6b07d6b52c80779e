"""Files of examples: which ones are read, and their rows in our columns; what cannot be read is named with its line."""

import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import Dataset

from fisherlib.text.contents import READ, as_table, entries, note, parquet, suffix_of, unreadable
from fisherlib.text.rows import SHAPES, SOURCE, problem_of
from fisherlib.text.shapes import reshaped

_SPLITS = ("test", "valid", "dev", "eval")  # in the name of a file that is not to be chosen from

Shape = str | Mapping[str, str] | None


def is_file(source: str) -> bool:
    """Whether a source is meant to be a file, and no dataset's name or folder: it is there, or its suffix is a file's."""
    return os.path.isfile(source) or suffix_of(source) in READ or Path(source).suffix.lower() == ".gz"


def files_in(folder: str) -> list[str]:
    """The files of a folder that are read, by name; none if some are a test set, or belong to another program."""
    if not os.path.isdir(folder):
        return []
    found = sorted(str(path) for path in Path(folder).iterdir() if path.is_file() and suffix_of(path) in READ)
    others = any(word in Path(name).name.lower() for name in found for word in _SPLITS)
    return [] if others or os.path.exists(os.path.join(folder, "state.json")) else found


def read(sources: Sequence[str], shape: Shape = None, skipped: list[dict] | None = None) -> Dataset:
    """The rows of files, one after the other, with a column `SOURCE` of where each came from.

    `shape`: as in `reshaped`. Raises `ValueError` for anything that keeps a row from being read, with the number of its
    line; with a list `skipped` such a row is left out, and noted there as {"file", "line", "id", "reason"}.
    """
    if len(sources) == 1 and shape is None and suffix_of(sources[0]) == ".parquet":
        rows = parquet(_checked(sources[0]))
        if set(rows.column_names) & {"messages", "response", "text"} and all(_is_own(row) for row in rows):
            return rows
    found: list[dict] = []
    for source in sources:
        path = _checked(source)
        before = len(found)
        for row in entries(path, skipped):
            try:
                found.append(_row(row, shape))
            except ValueError as error:
                where = f"{path} line {row[SOURCE]['line']}"
                if skipped is None:
                    raise ValueError(f"{where}: {error}") from None
                note(skipped, row, str(error))
        if len(found) == before and skipped is None:
            raise ValueError(f"{path}: {SHAPES}, got an empty file: give at least one example")
    if not found:
        where, why = ", ".join(map(str, sources)), skipped[0]["reason"] if skipped else f"{SHAPES}, got an empty file"
        raise ValueError(f"{where}: expected a row that can be used, got none: {why}")
    return as_table(found)


def _is_own(row: dict) -> bool:
    try:
        return not reshaped(row)[1]
    except ValueError:
        return False


def _row(row: dict, shape: Shape) -> dict:
    """A row in our columns. Raises `ValueError` for one that cannot be trained on."""
    name, said, used = reshaped(row, shape)
    if said:
        row = {column: value for column, value in row.items() if column not in used} | said
        noted = json.dumps(shape) if isinstance(shape, Mapping) else shape or name
        source = row.pop(SOURCE)
        row[SOURCE] = source | {"text": source["text"], "shape": noted}
    if problem := problem_of({k: v for k, v in row.items() if k != SOURCE}):
        raise ValueError(problem)
    return row


def _checked(source: str) -> Path:
    """Raises `ValueError` unless it is a file of a kind that is read."""
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"expected a file of examples, got {source!r}: no such file; check the path") from None
    except OSError as error:
        raise ValueError(unreadable(path, error)) from error
    if stat.S_ISDIR(mode):
        raise ValueError(f"expected a file of examples, got {source!r}: it is a folder; give a file in it")
    if not stat.S_ISREG(mode):
        raise ValueError(f"expected a file of examples, got {source!r}: it is a pipe or a device; write it to a file first")
    if suffix_of(path) not in READ:
        raise ValueError(
            f"expected a .jsonl, .json, .csv, .tsv or .parquet file (or one of them as .gz), got {source!r}: "
            "convert it, or rename it if it is one"
        )
    return path
