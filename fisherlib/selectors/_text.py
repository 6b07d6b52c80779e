"""The text of each example of a pool, for the selectors that read."""

from datasets import Dataset

from fisherlib.data import SHAPES


def texts(pool: Dataset | None) -> list[str]:
    """All of an example's text: its text, its prompt and response, or its turns, a line break between them.

    Raises `ValueError` if there is no pool, or a row without text.
    """
    if pool is None:
        raise ValueError("expected the rows of the pool, whose text is read, got None: give the dataset of the features")
    return [_text(row, number) for number, row in enumerate(pool)]


def _text(row: dict, number: int) -> str:
    if row.get("messages") is not None:
        return "\n".join(turn["content"] for turn in row["messages"])
    if row.get("prompt") is not None and row.get("response") is not None:
        return "\n".join(part for part in (row.get("system"), row["prompt"], row["response"]) if part)
    if row.get("text") is not None:
        return row["text"]
    raise ValueError(f"row {number}: {SHAPES}, got {sorted(row)}: rename your columns")
