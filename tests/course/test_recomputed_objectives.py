"""Notebook 10's verdicts, made again from the committed rows by other code: pandas, scipy, json. Nothing of fisherlib."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

HERE = Path(__file__).resolve().parents[2] / "notebooks"
MIME = "application/vnd.fisherlib.record+json"
QUESTIONS = {  # the protocols' words
    "a better surrogate for MLE?": [(arm, "MLE", of) for arm in ("ExMATE", "MATE", "unlikelihood") for of in "ml"],
    "displacement": [("DPO", None, of) for of in "gbGB"],
    "what is added to DPO": [(*pair, of) for pair in (("DPO + MLE", "DPO"), ("DPO + ExMATE", "DPO + MLE")) for of in "gml"],
    "strength": [
        (*pair, of)
        for pair in (
            ("ExMATE, c = 5", "MLE"),
            ("ExMATE, c = 100", "MLE"),
            ("MATE, c = 1", "MLE"),
            ("DPO + ExMATE, c = 100", "DPO + MLE"),
        )
        for of in "mlb"
    ],
}
NAMES = {"m": "margin", "l": "loss", "g": "good learned", "b": "bad learned", "G": "good", "B": "bad"}
EQUAL, LONG = "SFT, equal tokens", "SFT, equal seconds"


def rows(name):
    """All rows of the seeds that are done with all arms."""
    found = json.loads((HERE / "results" / name / "rows.json").read_text())
    arms = {seed: {row["arm"] for row in found if row["seed"] == seed} for seed in range(5)}
    most = max(map(len, arms.values()))
    return [row for row in found if len(arms[row["seed"]]) == most]


@pytest.fixture(scope="module")
def printed():
    node = json.loads((HERE / "10_objectives.ipynb").read_text())
    found = {}
    for cell in node["cells"]:
        for output in cell.get("outputs", []):
            found |= output.get("data", {}).get(MIME, {})
    return found


def number(row, of):
    """One number of a row of the objectives."""
    if of == "l":
        return -sum(row["good_test_after"]) / sum(row["tokens_test"])
    if of == "m":
        gap = np.subtract(row["good_test_after"], row["bad_test_after"])
        return np.mean([gap[k] + gap[k + 1] for k in range(0, len(gap), 2)])
    side = ("good" if of in "gG" else "bad") + ("_train" if of in "gb" else "_test")
    return np.mean(row[f"{side}_after"]) - np.mean(row[f"{side}_before"])


def agrees(table, differences):
    """Whether a printed question is Student's test of these differences, with Holm's correction by hand."""
    assert set(table) == set(differences)
    if min(map(len, differences.values())) < 2:
        assert all(one["verdict"] == "one seed" and one["seeds"] == 1 for one in table.values())
        return
    p = pd.Series({name: stats.ttest_1samp(d, 0).pvalue for name, d in differences.items()}).sort_values()
    worst, holm = 0.0, {}
    for rank, (name, value) in enumerate(p.items()):
        worst = max(worst, min(1.0, value * (len(p) - rank)))
        holm[name] = worst
    for name, d in differences.items():
        one = table[name]
        low, high = stats.t.interval(0.95, len(d) - 1, np.mean(d), stats.sem(d))
        got = [one["mean"], one["low"], one["high"], one["p_holm"]]
        assert got == pytest.approx([np.mean(d), low, high, holm[name]], abs=1e-6), name
        verdict = "tie" if holm[name] >= 0.05 else "higher" if np.mean(d) > 0 else "lower"
        assert (one["verdict"], one["seeds"]) == (verdict, len(d))
        margin = abs(np.mean(d)) + stats.t.ppf(0.95, len(d) - 1) * stats.sem(d)
        assert one["margin"] == pytest.approx(margin, abs=1e-6)


@pytest.mark.parametrize("question", QUESTIONS)
def test_objectives(printed, question):
    by = {(row["arm"], row["seed"]): row for row in rows("10_objectives")}
    differences = {}
    for arm, reference, of in QUESTIONS[question]:
        seeds = [s for s in range(5) if (arm, s) in by and (reference is None or (reference, s) in by)]
        minus = [number(by[reference, s], of) if reference else 0.0 for s in seeds]
        differences[f"{arm}: {NAMES[of]}"] = np.array([number(by[arm, s], of) for s in seeds]) - minus
    agrees(printed["questions"][question], differences)


def test_self_play(printed):
    by = {(row["arm"], row["seed"]): row for row in rows("10_self_play")}
    seeds = sorted({seed for _, seed in by})

    def each(arm, of):
        return np.array([of(by[arm, seed]) for seed in seeds])

    def loss(row):
        return -sum(row["data_round_3"]) / sum(row["tokens_test"])

    def moved(side):
        return lambda row: np.mean(np.subtract(row[f"{side}_round_3"], row[f"{side}_start"]))

    def share(row):
        human, own = (np.subtract(row[f"{side}_round_3"], row[f"{side}_start"]) for side in ("data", "own"))
        return np.mean(human > own)

    asked = printed["questions"]
    agrees(asked["equal tokens"], {"loss": each("SPIN", loss) - each(EQUAL, loss)})
    agrees(asked["equal seconds"], {"loss": each("SPIN", loss) - each(LONG, loss)})
    agrees(asked["told apart"], {"share": each("SPIN", share) - each(EQUAL, share)})
    sides = {"human": "data", "own": "own"}
    agrees(
        asked["what moves"],
        {f"{arm}: {name}": each(arm, moved(side)) for arm in ("SPIN", EQUAL) for name, side in sides.items()},
    )


def test_rows_are_of_the_plan():
    for name, arms in {"10_objectives": 11, "10_self_play": 3}.items():
        table, about = rows(name), json.loads((HERE / "results" / name / "about.json").read_text())
        assert about["rows"] >= len(table) and len({(row["arm"], row["seed"]) for row in table}) == len(table)
        assert len({row["arm"] for row in table}) == arms


def test_the_first_gradient_of_self_play_nears_that_of_fine_tuning_as_own_answers_grow_in_number(printed):
    """Of the committed run; two own answers of the smoke profile may say anything."""
    cosine, noise = (printed["live"][name] for name in ("cosine", "noise"))
    assert len(cosine) >= 4 and cosine[-1] > max(cosine[0], 0.8) and noise[-1] < noise[0]
