"""Which tokens of a row count: token ids, the response mask, and an audit of both."""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from fisherlib._door import checked
from fisherlib._files import first_line
from fisherlib._types import Tokenizer
from fisherlib.text.rows import SOURCE, as_stored, is_source, problem_of
from fisherlib.text.shapes import conversation

_LARGEST_ID = 2**31 - 1  # no vocabulary is larger; whether a model knows an id is its own affair


@dataclass(frozen=True)
class Encoded:
    """Token ids of one example, and for each whether it is a response token (one that is predicted and counted).

    `cut_from`: of a row that was too long, and was dropped (no ids are left) or truncated, how many tokens it had; else 0.
    """

    input_ids: list[int]
    is_response: list[bool]
    cut_from: int = field(default=0, repr=False, kw_only=True)


@checked
def encode(
    rows: Dataset | Sequence[Sequence[int]],
    tokenizer: Tokenizer | None,
    *,
    max_tokens: int | None = None,
    turns: str = "all",
    too_long: str = "error",
) -> list[Encoded]:
    """Token ids and response mask of every row.

    >>> fl.encode([[3, 1, 4], [1, 5]], None)[0]
    Encoded(input_ids=[3, 1, 4], is_response=[False, True, True])

    With a chat template, rows become conversations and the assistant turns with their end-of-turn token count;
    without one, the prompt and the response are joined as they stand (a `system` line is left out) and the response with
    the end-of-text token counts. `tokenizer=None` takes rows that are lists of token ids, where every position counts.
    The first token of a sequence never counts: nothing precedes it to predict it from. `turns`: "all" the assistant's, but
    those of `weight` 0, or the "last" only. `too_long`: what becomes of a row of more than `max_tokens`: "error", "drop" (it
    has no tokens, and so is never chosen for a budget of them) or "truncate" (its end is cut off); `Encoded.cut_from` says
    which rows these were. Calls of tools are rendered as the chat template does it; a template that leaves them out is
    refused. So is one that rewrites what it wrote, unless each answer can be found again in the whole.
    Raises `ValueError` for a row that `load_pool` would refuse, ids that are no whole numbers from 0 to 2^31 - 1, a chat
    template from which the response cannot be told, if a row exceeds `max_tokens`, if no token of any row counts, or for a
    `Pool` in place of its rows.
    """
    rows = as_stored(rows)
    check_encoding(tokenizer, turns, too_long)
    encoded = [encode_row(row, number, tokenizer, turns, max_tokens, too_long) for number, row in enumerate(rows)]
    if not any(any(example.is_response) for example in encoded):
        raise ValueError(
            f"expected some response tokens to learn from, got none in {len(encoded)} rows: "
            "look at the mask audit; the rows may be empty, or the chat template may drop the assistant's turns"
        )
    return encoded


def check_encoding(tokenizer: Tokenizer | None, turns: str, too_long: str) -> None:
    """Raise `ValueError` for options that are not known, or a tokenizer that does not say where its tokens lie."""
    if turns not in ("all", "last"):
        raise ValueError(f"expected turns 'all' or 'last', got {turns!r}: change turns=")
    if too_long not in ("error", "drop", "truncate"):
        raise ValueError(f"expected too_long 'error', 'drop' or 'truncate', got {too_long!r}: change too_long=")
    if tokenizer is not None and not tokenizer.is_fast:
        raise ValueError(f"expected a fast tokenizer, got {type(tokenizer).__name__}: it cannot say where its tokens lie")


def encode_row(
    row: object, number: int, tokenizer: Tokenizer | None, turns: str, max_tokens: int | None, too_long: str
) -> Encoded:
    """One row, as `encode` does it. Raises `ValueError` with its number."""
    example = _encode_ids(row, number) if tokenizer is None else _encode_row(row, number, tokenizer, turns)
    if example.is_response:
        example.is_response[0] = False
    tokens = len(example.input_ids)
    if max_tokens is None or tokens <= max_tokens:
        return example
    if too_long == "error":
        raise ValueError(
            f"row {number}: expected at most {max_tokens:,} tokens (the model's context), "
            f"got {tokens:,}{_origin(row)}: shorten or drop the row, or give too_long='drop' or 'truncate'"
        )
    left = max_tokens if too_long == "truncate" else 0
    return Encoded(example.input_ids[:left], example.is_response[:left], cut_from=tokens)


def _origin(row: Any) -> str:
    """Where a row came from, for a message, if that is known."""
    source: Any = row.get(SOURCE) if isinstance(row, dict) else None
    return f" in line {source['line']} of {source['file']}" if is_source(source) else ""


def _encode_ids(row: object, number: int) -> Encoded:
    entries = row.tolist() if hasattr(row, "tolist") else row  # of numpy and torch
    if isinstance(entries, str | bytes | dict) or not isinstance(entries, Iterable):
        instead = "give the tokenizer of these rows" if isinstance(row, dict) else "give lists of ids"
        if isinstance(row, dict) and "input_ids" in row:
            instead = "give the column of ids, rows['input_ids']"
        raise ValueError(
            f"row {number}: expected a list of token ids without a tokenizer, got {type(row).__name__}: {instead}"
        )
    if type(entries) is list and set(map(type, entries)) == {int} and min(entries) >= 0 and max(entries) <= _LARGEST_ID:
        return Encoded(entries.copy(), [True] * len(entries))  # what nearly all rows are, without a look at each id
    ids = []
    for entry in entries:
        i = entry.item() if isinstance(entry, torch.Tensor) and entry.numel() == 1 else entry
        if not isinstance(i, int | np.integer) or isinstance(i, bool) or not 0 <= i <= _LARGEST_ID:
            raise ValueError(
                f"row {number}: expected token ids, whole numbers from 0 to {_LARGEST_ID:,}, got {str(i)[:40]} "
                f"({type(i).__name__}): encode the row with the tokenizer of the model"
            )
        ids.append(int(i))
    return Encoded(ids, [True] * len(ids))


def _encode_row(row: Any, number: int, tokenizer: Tokenizer, turns: str) -> Encoded:
    problem = problem_of(row)
    if tokenizer.chat_template is None and isinstance(row, dict) and row.get("messages") is not None:
        problem = "expected a tokenizer with a chat template for 'messages' rows: give 'prompt' and 'response'"
    if problem:
        raise ValueError(f"row {number}: {problem}")
    try:
        text, spans = _render(row, tokenizer, turns)
    except ValueError as error:
        raise ValueError(f"row {number}: {error}") from error
    templated = tokenizer.chat_template and not _is_text(row)
    tokens = tokenizer(text, add_special_tokens=not templated, return_offsets_mapping=True)
    # A token counts if any character of it is the response's: one that straddles the boundary is not lost.
    offsets = tokens["offset_mapping"]
    mask = [any(start < last and end > first for first, last in spans) for start, end in offsets]
    return Encoded(list(tokens["input_ids"]), mask)


def _is_text(row: dict) -> bool:
    return row.get("messages") is None and (row.get("prompt") is None or row.get("response") is None)


def _render(row: dict, tokenizer: Tokenizer, which: str) -> tuple[str, list[tuple[int, int]]]:
    """The text of a row, and the character spans of its responses."""
    if _is_text(row):
        text = row["text"] + (tokenizer.eos_token or "")
        return text, [(0, len(text))]
    if tokenizer.chat_template is None:
        text = row["prompt"] + row["response"] + (tokenizer.eos_token or "")
        return text, [(len(row["prompt"]), len(text))]
    turns, tools = conversation(row)
    text = _apply(tokenizer, turns, tools)
    spans = []
    answers = [i for i, turn in enumerate(turns) if turn["role"] == "assistant"]
    for i in answers if which == "all" else answers[-1:]:
        if turns[i].get("weight") == 0:  # OpenAI's word for a turn that is not trained on
            continue
        before = _apply(tokenizer, turns[:i], tools, add_generation_prompt=True)
        through = _apply(tokenizer, turns[: i + 1], tools)
        if through.startswith(before) and text.startswith(through.rstrip()):
            end: int | None = len(through.rstrip())  # the end-of-turn token counts, the newline after it not
        else:
            end = _found_again(text, before, through, turns[i]["content"], tokenizer)
        if end is None:
            raise ValueError(
                "expected a chat template that renders a conversation turn by turn, but this one rewrites what it wrote "
                f"before turn {i}: give one exchange per row, or a tokenizer with a plainer template"
            )
        if before == _apply(tokenizer, turns[:i], tools):
            _check_template_without_prompt(tokenizer, turns, tools, i, before, through)
        if turns[i].get("tool_calls") and text == _apply(tokenizer, _without_calls(turns, i), tools):
            raise ValueError(
                f"expected a chat template that renders calls of tools, but this one leaves out those of turn {i}: "
                "drop the row, or give a tokenizer whose template knows tools"
            )
        spans.append((len(before), end))
    return text, spans


def _found_again(text: str, before: str, through: str, content: str, tokenizer: Tokenizer) -> int | None:
    """Where an answer ends in a conversation that is rendered otherwise as a whole than as far as this answer.

    Some templates add to the last answer what earlier ones do not get (an empty <think>, an end of text). The answer must
    stand where it is asked for, word for word; and behind it both have the same special token, its end.
    None if it cannot be told.
    """
    content = content.strip()
    if not (content and text.startswith(before) and content in through[len(before) :]):
        return None
    last, at = through.rindex(content) + len(content), text.find(content, len(before))
    if at < 0 or text[len(before) : at].strip():
        return None
    begin = at + len(content)
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(text[begin:], through[last:], strict=False))
    common = "".join(one for one, _ in pairs)
    marks = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    ends = [len(mark) for mark in marks if common.lstrip().startswith(mark)]
    return begin + len(common) - len(common.lstrip()) + max(ends) if ends else None


def _without_calls(turns: list[dict], i: int) -> list[dict]:
    return [{k: v for k, v in turn.items() if k != "tool_calls"} if j == i else turn for j, turn in enumerate(turns)]


def _apply(tokenizer: Tokenizer, turns: list[dict], tools: list | None, *, add_generation_prompt: bool = False) -> str:
    more = {} if tools is None else {"tools": tools}
    try:
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt, **more)
    except Exception as error:  # a chat template is a program of its own, and may raise anything
        raise ValueError(f"{first_line(error)}: the chat template refuses this conversation; mend it or drop it") from error


def _check_template_without_prompt(
    tokenizer: Tokenizer, turns: list[dict], tools: list | None, i: int, before: str, through: str
) -> None:
    """Refuse a template that writes the same with `add_generation_prompt` as without, though its answers have a header.

    Where the answer's text follows the question at once, as Llama 2's and Mistral's do, there is nothing to ask for.
    """
    answers = [_apply(tokenizer, [*turns[:i], {**turns[i], "content": text}], tools) for text in "01"]
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*answers, strict=False))
    header = "".join(one for one, _ in pairs)[len(before) :].strip() if answers[0] != answers[1] else ""
    if header:  # before the text, and so within what counts
        raise ValueError(
            "expected a chat template that writes the header of an answer when asked to (add_generation_prompt), but this "
            f"one ignores that, so its {header[:60]!r} would count as response: add the clause to the template"
        )
    if not _apply(tokenizer, [*turns[: i + 1], {"role": "user", "content": "0"}], tools).startswith(through.rstrip()):
        raise ValueError(
            "expected a chat template that ends with the last turn, but this one writes more after an answer, such as the "
            "header of the next, whether asked to (add_generation_prompt) or not, and it would count as response: "
            "put it under the clause"
        )


class MaskAudit:
    """Which tokens count, shown for a few rows: read it before trusting anything downstream.

    `tokens` and `responses` count all the tokens and the response tokens of `rows`; `empty` lists the rows without any, and
    `control` those whose own text holds a control token, like "<|im_end|>", which the tokenizer takes for the real one.
    """

    @checked
    def __init__(self, rows: Dataset | Sequence[dict], tokenizer: Tokenizer, *, show: int = 2):
        self._tokenizer, rows = tokenizer, as_stored(rows)
        encoded = encode(rows, tokenizer)
        self.tokens = sum(len(e.input_ids) for e in encoded)
        self.responses = sum(sum(e.is_response) for e in encoded)
        self.empty = [i for i, e in enumerate(encoded) if not any(e.is_response)]
        specials = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
        pattern = re.compile("|".join(map(re.escape, specials)) or r"(?!)")  # of no tokens: what nothing matches
        self.control = [i for i, row in enumerate(rows) if any(pattern.search(text) for text in _texts(row))]
        self._shown = encoded[:show]

    def __repr__(self) -> str:
        def mark(example: Encoded) -> str:
            runs = itertools.groupby(zip(example.is_response, example.input_ids, strict=True), key=lambda pair: pair[0])
            return "".join(
                f"⟦{text}⟧" if counts else text
                for counts, run in runs
                for text in [self._tokenizer.decode([token for _, token in run])]
            )

        return "\n\n".join([*(mark(example) for example in self._shown), self._summary()])

    def _repr_html_(self) -> str:
        style = {
            True: "background:#cfe8d5;color:#123;border-right:1px solid #7db48c",
            False: "color:#888",
        }
        blocks = []
        for example in self._shown:
            pairs = zip(example.input_ids, example.is_response, strict=True)
            pieces = [
                f'<span style="{style[counts]}">{escape(self._tokenizer.decode([token])).replace(chr(10), "⏎<br>")}</span>'
                for token, counts in pairs
            ]
            blocks.append(f'<div style="font-family:monospace;line-height:1.5;margin:0.6em 0">{"".join(pieces)}</div>')
        return "".join(blocks) + f"<p>{escape(self._summary())}</p>"

    def _summary(self) -> str:
        share = self.responses / max(self.tokens, 1)
        empty = f"; {len(self.empty)} rows have none, first {self.empty[:5]}" if self.empty else ""
        control = (
            f"; the text of {len(self.control)} rows, first {self.control[:5]}, holds control tokens, encoded as such"
            if self.control
            else ""
        )
        return f"{self.responses:,} of {self.tokens:,} tokens count ({share:.0%}){empty}{control}"


def _texts(row: dict) -> Iterator[str]:
    """All that a row says itself, without what a template adds."""
    return iter([row["text"]] if _is_text(row) else [turn["content"] for turn in conversation(row)[0]])
