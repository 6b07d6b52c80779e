"""A language model as the reference: a teacher that has seen demonstrations writes answers, and ranks those of a student."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from jaxtyping import Float

from fisherlib._door import checked
from fisherlib._types import Model, Tokenizer
from fisherlib.model import continuation_ids
from fisherlib.text import as_stored, encode
from fisherlib.training.groups import ALTERNATIVES, grouped
from fisherlib.training.objectives import log_likelihoods


@checked
def demonstrated(rows: Dataset, tokenizer: Tokenizer, examples: Dataset) -> Dataset:
    """The rows with `examples`, prompt and response, before each: what makes a teacher of a model.

    With a chat template they are earlier turns of the conversation, of weight 0, so that none of their tokens counts;
    without one they stand in the prompt, each with its answer on the next line (our choice). Columns of the rows are kept.
    Raises `ValueError` for rows or examples without a prompt and a response, and for no examples.

    >>> from datasets import Dataset
    >>> from transformers import PreTrainedTokenizerFast
    >>> from tokenizers import Tokenizer, models
    >>> plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"?": 0}, unk_token="?")))
    >>> row, example = ({"prompt": "3 + 4", "response": "7"}, {"prompt": "1 + 1", "response": "2"})
    >>> print(fl.teacher.demonstrated(Dataset.from_list([row]), plain, Dataset.from_list([example]))[0]["prompt"])
    1 + 1
    2
    <BLANKLINE>
    3 + 4
    """
    for name, some in (("rows", rows), ("examples", examples)):
        if not {"prompt", "response"} <= set(some.column_names) or not len(some):
            raise ValueError(
                f"expected {name} with 'prompt' and 'response', got {len(some)} of {some.column_names}: make some"
            )
    shown = as_stored(examples)
    if not tokenizer.chat_template:
        before = "".join(f"{one['prompt']}\n{one['response']}\n\n" for one in shown)
        return rows.remove_columns("prompt").add_column("prompt", [before + prompt for prompt in rows["prompt"]])
    talks = []
    for row in as_stored(rows):
        talk = [("system", row["system"], 1)] if row.get("system") else []
        for one in shown:
            talk += [("user", one["prompt"], 1), ("assistant", one["response"], 0)]
        talk += [("user", row["prompt"], 1), ("assistant", row["response"], 1)]
        talks.append([{"role": role, "content": content, "weight": weight} for role, content, weight in talk])
    others = rows.remove_columns([name for name in ("prompt", "response", "system") if name in rows.column_names])
    return others.add_column("messages", talks)


@checked
def candidates(
    model: Model,
    tokenizer: Tokenizer,
    rows: Dataset,
    *,
    count: int = 4,
    max_new_tokens: int = 30,
    temperature: float | int = 1.0,
    seed: int = 0,
    progress: bool | None = None,
) -> Dataset:
    """The rows with up to `count` different answers of the model as their `alternatives`, as the ids that were sampled.

    Two samples of the same tokens are one. Costs `count` times `model.continuation_ids`. Raises `ValueError` for a count
    below 1, rows with alternatives, and as that does. Source: arXiv 2305.14239, where a beam search makes them.
    """
    if count < 1:
        raise ValueError(f"expected a count of at least 1, got {count}")
    if ALTERNATIVES in rows.column_names:
        raise ValueError("expected rows without alternatives, which are made here: remove that column")
    drawn = [
        continuation_ids(
            model,
            tokenizer,
            rows,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed + k,
            progress=progress,
        )
        for k in range(count)
    ]
    answers = [[list(ids) for ids in dict.fromkeys(map(tuple, several))] for several in zip(*drawn, strict=True)]
    return rows.add_column(ALTERNATIVES, answers)


@dataclass(frozen=True)
class Ranked:
    """What the teacher says of each row's alternatives: scores, mean log-probability a token; ranks, 0 for the worst.

    Each [1 + alternatives]; the response comes first, and its rank is NaN: it is the target, and is not ranked.
    Alternatives of one score share a rank.
    """

    scores: list[Float[np.ndarray, " _"]]
    ranks: list[Float[np.ndarray, " _"]]


@checked
def rank(
    model: Model,
    tokenizer: Tokenizer,
    rows: Dataset,
    *,
    examples: Dataset | None = None,
    decimals: int = 6,
    precision: str = "auto",
    progress: bool | None = None,
) -> Ranked:
    """Rank the alternatives of each row by the teacher's mean log-probability a token (GPTScore), after `examples`.

    Without examples the model is asked as it is: a student's own ranking. One forward pass over all answers, with the
    examples before each; `precision` as in `fl.extract_features`. Scores that agree to `decimals` are tied.
    `fl.objectives.Ranking(ranked.ranks)` learns from the ranks.
    Raises `ValueError` for rows without alternatives, and as `demonstrated` and `fl.objectives.log_likelihoods` do.
    Source: arXiv 2305.14239; the number of examples and the ties are our choice.
    """
    if ALTERNATIVES not in rows.column_names:
        raise ValueError("expected rows with alternatives to rank, got none: make them with `candidates`")
    if examples is not None:
        rows = demonstrated(rows, tokenizer, examples)
    encoded = encode(rows, tokenizer)
    lengths = [[sum(one.is_response) for one in group.members] for group in grouped(rows, encoded, tokenizer, None)]
    sums = log_likelihoods(model, tokenizer, rows, precision=precision, progress=progress)
    scores = [(total / np.array(tokens)).round(decimals) for total, tokens in zip(sums, lengths, strict=True)]
    return Ranked(scores, [ranks_of(one) for one in scores])


def ranks_of(scores: Sequence[float | int] | Float[np.ndarray, " _"]) -> Float[np.ndarray, " _"]:
    """Ranks of all but the first, which is the target: 0 for the worst, and one rank for equal scores.

    >>> fl.teacher.ranks_of([9.0, -1.5, -0.5, -1.5, -3.0])
    array([nan,  1.,  2.,  1.,  0.])
    """
    values = np.asarray(scores, dtype=float)
    return np.concatenate([[np.nan], np.unique(values[1:], return_inverse=True)[1].astype(float)])
