"""A model as the reference, in small: functions of a real project, a teacher with demonstrations, a student without.

One arm is what the student learns from: the lines that people wrote, those of the teacher, or the teacher's ranking of the
student's own answers too. All sizes are our choice; the questions are those of arXiv 2305.14239.
`python -m fisherlib.course.study.teaching --help` runs all of it.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
from datasets import Dataset
from scipy.stats import kendalltau

from fisherlib._types import Model, Tokenizer
from fisherlib.course.study import resumed
from fisherlib.course.study.origin import origin
from fisherlib.evaluation import held_out_nll
from fisherlib.evaluation.judging import CharacterModel
from fisherlib.model import continuation_ids, continuations, load_model
from fisherlib.text.project_files import docstrings
from fisherlib.training import fine_tune, objectives, teacher
from fisherlib.training.groups import ALTERNATIVES, Objective
from fisherlib.training.teacher import Ranked

_EXACT: dict[str, Any] = {"precision": "float32", "progress": False}


@dataclass(frozen=True)
class Plan:
    """Sizes. Each of the two stages goes once over the functions, in `steps` steps."""

    functions: int = 24
    tests: int = 20
    demonstrations: int = 2
    candidates: int = 4
    steps: int = 6
    longest: int = 400  # characters of a function
    new_tokens: int = 24
    learning_rate: float = 5e-5


ARMS = (
    "untuned",
    "people's lines",
    "teacher's lines",
    "teacher's lines, four times",  # what ranking costs in time, spent on more of the same
    "teacher's lines and ranking",
    "teacher's lines and shuffled ranks",  # the placebo
)


@dataclass(frozen=True)
class Material:
    """What all arms of a seed share."""

    people: Dataset
    taught: Dataset  # the same functions with the teacher's lines
    tests: Dataset
    examples: Dataset  # the demonstrations
    students: dict[str, Model]  # after the first stage, by whose lines it was
    pairs: Dataset  # the first student's own answers on the functions, to be ranked
    ranked: Ranked
    test_pairs: Dataset
    test_ranked: Ranked
    expected: CharacterModel


def functions(*, longest: int) -> tuple[Dataset, Dataset]:
    """Functions to learn from and of other files, as prompts, with the first line of their docstring as the response."""
    train, test = docstrings(longest=longest)
    return Dataset.from_list(train), Dataset.from_list(test)


def material(model: Model, tokenizer: Tokenizer, plan: Plan, seed: int) -> Material:
    """Draw the functions, let the teacher write and rank, and warm two students up."""
    train, test = functions(longest=plan.longest)
    order = np.random.default_rng(seed).permutation(len(train))
    people = train.select(order[: plan.functions])
    examples = train.select(order[plan.functions : plan.functions + plan.demonstrations])
    tests = test.select(np.random.default_rng(0).permutation(len(test))[: plan.tests])
    options: dict[str, Any] = {"max_new_tokens": plan.new_tokens, "progress": False}
    asked = teacher.demonstrated(people, tokenizer, examples)
    said = [_line(text) for text in continuations(model, tokenizer, asked, temperature=0.0, **options)]
    taught = people.remove_columns("response").add_column("response", said)
    taught = taught.select([i for i, text in enumerate(said) if text])
    students = {
        name: fine_tune(model, tokenizer, rows, **_stage(plan, seed)).model
        for name, rows in (("people", people), ("teacher", taught))
    }

    def drawn(rows: Dataset, first: int) -> tuple[Dataset, Ranked]:
        student = students["teacher"]
        pairs = teacher.candidates(student, tokenizer, rows, count=plan.candidates, seed=first, **options)
        return pairs, teacher.rank(model, tokenizer, pairs, examples=examples, **_EXACT)

    expected = CharacterModel(train["response"])
    return Material(people, taught, tests, examples, students, *drawn(taught, seed), *drawn(tests, seed + 50), expected)


def _line(text: str) -> str:
    """The first line: a teacher may go on with a function of its own."""
    return text.partition("\n")[0].strip()


def _stage(plan: Plan, seed: int) -> dict[str, Any]:
    return {"learning_rate": plan.learning_rate, "steps_per_epoch": plan.steps, "seed": seed, **_EXACT}


def trained(model: Model, tokenizer: Tokenizer, own: Material, arm: str, plan: Plan, seed: int) -> tuple[Model, int]:
    """The student of an arm, and the tokens that its second stage read, prompts too."""
    if arm == "untuned":
        return model, 0
    stage = _stage(plan, seed + 1)
    if arm == "people's lines":
        tuned = fine_tune(own.students["people"], tokenizer, own.people, objective=objectives.MLE(), **stage)
        return tuned.model, tuned.all_tokens
    rows, objective = own.taught, cast(Objective, objectives.MLE())
    if arm.endswith("four times"):
        stage["epochs"] = 4
    elif "rank" in arm:
        ranks: Sequence[Any] = own.ranked.ranks
        if "shuffled" in arm:
            rng = np.random.default_rng(seed)
            ranks = [np.concatenate([one[:1], rng.permutation(one[1:])]) for one in ranks]
        rows = own.pairs
        objective = objectives.Sum((objectives.MLE(), 1), (objectives.Ranking(ranks), 1))
    tuned = fine_tune(own.students["teacher"], tokenizer, rows, objective=objective, **stage)
    return tuned.model, tuned.all_tokens


def agreement(mine: Sequence[Any], theirs: Sequence[Any]) -> float:
    """Kendall's tau between two scorings of each question's answers, the mean over questions; the target does not count.

    A question whose answers all tie for either has no tau, and is left out; NaN if all are.
    """
    found = [
        float(kendalltau(a[1:], b[1:]).statistic)
        for a, b in zip(mine, theirs, strict=True)
        if len(set(a[1:])) > 1 and len(set(b[1:])) > 1
    ]
    return float(np.mean(found)) if found else float("nan")


def run(model: Model, tokenizer: Tokenizer, own: Material, arm: str, plan: Plan, seed: int) -> dict:
    """One row: an arm's numbers on functions of other files."""
    began = time.perf_counter()
    student, tokens = trained(model, tokenizer, own, arm, plan, seed)
    seconds = time.perf_counter() - began
    options: dict[str, Any] = {"max_new_tokens": plan.new_tokens, "progress": False}
    ids = continuation_ids(student, tokenizer, own.tests, temperature=0.0, **options)
    texts = [_line(tokenizer.decode(one, skip_special_tokens=True)) for one in ids]
    answered = own.tests.add_column(ALTERNATIVES, [[one] for one in ids])
    of_teacher = teacher.rank(model, tokenizer, answered, examples=own.examples, **_EXACT)
    of_student = teacher.rank(student, tokenizer, own.test_pairs, **_EXACT)
    surprise = [own.expected.nats(text) for text in texts if text]
    return {
        "arm": arm,
        "seed": seed,
        "tau": agreement(of_student.scores, own.test_ranked.scores),
        "teacher_score": float(np.mean([one[1] for one in of_teacher.scores])),
        "nll_people": held_out_nll(student, tokenizer, own.tests, **_EXACT).nll,
        "surprise": float(np.mean(surprise)) if surprise else None,
        "length": float(np.mean([len(one) for one in ids])),
        "distinct": len(set(texts)) / len(texts),
        "teacher_nll_people": float(-np.mean([one[0] for one in of_teacher.scores])),
        "spread": float(np.mean([np.std(one[1:]) for one in own.ranked.scores])),
        "second_stage_tokens": tokens,
        "second_stage_seconds": seconds,
        "seconds": time.perf_counter() - began,
        "texts": texts,
        **origin("cpu"),
    }


def main(arguments: list[str] | None = None) -> None:
    options = resumed.parser("teaching", __doc__).parse_args(arguments)
    plan, model = Plan(), load_model("smollm2-135m")
    seeds: dict[int, Material] = {}

    def run_one(one: tuple[str, int]) -> list[dict]:
        arm, seed = one
        if seed not in seeds:
            seeds.clear()
            seeds[seed] = material(*model, plan, seed)
        return [run(*model, seeds[seed], arm, plan, seed)]

    resumed.run_all(
        [(arm, seed) for seed in range(options.seeds) for arm in ARMS],
        run_one,
        lambda one: f"{ARMS.index(one[0])}-{one[1]}",
        options,
        {"command": ".venv/bin/python -m fisherlib.course.study.teaching", "settings": asdict(plan)},
    )


if __name__ == "__main__":
    main()
