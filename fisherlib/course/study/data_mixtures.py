"""How much of each source? Arms of UtiliMax, MEDU and the information mixture, each really trained, with and without poison.

Sources: plays and seven kinds of a project's files, whole files held out, and a large one of plays with shuffled words.
Texts are windows of tokens, so that shares are exact. All sizes are our choice; the questions are those of arXiv 2501.11747.
`python -m fisherlib.course.study.data_mixtures --help` runs all of it.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from fisherlib._types import Model, Tokenizer
from fisherlib.course.study import resumed
from fisherlib.course.study.origin import origin
from fisherlib.course.study.sources import POISON, TASKS, Plan, Window, draw, shuffled, windows
from fisherlib.evaluation import HeldOut, held_out_nll
from fisherlib.features import TokenFeatures, extract_features
from fisherlib.mixtures import (
    Mixture,
    ModelReader,
    ablation_utilities,
    in_context_utilities,
    information_mixture,
    medu_utilities,
    unimax,
    utilimax,
)
from fisherlib.model import load_model
from fisherlib.training import fine_tune


@dataclass(eq=False)
class Bench:
    """One seed: its draw, what is known of the sources, and the arms that were trained already."""

    model: Model
    tokenizer: Tokenizer
    plan: Plan
    seed: int

    def __post_init__(self):
        self.draw = draw(self.seed, self.plan, self.tokenizer)
        self.known: dict[str, dict] = {}
        self.trained: dict[str, tuple] = {}
        self._features: dict[str, TokenFeatures] = {}

    @property
    def sizes(self) -> dict[str, int]:
        return {name: len(rows) * self.plan.window for name, rows in self.draw.sources.items()}

    def features(self) -> dict[str, TokenFeatures]:
        if not self._features:
            self._features = {
                name: extract_features(self.model, None, rows, progress=False) for name, rows in self.draw.sources.items()
            }
        return self._features

    def texts(self, rows: Sequence[Window]) -> list[str]:
        return [self.tokenizer.decode(row) for row in rows]

    def utilities(self, how: str) -> dict:
        """`utilities` [K, T] by "ablation", "context" or "MEDU", and the `seconds` that they took."""
        if how not in self.known:
            began, plan, sources, dev = time.perf_counter(), self.plan, self.draw.sources, self.draw.dev
            if how == "ablation":
                U = ablation_utilities(
                    self.model, None, sources, dev, tokens=plan.ablation_windows * plan.window, steps=plan.steps,
                    learning_rate=plan.learning_rate, seed=self.seed, progress=False,
                )  # fmt: skip
            elif how == "context":
                few = {task: rows[: plan.read] for task, rows in dev.items()}
                U = in_context_utilities(self.model, None, sources, few, documents=plan.read, seed=self.seed, progress=False)
            else:
                said = [{name: self.texts(rows) for name, rows in given.items()} for given in (sources, dev)]
                reader = ModelReader(self.model, self.tokenizer)
                U = medu_utilities(reader, *said, documents=plan.read, examples=plan.read, seed=self.seed)
            self.known[how] = {"utilities": U.tolist(), "seconds": time.perf_counter() - began}
        return self.known[how]

    def examination(self) -> dict[str, list[list[float]]]:
        """Grades of texts of each task's own kind, of the same with shuffled words, and of another task's kind [T, n]."""
        reader, rng, n = ModelReader(self.model, self.tokenizer), np.random.default_rng([self.seed, 80]), self.plan.examined
        own = {task: self.texts(windows(task, "train", n, self.plan, self.tokenizer, rng)) for task in TASKS}
        grades: dict[str, list[list[float]]] = {"own": [], "shuffled": [], "elsewhere": []}
        for k, task in enumerate(TASKS):
            description = reader.describe(self.texts(self.draw.dev[task][: self.plan.read]))
            kinds = {"own": own[task], "shuffled": [shuffled(text, rng) for text in own[task]],
                     "elsewhere": own[TASKS[(k + 1) % len(TASKS)]]}  # fmt: skip
            for kind, said in kinds.items():
                grades[kind].append(reader.grade(description, said).tolist())
        return grades

    def mixture(self, arm: str, poison: bool) -> Mixture:
        """The weights of an arm. Raises `ValueError` for an unknown one."""
        plan, sizes = self.plan, {name: n for name, n in self.sizes.items() if poison or name != POISON}
        kept = [k for k, name in enumerate(self.sizes) if name in sizes]
        options: dict = {"tokens": plan.tokens, "epochs": plan.epochs}
        if arm in TIMES:
            return unimax(sizes, tokens=round(TIMES[arm] * plan.windows) * plan.window, epochs=plan.epochs)
        if arm == "proportional":
            total = sum(sizes.values())
            w = np.array([n / total for n in sizes.values()])
            return Mixture(tuple(sizes), w, np.ones(len(w)), plan.tokens, float(plan.epochs), 0.0, 0.0)
        if arm == "uniform":  # without caps: as often as it takes
            return unimax(sizes, tokens=plan.tokens, epochs=plan.tokens / min(sizes.values()))
        if arm.startswith("information"):
            features = {name: self.features()[name] for name in sizes}
            if arm.endswith("filtered"):
                features = {name: features[name].subset(k) for name, k in self.likeliest([*sizes]).items()}
            found = information_mixture(features, **options)
            w = np.array([found.get(name, 0.0) for name in sizes])
            return Mixture(tuple(sizes), w, np.ones(len(w)), plan.tokens, float(plan.epochs), found.objective, found.gap)
        if arm not in RISKS:
            raise ValueError(f"expected an arm among {', '.join(ARMS)}, got {arm!r}")
        how, risk = RISKS[arm]
        U = np.array(self.utilities(how)["utilities"])[kept]
        return utilimax(U / np.maximum(U.max(0), 1e-12), sizes, risk=len(sizes) if risk is None else risk, **options)

    def likeliest(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The half of all windows that the model finds likeliest, by source: a perplexity filter. A source may lose all."""
        loss = {name: HeldOut.from_features(self.features()[name]).nll_sums for name in names}
        middle = np.median(np.concatenate(list(loss.values())))
        return {name: np.flatnonzero(one <= middle) for name, one in loss.items() if (one <= middle).any()}

    def rows(self, mixture: Mixture, arm: str) -> list[Window]:
        sources = {name: self.draw.sources[name] for name in mixture}
        if arm.endswith("filtered"):  # a source that lost all has weight 0
            sources |= {name: [sources[name][k] for k in kept] for name, kept in self.likeliest([*mixture]).items()}
        return mixture.draw(sources, seed=self.seed, show=False)

    def run(self, arm: str, poison: bool) -> dict:
        """One row: the weights of an arm and, trained on what they draw, its loss on each task."""
        plan, mixture = self.plan, self.mixture(arm, poison)
        rows = self.rows(mixture, arm)
        key, began = json.dumps(sorted(rows)), time.perf_counter()
        if key not in self.trained:  # arms that draw the same windows are the same training
            steps = round(plan.steps * TIMES.get(arm, 1))
            tuned = fine_tune(
                self.model, None, rows, steps_per_epoch=steps, learning_rate=plan.learning_rate, seed=self.seed,
                progress=False,
            )  # fmt: skip
            nll = {task: held_out_nll(tuned.model, None, test, progress=False).nll for task, test in self.draw.test.items()}
            self.trained[key] = nll, time.perf_counter() - began, arm
        nll, seconds, first = self.trained[key]
        return {
            "pool": "poison" if poison else "clean",
            "arm": arm,
            "seed": self.seed,
            "tokens": len(rows) * plan.window,
            "weights": dict(mixture),
            "drawn": {name: sum(row in given for row in rows) for name, given in self.draw.sources.items()},
            "gap": mixture.gap,
            "nll": nll,
            "seconds": seconds if arm == first else 0.0,
            "same_as": first,
            **origin("cpu"),
        }


RISKS: dict[str, tuple[str, float | None]] = {  # None: K, as in a public version
    "UtiliMax, risk 0": ("ablation", 0.0),
    "UtiliMax, risk 0.1": ("ablation", 0.1),
    "UtiliMax, risk K": ("ablation", None),
    "MEDU, then UtiliMax": ("MEDU", 0.1),
    "in context, then UtiliMax": ("context", 0.1),
}
TIMES = {"UniMax": 1.0, "UniMax, half the tokens": 0.5}
ARMS = ("UniMax", "UtiliMax, risk 0.1", "proportional", "uniform", "UtiliMax, risk 0", "UtiliMax, risk K", "information",
        "information, filtered", "MEDU, then UtiliMax", "in context, then UtiliMax", "UniMax, half the tokens")  # fmt: skip
WITHOUT = ("UniMax", "UtiliMax, risk 0.1", "information")  # arms that are trained without the poison too


def wanted(seeds: int) -> list[tuple[int, bool, str]]:
    """Seed by seed, so that a run that is stopped has whole seeds."""
    return [
        (seed, poison, arm) for seed in range(seeds) for poison, arms in ((True, ARMS), (False, WITHOUT)) for arm in arms
    ]


def main(arguments: list[str] | None = None) -> None:
    options = resumed.parser("data_mixtures", __doc__).parse_args(arguments)
    plan, (model, tokenizer) = Plan(), load_model("smollm2-135m")
    benches: dict[int, Bench] = {}

    def run_one(one: tuple[int, bool, str]) -> list[dict]:
        """One arm. What it had to read of the sources is kept too, and with the last arm of a seed the examination."""
        seed, poison, arm = one
        read = options.folder / f"read-{seed}.json"
        if seed not in benches:
            benches.clear()
            benches[seed] = Bench(model, tokenizer, plan, seed)
            benches[seed].known = json.loads(read.read_text())["known"] if read.exists() else {}
        row = benches[seed].run(arm, poison)
        seen = {"seed": seed, "known": benches[seed].known, **origin("cpu")}
        if (poison, arm) == (False, WITHOUT[-1]):
            seen["examination"] = benches[seed].examination()
        resumed.put(read, json.dumps(seen))
        return [row]

    resumed.run_all(
        wanted(options.seeds),
        run_one,
        lambda one: f"{one[0]}-{'poison' if one[1] else 'clean'}-{ARMS.index(one[2])}",
        options,
        {"command": ".venv/bin/python -m fisherlib.course.study.data_mixtures", "settings": asdict(plan)},
    )
    seen = [json.loads(path.read_text()) for path in sorted(options.folder.glob("read-*.json"))]
    resumed.put((options.results or options.folder) / "utilities.json", json.dumps(seen, indent=1) + "\n")


if __name__ == "__main__":
    main()
