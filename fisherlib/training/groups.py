"""A response together with its alternatives: the rows of an objective that compares several answers to one prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from datasets import Dataset
from jaxtyping import Float
from torch import Tensor

from fisherlib._types import Tokenizer
from fisherlib.text import Encoded, as_stored, encode_row

ALTERNATIVES = "alternatives"  # the column


@runtime_checkable
class Objective(Protocol):
    """What `fl.fine_tune(objective=)` minimises, one row at a time: `fl.objectives` has some, and any function will do."""

    def __call__(self, row: int, log_p: Sequence[Float[Tensor, " _"]]) -> Float[Tensor, ""]:
        """The loss of row number `row`: `log_p` has the log-probability of each token of its response, then of each of its
        alternatives."""


@dataclass(frozen=True)
class Group(Encoded):
    """One row: its response as any `Encoded`, its number, its alternatives. It stays in one step, since it is one item."""

    row: int
    alternatives: tuple[Encoded, ...]

    @property
    def members(self) -> list[Encoded]:
        return [self, *self.alternatives]


def has_alternatives(rows: Dataset | Sequence) -> bool:
    return isinstance(rows, Dataset) and ALTERNATIVES in rows.column_names


def grouped(
    rows: Dataset | Sequence, encoded: Sequence[Encoded], tokenizer: Tokenizer | None, max_tokens: int | None
) -> list[Group]:
    """Each encoded row with the alternatives that its column of that name holds, if there is one.

    A text is encoded as the row would be if this were its (last) answer. Token ids follow the prompt as they are: text that
    a model has sampled, cut and encoded anew is another sequence of tokens, with another probability.
    Raises `ValueError` for an alternative that is neither, that has no tokens, or that is longer than `max_tokens`.
    """
    stored = as_stored(rows) if has_alternatives(rows) else None
    groups = []
    for number, example in enumerate(encoded):
        row = stored[number] if stored is not None else {}
        given = row.get(ALTERNATIVES)
        if not isinstance(given, Sequence | None) or isinstance(given, str):
            raise ValueError(f"row {number}: expected a list of {ALTERNATIVES}, got {type(given).__name__}: give [text]")
        others = tuple(_encoded(row, number, one, example, tokenizer, max_tokens) for one in given or ())
        groups.append(Group(example.input_ids, example.is_response, row=number, alternatives=others))
    return groups


def _encoded(
    row: dict,
    number: int,
    alternative: Any,
    example: Encoded,
    tokenizer: Tokenizer | None,
    max_tokens: int | None,
) -> Encoded:
    is_ids = isinstance(alternative, list) and all(type(i) is int and i >= 0 for i in alternative)
    if not isinstance(alternative, str) and not is_ids:
        raise ValueError(
            f"row {number}: expected alternatives that are texts or lists of token ids, got {alternative!r:.60}"
        )
    if not alternative:
        raise ValueError(f"row {number}: expected alternatives with tokens, got an empty one: leave it out")
    if isinstance(alternative, str):
        other = encode_row(_with_answer(row, alternative), number, tokenizer, "all", max_tokens, "error")
    else:
        begin = _last_run(example.is_response)
        ids = [*example.input_ids[:begin], *alternative]
        if max_tokens is not None and len(ids) > max_tokens:
            raise ValueError(
                f"row {number}: expected alternatives of at most {max_tokens:,} tokens with their prompt, got {len(ids):,}: "
                "sample shorter ones"
            )
        other = Encoded(ids, [*example.is_response[:begin], *[True] * len(alternative)])
    if not any(other.is_response):
        raise ValueError(
            f"row {number}: expected alternatives with tokens that count, got {alternative!r:.60}: leave it out"
        )
    return other


def _last_run(is_response: Sequence[bool]) -> int:
    """Where the last answer begins: after it stands at most what a template writes behind an answer."""
    end = len(is_response) - is_response[::-1].index(True) if True in is_response else 0
    return end - next((k for k, counts in enumerate(is_response[:end][::-1]) if not counts), end)


def _with_answer(row: Mapping, text: str) -> dict:
    """The row with another (last) answer."""
    if row.get("messages") is not None:
        turns = [dict(turn) for turn in row["messages"]]
        last = max((i for i, turn in enumerate(turns) if turn.get("role") == "assistant"), default=None)
        if last is not None:
            turns[last]["content"] = text
        return {**row, "messages": turns}
    return {**row, "text" if row.get("prompt") is None or row.get("response") is None else "response": text}


def parts_of(step: Sequence[Group]) -> list[tuple[int, list[int]]]:
    """Of each row of a step its number, and how many tokens of each of its members count."""
    return [(group.row, [sum(member.is_response[1:]) for member in group.members]) for group in step]


def mean_loss(
    objective: Objective, log_p: Float[Tensor, " m"], parts: Sequence[tuple[int, Sequence[int]]]
) -> Float[Tensor, ""]:
    """The mean over the rows of a step. Raises `ValueError` for an objective that does not give a number with a gradient."""
    sizes = [size for _, members in parts for size in members]
    pieces = iter(log_p.split(sizes))
    losses = []
    for row, members in parts:
        loss = objective(row, [next(pieces) for _ in members])
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            raise ValueError(f"row {row}: expected an objective that gives one number as a tensor, got {loss!r:.60}")
        losses.append(loss.reshape(()))
    return torch.stack(losses).mean()
