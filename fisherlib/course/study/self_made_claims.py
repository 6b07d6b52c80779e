"""What the rows of `self_made` say: four claims of the paper and our question, as contrasts of arms with intervals."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset
from jaxtyping import Float

from fisherlib.course.study.self_made import ARMS
from fisherlib.evaluation import Interval, holm, paired_t
from fisherlib.training.rejection import answer_of, equations, keep, pass_at_k, word_problems

MAJORITY, ONE, ANY = "SFT, most frequent of k", "SFT, one of k", "SFT, any of k"
_HALF, _TWICE = "SFT, half of the problems", "SFT, twice the problems"
_GAIN = {"RFT": 1.0, "SFT": -1.0}
_GAIN_HALF = {"RFT, half of the problems": 1.0, _HALF: -1.0}
# By family, for Holm's correction: a name and the weights of the arms. Each is expected to be above 0 where the paper is.
PAPER: dict[str, Mapping[str, float]] = {
    "more problems: each doubling": {_TWICE: 0.5, _HALF: -0.5},
    "own solutions: RFT minus SFT": _GAIN,
    "more paths: k = 4 minus k = 1": {"RFT": 1.0, "RFT, k = 1": -1.0},
    "weaker model, larger gain: half minus whole": {**_GAIN_HALF, "RFT": -1.0, "SFT": 1.0},
    "the vote: most frequent of 4 minus greedy": {MAJORITY: 1.0, "SFT": -1.0},
}
PAPER_LOSS = {name: weights for name, weights in PAPER.items() if MAJORITY not in weights}  # a vote has no loss
BEND = {_TWICE: 1.0, "SFT": -2.0, _HALF: 1.0}  # 0 on a straight line over log n
CHOICES = {"all of it": "RFT", "originals alone": "SFT"} | {
    name.removeprefix("RFT, "): name for name, arm in ARMS.items() if arm.choose and arm.choose != "uniform"
}
BRIDGE = {name: {arm: 1.0, "RFT, uniform": -1.0} for name, arm in CHOICES.items()}


def load(folder: str | Path) -> tuple[pd.DataFrame, dict]:
    """The rows, however many are there, and where they come from."""
    rows = json.loads((Path(folder) / "rows.json").read_text())
    table = pd.DataFrame(rows, columns=None if rows else ["arm", "seed", "right", "nll", "own"])
    return table, json.loads((Path(folder) / "about.json").read_text())


def _seeds(table: pd.DataFrame) -> list[int]:
    return sorted(int(seed) for seed in table["seed"].unique())


def right_by_arm(table: pd.DataFrame, seed: int) -> dict[str, Float[np.ndarray, " N"]]:
    """For each test problem whether an arm's greedy answer is right; of the votes and samples of SFT too."""
    rows = table[table["seed"] == seed].set_index("arm")
    found = {str(arm): np.asarray(right, dtype=float) for arm, right in rows["right"].items()}
    if "SFT" in found:
        said = rows.loc["SFT", "said_test"]
        answers = word_problems(len(said), seed=seed, side="test")["answer"]
        each = [[answer_of(text) for text in texts] for texts in said]
        found[MAJORITY] = np.array([_vote(of) == answer for of, answer in zip(each, answers, strict=True)], dtype=float)
        right = [sum(one == answer for one in of) for of, answer in zip(each, answers, strict=True)]
        k = len(said[0])
        found[ONE], found[ANY] = pass_at_k(right, k, 1), pass_at_k(right, k, k)
    return found


def _vote(answers: list[str | None]) -> str | None:
    """The most frequent answer; of equally frequent ones that which came first."""
    return Counter(answers).most_common(1)[0][0]


def contrasts(table: pd.DataFrame, family: Mapping[str, Mapping[str, float]], metric: str = "right") -> pd.DataFrame:
    """Each contrast with Student's interval over the `seeds` that have its arms, `p_holm` over the family, a `verdict`.

    Of "right": the share of test problems. The spread over seeds is not taken to be smaller than the test problems alone
    make it. Of "nll": the loss on the written solutions; then below 0 is good. `verdict`: "above", "below", or "tie" unless
    `p_holm` < 0.05; "not run" where no seed has all arms. One seed alone is judged by its test problems, as if these were
    seeds; of a loss it has no interval.
    """
    by_arm = {seed: right_by_arm(table, seed) for seed in _seeds(table)}
    loss = {(arm, seed): nll for arm, seed, nll in zip(table["arm"], table["seed"], table["nll"], strict=True)}
    found = {}
    for name, weights in family.items():
        seeds = [seed for seed, arms in by_arm.items() if set(weights) <= set(arms)]
        if metric == "nll":
            result = _over([sum(w * loss[arm, seed] for arm, w in weights.items()) for seed in seeds])
        else:
            items = [np.sum([w * by_arm[seed][arm] for arm, w in weights.items()], axis=0) for seed in seeds]
            noise = float(np.sqrt(np.mean([of.var(ddof=1) / len(of) for of in items]))) if items else 0.0
            result = paired_t(items[0]) if len(items) == 1 else _over([float(of.mean()) for of in items], noise)
        ends = {"mean": result.mean, "low": result.low, "high": result.high, "p": result.p}
        found[name] = ends | {"seeds": len(seeds)}
    result = pd.DataFrame.from_dict(found, orient="index")
    run = result["seeds"] > 0
    result["p_holm"] = np.nan
    result.loc[run, "p_holm"] = holm(result.loc[run, "p"].to_numpy(dtype=float))
    result["verdict"] = np.where(result["p_holm"] >= 0.05, "tie", np.where(result["mean"] > 0, "above", "below"))
    result.loc[~run, "verdict"] = "not run"
    return result


def listed(table: pd.DataFrame) -> dict[str, list]:
    """Mean, low, high, `p_holm`, verdict and seeds of each contrast, to be recorded; None where there is no number."""
    columns = ["mean", "low", "high", "p_holm", "verdict", "seeds"]
    plain = table[columns].astype(object).replace([np.inf, -np.inf, np.nan], None)
    return {str(name): list(row) for name, row in zip(plain.index, plain.to_numpy(), strict=True)}


def _over(d: list[float], noise: float = 0.0) -> Interval:
    """Student over seeds; of one alone no interval, of none no number."""
    if len(d) > 1:
        return paired_t(d, at_least=noise)
    return Interval(d[0], -np.inf, np.inf, 1.0, 1) if d else Interval(np.nan, np.nan, np.nan, np.nan, 0)


def pool_of(table: pd.DataFrame, seed: int, k: int | None = None) -> Dataset:
    """The pool that the SFT model of a seed made: the originals, and what is kept of its first `k` solutions (all)."""
    said = table[(table["seed"] == seed) & (table["arm"] == "SFT")]["said"].iloc[0]
    return keep(word_problems(len(said), seed=seed), [list(one[:k]) for one in said])


def panels(table: pd.DataFrame, problems: int) -> dict[str, pd.DataFrame]:
    """For each claim the share of right answers (of the third: RFT's gain), by seed and setting."""
    shares = pd.DataFrame({seed: right_by_arm(table, seed) for seed in _seeds(table)})
    shares = shares.map(np.mean).T.reindex(columns=[*ARMS, ONE, MAJORITY, ANY]).astype(float)
    half, n = problems // 2, problems
    gains = {half: shares["RFT, half of the problems"] - shares[_HALF], n: shares["RFT"] - shares["SFT"]}
    return {
        "1 SFT, by problems": shares[[_HALF, "SFT", _TWICE]].set_axis([half, n, 2 * n], axis=1),
        "2 RFT, by k (0: SFT)": shares[["SFT", "RFT, k = 1", "RFT"]].set_axis([0, 1, 4], axis=1),
        "3 Gain of RFT, by problems": pd.DataFrame(gains),
        "4 SFT's answers": shares[[ONE, "SFT", MAJORITY, ANY]].set_axis(["one", "greedy", "vote", "any"], axis=1),
    }


def taken(pool: Dataset, picks: Mapping[str, Sequence[int] | np.ndarray], groups: np.ndarray) -> pd.DataFrame:
    """What each of several choices takes of a self-made pool; `groups` [M]: near-copies share a number."""
    own = np.array(pool["own"])
    lists = [(row["problem"], *equations(row["response"])) for row in pool]
    found = {
        name: {
            "solutions": len(of),
            "own": float(own[of].mean()),
            "problems": len({lists[i][0] for i in of}),
            "lists of equations": len({lists[i] for i in of}),
            "near-copies": 1 - len(set(groups[of].tolist())) / len(of),
        }
        for name, of in picks.items()
    }
    return pd.DataFrame.from_dict(found, orient="index")
