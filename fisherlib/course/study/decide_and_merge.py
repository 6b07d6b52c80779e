"""The rows of notebook 12: sentences rated, pairs of texts judged, questions answered from a reference.

All sizes are our choice; the questions are those of arXiv 2403.04182 (RAIL) and 2503.01464 (Rethinking Data).
`python -m fisherlib.course.study.decide_and_merge --help` runs all of it.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from fisherlib._files import replacing
from fisherlib._signals import interruptible
from fisherlib.course.study import documents, ratings
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
    parser = argparse.ArgumentParser(prog="python -m fisherlib.course.study.decide_and_merge", description=__doc__)
    parser.add_argument("--folder", default="runs/decide_and_merge", help="rows are kept here; a run goes on where it was")
    parser.add_argument("--results", help="folder for the table (default: that of the rows)")
    options = parser.parse_args(arguments)
    plan, folder = Plan(), Path(options.folder)
    (folder / "rows").mkdir(parents=True, exist_ok=True)
    made: dict = {}

    def tools(name: str):
        if name not in made:
            made[name] = load_model() if name == "model" else _made(name, folder, plan, tools)
        return made[name]

    rows = wanted(plan)
    with interruptible(lambda: f"all rows that ended are kept in {folder}: the same command goes on from there"):
        for number, (part, seed) in enumerate(rows, start=1):
            path = _file(folder, part, seed)
            if path.exists():
                continue
            row = run(part, seed, plan, tools)
            with replacing(path, alone=True) as scratch:
                scratch.write_text(json.dumps(row))
            write(folder, Path(options.results or folder), plan)
            print(f"{number}/{len(rows)} {part} {seed}: {row['seconds']:.0f} s", flush=True)
    write(folder, Path(options.results or folder), plan)


def _file(folder: Path, part: str, seed: int) -> Path:
    return folder / "rows" / f"{part.replace(',', '').replace(' ', '-')}-{seed}.json"


def _made(name: str, folder: Path, plan: Plan, tools: Callable):
    """What all rows about documents need: the desk, or features."""
    model, tokenizer = tools("model")
    if name == "features":
        return documents.training_features(model, tokenizer, tools("desk"), folder / "features")
    count, top = plan.reference.questions, plan.reference.top
    return documents.desk(model, tokenizer, count, top, log_p=_searched(folder), progress=False)


def _searched(folder: Path) -> np.ndarray | None:
    """What the row of the search found out, so that a run which goes on need not ask the model again."""
    path = _file(folder, "search", 0)
    return np.array(json.loads(path.read_text())["log_p"]) if path.exists() else None


def write(folder: Path, results: Path, plan: Plan) -> None:
    """The table of all rows that are done, and where they come from."""
    rows = [json.loads(path.read_text()) for row in wanted(plan) if (path := _file(folder, *row)).exists()]
    results.mkdir(parents=True, exist_ok=True)
    with replacing(results / "rows.json", alone=True) as scratch:
        scratch.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    about = {
        "command": ".venv/bin/python -m fisherlib.course.study.decide_and_merge",
        "rows": len(rows),
        "rows_wanted": len(wanted(plan)),
        "hours": round(sum(row["seconds"] for row in rows) / 3600, 2),
        "settings": asdict(plan),
        **{name: sorted({row[name] for row in rows}) for name in ("machine", "versions", "commit")},
    }
    with replacing(results / "about.json", alone=True) as scratch:
        scratch.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
