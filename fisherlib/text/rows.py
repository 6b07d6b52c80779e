"""What *rows* are: a `datasets.Dataset`, or dicts, and what each must hold. Anything else is refused in one sentence."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from datasets import Dataset

SHAPES = "expected the columns 'prompt' and 'response', or 'messages', or 'text'"
TEXT = ("messages", "system", "prompt", "response", "text")  # the columns that are looked at
Rows = TypeVar("Rows")
# The column that `load_pool` adds: {"file", "line", "text"}, the line as it was, or None; and, if any row of the file had
# another shape than ours, the "shape" that each was read as.
SOURCE = "_source"
_SOURCE_KEYS = {"file", "line", "text"}
_ASSISTANT = "assistant"
_ALIASES = {_ASSISTANT, "gpt", "chatgpt", "model", "bot", "chatbot", "ai"}  # of who answers, in other formats


def as_stored(rows: Rows) -> Rows:
    """A dataset without its format, so that a row is a dict of Python's own values; anything else as it is.

    Raises `ValueError` for one with a transform. That is a function which makes a row anew each time somebody reads it. So
    the features would be of what it says today, and hashes and files of what is stored: two texts, of which the user sees
    one. `map` makes them one.
    """
    if not isinstance(rows, Dataset):
        return rows
    if rows.format["type"] == "custom":
        raise ValueError(
            "expected rows without a transform, which changes what they say each time they are read, got some with one: "
            "make its text with rows.map, or leave it out with rows.with_format(None)"
        )
    return rows.with_format(None)


def is_source(value: object) -> bool:
    """Whether this is what `load_pool` notes of a row, and no value of a column that only happens to have the name."""
    return isinstance(value, Mapping) and set(value) - {"shape"} == _SOURCE_KEYS


def columns_of(rows: Dataset, names: Sequence[str]) -> Iterator[dict]:
    """Each row with some of its columns, those of `names` that there are; in batches, which is faster than row by row."""
    rows = as_stored(rows)
    known = [name for name in names if name in rows.column_names]
    if not known:
        yield from ({} for _ in range(len(rows)))
        return
    for batch in rows.select_columns(known).iter(1000):
        yield from (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))


def problem_of(row: object) -> str | None:
    """What is wrong with a row, and what to do about it; None for a sound one.

    A `text` beside one of the other shapes is a column like any other.
    """
    if not isinstance(row, Mapping):
        return f"expected a row with columns by name, got {type(row).__name__}: token ids go with tokenizer=None"
    pair = row.get("response") is not None and row.get("prompt") is not None
    if row.get("messages") is not None:
        if pair:
            return "expected 'messages', or 'prompt' and 'response', got both: leave out the one that is not meant"
        return _problem_of_turns(row["messages"])
    if pair:
        response, prompt = row["response"], row["prompt"]
        if not isinstance(response, str) or not isinstance(prompt, str):
            return f"expected strings in 'prompt' and 'response', got {type(prompt).__name__} and {type(response).__name__}"
        if not isinstance(row.get("system") or "", str):
            return f"expected a string in 'system', got {type(row['system']).__name__}"
        for name in ("system", "prompt", "response"):
            if broken := half_a_character(row.get(name) or ""):
                return f"{broken} in {name!r}: repair it or drop the row"
        return None if response.strip() else "expected a non-empty 'response': drop the row or fill it"
    if row.get("text") is not None:
        if not isinstance(row["text"], str):
            return f"expected a string in 'text', got {type(row['text']).__name__}"
        if broken := half_a_character(row["text"]):
            return f"{broken} in 'text': repair it or drop the row"
        return None if row["text"].strip() else "expected a non-empty 'text': drop the row or fill it"
    return f"{SHAPES}, got {sorted(map(str, row))}: rename your columns"


def _problem_of_turns(turns: object) -> str | None:
    if not (isinstance(turns, list) and turns and all(isinstance(turn, Mapping) and "role" in turn for turn in turns)):
        return "expected 'messages' to be a list of {'role', 'content'}: repair the row"
    for number, turn in enumerate(turns):
        role, content = turn["role"], turn.get("content")
        if not isinstance(role, str):
            return f"expected every 'role' in 'messages' to be a string, got {type(role).__name__} in turn {number}: fill it"
        if role != _ASSISTANT and role.strip().lower() in _ALIASES:
            return f"expected '{_ASSISTANT}' as the role of who answers, got {role!r} in turn {number}: rename the role"
        if content is None and not turn.get("tool_calls"):
            return (
                f"expected every 'content' in 'messages' to be a string, got none in turn {number}: a turn without text "
                "(and without tool_calls) cannot be rendered; give it a text or drop the row"
            )
        if content is not None and not isinstance(content, str):
            return (
                "expected every 'content' in 'messages' to be a string, "
                f"got {type(content).__name__} in turn {number}: join its parts, as load_pool does"
            )
        if broken := half_a_character(role) or half_a_character(content or ""):
            return f"{broken} in turn {number} of 'messages': repair it or drop the row"
    answers = [turn for turn in turns if turn["role"] == _ASSISTANT]
    if not any((turn.get("content") or "").strip() or turn.get("tool_calls") for turn in answers):
        return "expected an assistant turn with text in 'messages', got none: drop the row or fill it"
    if turns[0]["role"] == _ASSISTANT:
        return "expected a turn before the assistant's first in 'messages', got none: add what it answers, or drop the turn"
    return None


def half_a_character(text: str) -> str | None:
    """Words for a lone surrogate, which JSON can escape (`\\ud800`) but no text holds; None if there is none."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"expected whole characters, got half of one (the lone surrogate {text[error.start]!a})"
    return None
