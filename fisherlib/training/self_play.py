"""SPIN: a model learns to tell the answers in the data from its own, and what it was last round is the opponent."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Float

from fisherlib._door import checked
from fisherlib._types import Model, Tokenizer
from fisherlib.model import continuation_ids
from fisherlib.training.fine_tune import FineTuned, fine_tune
from fisherlib.training.groups import ALTERNATIVES
from fisherlib.training.objectives import Preference, log_likelihoods


@dataclass(frozen=True)
class Round:
    """One round of self-play: the model after it, what it was trained against, and how many of these answers ended.

    `answers`: for each row the token ids that the opponent sampled. `ended`: the share that ended by themselves; the others
    were cut. `margins` [N]: [log p(y) - log p(z)] under the opponent, before the round; above 0 where it finds the response
    in the data likelier than its own answer.
    """

    tuned: FineTuned
    answers: list[list[list[int]]]
    ended: float
    margins: Float[np.ndarray, " N"]


@checked
def play(
    model: Model,
    tokenizer: Tokenizer,
    rows: Dataset,
    *,
    rounds: int = 3,
    samples: int = 1,
    beta: float | int = 0.1,
    max_new_tokens: int = 60,
    seed: int = 0,
    progress: bool | None = None,
    **training: Any,
) -> list[Round]:
    """Rounds of SPIN. In each the opponent, which is the model so far, answers every prompt at temperature 1 (`samples`
    times), and the model learns by `Preference` to prefer the response in the data; from the second round on it is compared
    with the answers of the round before too, as the authors' scripts do.

    `training` goes to `fl.fine_tune`: learning_rate, tokens_per_step, epochs, ... A round is one more fine-tuning, with up
    to 1 + 2 `samples` answers a prompt, and the sampling. Begin with a model that was fine-tuned on `rows`: then its own
    answers are the hardest to tell from the data. Nothing changes where they cannot be told apart.
    Source: arXiv 2401.01335. Ours are AdamW in place of RMSprop, and all settings that are not the loss.
    Raises `ValueError` for fewer than one round or sample, and as `fl.fine_tune` and `continuations` do.
    """
    if rounds < 1 or samples < 1:
        raise ValueError(f"expected at least one round and one sample, got {rounds} and {samples}")
    if ALTERNATIVES in rows.column_names:
        raise ValueError("expected rows without alternatives, which self-play makes itself: remove that column")
    played: list[Round] = []
    for number in range(rounds):
        opponent = played[-1].tuned.model if played else model
        options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": 1.0, "progress": progress}
        drawn = [
            continuation_ids(opponent, tokenizer, rows, seed=seed + number * samples + k, **options) for k in range(samples)
        ]
        answers = [list(one) for one in zip(*drawn, strict=True)]
        before = played[-1].answers if played else [[] for _ in answers]
        pairs = rows.add_column(ALTERNATIVES, [new + old for new, old in zip(answers, before, strict=True)])
        precision = training.get("precision", "auto")  # that of training: a round begins at log 2
        reference = log_likelihoods(opponent, tokenizer, pairs, precision=precision, progress=progress)
        tuned = fine_tune(
            opponent,
            tokenizer,
            pairs,
            objective=Preference(reference, beta),
            seed=seed + number,
            progress=progress,
            **training,
        )
        margins = np.array([one[0] - one[1 : samples + 1].mean() for one in reference])
        ended = np.mean(
            [len(one) < max_new_tokens or _is_end(one[-1], opponent, tokenizer) for row in answers for one in row]
        )
        played.append(Round(tuned, answers, float(ended), margins))
    return played


def best_response(p_data: Float[np.ndarray, " n"], p: Float[np.ndarray, " n"], beta: float | int) -> Float[np.ndarray, " n"]:
    """The exact end of a round over n possible answers: p_data^(1/beta) p^(1 - 1/beta), normalised.

    >>> p_data, p = np.array([0.7, 0.2, 0.1]), np.full(3, 1 / 3)
    >>> fl.self_play.best_response(p_data, p, beta=1).round(3)
    array([0.7, 0.2, 0.1])

    With the opponent p fixed, it minimises the expected loss -log sigmoid(beta m) (derived here; the paper has a theorem of
    this form). So log(p / p_data), up to a constant, is multiplied by 1 - 1 / beta each round: at beta = 1 one round is
    enough, above 1/2 the rounds converge, at 1/2 they swing for ever, below they diverge if a round is played to its end.
    """
    log_p = np.log(p) + (np.log(p_data) - np.log(p)) / beta
    raised = np.exp(log_p - log_p.max())
    return raised / raised.sum()


def _is_end(token: int, model: Model, tokenizer: Tokenizer) -> bool:
    ends = model.generation_config.eos_token_id
    return token in {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
