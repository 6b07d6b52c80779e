"""Pools of fine-tuning examples, and which of their tokens count.

An example is a row of a `datasets.Dataset` with one of three shapes: `prompt` and `response` (and, if you like,
`system`); `messages` (a list of `{"role", "content"}`); or `text`. Rows in shapes of others become one of these. Only
*response* tokens are trained on, scored and counted: the response of a pair, the assistant turns of a conversation, every
token of a text.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset, DatasetDict, concatenate_datasets, load_dataset

from fisherlib._door import check_fields, checked
from fisherlib._files import first_line
from fisherlib.text import files, shakespeare
from fisherlib.text.rows import TEXT, as_stored, columns_of, problem_of
from fisherlib.text.shapes import CANONICAL, SHAPE_NAMES, reshaped


@dataclass(frozen=True)
class Pool:
    """Examples to choose from (`train`) and examples to judge by (`test`), never of the same document.

    `split`: the test examples were set aside by `load_pool`, where the source had no test set of its own. `skipped`: rows
    that cannot be used, as {"file", "line", "id", "reason"}, if they were to be left out.
    """

    name: str
    train: Dataset
    test: Dataset
    split: bool = False
    skipped: list[dict] = field(default_factory=list)

    def __post_init__(self):
        check_fields(self)

    def __repr__(self) -> str:
        train, test = len(self.train), len(self.test)
        set_aside = f"; {test:,} of {train + test:,} rows are set aside for the test: test_fraction=0 keeps all"
        left_out = f"; {len(self.skipped):,} skipped" if self.skipped else ""
        said = f"{train:,} training and {test:,} test examples{set_aside if self.split else ''}{left_out}"
        return f"Pool({self.name!r}: {said})"


@checked
def load_pool(
    source: str | Path | Dataset | Sequence[str | Path] = "shakespeare",
    *,
    test_fraction: float | int = 0.1,
    seed: int = 0,
    shape: str | None = None,
    columns: Mapping[str, str] | None = None,
    bad_rows: str = "error",
) -> Pool:
    """Load a pool of examples and split it.

    `source`: "shakespeare" (dialogue from 37 plays; the plays in `shakespeare.TEST_PLAYS` are the test set), a `.jsonl`,
    `.json`, `.csv`, `.tsv` or `.parquet` file (or one as `.gz`), several of them, a folder of them, a `datasets.Dataset`, or
    a dataset id. A dataset that has a test split keeps it; otherwise
    `test_fraction` of the *documents* (column `document`; without one, of the distinct rows) becomes the test set. With 0
    every row is a candidate and the test set is empty: to choose, and judge elsewhere. The rows of a file get one column
    more, `_source`: the file, the number of the line from 1, and the line itself, which `write_jsonl` writes again. The rows
    of a dataset lose its format (`with_format`), under which a row need not be a dict.

    *Shapes.* Each row has a `prompt` and a `response`, `messages`, or a `text`; or is made to, if it looks like "alpaca"
    (instruction, input, output), "sharegpt" (conversations), "question/answer", "prompt/completion" or "preference" (what is
    `chosen` counts; `rejected` stays a column). `shape` names one of these for all rows; `columns` says which of yours are
    ours: {"prompt": "question", "response": "reply"}. Other columns stay as they are; one that holds several types of value
    becomes text. `bad_rows`: "error", or "skip", which leaves out a row that cannot be used and notes it in `Pool.skipped`.
    Raises `ValueError` for a broken line, a missing column, an empty response, two shapes in one row, a dataset with a
    transform or a source that cannot be read.
    """
    how = _shape(shape, columns)
    if bad_rows not in ("error", "skip"):
        raise ValueError(f"expected bad_rows 'error' or 'skip', got {bad_rows!r}: change bad_rows=")
    skipped: list[dict] | None = [] if bad_rows == "skip" else None
    if isinstance(source, Dataset):
        name, rows = "dataset", as_stored(source)
    elif isinstance(source, str) and source == "shakespeare":
        return Pool("shakespeare", *(Dataset.from_list(rows) for rows in shakespeare.dialogues()))
    elif isinstance(source, str | Path):
        name = os.fspath(source)
        rows = _read(name, how, skipped)
    else:
        if not (len(source) and all(isinstance(path, str | os.PathLike) for path in source)):
            kind = type(source).__name__
            raise ValueError(f"expected files or rows, got a {kind}: make one with Dataset.from_list, or name the files")
        paths = [os.fspath(path) for path in source]
        name = paths[0] if len(paths) == 1 else f"{len(paths)} files"
        rows = files.read(paths, how, skipped)
    train, test = (_train_of(rows, name), rows.get("test")) if isinstance(rows, DatasetDict) else (rows, None)
    if test is train:
        test = None
    train = _in_our_columns(train, name, how, skipped)
    if test is not None:
        return Pool(name, train, _in_our_columns(test, name, how, None), skipped=skipped or [])
    both = _split_by_document(train, test_fraction, seed, name)
    return Pool(name, *both, split=test_fraction > 0, skipped=skipped or [])


def _shape(shape: str | None, columns: Mapping[str, str] | None) -> str | Mapping[str, str] | None:
    """Raises `ValueError` for a name, or for columns, that are not known."""
    if shape is not None and columns is not None:
        raise ValueError("expected one of shape= and columns=, got both: leave one out")
    if shape is not None and shape not in SHAPE_NAMES:
        raise ValueError(f"expected a shape of {list(SHAPE_NAMES)}, got {shape!r}: change shape=, or give columns=")
    if columns is not None and not (columns and set(columns) <= set(CANONICAL)):
        raise ValueError(f"expected columns= to say some of {list(CANONICAL)}, got {dict(columns)}: change columns=")
    return shape if columns is None else dict(columns)


def _read(source: str, shape: str | Mapping[str, str] | None, skipped: list[dict] | None) -> Dataset | DatasetDict:
    if files.is_file(source):
        return files.read([source], shape, skipped)
    if found := files.files_in(source):
        return files.read(found, shape, skipped)
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


def _in_our_columns(rows: Dataset, name: str, shape: str | Mapping[str, str] | None, skipped: list[dict] | None) -> Dataset:
    """Rows that can be trained on; those of another shape in our columns, beside their own. Raises `ValueError`."""
    if len(rows) == 0:
        raise ValueError(f"{name}: expected at least one example, got none")
    if files.SOURCE in rows.column_names:  # files were read row by row
        shape = None
    looked_at = rows.column_names if shape or not set(rows.column_names) & {"messages", "response"} else TEXT
    said: list[dict] = []
    kept = []
    for number, row in enumerate(columns_of(rows, looked_at)):
        try:
            ours = reshaped(row, shape)[1]
            if problem := problem_of({k: v for k, v in (row | ours).items() if k in TEXT}) and problem_of(
                rows[number] | ours
            ):
                raise ValueError(problem)  # with the names of all columns
        except ValueError as error:
            if skipped is None:
                raise ValueError(f"{name} row {number}: {error}") from None
            known = rows[number].get("id")
            skipped.append({"file": name, "line": number, "id": None if known is None else str(known), "reason": str(error)})
            continue
        kept.append(number)
        said.append(ours)
    if not kept:
        raise ValueError(f"{name}: expected a row that can be used, got none, first {(skipped or [{}])[0].get('reason')}")
    rows = rows if len(kept) == len(rows) else rows.select(kept)
    new = list(dict.fromkeys(column for ours in said for column in ours))
    if not new:
        return rows
    there = {column: rows[column][:] for column in new if column in rows.column_names}
    made = {c: [ours.get(c, there[c][i] if c in there else None) for i, ours in enumerate(said)] for c in new}
    return concatenate_datasets([rows.remove_columns(list(there)), Dataset.from_dict(made)], axis=1)


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
