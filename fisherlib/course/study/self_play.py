"""SPIN in small: three rounds of self-play on a real model, against going on with SFT at equal tokens and at equal seconds.

All sizes are our choice; the questions are those of arXiv 2401.01335. `python -m fisherlib.course.study.self_play --help`
runs all of it.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from torch import Tensor

from fisherlib._types import Model, Tokenizer
from fisherlib.course.study import objectives, resumed
from fisherlib.course.study.origin import origin
from fisherlib.model import continuation_ids, load_model
from fisherlib.text import encode
from fisherlib.training import FineTuned, fine_tune
from fisherlib.training.self_play import play

ARMS = ("SPIN", "SFT, equal tokens", "SFT, equal seconds")


@dataclass(frozen=True)
class Plan:
    """Sizes of one seed. Every arm begins with the model after SFT on the same rows."""

    rows: int = 12
    test_rows: int = 12
    longest: int = 24  # tokens of an answer in the data
    rounds: int = 3
    beta: float = 0.1
    max_new_tokens: int = 30
    sft_epochs: int = 2
    tokens_per_step: int = 48
    learning_rate: float = 5e-5


class Start:
    """What all arms of a seed share: the model after SFT, its own answers to other prompts, and what it thinks of them."""

    def __init__(self, plan: Plan, seed: int, base: Model, tokenizer: Tokenizer):
        self.seed, self.tokenizer, self.base = seed, tokenizer, base
        sizes = objectives.Plan(rows=plan.rows, test_pairs=plan.test_rows // 2, longest=plan.longest)
        self.rows, test = (part.remove_columns("alternatives") for part in objectives.draw(sizes, seed))
        self.model = sft(base, self, plan, plan.sft_epochs, seed).model
        own = continuation_ids(
            self.model, tokenizer, test, max_new_tokens=plan.max_new_tokens, seed=1000 + seed, progress=False
        )
        self.test = test.add_column("alternatives", [[one] for one in own])
        self.own_tokens = list(map(len, own))
        self.base_scores, self.before = (objectives.scores(model, tokenizer, self.test) for model in (base, self.model))


def sft(model: Model, start: Start, plan: Plan, epochs: int, seed: int) -> FineTuned:
    return fine_tune(model, start.tokenizer, start.rows, epochs=epochs, seed=seed, **settings(plan))


def settings(plan: Plan) -> dict[str, Any]:
    return {
        "tokens_per_step": plan.tokens_per_step,
        "learning_rate": plan.learning_rate,
        "precision": "float32",
        "progress": False,
    }


def run_seed(plan: Plan, seed: int, start: Start) -> list[dict]:
    """The rows of one seed, an arm each: what each round does to the answers in the data and to the model's first own ones.

    Seconds are those of the CPU, which other programs on the machine change less. They do not count the tests.
    """
    began = time.process_time()
    rounds = play(
        start.model,
        start.tokenizer,
        start.rows,
        rounds=plan.rounds,
        beta=plan.beta,
        max_new_tokens=plan.max_new_tokens,
        seed=seed,
        **settings(plan),
    )
    seconds = time.process_time() - began
    about = {
        "ended": [one.ended for one in rounds],
        "own_lengths": [[len(answer) for row in one.answers for answer in row] for one in rounds],
        "margins": [one.margins.round(4).tolist() for one in rounds],
        "losses": [[round(loss, 6) for loss in one.tuned.losses] for one in rounds],
    }
    found = [_row("SPIN", start, [one.tuned for one in rounds], seconds) | about]
    epochs = 1
    for arm in ARMS[1:]:
        began, tuned = time.process_time(), [sft(start.model, start, plan, epochs, seed)]
        for number in range(1, plan.rounds):
            tuned.append(sft(tuned[-1].model, start, plan, epochs, seed + number))
        found.append(_row(arm, start, tuned, time.process_time() - began) | {"epochs": epochs})
        epochs = max(1, round(seconds / found[-1]["cpu_seconds"]))
    return found


def gradients(
    model: Model, tokenizer: Tokenizer, rows: Dataset, drawn: Sequence[Sequence[list[int]]]
) -> tuple[Float[Tensor, " n"], list[Float[Tensor, " n"]]]:
    """The gradient of the summed log p of the responses, and of each draw of own answers, by the weights of the last block.

    `drawn[k][row]`: token ids as they were sampled. Only the last block, so that a vector is small and a pass is cheap;
    the identities hold for any weights. The model is left as it was. Cost: a forward pass of each answer.
    """
    encoded = encode(rows, tokenizer)
    block = list(model.model.layers[-1].parameters())
    needed = {weight: weight.requires_grad for weight in model.parameters()}
    model.requires_grad_(False)
    for weight in block:
        weight.requires_grad_(True)

    def slope(answers: Sequence[list[int]] | None) -> Float[Tensor, " n"]:
        total = torch.zeros(())
        for number, one in enumerate(encoded):
            start = one.is_response.index(True)
            answer = one.input_ids[start : start + sum(one.is_response)] if answers is None else answers[number]
            ids = torch.tensor([one.input_ids[:start] + answer])
            log_p = model(input_ids=ids).logits[0, start - 1 : -1].float().log_softmax(1)
            total = total + log_p.gather(1, ids[0, start:, None]).sum()
        return torch.cat([of.flatten() for of in torch.autograd.grad(total, block)])

    try:
        return slope(None), [slope(answers) for answers in drawn]
    finally:
        for weight, wanted in needed.items():
            weight.requires_grad_(wanted)


def _row(arm: str, start: Start, tuned: Sequence[FineTuned], seconds: float) -> dict:
    tests: list[Float[np.ndarray, "n 2"]] = [objectives.scores(one.model, start.tokenizer, start.test) for one in tuned]
    tables = {"base": start.base_scores, "start": start.before} | {f"round_{k}": one for k, one in enumerate(tests, 1)}
    return {
        "arm": arm,
        "seed": start.seed,
        "steps": [len(one.losses) for one in tuned],
        "data_tokens": [one.response_tokens for one in tuned],
        "own_tokens": [one.alternative_tokens for one in tuned],
        "all_tokens": [one.all_tokens for one in tuned],
        "cpu_seconds": seconds,
        "tokens_test": objectives.lengths(start.test, start.tokenizer),
        "own_tokens_test": start.own_tokens,
        **{
            f"{which}_{when}": table[:, column].round(4).tolist()
            for when, table in tables.items()
            for column, which in enumerate(("data", "own"))
        },
        **origin("cpu"),
    }


def main(arguments: list[str] | None = None) -> None:
    options = resumed.parser("self_play", __doc__).parse_args(arguments)
    plan, model = Plan(), load_model(objectives.MODEL)

    def run_one(seed: int) -> list[dict]:
        began = time.perf_counter()
        found = run_seed(plan, seed, Start(plan, seed, *model))
        return [row | {"seconds": (time.perf_counter() - began) / len(found)} for row in found]

    about = {"command": ".venv/bin/python -m fisherlib.course.study.self_play", "settings": asdict(plan)}
    resumed.run_all(list(range(options.seeds)), run_one, str, options, about, each=len(ARMS))


if __name__ == "__main__":
    main()
