"""How likely a model finds each of some answers: one pass where one token tells them apart."""

from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float

from fisherlib._door import checked
from fisherlib._quiet import progress_bar
from fisherlib._types import Model, Tokenizer
from fisherlib.model.forward import check_run, context_length, evaluating, nll
from fisherlib.model.prefix import after_beginning
from fisherlib.text import Encoded, as_stored, encode


@checked
def answer_distribution(
    model: Model,
    tokenizer: Tokenizer,
    rows: Dataset,
    answers: Sequence[str] | Sequence[Sequence[str]],
    *,
    tokens_per_batch: int = 1024,
    precision: str = "auto",
    progress: bool | None = None,
) -> Float[np.ndarray, "N R"]:
    """The chance of each of `answers` as the (last) response of each row: the response that is there is not read.

    `answers`: R texts for all rows, or R of each row's own. What counts are the tokens from the first one in which the
    answers differ. If one token tells them apart in every row, as with letters and digits, that is one forward pass over the
    rows, and what follows it is left out. Else (1 and 10) each is scored to the end of its response. What rows or
    answers have in common at their beginning is computed once. The chances of a row sum to what the model leaves for these
    answers: less than one. Source: the second estimator of arXiv 2403.04182; scoring from the first difference on is ours.
    Cost: one pass over the rows, and one over all answers where one token is not enough.
    Raises `ValueError` for less than two answers, for equal ones, for rows with other numbers of them, and for rows as
    `fl.encode` does.
    """
    stored = list(as_stored(rows))
    shared = [one for one in answers if isinstance(one, str)]
    of_rows = [shared] * len(stored) if len(shared) == len(answers) else [list(own) for own in answers]
    if len(of_rows) != len(stored) or len({len(one) for one in of_rows}) != 1:
        raise ValueError(
            f"expected answers for all rows or as many for each of {len(stored)}, got {len(of_rows)}: check them"
        )
    for number, one in enumerate(of_rows):
        if len(one) < 2 or len(set(one)) < len(one):
            raise ValueError(f"row {number}: expected two or more different answers, got {one}: remove what is there twice")
    R = len(of_rows[0])
    flat = [_answered(row, answer) for row, own in zip(stored, of_rows, strict=True) for answer in own]
    encoded = encode(Dataset.from_list(flat), tokenizer, max_tokens=context_length(model))
    check_run(model, encoded, tokens_per_batch=tokens_per_batch, precision=precision)
    by_row = [encoded[k : k + R] for k in range(0, len(encoded), R)]
    starts = [_first_difference(same) for same in by_row]
    tokens = [[one.input_ids[start] for one in same] for same, start in zip(by_row, starts, strict=True)]
    settings: dict = {"tokens_per_batch": tokens_per_batch, "precision": precision}
    found = np.empty((len(stored), R))
    with evaluating(model), progress_bar(len(stored), progress) as bar:
        if all(len(set(one)) == R for one in tokens):
            asked = [_cut(same[0].input_ids[: start + 1], start) for same, start in zip(by_row, starts, strict=True)]
            for indices, logits, _ in after_beginning(model, asked, **settings):
                wanted = torch.tensor([tokens[i] for i in indices], device=logits.device)
                found[indices] = logits.log_softmax(1).gather(1, wanted).exp().cpu().double().numpy()
                bar.update(len(indices))
            return found
        for i, (same, start) in enumerate(zip(by_row, starts, strict=True)):
            asked = [_cut(one.input_ids[: _end(one)], start) for one in same]
            for indices, logits, labels in after_beginning(model, asked, **settings):
                parts = (-nll(logits, labels)).cpu().double().split([sum(asked[j].is_response) for j in indices])
                found[i, indices] = [float(part.sum().exp()) for part in parts]
            bar.update(1)
    return found


def _answered(row: dict, answer: str) -> dict:
    """A row with this as its last response."""
    row = {key: value for key, value in row.items() if value is not None}
    if turns := row.get("messages"):
        last = max((i for i, turn in enumerate(turns) if turn.get("role") == "assistant"), default=None)
        if last is None:
            raise ValueError("expected a conversation with an answer to replace, got none: add an assistant's turn")
        return row | {"messages": [*turns[:last], {**turns[last], "content": answer}, *turns[last + 1 :]]}
    return row | {"response": answer}


def _first_difference(same_row: Sequence[Encoded]) -> int:
    """Where the first token stands in which not all encodings of a row agree."""
    shortest = min(len(one.input_ids) for one in same_row)
    differs = (at for at in range(shortest) if len({one.input_ids[at] for one in same_row}) > 1)
    return next(differs, shortest - 1)  # where one is the beginning of another: the end of the shorter


def _end(example: Encoded) -> int:
    """One past the last token that counts."""
    return len(example.input_ids) - example.is_response[::-1].index(True)


def _cut(ids: list[int], start: int) -> Encoded:
    return Encoded(ids, [at >= start for at in range(len(ids))])
