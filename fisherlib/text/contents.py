"""What is in a file of examples: its rows as they are, each with its line; what cannot be read is named, with the cure."""

import csv
import gzip
import io
import json
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, Value

from fisherlib._files import first_line
from fisherlib.text.provenance import as_line
from fisherlib.text.rows import SOURCE, half_a_character, is_source

_DEEPEST = 32  # levels of JSON; Arrow's own limit is 64, and the recursion of `datasets` ends earlier
_LEVELS = f"expected JSON of at most {_DEEPEST} levels, got more: write what is so deep as a string"
_LINES, _TABLES = (".jsonl", ".ndjson", ".json"), (".csv", ".tsv")
READ = (*_LINES, *_TABLES, ".parquet")
_GZIP = b"\x1f\x8b"


def suffix_of(source: str | Path) -> str:
    """Of a file that may be packed, "my.csv.gz", the suffix of what is in it."""
    path = Path(source)
    return Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()


def note(skipped: list[dict], row: Mapping, reason: str) -> None:
    """Write down a row that is left out, with its file, line and id."""
    source = row[SOURCE]
    known = row.get("id")
    skipped.append(
        {**{k: source[k] for k in ("file", "line")}, "id": None if known is None else str(known), "reason": reason}
    )


def unreadable(path: Path, error: OSError) -> str:
    return f"expected a file that can be read, got {str(path)!r} ({error.strerror or error}): check its permissions and disk"


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(unreadable(path, error)) from error
    if not content.startswith(_GZIP):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"expected a whole .gz file, could not read {str(path)!r} ({first_line(error)}): copy it again"
        ) from None


def entries(path: Path, skipped: list[dict] | None) -> Iterator[dict]:
    """The rows of a file as it has them, each with its `SOURCE`."""
    suffix = suffix_of(path)
    if suffix == ".parquet":
        for row in parquet(path):
            source = row.pop(SOURCE)
            yield row | {SOURCE: source | {"text": as_line(row, f"{path} row {source['line']}")}}
        return
    content = _content(path)
    if suffix in _TABLES:
        yield from _of_table(path, content, skipped)
    elif suffix == ".json" and content.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
        yield from _of_array(path, content)
    else:
        yield from _of_lines(path, content, skipped)


def _source(path: Path, line: int, text: str | None) -> dict:
    return {"file": os.path.abspath(path), "line": line, "text": text}


# --- Parquet ---------------------------------------------------------------------------------------------------------


def parquet(path: Path) -> Dataset:
    try:
        rows = Dataset.from_parquet(str(path))
        rows.data.table.validate(full=True)  # text that is not UTF-8 would end whoever reads it
    except Exception as error:  # pyarrow and datasets raise many kinds; each means that the file cannot be read
        raise ValueError(f"expected a parquet file, could not read {str(path)!r} ({first_line(error)})") from error
    if SOURCE in rows.column_names:
        _check_source(rows[0][SOURCE] if len(rows) else None, str(path))
        rows = rows.remove_columns(SOURCE)
    sources = [{"file": os.path.abspath(path), "line": number, "text": None} for number in range(1, len(rows) + 1)]
    kind = {"file": Value("string"), "line": Value("int64"), "text": Value("string")}  # as in the rows of a .jsonl file
    return rows.add_column(SOURCE, sources, feature=kind)


def _check_source(value: object, where: str) -> None:
    """A row that was saved with its source gets a new one; a column that only happens to have this name is not taken."""
    if value is not None and not is_source(value):
        raise ValueError(
            f"{where}: expected no column {SOURCE!r} of your own, got {type(value).__name__}: rename it; "
            "where each row came from is noted there"
        )


# --- JSON lines, arrays and tables -----------------------------------------------------------------------------------


def _of_lines(path: Path, content: bytes, skipped: list[dict] | None) -> Iterator[dict]:
    first = True
    for number, raw in enumerate(content.split(b"\n"), start=1):  # not splitlines: U+2028 may stand in a string
        where = f"{path} line {number}"
        try:
            try:
                line = raw.decode("utf-8-sig")  # a byte order mark is no part of a line
            except UnicodeDecodeError as error:
                raise ValueError(f"{where}: expected UTF-8 text ({error.reason}): save the file as UTF-8") from None
            if not line.strip():
                continue
            if first and line.lstrip().startswith("["):
                raise ValueError(
                    f"{where}: expected one JSON object per line, got a JSON array: write each of its rows on its own line, "
                    "or rename the file to .json"
                )
            first = False
            row = _parse(line, where)
            _check_source(row.pop(SOURCE, None), where)
        except ValueError as error:
            if skipped is None or first:
                raise
            note(skipped, {SOURCE: _source(path, number, None)}, str(error).removeprefix(f"{where}: "))
            continue
        yield row | {SOURCE: _source(path, number, line)}


def _of_array(path: Path, content: bytes) -> Iterator[dict]:
    """The objects of one array; the `line` of each is its number in it, from 1."""
    try:
        rows = json.loads(content.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text ({error.reason}): save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} line {error.lineno}: expected a JSON array ({error.msg}): repair it") from None
    except (ValueError, RecursionError) as error:
        cause = "more than some hundred levels" if isinstance(error, RecursionError) else first_line(error)
        raise ValueError(f"{path}: expected an array of objects as JSON has them, got {cause}: repair it") from None
    for number, row in enumerate(rows, start=1):
        where = f"{path} row {number}"
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected a JSON object, got {type(row).__name__}: repair it")
        if _too_deep(row):
            raise ValueError(
                f"{where}: expected JSON of at most {_DEEPEST} levels, got more: write what is so deep as a string"
            )
        text = json.dumps(row, ensure_ascii=False)
        _check_source(row.pop(SOURCE, None), where)
        yield row | {SOURCE: _source(path, number, text)}


def _of_table(path: Path, content: bytes, skipped: list[dict] | None) -> Iterator[dict]:
    """The rows of a table whose first line names the columns; every value is text, and the line is where its row ends."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text ({error.reason}): save the file as UTF-8") from None
    first = text.partition("\n")[0]
    comma = "\t" if suffix_of(path) == ".tsv" else ";" if "," not in first and ";" in first else ","
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=comma, strict=True)
    names: list[str] | None = None
    try:
        for values in reader:
            if not values:
                continue
            if names is None:
                names = values
                if len(set(names)) < len(names):
                    raise ValueError(f"{path} line 1: expected columns of different names, got {names}: rename one")
                continue
            if len(values) != len(names):
                problem = f"expected {len(names)} values, as the first line has, got {len(values)}: repair the row"
                if skipped is None:
                    raise ValueError(f"{path} line {reader.line_num}: {problem}")
                note(skipped, {SOURCE: _source(path, reader.line_num, None)}, problem)
                continue
            row: dict[str, Any] = dict(zip(names, values, strict=True))
            _check_source(row.get(SOURCE), f"{path} line {reader.line_num}")
            yield row | {SOURCE: _source(path, reader.line_num, json.dumps(row, ensure_ascii=False))}
    except csv.Error as error:
        raise ValueError(f"{path} line {reader.line_num}: expected a table ({error}): repair the row") from None


def as_table(rows: list[dict]) -> Dataset:
    """One dataset of all rows. What does not go into one type of Arrow becomes text: JSON, or the string as it is."""
    columns = dict.fromkeys(name for row in rows for name in row if name != SOURCE)
    columns[SOURCE] = None  # the last one
    if any("shape" in row[SOURCE] for row in rows):
        for row in rows:
            row[SOURCE].setdefault("shape", None)
    try:  # from_list would keep only the columns of the first row
        return Dataset.from_list([{name: row.get(name) for name in columns} for row in rows])
    except (pa.ArrowException, OverflowError, UnicodeEncodeError, RecursionError) as error:
        if problem := _unspeakable(rows):
            raise ValueError(problem) from None
        cause = error
    for name in columns:
        values = [row.get(name) for row in rows]
        if not _fits(values):
            for row in rows:
                if row.get(name) is not None:
                    row[name] = [_plainer(turn) for turn in row[name]] if name == "messages" else _as_text(row[name])
    try:
        return Dataset.from_list([{name: row.get(name) for name in columns} for row in rows])
    except (pa.ArrowException, OverflowError, UnicodeEncodeError, RecursionError):
        where = rows[0][SOURCE]["file"]
        raise ValueError(f"{where}: expected columns that Arrow can hold ({first_line(cause)}): simplify them") from None


def _fits(values: list) -> bool:
    try:
        pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError, RecursionError):
        return False
    return True


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _plainer(turn: dict) -> dict:
    return {name: value if name in ("role", "content") or value is None else _as_text(value) for name, value in turn.items()}


def _parse(line: str, where: str) -> dict:
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: expected one JSON object per line ({error.msg}): repair it") from None
    except RecursionError:
        row = None
    except ValueError as error:  # a constant, or Python's limit on digits
        what = "one of thousands of digits" if "digits" in str(error) else str(error)
        raise ValueError(f"{where}: expected numbers as JSON has them, got {what}: write null or a string") from None
    else:
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected a JSON object, got {type(row).__name__}: repair the line")
    if row is None or (line.count("[") + line.count("{") > _DEEPEST and _too_deep(row)):
        raise ValueError(f"{where}: {_LEVELS}")
    return row


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _too_deep(row: dict) -> bool:
    level: list = [row]
    for _ in range(_DEEPEST):
        level = [v for inner in level for v in (inner.values() if isinstance(inner, dict) else inner)]
        level = [v for v in level if isinstance(v, dict | list)]
    return bool(level)


# --- what no text holds ----------------------------------------------------------------------------------------------


def _unspeakable(rows: Iterable[dict]) -> str | None:
    """The first line with half a character, in a name or a value, and its column."""
    for row in rows:
        for name, value in row.items():
            for column, problem in _halves(value, name) if name != SOURCE else ():
                where = f"{row[SOURCE]['file']} line {row[SOURCE]['line']}"
                return f"{where}: {problem} in {column!r}: repair it or write it as a string"
    return None


def _halves(value: object, column: str) -> Iterator[tuple[str, str]]:
    """(column, problem) of a value and of all within it; `turns[].name` is a field of the objects in a list."""
    if problem := half_a_character(column):
        yield ascii(column), problem
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _halves(inner, f"{column}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from _halves(inner, f"{column}[]")
    elif isinstance(value, str) and (problem := half_a_character(value)):
        yield column, problem
