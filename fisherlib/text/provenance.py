"""What each row is and where it came from, so that picks can be traced back, and rows in another order are noticed."""

import datetime
import decimal
import hashlib
import json
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

from datasets import Dataset

from fisherlib._door import checked
from fisherlib._files import replacing
from fisherlib.text.rows import SOURCE, TEXT, as_stored, columns_of, is_source, problem_of
from fisherlib.text.shapes import read_again

_NOT_LINES = (".parquet", ".arrow", ".csv", ".tsv", ".gz", ".bz2", ".xz", ".zst", ".zip")
_AS_TEXT = datetime.date | datetime.time | datetime.timedelta | decimal.Decimal  # a datetime is a date
_CANONICAL = json.JSONEncoder(sort_keys=True, default=str)


@checked
def provenance(rows: Dataset) -> Dataset:
    """For each row: `hash` of what is trained on, its `id` (if there is such a column), and `file` and `line`, if known.

    Other columns do not count: who adds a score to the rows has the same rows. Time O(characters).
    """
    found: dict[str, list] = {"hash": [], "id": [], "file": [], "line": []}
    for row in columns_of(rows, (*TEXT, "id", SOURCE)):
        source = _source(row) or {}
        found["hash"].append(row_hash(row))
        found["id"].append(None if row.get("id") is None else str(row["id"]))
        found["file"].append(source.get("file"))
        found["line"].append(source.get("line"))
    return Dataset.from_dict(found)


def row_hash(row: dict) -> str:
    """16 hexadecimal digits: of the text columns, as they were before Arrow, which fills absent keys and makes 1 to 1.0."""
    said = {name: _plain(row[name]) for name in TEXT if row.get(name) is not None}
    return hashlib.sha256(_CANONICAL.encode(said).encode()).hexdigest()[:16]


def check_same_rows(rows: Dataset, of: Dataset | None, indices: list[int] | None = None) -> None:
    """Raise `ValueError` unless these are the rows that `of` was made of, in the same order; nothing if `of` is None.

    `indices`: of the rows that `of` has a line for, if these are not all.
    """
    if of is None:
        return
    needed = len(of) if indices is None else max(indices, default=-1) + 1
    if len(rows) < needed or (indices is None and len(rows) > needed):
        raise ValueError(
            f"expected the {needed:,} rows that the features are of, got {len(rows):,}: "
            "give the same dataset, not filtered or joined with another"
        )
    found = [row_hash(row) for row in columns_of(rows if indices is None else rows.select(indices), TEXT)]
    wanted = as_stored(of)["hash"][:]
    if found != wanted:
        k = next(k for k, pair in enumerate(zip(found, wanted, strict=True)) if pair[0] != pair[1])
        moved = "the same rows in another order, first" if Counter(found) == Counter(wanted) else "another"
        raise ValueError(
            f"expected the rows that the features are of, in their order, got {moved} row "
            f"{k if indices is None else indices[k]}: give the same dataset, not shuffled, filtered or edited"
        )


@checked
def write_jsonl(rows: Dataset, path: str | Path) -> None:
    """Write rows that `load_pool` read as the lines they were, byte for byte; the file is replaced whole or not at all.

    Columns that were added since are not written. A row that has no line (of a dataset, or a `.parquet` file) is written as
    JSON without `_source`: NaN and infinity as null, dates, times and decimals as text. Raises `ValueError` if the text of a
    row is not that of its line any more, for bytes, pictures and whatever else JSON does not know, or if the file is the one
    that the rows are from or by its name no file of lines; `OSError` if it cannot be written.
    """
    path, rows = Path(path), as_stored(rows)
    if path.suffix.lower() in _NOT_LINES:
        raise ValueError(
            f"expected a .jsonl file to write to, got {str(path)!r}, which would not be what its name says: rename it"
        )
    kind = rows.features.get(SOURCE)
    ours = is_source(kind)  # also where it is None: of rows joined with others
    lines, files = [], set()
    for number, row in enumerate(columns_of(rows, rows.column_names)):
        source = _source(row)
        line = source["text"] if source else None
        if source:
            files.add(source["file"])
        if line is None:
            line = as_line({name: v for name, v in row.items() if not (ours and name == SOURCE)}, f"row {number}")
        elif source and not _says(source, row):
            raise ValueError(
                f"row {number}: expected the text of its line in the file, line {source['line']} of {source['file']}, got "
                f"another: to write the rows as they are now, leave the lines out with rows.remove_columns({SOURCE!r})"
            )
        lines.append(line + "\n")
    for file in files:
        if file is not None and os.path.exists(file) and path.exists() and os.path.samefile(file, path):
            raise ValueError(f"expected another file than the one the rows are from, got {str(path)!r}: choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as scratch, scratch.open("wb") as out:
            out.writelines(line.encode() for line in lines)
    except OSError as error:
        raise OSError(
            error.errno,
            f"could not write {path} ({error.strerror or error}): free some space or choose a file in a writable folder",
        ) from error


def _source(row: dict) -> dict | None:
    """Where a row came from, unless its dataset has a column of that name that is not ours."""
    source = row.get(SOURCE)
    return source if is_source(source) else None


def _says(source: dict, row: dict) -> bool:
    """Whether its line is still the line of this row: one line, of JSON, with the same words."""
    line = source["text"]
    said = read_again(source) if isinstance(line, str) and "\n" not in line else None
    return said is not None and problem_of(row) is None and _words(said) == _words(row)


def _words(row: dict) -> list:
    """The strings of a row that are trained on, which nothing on the way changes unless somebody edits them."""
    turns = row.get("messages") or []
    return [[(turn["role"], turn.get("content")) for turn in turns], *(row.get(name) for name in TEXT if name != "messages")]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items() if v is not None}
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return [_plain(v) for v in value] if isinstance(value, list) else value


def as_line(row: dict, where: str) -> str:
    """A row as a line of JSON. Raises `ValueError` for what JSON cannot hold."""
    return json.dumps({name: _sayable(value, f"{where}, {name!r}") for name, value in row.items()}, ensure_ascii=False)


def _sayable(value: Any, where: str) -> Any:
    """A value as JSON knows it. `where`, for messages. Raises `ValueError` for one that is none, nor a number or a date."""
    if isinstance(value, dict):
        return {name: _sayable(v, where) for name, v in value.items()}
    if isinstance(value, list):
        return [_sayable(v, where) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, _AS_TEXT):
        return str(value)
    raise ValueError(
        f"{where}: expected what JSON can hold, got {type(value).__name__}: write it as text, or leave it out with "
        "rows.remove_columns"
    )
