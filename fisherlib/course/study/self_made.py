"""Rejection sampling in small: a model learns word problems, solves them anew, and learns from what was right.

One arm is a set of solutions to train on. All arms begin with the same base model and get the same number of tokens and of
steps. All sizes are our choice; the questions are those of arXiv 2308.01825, and our own: does choosing among self-made data
pay? `python -m fisherlib.course.study.self_made --help` runs all of it.
"""

import json
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from fisherlib._types import Model, Tokenizer
from fisherlib.course.study import resumed
from fisherlib.course.study.origin import origin
from fisherlib.evaluation import held_out_nll
from fisherlib.features import extract_features
from fisherlib.greedy import select
from fisherlib.model import continuations, load_model
from fisherlib.selectors import deduplicated, recipe, uniform
from fisherlib.text import encode
from fisherlib.training import FineTuned, fine_tune
from fisherlib.training.rejection import answer_of, is_right, keep, solutions, word_problems


@dataclass(frozen=True)
class Plan:
    """Sizes. Every training has `tokens` response tokens in `steps` steps, however many solutions it draws on."""

    problems: int = 32
    tokens: int = 1600
    steps: int = 32
    k: int = 4
    learning_rate: float = 2e-4
    temperature: float = 0.7
    test_problems: int = 40
    max_new_tokens: int = 44


@dataclass(frozen=True)
class Arm:
    """`share` times the problems; of each `k` solutions are sampled (0: originals alone); `choose` spends half of them."""

    share: float = 1.0
    k: int = 0
    choose: str = ""


ARMS = {
    "SFT": Arm(),
    "RFT": Arm(k=4),
    "RFT, uniform": Arm(k=4, choose="uniform"),
    "RFT, FisherSFT": Arm(k=4, choose="FisherSFT"),
    "RFT, k = 1": Arm(k=1),
    "SFT, half of the problems": Arm(0.5),
    "SFT, twice the problems": Arm(2.0),
    "RFT, half of the problems": Arm(0.5, k=4),
    "RFT, recipe": Arm(k=4, choose="recipe"),
    "RFT, MinHash + uniform": Arm(k=4, choose="MinHash + uniform"),
}
SAMPLERS = ("SFT, half of the problems", "SFT")


def base_model() -> tuple[Model, Tokenizer]:
    """SmolLM2-135M; only the upper half of its layers learns, to save time (our choice)."""
    model, tokenizer = load_model("smollm2-135m")
    layers = model.model.layers
    for part in (model.get_input_embeddings(), *layers[: len(layers) // 2]):
        part.requires_grad_(False)
    return model, tokenizer


def stream(rows: Dataset, tokenizer: Tokenizer, tokens: int, seed: int) -> Dataset:
    """`rows` in random order, all of them again and again, until they have that many response tokens (to one row)."""
    lengths = np.array([sum(example.is_response) for example in encode(rows, tokenizer)])
    rng, taken, spent = np.random.default_rng(seed), [], 0
    while spent < tokens:
        for i in rng.permutation(len(rows)).tolist():
            if spent < tokens:
                taken.append(i)
                spent += int(lengths[i])
    return rows.select(taken)


def train(model: Model, tokenizer: Tokenizer, rows: Dataset, plan: Plan, seed: int) -> FineTuned:
    return fine_tune(
        model,
        tokenizer,
        stream(rows, tokenizer, plan.tokens, seed),
        learning_rate=plan.learning_rate,
        steps_per_epoch=plan.steps,
        precision="float32",
        seed=seed,
        progress=False,
    )


# As elsewhere in the course: two words in ten may differ, and a budget that is left over is filled.
without_copies = partial(deduplicated, threshold=0.5, refill=True)


def choose(how: str, rows: Dataset, model: Model, tokenizer: Tokenizer, tokens: int, seed: int) -> Dataset:
    """The part of a self-made pool that a method takes for that many response tokens."""
    features = extract_features(model, tokenizer, rows, precision="float32", progress=False)
    if how == "FisherSFT":
        return rows.select(select(features, tokens=tokens, rule="gain_per_token", progress=False).indices)
    method: Any = {"uniform": uniform, "MinHash + uniform": without_copies, "recipe": recipe}[how]
    return rows.select(method(rows, features, tokens=tokens, seed=seed).indices)


def examine(model: Model, tokenizer: Tokenizer, rows: Dataset, plan: Plan) -> dict[str, Any]:
    """Greedy answers: is each right, do all its equations hold too; and the loss on the written solutions."""
    said = continuations(model, tokenizer, rows, temperature=0.0, max_new_tokens=plan.max_new_tokens, progress=False)
    pairs = list(zip(said, rows["answer"], strict=True))
    return {
        "right": [int(answer_of(text) == answer) for text, answer in pairs],
        "verified": [int(is_right(text, answer)) for text, answer in pairs],
        "nll": held_out_nll(model, tokenizer, rows, precision="float32", progress=False).nll,
    }


def sample(model: Model, tokenizer: Tokenizer, rows: Dataset, plan: Plan, seed: int) -> list[list[str]]:
    options: dict[str, Any] = {
        "temperature": plan.temperature,
        "max_new_tokens": plan.max_new_tokens,
        "seed": seed,
        "progress": False,
    }
    return solutions(model, tokenizer, rows, k=plan.k, **options)


def run(name: str, seed: int, plan: Plan, model: Model, tokenizer: Tokenizer, folder: Path) -> dict:
    """One row. What was sampled is kept in the sampler's row, which comes before those that learn from it."""
    began, arm = time.perf_counter(), ARMS[name]
    test = word_problems(plan.test_problems, seed=seed, side="test")
    problems = word_problems(round(arm.share * plan.problems), seed=seed)
    rows, about = problems, {}
    if arm.k:
        sampler = resumed.row_file(folder, _name((SAMPLERS[arm.share == 1], seed)))
        (of,) = json.loads(sampler.read_text())
        rows = keep(problems, [one[: arm.k] for one in of["said"]])
        about = {"kept": sum(rows["own"])}
    if arm.choose:
        budget = sum(sum(example.is_response) for example in encode(problems, tokenizer))
        rows = choose(arm.choose, rows, model, tokenizer, budget, seed)
    tuned = train(model, tokenizer, rows, plan, seed)
    row = {"arm": name, "seed": seed, **about, "solutions": len(rows), **examine(tuned.model, tokenizer, test, plan)}
    row |= {"tokens": tuned.response_tokens, "all_tokens": tuned.all_tokens, "steps": len(tuned.losses)}
    row |= {"distinct": len(set(rows["response"])), "own": sum(rows["own"]) if arm.k else 0}
    if name in SAMPLERS:
        row["said"] = sample(tuned.model, tokenizer, problems, plan, seed)
    if name == "SFT":
        row["said_test"] = sample(tuned.model, tokenizer, test, plan, seed)
    return row | {"seconds": time.perf_counter() - began, **origin("cpu")}


def _name(one: tuple[str, int]) -> str:
    return f"{list(ARMS).index(one[0])}-{one[1]}"


def main(arguments: list[str] | None = None) -> None:
    options = resumed.parser("self_made", __doc__).parse_args(arguments)
    plan, model = Plan(), base_model()
    resumed.run_all(
        [(arm, seed) for seed in range(options.seeds) for arm in ARMS],
        lambda one: [run(one[0], one[1], plan, *model, options.folder)],
        _name,
        options,
        {
            "command": ".venv/bin/python -m fisherlib.course.study.self_made",
            "settings": asdict(plan),
            "arms": {name: asdict(arm) for name, arm in ARMS.items()},
        },
    )


if __name__ == "__main__":
    main()
