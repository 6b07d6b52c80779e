"""ExMATE and its rivals in small: eleven objectives, each with the same good answers, bad answers and steps.

A bad answer is a speech of the same play that answers another line. All sizes are our choice; the questions are those of
arXiv 2408.16751. `python -m fisherlib.course.study.objectives --help` runs all of it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset, concatenate_datasets
from jaxtyping import Float

from fisherlib._types import Model, Tokenizer
from fisherlib.course.study import resumed
from fisherlib.course.study.origin import origin
from fisherlib.model import load_model
from fisherlib.text import encode, load_pool
from fisherlib.training import Objective, fine_tune
from fisherlib.training.groups import grouped
from fisherlib.training.objectives import MATE, MLE, ExMATE, Preference, Sum, Unlikelihood, log_likelihoods

MODEL = "smollm2-135m"


@dataclass(frozen=True)
class Plan:
    """Sizes of one seed. Every seed has rows of its own, on both sides."""

    rows: int = 16  # good answers, each with a bad one
    test_pairs: int = 10  # of rows; each row has the other's answer as the bad one
    longest: int = 24  # tokens of an answer
    longest_row: int = 56  # tokens of an answer with its line and the template
    tokens_per_step: int = 48  # of good answers
    learning_rate: float = 5e-5


Reference = list[Float[np.ndarray, " _"]]
ARMS: dict[str, Callable[[Reference], Objective]] = {
    "MLE": lambda q: MLE(),
    "ExMATE": lambda q: ExMATE(c=0.05),
    "MATE": lambda q: MATE(c=0.05),
    "unlikelihood": lambda q: Unlikelihood(c=0.05),
    "DPO": lambda q: Preference(q, beta=0.1),
    "DPO + MLE": lambda q: Sum((Preference(q, beta=0.1), 1), (MLE(), 1)),
    "DPO + ExMATE": lambda q: Sum((Preference(q, beta=0.1), 1), (ExMATE(c=0.05), 1)),
    "ExMATE, c = 5": lambda q: ExMATE(c=5),
    "ExMATE, c = 100": lambda q: ExMATE(c=100),
    "MATE, c = 1": lambda q: MATE(c=1),
    "DPO + ExMATE, c = 100": lambda q: Sum((Preference(q, beta=0.1), 1), (ExMATE(c=100), 1)),
}


@cache
def _short(side: str, plan: Plan) -> Dataset:
    """The rows of one side of the plays that are as short as the plan wants."""
    rows, tokenizer = getattr(load_pool("shakespeare"), side), load_model(MODEL)[1]
    short = [
        number
        for number, one in enumerate(encode(rows, tokenizer))
        if sum(one.is_response) <= plan.longest and len(one.input_ids) <= plan.longest_row
    ]
    return rows.select(short)


@cache
def _couples(side: str, plan: Plan) -> list[tuple[int, int]]:
    """All short rows as couples of one play, none twice, in one random order that all seeds share."""
    rows = _short(side, plan)
    rng, couples = np.random.default_rng(0), []
    plays = np.array(rows["document"])
    for play in np.unique(plays):
        of = rng.permutation(np.flatnonzero(plays == play))
        couples += [(int(a), int(b)) for a, b in zip(of[::2], of[1::2], strict=False)]
    return [couples[k] for k in rng.permutation(len(couples))]


def draw(plan: Plan, seed: int) -> tuple[Dataset, Dataset]:
    """Rows to learn from, and rows to be asked about, in couples: 2k and 2k + 1 are of one play.

    All have `alternatives`: one answer that belongs to another line. Seeds share no row. Raises `ValueError` for a seed
    that the text is too short for.
    """
    train = _with_bad("train", plan, seed, plan.rows)
    test = _with_bad("test", plan, seed, plan.test_pairs, both=True)
    return train, test


def _with_bad(side: str, plan: Plan, seed: int, n: int, both: bool = False) -> Dataset:
    rows = _short(side, plan)
    couples = _couples(side, plan)[seed * n : (seed + 1) * n]
    if len(couples) < n:
        raise ValueError(f"expected {n} couples of {side} rows for seed {seed}, got {len(couples)}: take a lower seed")
    pairs = [pair for a, b in couples for pair in ([(a, b), (b, a)] if both else [(a, b)])]
    answers = rows["response"]
    return rows.select([a for a, _ in pairs]).add_column("alternatives", [[answers[b]] for _, b in pairs])


class Start:
    """What all arms of a seed share: model, rows, and the log-probabilities before any training."""

    def __init__(self, plan: Plan, seed: int, model: Model, tokenizer: Tokenizer):
        self.seed, self.model, self.tokenizer = seed, model, tokenizer
        self.train, self.test = draw(plan, seed)
        self.before = scores(model, tokenizer, concatenate_datasets([self.train, self.test]))


def scores(model: Model, tokenizer: Tokenizer, rows: Dataset) -> Float[np.ndarray, "n 2"]:
    """log p of each row's good and of its bad answer, in nats."""
    return np.stack(log_likelihoods(model, tokenizer, rows, precision="float32", progress=False))


def run(arm: str, seed: int, plan: Plan, start: Start | None = None) -> dict:
    """One row: what an arm does to the log-probabilities of good and bad answers, of those learned from and of others."""
    began = time.perf_counter()
    if start is None:
        start = Start(plan, seed, *load_model(MODEL))
    tokenizer, train, before = start.tokenizer, start.train, start.before
    tuned = fine_tune(
        start.model,
        tokenizer,
        train.remove_columns("alternatives") if arm == "MLE" else train,
        objective=ARMS[arm](list(before[: len(train)])),
        tokens_per_step=plan.tokens_per_step,
        learning_rate=plan.learning_rate,
        precision="float32",
        seed=seed,
        progress=False,
    )
    after = scores(tuned.model, tokenizer, concatenate_datasets([train, start.test]))
    numbers: dict[str, Any] = {
        f"{which}_{side}_{when}": table[rows, column].round(4).tolist()
        for when, table in (("before", before), ("after", after))
        for side, rows in (("train", slice(len(train))), ("test", slice(len(train), None)))
        for column, which in enumerate(("good", "bad"))
    }
    return {
        "arm": arm,
        "seed": seed,
        "steps": len(tuned.losses),
        "good_tokens": tuned.response_tokens,
        "bad_tokens": tuned.alternative_tokens,
        "losses": [round(loss, 5) for loss in tuned.losses],
        "tokens_train": lengths(train, tokenizer),
        "tokens_test": lengths(start.test, tokenizer),
        "plays_test": list(map(str, start.test["document"])),
        **numbers,
        "training_seconds": tuned.seconds,
        "seconds": time.perf_counter() - began,
        **origin("cpu"),
    }


def lengths(rows: Dataset, tokenizer: Tokenizer) -> list[int]:
    return [sum(one.is_response) for one in encode(rows.remove_columns("alternatives"), tokenizer)]


def likelihood_of(
    model: Model, tokenizer: Tokenizer, rows: Dataset, bad: Mapping[str, Sequence[str | list[int]]]
) -> pd.Series:
    """The mean loss of a token, CE in nats: of the `good` answers of the rows, and of each kind of bad ones, one a row."""
    found = {}
    for kind, answers in bad.items():
        pairs = rows.add_column("alternatives", [[one] for one in answers])
        groups = grouped(pairs, encode(rows, tokenizer), tokenizer, None)
        lengths = [[sum(member.is_response) for member in group.members] for group in groups]
        found["good"], found[kind] = (-scores(model, tokenizer, pairs) / np.array(lengths)).mean(0)
    return pd.Series({kind: found[kind] for kind in ("good", *bad)})


def main(arguments: list[str] | None = None) -> None:
    options = resumed.parser("objectives", __doc__).parse_args(arguments)
    plan, model = Plan(), load_model(MODEL)
    starts: dict[int, Start] = {}

    def run_one(one: tuple[str, int]) -> list[dict]:
        arm, seed = one
        if seed not in starts:
            starts.clear()
            starts[seed] = Start(plan, seed, *model)
        return [run(arm, seed, plan, starts[seed])]

    resumed.run_all(
        [(arm, seed) for seed in range(options.seeds) for arm in ARMS],
        run_one,
        lambda one: f"{list(ARMS).index(one[0])}-{one[1]}",
        options,
        {"command": ".venv/bin/python -m fisherlib.course.study.objectives", "settings": asdict(plan)},
    )


if __name__ == "__main__":
    main()
