"""Which tokens of a row carry a number: the text of a row, piece by piece, with what belongs to each."""

from collections.abc import Sequence

from fisherlib._types import Tokenizer
from fisherlib.text.masks import Encoded

_HALF = "\N{REPLACEMENT CHARACTER}"  # what a part of a character is decoded as


def heat(example: Encoded, tokenizer: Tokenizer, values: Sequence[float]) -> list[tuple[str, float | None]]:
    """The text of a row in pieces, and what each brings: the sum of its tokens' `values`, or None where none counts.

    `values` [T]: one for each response token. A piece is one token, or as many as it takes to have whole characters. The
    pieces join to the text of the row. Raises `ValueError` for values of another number of tokens.
    """
    responses = sum(example.is_response)
    if responses != len(values):
        raise ValueError(
            f"expected a value for each of {responses:,} response tokens, got {len(values):,}: give the tokenizer and the "
            "options that the features were made with"
        )
    left, found = list(values)[::-1], []
    for text, counts in pieces(example, tokenizer):
        brought = [left.pop() for counted in counts if counted]
        found.append((text, sum(brought) if brought else None))
    return found


def pieces(example: Encoded, tokenizer: Tokenizer) -> list[tuple[str, list[bool]]]:
    """The text of a row, a token at a time, or more where a character has more; and which of these tokens count.

    Each is decoded behind the one before, since some tokenizers drop the space in front of what is decoded alone.
    """
    ids, found, before, begin = example.input_ids, [], 0, 0
    for end in range(1, len(ids) + 1):
        known, now = (tokenizer.decode(ids[before:stop], clean_up_tokenization_spaces=False) for stop in (begin, end))
        if now.endswith(_HALF) and end < len(ids) and end - begin < 8:  # no character has more
            continue
        found.append((now[len(known) :], example.is_response[begin:end]))
        before, begin = begin, end
    return found
