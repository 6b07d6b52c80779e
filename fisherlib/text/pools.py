"""Pools of fine-tuning examples, and which of their tokens count.

An example is a row of a `datasets.Dataset` with one of three shapes: `prompt` and `response` (and, if you like,
`system`); `messages` (a list of `{"role", "content"}`); or `text`. Only *response* tokens are trained on, scored and
counted: the response of a pair, the assistant turns of a conversation, every token of a text.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, DatasetDict, load_dataset

from fisherlib._door import check_fields, checked
from fisherlib._files import first_line
from fisherlib.text import files, shakespeare
from fisherlib.text.rows import TEXT, as_stored, columns_of, problem_of


@dataclass(frozen=True)
class Pool:
    """Examples to choose from (`train`) and examples to judge by (`test`), never of the same document.

    `split`: the test examples were set aside by `load_pool`, where the source had no test set of its own.
    """

    name: str
    train: Dataset
    test: Dataset
    split: bool = False

    def __post_init__(self):
        check_fields(self)

    def __repr__(self) -> str:
        train, test = len(self.train), len(self.test)
        set_aside = f"; {test:,} of {train + test:,} rows are set aside for the test: test_fraction=0 keeps all"
        return f"Pool({self.name!r}: {train:,} training and {test:,} test examples{set_aside if self.split else ''})"


@checked
def load_pool(source: str | Path | Dataset = "shakespeare", *, test_fraction: float | int = 0.1, seed: int = 0) -> Pool:
    """Load a pool of examples and split it.

    `source`: "shakespeare" (dialogue from 37 plays; the plays in `shakespeare.TEST_PLAYS` are the test set), a `.jsonl` or
    `.parquet` file, a `datasets.Dataset`, or a dataset id. A dataset that has a test split keeps it; otherwise
    `test_fraction` of the *documents* (column `document`; without one, of the distinct rows) becomes the test set. With 0
    every row is a candidate and the test set is empty: to choose, and judge elsewhere. The rows of a file get one column
    more, `_source`: the file, the number of the line from 1, and the line itself, which `write_jsonl` writes again. The rows
    of a dataset lose its format (`with_format`), under which a row need not be a dict.
    Raises `ValueError` for a broken line, a missing column, an empty response, a dataset with a transform or a source that
    cannot be read.
    """
    if isinstance(source, Dataset):
        name, rows = "dataset", as_stored(source)
    elif source == "shakespeare":
        return Pool("shakespeare", *(Dataset.from_list(rows) for rows in shakespeare.dialogues()))
    else:
        name = os.fspath(source)
        rows = _read(name)
    train, test = (_train_of(rows, name), rows.get("test")) if isinstance(rows, DatasetDict) else (rows, None)
    if test is train:
        test = None
    for part in [train] if test is None else [train, test]:
        _validate(part, name)
    if test is not None:
        return Pool(name, train, test)
    return Pool(name, *_split_by_document(train, test_fraction, seed, name), split=test_fraction > 0)


def _read(source: str) -> Dataset | DatasetDict:
    if files.is_file(source):
        return files.read(source)
    if os.path.exists(os.path.join(source, "state.json")):
        raise ValueError(
            f"expected a file or a dataset id, got {source!r}, a dataset that was written with save_to_disk: "
            "open it with datasets.load_from_disk and give that"
        )
    try:
        return load_dataset(source)
    except Exception as error:  # datasets raises many kinds; each means that this source cannot be read
        raise ValueError(
            f"expected 'shakespeare', a .jsonl or .parquet file or a dataset id, could not load {source!r} "
            f"({first_line(error)}): check the name, or download it first and give the file"
        ) from error


def _train_of(splits: DatasetDict, name: str) -> Dataset:
    """The split to choose from: "train", or the only one, whatever its name."""
    if "train" not in splits and len(splits) > 1:
        raise ValueError(
            f"{name}: expected a split 'train', got {sorted(map(str, splits))}: "
            "load the one that is meant with datasets.load_dataset(..., split=) and give that"
        )
    return splits["train"] if "train" in splits else next(iter(splits.values()))


def _validate(rows: Dataset, name: str) -> None:
    if len(rows) == 0:
        raise ValueError(f"{name}: expected at least one example, got none")
    for number, row in enumerate(columns_of(rows, TEXT)):
        if problem_of(row):
            raise ValueError(f"{name} row {number}: {problem_of(rows[number])}")  # with the names of all columns


def _words(row: dict) -> dict:
    """What a row says and who says it, without what else its turns may hold, a weight for one."""
    turns = row.get("messages")
    if turns is None:
        return row
    return row | {"messages": [{k: v for k, v in turn.items() if k in ("role", "content")} for turn in turns]}


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
        keys = [json.dumps(_words(row), sort_keys=True, default=str) for row in rows.select_columns(shape)]
    distinct = sorted(set(keys))
    if len(distinct) < 2:
        raise ValueError(f"{name}: expected at least two different documents to split by, got {len(distinct)}: add more")
    held_out = min(max(1, round(fraction * len(distinct))), len(distinct) - 1)  # neither side empty
    test_keys = {distinct[i] for i in np.random.default_rng(seed).permutation(len(distinct))[:held_out]}
    sides = {side: [i for i, key in enumerate(keys) if (key in test_keys) == side] for side in (True, False)}
    return rows.select(sides[False]), rows.select(sides[True])
