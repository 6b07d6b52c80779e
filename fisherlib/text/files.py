"""Files of examples: what is in them and where; what cannot be read is named with its line, the cause and the cure."""

import json
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, Value

from fisherlib._files import first_line
from fisherlib.text.rows import SHAPES, SOURCE, half_a_character, problem_of

_DEEPEST = 32  # levels of JSON; Arrow's own limit is 64, and the recursion of `datasets` ends earlier
_TABLE = "python -c \"import pandas; pandas.read_csv('{0}', {2}dtype=str, keep_default_na=False).to_json('{1}', "
_TABLE += "orient='records', lines=True, force_ascii=False)\""
_ARRAY = "python -c \"import json; [print(json.dumps(row)) for row in json.load(open('{0}', encoding='utf-8'))]\" > '{1}'"
# Suffixes that are files, but none that are read: what they are, and one line that converts them.
_OTHERS = {
    ".csv": ("a table", _TABLE),
    ".tsv": ("a table", _TABLE),
    ".gz": ("compressed", "gunzip -k '{0}'"),
}
_READ = (".jsonl", ".json", ".parquet")


def is_file(source: str) -> bool:
    """Whether a source is meant to be a file, and no dataset's name or folder: it is there, or its suffix is a file's."""
    return os.path.isfile(source) or Path(source).suffix.lower() in (*_READ, *_OTHERS)


def read(source: str) -> Dataset:
    """The rows of a `.jsonl` or `.parquet` file, with a column `SOURCE` of where each came from.

    Raises `ValueError` for anything that keeps them from being read, with the number of the line.
    """
    path = Path(source)
    suffix = path.suffix.lower()
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"expected a file of examples, got {source!r}: no such file; check the path") from None
    except OSError as error:
        raise ValueError(_unreadable(path, error)) from error
    if stat.S_ISDIR(mode):
        raise ValueError(f"expected a file of examples, got {source!r}: it is a folder; give a file in it")
    if not stat.S_ISREG(mode):
        raise ValueError(f"expected a file of examples, got {source!r}: it is a pipe or a device; write it to a file first")
    if suffix in _OTHERS:
        kind, command = _OTHERS[suffix]
        raise ValueError(f"expected a .jsonl or .parquet file, got {source!r}, {kind}: convert it: {_fill(command, path)}")
    if suffix not in _READ:
        raise ValueError(f"expected a .jsonl or .parquet file, got {source!r}: convert it, or rename it if it is one")
    return _parquet(path) if suffix == ".parquet" else _jsonl(path)


def _unreadable(path: Path, error: OSError) -> str:
    return f"expected a file that can be read, got {str(path)!r} ({error.strerror or error}): check its permissions and disk"


def _fill(command: str, path: Path) -> str:
    target = path.with_suffix(".jsonl")
    return command.format(path, target, "sep='\\t', " if path.suffix.lower() == ".tsv" else "")


# --- Parquet ---------------------------------------------------------------------------------------------------------


def _parquet(path: Path) -> Dataset:
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
    if value is not None and not (isinstance(value, dict) and set(value) == {"file", "line", "text"}):
        raise ValueError(
            f"{where}: expected no column {SOURCE!r} of your own, got {type(value).__name__}: rename it; "
            "where each row came from is noted there"
        )


# --- JSON lines ------------------------------------------------------------------------------------------------------


def _jsonl(path: Path) -> Dataset:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(_unreadable(path, error)) from error
    rows: list[dict] = []
    for number, raw in enumerate(content.split(b"\n"), start=1):  # not splitlines: U+2028 may stand in a string
        where = f"{path} line {number}"
        try:
            line = raw.decode("utf-8-sig")  # a byte order mark is no part of a line
        except UnicodeDecodeError as error:
            raise ValueError(f"{where}: expected UTF-8 text ({error.reason}): save the file as UTF-8") from None
        if not line.strip():
            continue
        if not rows and line.lstrip().startswith("["):
            raise ValueError(
                f"{where}: expected one JSON object per line, got one array of them: convert it: {_fill(_ARRAY, path)}"
                if path.suffix.lower() == ".json"
                else f"{where}: expected one JSON object per line, got a JSON array: write each of its rows on its own line"
            )
        row = _parse(line, where)
        _check_source(row.pop(SOURCE, None), where)
        if problem := problem_of(row):
            raise ValueError(f"{where}: {problem}")
        rows.append(row | {SOURCE: {"file": os.path.abspath(path), "line": number, "text": line}})
    if not rows:
        raise ValueError(f"{path}: {SHAPES}, got an empty file: give at least one example")
    columns = dict.fromkeys(name for row in rows for name in row if name != SOURCE)
    columns[SOURCE] = None  # the last one
    try:  # from_list would keep only the columns of the first row
        return Dataset.from_list([{name: row.get(name) for name in columns} for row in rows])
    except (pa.ArrowException, OverflowError, UnicodeEncodeError, RecursionError) as error:
        raise ValueError(
            _mixture(rows) or f"{path}: expected columns that Arrow can hold ({first_line(error)}): simplify them"
        ) from None


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
        raise ValueError(f"{where}: expected JSON of at most {_DEEPEST} levels, got more: write what is so deep as a string")
    return row


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _too_deep(row: dict) -> bool:
    level: list = [row]
    for _ in range(_DEEPEST):
        level = [v for inner in level for v in (inner.values() if isinstance(inner, dict) else inner)]
        level = [v for v in level if isinstance(v, dict | list)]
    return bool(level)


# --- what Arrow cannot hold ------------------------------------------------------------------------------------------

_WHOLE, _POINT, _LONG = "a whole number", "a number with a point", "a whole number beyond 53 bits"
_ALIKE = ({_WHOLE, _POINT}, {_WHOLE, _LONG})  # kinds that go into one column


def _mixture(rows: Sequence[dict]) -> str | None:
    """The first line whose values do not go into one column with those above it, the column, and the kinds."""
    met: dict[str, dict[str, int]] = {}
    for row in rows:
        number, where = row[SOURCE]["line"], f"{row[SOURCE]['file']} line {row[SOURCE]['line']}"
        for name, value in row.items():
            for column, kind, problem in _kinds(value, name) if name != SOURCE else ():
                if problem:
                    return f"{where}: {problem} in {column!r}: repair it or write it as a string"
                kinds = met.setdefault(column, {})
                kinds.setdefault(kind, number)
                for other, first in kinds.items():
                    if other != kind and {other, kind} not in _ALIKE:
                        return (
                            f"{where}: expected one type of value in each column, got {kind} in {column!r}, "
                            f"where line {first} has {other}: make them equal"
                        )
    return None


def _kinds(value: object, column: str) -> Iterator[tuple[str, str, str | None]]:
    """(column, kind, problem) of a value and of all within it; `turns[].name` is a field of the objects in a list."""
    problem = half_a_character(column)
    if problem:
        yield ascii(column), "", problem
    elif isinstance(value, dict):
        yield column, "an object", None
        for name, inner in value.items():
            yield from _kinds(inner, f"{column}.{name}")
    elif isinstance(value, list):
        yield column, "a list", None
        for inner in value:
            yield from _kinds(inner, f"{column}[]")
    elif isinstance(value, str):
        yield column, "a string", half_a_character(value)
    elif isinstance(value, bool):
        yield column, "true or false", None
    elif isinstance(value, int):
        beyond = "expected a whole number within 64 bits, got a longer one"
        yield column, _WHOLE if abs(value) <= 2**53 else _LONG, None if -(2**63) <= value < 2**63 else beyond
    elif isinstance(value, float):
        yield column, _POINT, None
