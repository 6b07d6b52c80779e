"""What the committed rows of notebook 12 say: the questions of its protocol, with intervals over sentences or questions."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy
from jaxtyping import Float

from fisherlib.course.study.documents import STAGES
from fisherlib.course.study.ratings import KINDS, earned
from fisherlib.evaluation.decisions import decide, draws, recalibrate
from fisherlib.evaluation.statistics import Interval, resample
from fisherlib.text.ratings import SCALE
from fisherlib.training.retrieval import ChunkReranker

READINGS: dict[str, Callable] = {
    "mean": lambda p, seed: decide(p, SCALE, "squared"),
    "median": lambda p, seed: decide(p, SCALE, "absolute"),
    "mode": lambda p, seed: decide(p, SCALE, "exact"),
    "one draw": lambda p, seed: decide(draws(p, 1, seed=seed), SCALE, "squared"),
    "mean of 8 draws": lambda p, seed: decide(draws(p, 8, seed=seed), SCALE, "squared"),
}
RESAMPLES = 2000


def load(folder: Path) -> dict[str, list[dict]]:
    """The rows by their part, those that are there."""
    found: dict[str, list[dict]] = {}
    for row in json.loads((Path(folder) / "rows.json").read_text()):
        found.setdefault(row["part"], []).append(row)
    return found


def over(values: Float[np.ndarray, " n"], seed: int = 0) -> Interval:
    """The mean with its 95 % percentile interval over drawings of the items."""
    counts = resample(len(values), RESAMPLES, np.random.default_rng(seed))
    low, high = np.quantile(counts @ values / len(values), [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))


def answers(rows: list[dict]) -> dict[str, Float[np.ndarray, "S N"]]:
    """Of each reading, as it is and recalibrated (`, line`), the number for each test sentence in each draw."""
    found: dict[str, list] = {}
    for row in rows:
        p, truth, n = np.array(row["p"]), np.array(row["truth"]), row["labelled"]
        for name, read in READINGS.items():
            said = read(p, row["seed"])
            found.setdefault(name, []).append(said[n:])
            found.setdefault(f"{name}, line", []).append(recalibrate(said[:n], truth[:n])(said[n:]))
        found.setdefault("constant", []).append(np.full(len(p) - n, truth[:n].mean()))
    return {name: np.array(each) for name, each in found.items()}


def truth(rows: list[dict]) -> Float[np.ndarray, " N"]:
    return np.array(rows[0]["truth"][rows[0]["labelled"] :])


def rated(rows: list[dict]) -> pd.DataFrame:
    """A row for each reading: RMSE, MAE, Spearman's correlation over draws and test sentences; the raters' noise last."""
    y, table = truth(rows), {}
    for name, said in answers(rows).items():
        table[name] = {
            "RMSE": float(np.sqrt(((said - y) ** 2).mean())),
            "MAE": float(abs(said - y).mean()),
            "Spearman": float(np.mean([_spearman(one, y) for one in said])),
        }
    noise = np.array(rows[0]["rater_error"][rows[0]["labelled"] :])
    table["raters' noise"] = {"RMSE": float(np.sqrt((noise**2).mean())), "MAE": np.nan, "Spearman": np.nan}
    return pd.DataFrame(table).T


def _spearman(said: Float[np.ndarray, " N"], y: Float[np.ndarray, " N"]) -> float:
    """0 if all answers are the same: they order nothing (our choice; by its formula it is 0 / 0)."""
    return float(scipy.stats.spearmanr(said, y).statistic) if np.ptp(said) else 0.0


def rated_contrasts(rows: list[dict]) -> dict[str, Interval]:
    """Questions R1 to R7 of the protocol: differences of losses (R3: of correlations), paired by sentence."""
    said, y = answers(rows), truth(rows)
    squared = {name: ((each - y) ** 2).mean(0) for name, each in said.items()}
    absolute = {name: abs(each - y).mean(0) for name, each in said.items()}
    return {
        "R1 squared error, mean − mode": over(squared["mean"] - squared["mode"]),
        "R2 absolute error, median − mode": over(absolute["median"] - absolute["mode"]),
        "R3 Spearman, mean − mode": _correlations(said["mean"], said["mode"], y),
        "R4 squared error, mean − constant": over(squared["mean"] - squared["constant"]),
        "R5 squared error, mean by a line − constant": over(squared["mean, line"] - squared["constant"]),
        "R6 squared error, by a line: mean − mode": over(squared["mean, line"] - squared["mode, line"]),
        "R7 squared error, mean of 8 draws − mode": over(squared["mean of 8 draws"] - squared["mode"]),
    }


def same_sign(rows: list[dict]) -> dict[str, int]:
    """On how many draws of demonstrations the sign is that of all: for R1 to R3."""
    said, y = answers(rows), truth(rows)
    each = {
        "R1": ((said["mean"] - y) ** 2 - (said["mode"] - y) ** 2).mean(1),
        "R2": (abs(said["median"] - y) - abs(said["mode"] - y)).mean(1),
        "R3": np.array([_spearman(a, y) - _spearman(b, y) for a, b in zip(said["mean"], said["mode"], strict=True)]),
    }
    return {name: int((np.sign(d) == np.sign(d.mean())).sum()) for name, d in each.items()}


def _correlations(first: Float[np.ndarray, "S N"], second: Float[np.ndarray, "S N"], y: Float[np.ndarray, " N"]) -> Interval:
    """Mean difference of Spearman's correlations over draws; each drawing of sentences ranks anew."""
    rng, values = np.random.default_rng(0), []
    pick = [np.arange(len(y)), *rng.integers(0, len(y), (RESAMPLES // 4, len(y)))]
    for at in pick:
        values.append(
            np.mean([_spearman(a[at], y[at]) - _spearman(b[at], y[at]) for a, b in zip(first, second, strict=True)])
        )
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return Interval(float(values[0]), float(low), float(high))


def judged(rows: Mapping[str, list[dict]]) -> pd.DataFrame:
    """Question J1: for each kind of false text, what the true one earns by letter and by expectation; the pairs it takes."""
    table = {}
    for kind in KINDS:
        for row in rows.get(f"judge {kind}", []):
            p = np.array(row["p"])
            entry: dict[str, Any] = {}
            for read in ("letter", "expectation"):
                score = earned(p, read)
                entry[read] = over(score)
                spread = score.std(ddof=1)
                entry[f"t, {read}"] = float((score.mean() - 0.5) / spread * np.sqrt(len(score))) if spread else float("nan")
            t_letter, t_expectation = entry["t, letter"], entry["t, expectation"]
            entry["times as many pairs"] = (t_expectation / t_letter) ** 2 if min(t_letter, t_expectation) > 0 else np.nan
            table[kind] = entry
    return pd.DataFrame(table).T


def share_in_words(found: Interval) -> str:
    """A score with its interval, and whether that lies above one half, below it, or neither."""
    said = "above" if found.low > 0.5 else "below" if found.high < 0.5 else "tie"
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}] {said}"


def ranked(row: dict, folds: int = 5) -> pd.DataFrame:
    """Question D1, a row for each question: is the right chunk first by search, by re-ranker, and is it found at all?

    The re-ranker that is asked about a question has learned from the other folds' questions only.
    """
    scores, log_p, relevant = (np.array(row[name]) for name in ("scores", "log_p", "relevant"))
    first, Q = np.zeros(len(scores), dtype=bool), np.arange(len(scores))
    for fold in range(folds):
        test = Q % folds == fold
        reranker = ChunkReranker.fit(scores[~test], log_p[~test], relevant[~test])
        best = reranker.chances(scores[test], log_p[test]).argmax(1)
        first[test] = relevant[test][np.arange(test.sum()), best]
    model = relevant[Q, log_p.argmax(1)]
    return pd.DataFrame({"TF-IDF": relevant[:, 0], "log p alone": model, "re-ranker": first, "found": relevant.any(1)})


def complete(rows: Mapping[str, list[dict]]) -> list[int]:
    """The test sets of which all stages are there."""
    folds = [{row["seed"] for row in rows.get(stage, [])} for stage in STAGES]
    return sorted(set.intersection(*folds))


def answered(rows: Mapping[str, list[dict]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row for each question, a column for each arm and context: 1 where the right option won, and its log-loss.

    Only of the folds of which all stages are there.
    """
    right, loss = [], []
    for fold in complete(rows):
        of_fold = [row for stage in STAGES for row in rows[stage] if row["seed"] == fold]
        at = np.array(of_fold[0]["right"])
        p = {name: np.array(found) for row in of_fold for name, found in row["p"].items()}
        singles = [name for name in p if name.startswith("part ")]
        p["ensemble of parts | re-ranker"] = np.mean([p[name] for name in singles], axis=0)
        wins = {name: (found.argmax(1) == at).astype(float) for name, found in p.items()}
        losses = {name: -np.log(np.maximum(found[np.arange(len(at)), at], 1e-6)) for name, found in p.items()}
        for table in (wins, losses):
            table["mean of parts | re-ranker"] = np.mean([table.pop(name) for name in singles], axis=0)
        right.append(pd.DataFrame(wins | {"majority": (np.array(of_fold[0]["majority"]) == at).astype(float)}))
        loss.append(pd.DataFrame(losses))
    return pd.concat(right, ignore_index=True), pd.concat(loss, ignore_index=True)


def answered_contrasts(rows: Mapping[str, list[dict]]) -> pd.DataFrame:
    """Questions D2 to D7 of the protocol, paired by question: above 0 is better in accuracy, below 0 in log-loss."""
    right, loss = answered(rows)
    merged = "merged | re-ranker"
    asked = {
        "D2 re-ranker's chunk − none": (merged, "merged | none"),
        "D3 re-ranker's chunk − TF-IDF's": (merged, "merged | TF-IDF"),
        "D4 merged − no tuning": (merged, "no tuning | re-ranker"),
        "D5 merged − mean of its parts": (merged, "mean of parts | re-ranker"),
        "D6 merged − all data": (merged, "all data, as many steps | re-ranker"),
        "D7 FisherSFT's parts − random parts": ("merged, FisherSFT parts | re-ranker", merged),
    }
    return pd.DataFrame(
        {
            name: {"accuracy": over((right[a] - right[b]).to_numpy()), "log-loss": over((loss[a] - loss[b]).to_numpy())}
            for name, (a, b) in asked.items()
        }
    ).T


def accuracies(rows: Mapping[str, list[dict]]) -> pd.DataFrame:
    """Mean accuracy and log-loss of each arm with each context."""
    right, loss = answered(rows)
    table = pd.DataFrame({"accuracy": right.mean(), "log-loss": loss.mean()})
    table.index = pd.MultiIndex.from_tuples(
        [(*str(name).split(" | "), "")[:2] for name in table.index], names=["arm", "context"]
    )
    return table


def bill(rows: Mapping[str, list[dict]]) -> pd.DataFrame:
    """What each step gained, in its own unit, and the seconds that it needs beyond the plain way; of what has rows.

    The seconds of a merged model are those of training its parts, for one test set.
    """
    found = {name[:2]: gain for name, gain in rated_contrasts(rows["ratings"]).items()}
    first = rows["ratings"][0]
    labelling = float(np.mean([row["seconds"] for row in rows["ratings"]])) * first["labelled"] / len(first["p"])
    lines: list[tuple] = [
        ("mean instead of mode", "squared error", found["R1"], 0.0),
        ("median instead of mode", "absolute error", found["R2"], 0.0),
        ("a line from labels, against the constant", "squared error", found["R5"], labelling),
    ]
    for row in rows.get("search", []):
        ranks = ranked(row)
        gain = over((ranks["re-ranker"] * 1.0 - ranks["TF-IDF"]).to_numpy())
        lines.append(("re-ranker instead of TF-IDF", "right chunk first", gain, row["seconds"]))
    if complete(rows):
        training = float(np.mean([row["training_seconds"] for row in rows["merged"]]))
        for name, gain in answered_contrasts(rows)["log-loss"].items():
            if str(name)[:2] in ("D4", "D5"):
                lines.append((str(name)[3:], "log-loss", gain, training))
    return pd.DataFrame(lines, columns=["step", "unit", "gain", "seconds"]).set_index("step")


def sign(found: Interval, *, wanted: int) -> str:
    """Whether the sign that a paper leads to expect appeared: "appears", "the opposite", or "tie"."""
    side = 1 if found.low > 0 else -1 if found.high < 0 else 0
    return "tie" if side == 0 else "appears" if side == wanted else "the opposite"
