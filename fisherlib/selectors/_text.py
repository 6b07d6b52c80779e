"""The text of each row, for the selectors that read."""

from datasets import Dataset

from fisherlib.text import SHAPES, as_stored


def rows_of(rows: Dataset | None) -> Dataset:
    """The rows, for what can not do without them. Raises `ValueError` if there are none."""
    if rows is None:
        raise ValueError("expected the rows of the pool, whose text is read, got None: give the dataset of the features")
    return as_stored(rows)


def texts(rows: Dataset | None) -> list[str]:
    """All of an example's text: its text, its prompt and response, or its turns, a line break between them.

    Raises `ValueError` if there are no rows, or for one without text.
    """
    return [_text(row, number) for number, row in enumerate(rows_of(rows))]


def exchanges(rows: Dataset | None) -> list[tuple[str, str]]:
    """Prompt and response of each example; of `messages`, what stands before the one turn of the assistant, and that turn.

    Raises `ValueError` if there are no rows, or for one without a prompt, or of several exchanges.
    """
    return [_exchange(row, number) for number, row in enumerate(rows_of(rows))]


def _text(row: dict, number: int) -> str:
    if row.get("messages") is not None:
        return "\n".join(turn["content"] for turn in row["messages"])
    if row.get("prompt") is not None and row.get("response") is not None:
        return "\n".join(part for part in (row.get("system"), row["prompt"], row["response"]) if part)
    if row.get("text") is not None:
        return row["text"]
    raise ValueError(f"row {number}: {SHAPES}, got {sorted(row)}: rename your columns")


def _exchange(row: dict, number: int) -> tuple[str, str]:
    prompt, response = row.get("prompt") or "", row.get("response")
    if turns := row.get("messages"):
        if [turn["role"] == "assistant" for turn in turns] != [False] * (len(turns) - 1) + [True]:
            raise ValueError(
                f"row {number}: expected one turn of the assistant, the last, got {[turn['role'] for turn in turns]}: "
                "make a row of each exchange"
            )
        prompt, response = "\n".join(turn["content"] for turn in turns[:-1]), turns[-1]["content"]
    if response is None or not prompt.strip():
        raise ValueError(
            f"row {number}: expected a prompt that the response answers, got none: give rows of 'prompt' and 'response'"
        )
    return prompt, response
