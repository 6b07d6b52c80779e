"""The second panel of notebook 09: a pre-trained model learns dialogues, then Python, with the schedules of `keep_learning`.

Its own pre-training had a schedule that is not ours, and so had its text: only the tuning on dialogues is under our hands.
So *re-warm* is a figure of speech here. `python -m fisherlib.course.study.keep_learning_real --help` runs all of it.
"""

import time
from dataclasses import asdict, dataclass

import numpy as np
from datasets import Dataset

from fisherlib._types import Model, Tokenizer
from fisherlib.course.study import resumed
from fisherlib.course.study.keep_learning import ARMS, Arm
from fisherlib.course.study.origin import origin
from fisherlib.evaluation import held_out_nll
from fisherlib.mixtures import replayed
from fisherlib.model import load_model
from fisherlib.text import load_pool, project_files
from fisherlib.training import FineTuned, fine_tune

SHIFT, MODEL = "dialogue to Python", "smollm2-135m"
NAMES = ("constant, lowest rate", "re-warm, re-decay", "re-warm, 5% replay", "re-warm, 20% replay")
KEPT = ["system", "prompt", "response", "document"]


@dataclass(frozen=True)
class Plan:
    """Sizes. Each text gets `tokens` response tokens in `steps` steps, replayed ones among them."""

    tokens: int = 1500
    steps: int = 12
    learning_rate: float = 5e-5  # the highest; the lowest is a tenth of it
    test_rows: int = 20


def texts(plan: Plan, seed: int) -> dict[str, tuple[Dataset, Dataset]]:
    """Rows to learn and rows to be asked about, of dialogues ("old") and of Python ("new"), drawn by the seed."""
    pool = load_pool("shakespeare")
    sides = {"old": (pool.train.to_list(), pool.test.to_list()), "new": project_files.chunks("python")}
    found = {}
    for name, (train, test) in sides.items():
        rng = np.random.default_rng([seed, len(train)])
        drawn = [[rows[i] for i in rng.permutation(len(rows))[:n]] for rows, n in ((train, 200), (test, plan.test_rows))]
        learn, ask = (Dataset.from_list([{key: row[key] for key in KEPT} for row in rows]) for rows in drawn)
        found[name] = (learn, ask)
    return found


def learn(model: Model, tokenizer: Tokenizer, rows: Dataset, plan: Plan, arm: Arm, seed: int) -> FineTuned:
    return fine_tune(
        model,
        tokenizer,
        rows,
        learning_rate=arm.peak * plan.learning_rate,
        steps_per_epoch=plan.steps,
        schedule=arm.schedule,
        warmup=arm.warmup,
        schedule_options=dict(arm.options),
        precision="float32",
        seed=seed,
        progress=False,
    )


def run(model: Model, tokenizer: Tokenizer, name: str, seed: int, plan: Plan) -> dict:
    """One row: losses on dialogues and Python, in nats per token. `model`: after it learned the dialogues of this seed."""
    began, arm, data = time.perf_counter(), ARMS[name], texts(plan, seed)

    def losses(model: Model) -> tuple[float, float]:
        old, new = (held_out_nll(model, tokenizer, data[side][1], precision="float32", progress=False).nll for side in data)
        return old, new

    before = losses(model)
    call = {"share": arm.share, "tokens": plan.tokens, "tokenizer": tokenizer, "seed": seed}
    tuned = learn(model, tokenizer, replayed(data["new"][0], data["old"][0], **call), plan, arm, seed)
    after = losses(tuned.model)
    return {
        "shift": SHIFT,
        "arm": name,
        "seed": seed,
        "old_before": before[0],
        "new_before": before[1],
        "old": after[0],
        "new": after[1],
        "tokens": tuned.response_tokens,
        "seconds": time.perf_counter() - began,
        **origin("cpu"),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = resumed.parser("keep_learning_real", __doc__)
    parser.add_argument("--tokens", type=int, default=Plan.tokens, help="less, to see that it runs")
    options = parser.parse_args(arguments)
    plan = Plan(tokens=options.tokens)
    model, tokenizer = load_model(MODEL)
    starts: dict[int, Model] = {}

    def run_one(one: tuple[str, int]) -> list[dict]:
        name, seed = one
        if seed not in starts:
            starts.clear()
            call = {"share": 0.0, "tokens": plan.tokens, "tokenizer": tokenizer, "seed": seed}
            old = texts(plan, seed)["old"][0]
            starts[seed] = learn(model, tokenizer, replayed(old, old, **call), plan, Arm(), seed).model
        return [run(starts[seed], tokenizer, name, seed, plan)]

    resumed.run_all(
        [(name, seed) for seed in range(options.seeds) for name in NAMES],
        run_one,
        lambda one: f"{NAMES.index(one[0])}-{one[1]}",
        options,
        {
            "command": ".venv/bin/python -m fisherlib.course.study.keep_learning_real",
            "model": MODEL,
            "settings": asdict(plan),
            "arms": {name: asdict(ARMS[name]) for name in NAMES},
        },
    )


if __name__ == "__main__":
    main()
