"""The rows of notebook 12: sentences rated, pairs of texts judged, questions answered from a reference.

All sizes are our choice; the questions are those of arXiv 2403.04182 (RAIL) and 2503.01464 (Rethinking Data).
`python -m fisherlib.course.study.decide_and_merge --help` runs all of it.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fisherlib.course.study import documents, ratings, resumed
from fisherlib.course.study.origin import origin
from fisherlib.model import load_model


@dataclass(frozen=True)
class Plan:
    sentences: int = 160
    labelled: int = 40
    shown: int = 8  # demonstrations
    pairs: int = 32
    seeds: int = 5
    reference: documents.Plan = field(default_factory=documents.Plan)


def wanted(plan: Plan) -> list[tuple[str, int]]:
    """(part, seed) of each row, in the order in which they are run."""
    rated = [("ratings", seed) for seed in range(plan.seeds)]
    judged = [(f"judge {kind}", 0) for kind in ratings.KINDS]
    answered = [(stage, fold) for fold in range(plan.reference.folds) for stage in documents.STAGES]
    return [*rated, *judged, ("search", 0), *answered]


def run(part: str, seed: int, plan: Plan, tools: Callable) -> dict:
    """One row. `tools(name)` gives the model and its tokenizer, or what was computed for all folds, once."""
    began = time.perf_counter()
    model, tokenizer = tools("model")
    if part == "ratings":
        known = ratings.sentences(plan.labelled, plan.sentences)
        asked, shown = [*known.labelled, *known.test], ratings.demonstrations(known.others, plan.shown, seed)
        p = ratings.rate(model, tokenizer, asked, shown, progress=False)
        found: dict = {
            "labelled": plan.labelled,
            "p": p.round(6).tolist(),
            "truth": [round(one.mean, 4) for one in asked],
            "rater_error": [float(np.std(one.ratings, ddof=1) / np.sqrt(len(one.ratings))) for one in asked],
            "shown": [[one.sentence, round(one.mean)] for one in shown],
        }
    elif part.startswith("judge"):
        asked_pairs = ratings.pairs(part.removeprefix("judge "), plan.pairs)
        found = {"p": ratings.letters(model, tokenizer, asked_pairs, progress=False).round(6).tolist()}
    elif part == "search":
        known_desk = tools("desk")
        found = {name: getattr(known_desk, name).tolist() for name in ("found", "scores", "log_p", "relevant", "right")} | {
            "settings": [q.setting for q in known_desk.questions]
        }
    else:
        found = documents.run(tools, part, seed, plan.reference)
    return {"part": part, "seed": seed, **found, "seconds": time.perf_counter() - began, **origin("cpu")}


def main(arguments: list[str] | None = None) -> None:
    options = resumed.parser("decide_and_merge", __doc__, seeds=False).parse_args(arguments)
    plan, made = Plan(), dict[str, Any]()

    def tools(name: str):
        if name not in made:
            made[name] = load_model() if name == "model" else _made(name, options.folder, plan, tools)
        return made[name]

    resumed.run_all(
        wanted(plan),
        lambda one: [run(one[0], one[1], plan, tools)],
        _name,
        options,
        {"command": ".venv/bin/python -m fisherlib.course.study.decide_and_merge", "settings": asdict(plan)},
    )


def _name(one: tuple[str, int]) -> str:
    part, seed = one
    return f"{part.replace(',', '').replace(' ', '-')}-{seed}"


def _made(name: str, folder: Path, plan: Plan, tools: Callable):
    """What all rows about documents need: the desk, or features."""
    model, tokenizer = tools("model")
    if name == "features":
        return documents.training_features(model, tokenizer, tools("desk"), folder / "features")
    count, top = plan.reference.questions, plan.reference.top
    return documents.desk(model, tokenizer, count, top, log_p=_searched(folder), progress=False)


def _searched(folder: Path) -> np.ndarray | None:
    """What the row of the search found out, so that a run which goes on need not ask the model again."""
    path = resumed.row_file(folder, _name(("search", 0)))
    return np.array(json.loads(path.read_text())[0]["log_p"]) if path.exists() else None


if __name__ == "__main__":
    main()
