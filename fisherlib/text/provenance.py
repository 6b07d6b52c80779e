"""What each row is and where it came from, so that picks can be traced back, and rows in another order are noticed."""

import hashlib
import json
from typing import Any

from datasets import Dataset

SOURCE = "_source"  # the column that `load_pool` adds: {"file", "line", "text"}, the line as it was, or None
_TEXT = ("messages", "system", "prompt", "response", "text")


def provenance(rows: Dataset) -> Dataset:
    """For each row: `hash` of what is trained on, its `id` (if there is such a column), and `file` and `line`, if known.

    Other columns do not count: who adds a score to the rows has the same rows. Time O(characters).
    """
    known = [name for name in (*_TEXT, "id", SOURCE) if name in rows.column_names]
    found: dict[str, list] = {"hash": [], "id": [], "file": [], "line": []}
    for row in rows.select_columns(known) if known else rows:
        source = row.get(SOURCE) or {}
        found["hash"].append(row_hash(row))
        found["id"].append(None if row.get("id") is None else str(row["id"]))
        found["file"].append(source.get("file"))
        found["line"].append(source.get("line"))
    return Dataset.from_dict(found)


def row_hash(row: dict) -> str:
    """16 hexadecimal digits: of the text columns, without what is null (Arrow fills absent keys with nulls)."""
    said = {name: _present(row[name]) for name in _TEXT if row.get(name) is not None}
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:16]


def check_same_rows(rows: Dataset, of: Dataset | None, indices: list[int] | None = None) -> None:
    """Raise `ValueError` unless these are the rows that `of` was made of, in the same order; nothing if `of` is None.

    `indices`: of the rows that `of` has a line for, if these are not all.
    """
    if of is None:
        return
    there = rows if indices is None else rows.select(indices)
    known = [name for name in _TEXT if name in rows.column_names]
    for k, (row, wanted) in enumerate(zip(there.select_columns(known) if known else there, of["hash"], strict=True)):
        if row_hash(row) != wanted:
            number = k if indices is None else indices[k]
            raise ValueError(
                f"expected the rows that the features are of, in their order, got another row {number}: "
                "give the same dataset, not shuffled, filtered or edited"
            )


def _present(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _present(v) for name, v in value.items() if v is not None}
    return [_present(v) for v in value] if isinstance(value, list) else value
