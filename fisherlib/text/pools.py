"""Pools of fine-tuning examples, and which of their tokens count.

An example is a row of a `datasets.Dataset` with one of three shapes: `prompt` and `response` (and, if you like,
`system`); `messages` (a list of `{"role", "content"}`); or `text`. Only *response* tokens are trained on, scored and
counted: the response of a pair, the assistant turns of a conversation, every token of a text.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, DatasetDict, load_dataset

from fisherlib._files import first_line
from fisherlib.text import shakespeare

SHAPES = "expected the columns 'prompt' and 'response', or 'messages', or 'text'"


@dataclass(frozen=True)
class Pool:
    """Examples to choose from (`train`) and examples to judge by (`test`), never of the same document."""

    name: str
    train: Dataset
    test: Dataset

    def __repr__(self) -> str:
        return f"Pool({self.name!r}: {len(self.train):,} training and {len(self.test):,} test examples)"


def load_pool(source: str | Path | Dataset = "shakespeare", *, test_fraction: float | int = 0.1, seed: int = 0) -> Pool:
    """Load a pool of examples and split it.

    `source`: "shakespeare" (dialogue from 37 plays; the plays in `shakespeare.TEST_PLAYS` are the test set), a `.jsonl` or
    `.parquet` file, a `datasets.Dataset`, or a dataset id. A dataset that has a test split keeps it; otherwise
    `test_fraction` of the *documents* (column `document`; without one, of the distinct rows) becomes the test set. With 0
    every row is a candidate and the test set is empty: to choose, and judge elsewhere.
    Raises `ValueError` for a broken line, a missing column, an empty response or a source that cannot be read.
    """
    if isinstance(source, Dataset):
        name, rows = "dataset", source
    elif source == "shakespeare":
        return Pool("shakespeare", *(Dataset.from_list(rows) for rows in shakespeare.dialogues()))
    else:
        name, rows = str(source), _read(str(source))
    if isinstance(rows, DatasetDict) and {"train", "test"} <= set(rows):
        train, test = rows["train"], rows["test"]
    else:
        train = next(iter(rows.values())) if isinstance(rows, DatasetDict) else rows
        test = None
    for part in [train] if test is None else [train, test]:
        _validate(part, name)
    if test is None:
        train, test = _split_by_document(train, test_fraction, seed, name)
    return Pool(name, train, test)


def _read(source: str) -> Dataset | DatasetDict:
    path = Path(source)
    if path.suffix in (".jsonl", ".json", ".parquet"):
        if not path.is_file():
            raise ValueError(f"expected a file of examples, got {source!r}: no such file; check the path")
        if path.suffix != ".parquet":
            return _read_jsonl(path)
        try:
            return Dataset.from_parquet(source)
        except Exception as error:  # pyarrow and datasets raise many kinds; each means that the file cannot be read
            raise ValueError(f"expected a parquet file, could not read {source!r} ({first_line(error)})") from error
    try:
        return load_dataset(source)
    except Exception as error:  # datasets raises many kinds; each means that this source cannot be read
        raise ValueError(
            f"expected 'shakespeare', a .jsonl or .parquet file or a dataset id, could not load {source!r} "
            f"({first_line(error)}): check the name, or download it first and give the file"
        ) from error


def _read_jsonl(path: Path) -> Dataset:
    rows = []
    for number, raw in enumerate(path.read_bytes().split(b"\n"), start=1):  # not splitlines: U+2028 may stand in a string
        if not raw.strip():
            continue
        try:
            line = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} line {number}: expected UTF-8 text ({error.reason}): save the file as UTF-8") from None
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} line {number}: expected one JSON object per line ({error.msg}): repair it") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path} line {number}: expected a JSON object, got {type(row).__name__}: repair the line")
        if problem := _problem_of(row):
            raise ValueError(f"{path} line {number}: {problem}")
        rows.append(row)
    if not rows:
        raise ValueError(f"{path}: {SHAPES}, got an empty file: give at least one example")
    columns = dict.fromkeys(name for row in rows for name in row)  # from_list would keep only those of the first row
    try:
        return Dataset.from_list([{name: row.get(name) for name in columns} for row in rows])
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError) as error:
        raise ValueError(
            f"{path}: expected one type of value in each column, got a mixture ({first_line(error)}): make them equal"
        ) from None


def _validate(rows: Dataset, name: str) -> None:
    if len(rows) == 0:
        raise ValueError(f"{name}: expected at least one example, got none")
    for number, row in enumerate(rows):
        if problem := _problem_of(row):
            raise ValueError(f"{name} row {number}: {problem}")


def _problem_of(row: dict) -> str | None:
    if row.get("messages") is not None:
        turns = row["messages"]
        if not (
            isinstance(turns, list) and turns and all(isinstance(t, dict) and {"role", "content"} <= set(t) for t in turns)
        ):
            return "expected 'messages' to be a list of {'role', 'content'}: repair the row"
        if not all(isinstance(turn["content"], str) for turn in turns):
            return "expected every 'content' in 'messages' to be a string: join the parts of the turn"
        if not any(turn["role"] == "assistant" and str(turn["content"] or "").strip() for turn in turns):
            return "expected an assistant turn with text in 'messages', got none: drop the row or fill it"
        return None
    if row.get("response") is not None and row.get("prompt") is not None:
        response, prompt = row["response"], row["prompt"]
        if not isinstance(response, str) or not isinstance(prompt, str):
            return f"expected strings in 'prompt' and 'response', got {type(prompt).__name__} and {type(response).__name__}"
        if not isinstance(row.get("system") or "", str):
            return f"expected a string in 'system', got {type(row['system']).__name__}"
        return None if response.strip() else "expected a non-empty 'response': drop the row or fill it"
    if row.get("text") is not None:
        if not isinstance(row["text"], str):
            return f"expected a string in 'text', got {type(row['text']).__name__}"
        return None if row["text"].strip() else "expected a non-empty 'text': drop the row or fill it"
    return f"{SHAPES}, got {sorted(row)}: rename your columns"


def _split_by_document(rows: Dataset, fraction: float | int, seed: int, name: str) -> tuple[Dataset, Dataset]:
    import numpy as np

    if not 0 <= fraction < 1:
        raise ValueError(f"expected 0 <= test_fraction < 1, got {fraction}")
    if fraction == 0:
        return rows, rows.select([])
    if "document" in rows.column_names:
        keys = [f"row {i}" if key is None else f"document {key}" for i, key in enumerate(rows["document"])]
    else:  # without documents, at least keep copies of a row on one side
        shape = [c for c in ("messages", "prompt", "response", "text") if c in rows.column_names]
        keys = [json.dumps(row, sort_keys=True) for row in rows.select_columns(shape)]
    distinct = sorted(set(keys))
    if len(distinct) < 2:
        raise ValueError(f"{name}: expected at least two different documents to split by, got {len(distinct)}: add more")
    held_out = min(max(1, round(fraction * len(distinct))), len(distinct) - 1)  # neither side empty
    test_keys = {distinct[i] for i in np.random.default_rng(seed).permutation(len(distinct))[:held_out]}
    sides = {side: [i for i, key in enumerate(keys) if (key in test_keys) == side] for side in (True, False)}
    return rows.select(sides[False]), rows.select(sides[True])


# --- which tokens count ----------------------------------------------------------------------------------------------
