"""What the rows of continual pre-training say: planted effects are found, ties are ties, and other code agrees."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fisherlib.course.notebook import NOTEBOOKS
from fisherlib.course.study import kept
from fisherlib.course.study.keep_learning import ARMS

RESULTS = NOTEBOOKS / "results" / "09_keep_learning"
SHARES = {0.0: "re-warm, re-decay"} | {share: f"re-warm, {share:.0%} replay" for share in (0.01, 0.05, 0.2, 0.5)}


def rows(effect=None, seeds=5, noise=0.001, shifts=("weak", "strong")):
    """Every arm ends at A = 2.5 and B = 1.9 but for the planted effects {(shift, arm): (on A, on B)}, and a little noise."""
    rng = np.random.default_rng(0)
    found = []
    for seed in range(seeds):
        for shift in shifts:
            level = rng.normal(scale=0.05)  # of the seed: pairs take it away
            for arm in ARMS:
                a, b = (effect or {}).get((shift, arm), (0.0, 0.0))
                old, new = 2.5 + level + a + rng.normal(scale=noise), 1.9 + level + b + rng.normal(scale=noise)
                curves = {"old_curve": [2.0, old], "new_curve": [4.0, new], "steps": [0, 9]}
                found.append({"shift": shift, "arm": arm, "seed": seed, "old_before": 2.0, "old": old, "new": new} | curves)
    return pd.DataFrame(found)


def test_planted_signs_appear_and_wrong_ones_do_not():
    planted = {(shift, kept.REWARM): (0.0, -0.2) for shift in ("weak", "strong")}
    planted |= {("strong", kept.LOW): (-0.1, 0.0), ("weak", kept.LOW): (0.1, 0.0)}
    found = kept.contrasts(rows(planted), "Q1").set_index(["shift", "part", "side"])
    assert found.loc[("strong", "a", "B"), "verdict"] == "lower" and found.loc[("strong", "a", "B"), "appears"]
    assert found.loc[("strong", "a", "A"), "appears"] and found.loc[("strong", "a", "A"), "verdict"] == "higher"
    assert found.loc[("weak", "a", "A"), "verdict"] == "lower" and not found.loc[("weak", "a", "A"), "appears"]
    assert found.loc[("weak", "b", "B"), "appears"] and pd.isna(found.loc[("weak", "d", "A"), "appears"])
    said = kept.answers(rows(planted))["Q1"]
    weak, strong = said.split("; ")
    assert weak.startswith("weak: (a)") and weak.count("does not appear") == 2 and "highest rate: appears" in weak
    assert strong.count("does not appear") == 1 and "worse on A: appears, (b)" in strong  # of nothing planted for (c)


def test_the_shift_is_strong_minus_weak():
    planted = {("strong", SHARES[0.05]): (-0.3, 0.0), ("weak", SHARES[0.05]): (-0.1, 0.0)}
    (found,) = kept.contrasts(rows(planted), "Q2").to_dict("records")
    assert found["mean"] == pytest.approx(0.2, abs=0.01) and found["verdict"] == "higher" and found["appears"]
    turned = {("weak", SHARES[0.05]): (-0.3, 0.0)}
    (found,) = kept.contrasts(rows(turned), "Q2").to_dict("records")
    assert found["mean"] < 0 and not found["appears"]
    assert "not surely above 0" in kept.answers(rows(turned))["Q2"]


def test_nothing_planted_is_equivalent_and_holm_counts_all_contrasts_of_a_shift():
    found = kept.contrasts(rows(), "Q3")
    assert len(found) == 24 and (found.groupby("shift").size() == 12).all()
    assert (found["margin"] < kept.EQUIVALENT).all() and (found["p_holm"] >= found["p"]).all()
    least = found.loc[found.groupby("shift")["p"].idxmin()]
    np.testing.assert_allclose(least["p_holm"], np.minimum(12 * least["p"], 1))
    assert "equivalent within 0.010" in kept.answers(rows())["Q3"]
    assert "not shown to be equivalent" in kept.answers(rows(noise=0.1))["Q3"]


def test_one_seed_is_no_answer_and_a_missing_arm_no_error():
    few = rows(seeds=1)
    assert {name: text for name, text in kept.answers(few).items() if name != "Q4"} == dict.fromkeys(
        ("Q1", "Q2", "Q3", "Q5"), "not run yet."
    )
    assert all(kept.contrasts(few, name).empty for name in ("Q1", "Q2", "Q3", "Q5"))
    assert list(kept.contrasts(few, "Q1")) == list(kept.contrasts(rows(), "Q1"))
    part = rows()
    part = part[part["arm"] != SHARES[0.05]]
    assert kept.best_shares(part, "weak").empty and kept.contrasts(part, "Q2").empty
    assert set(kept.contrasts(part, "Q1")["part"]) == set("abde")
    assert kept.answers(part)["Q4"] == "not run yet."


def test_arms_come_in_the_order_of_the_study_and_scratch_forgets_nothing():
    found = kept.arms(rows().sample(frac=1, random_state=0), "weak")
    assert list(found.index) == list(ARMS) and (found["seeds"] == 5).all()
    assert np.isnan(found.loc[kept.SCRATCH, "forgot"])
    np.testing.assert_allclose(found["forgot"].drop(kept.SCRATCH), found["A"].drop(kept.SCRATCH) - 2.0)
    ways = kept.ways(rows(), "weak")
    assert ways[kept.SCRATCH].shape == (2, 1) and ways[kept.REWARM][0, -1] == found.loc[kept.REWARM, "A"]


def test_the_best_share_wins_in_its_seeds():
    found = kept.best_shares(rows({("weak", SHARES[0.2]): (-0.1, 0.02)}), "weak")
    assert found["sum"].idxmin() == 0.2 and found.loc[0.2, "wins"] == 5 and found["wins"].sum() == 5


@pytest.mark.parametrize("question", ["Q1", "Q2", "Q3", "Q5"])
def test_the_order_of_rows_changes_no_number(question):
    table = rows(noise=0.1)
    key = ["shift", "arm", "side", "part"]
    one, other = (
        kept.contrasts(each, question).set_index(key).sort_index() for each in (table, table.sample(frac=1, random_state=1))
    )
    pd.testing.assert_frame_equal(one, other)


# --- the committed rows, by other code: pandas and scipy alone ----------------------------------------------------------


def again(table, shift, arm, reference, column):
    """Mean, interval and p of a paired difference."""
    wide = table[table["shift"] == shift].pivot(index="seed", columns="arm", values=column)
    d = (wide[arm] - wide[reference]).dropna()
    test = stats.ttest_1samp(d, 0.0)
    low, high = test.confidence_interval(0.95)
    return {"mean": d.mean(), "low": low, "high": high, "p": test.pvalue, "seeds": len(d)}


def step_down(p):
    left, least, found = len(p), 0.0, [0.0] * len(p)
    for k in np.argsort(p, kind="stable"):
        least = max(least, min(1.0, left * p[k]))
        found[k], left = least, left - 1
    return found


def test_the_committed_verdicts_by_other_code():
    table = pd.DataFrame(json.loads((RESULTS / "rows.json").read_text()))
    assert not table.duplicated(["shift", "arm", "seed"]).any() and set(table["arm"]) <= set(ARMS)
    table["sum"] = table["old"] + table["new"]
    columns = {"A": "old", "B": "new", "sum": "sum"}
    compared = 0
    for question in ("Q1", "Q3", "Q5"):
        for shift, part in kept.contrasts(table, question).groupby("shift"):
            mine = [again(table, shift, r.arm, r.reference, columns[r.side]) for r in part.itertuples()]
            for name in ("mean", "low", "high", "p", "seeds"):
                np.testing.assert_allclose(part[name].astype(float), [one[name] for one in mine], atol=1e-9)
            holm = step_down([one["p"] for one in mine])
            words = [
                "tie" if p >= 0.05 else "lower" if one["mean"] < 0 else "higher" for p, one in zip(holm, mine, strict=True)
            ]
            assert part["verdict"].tolist() == words
            compared += len(words)
    assert compared == 2 * (9 + 12 + 1)
    gains = [
        table[table["shift"] == shift].pivot(index="seed", columns="arm", values="old")
        .pipe(lambda wide: wide[SHARES[0.0]] - wide[SHARES[0.05]])
        for shift in ("strong", "weak")
    ]  # fmt: skip
    assert kept.contrasts(table, "Q2").iloc[0]["mean"] == pytest.approx((gains[0] - gains[1]).mean(), abs=1e-12)
    for shift in ("weak", "strong"):
        wide = table[table["shift"] == shift].pivot(index="seed", columns="arm", values="sum")[list(SHARES.values())]
        best = kept.best_shares(table, shift)
        assert SHARES[best["sum"].idxmin()] == wide.dropna().mean().idxmin()
        assert best["wins"].max() == wide.dropna().idxmin(axis=1).value_counts().max()
