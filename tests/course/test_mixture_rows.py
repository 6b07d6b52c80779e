"""What notebook 08 says of the committed rows, made again with pandas and scipy alone; and what the readings do with few."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fisherlib.course.exercises import mixtures as exercises
from fisherlib.course.notebook import NOTEBOOKS, results
from fisherlib.course.study import mixtures as study

FOLDER = Path(__file__).resolve().parents[2] / "notebooks" / "results" / "08_data_mixtures"
ARMS = ["UniMax", "UtiliMax, risk 0.1", "proportional", "uniform", "UtiliMax, risk 0", "UtiliMax, risk K", "information",
        "information, filtered", "MEDU, then UtiliMax", "in context, then UtiliMax"]  # fmt: skip


def made_rows(seeds, rng, effect=0.0):
    """Rows as the study writes them; in each, UtiliMax's loss is lower by `effect`."""
    rows = []
    for seed in range(seeds):
        for pool, arms in (("poison", [*ARMS, "UniMax, half the tokens"]), ("clean", [*ARMS[:2], "information"])):
            for arm in arms:
                loss = 4 + rng.normal(scale=0.01, size=4) - effect * (arm == "UtiliMax, risk 0.1") + 0.2 * ("half" in arm)
                nll = dict(zip(("dialogue", "documentation", "python", "stylesheet"), loss.tolist(), strict=True))
                tokens = 320 if "half" in arm else 640
                weights = {"dialogue": 0.9, "shuffled words": 0.1 + 0.2 * (arm == "information")}
                rows.append({"pool": pool, "arm": arm, "seed": seed, "nll": nll, "tokens": tokens, "weights": weights})
    return rows


def compared(rows, pool, arms):
    """Student's paired differences from UniMax and Holm's correction, from the definitions."""
    table = pd.DataFrame([{"seed": r["seed"], "arm": r["arm"], "loss": np.mean([*r["nll"].values()])}
                          for r in rows if r["pool"] == pool])  # fmt: skip
    wide = table.pivot(index="seed", columns="arm", values="loss")[arms].dropna()
    found = {}
    for arm in arms[1:]:
        d = wide[arm] - wide["UniMax"]
        if not d.any():  # the same training: no difference, and no chance of one
            found[arm] = (0.0, 0.0, 0.0, 1.0)
            continue
        test = stats.ttest_1samp(d, 0)
        found[arm] = (d.mean(), *test.confidence_interval(0.95), test.pvalue)
    order, held, adjusted = sorted(found, key=lambda arm: found[arm][3]), 0.0, {}
    for rank, arm in enumerate(order):
        held = max(held, min(1.0, found[arm][3] * (len(order) - rank)))
        adjusted[arm] = held
    return {arm: (*found[arm][:3], adjusted[arm]) for arm in found}


@pytest.mark.parametrize("effect", [0.0, 0.5])
def test_differences_and_verdicts_are_those_of_scipy(tmp_path, effect):
    rows = made_rows(5, np.random.default_rng(0), effect)
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    table = study.load(tmp_path)
    for poison, pool, arms in ((True, "poison", ARMS), (False, "clean", [*ARMS[:2], "information"])):
        ours = study.against_unimax(table, poison=poison)
        for arm, wanted in compared(rows, pool, arms).items():
            assert ours.loc[arm, ["mean", "low", "high", "p_holm"]].tolist() == pytest.approx(wanted, abs=1e-9), arm
    verdict = study.against_unimax(table, poison=True).loc["UtiliMax, risk 0.1", "verdict"]
    assert verdict == ("better" if effect else "tie")
    needed = study.tokens_needed(table)
    mean = {arm: np.mean([np.mean([*r["nll"].values()]) for r in rows if (r["arm"], r["pool"]) == (arm, "poison")])
            for arm in ("UniMax", "UniMax, half the tokens", "UtiliMax, risk 0.1")}  # fmt: skip
    slope = (mean["UniMax, half the tokens"] - mean["UniMax"]) / np.log(2)
    assert needed["times"] == pytest.approx(np.exp((mean["UniMax"] - mean["UtiliMax, risk 0.1"]) / slope))
    told = study.summary(table, "passes")
    assert ("beats UniMax" if effect else "ties with UniMax") in told and "gives it more than UniMax: 0.30" in told


def test_a_line_that_does_not_fall_gives_no_number_of_tokens(tmp_path):
    rows = made_rows(2, np.random.default_rng(0))
    for row in rows:
        row["nll"] = dict.fromkeys(row["nll"], 4.0)
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    assert np.isnan(study.tokens_needed(study.load(tmp_path))["times"])


def test_few_rows_decide_nothing_and_half_seeds_do_not_count(tmp_path):
    empty = study.load(tmp_path)
    assert set(study.against_unimax(empty, poison=True)["verdict"]) == {"no seed"} and study.readings(tmp_path) == []
    assert study.done(tmp_path).startswith("0 of ") and "decides nothing yet" in study.summary(empty, "passes")
    rows = made_rows(2, np.random.default_rng(1))
    (tmp_path / "rows.json").write_text(json.dumps(rows[:-5] + rows[-4:]))  # the second seed lacks one arm with poison
    table = study.load(tmp_path)
    one = study.against_unimax(table, poison=True)
    assert set(one["verdict"]) == {"one seed"} and set(one["seeds"]) == {1} and one["low"].isna().all()
    assert "decides nothing yet" in study.summary(table, "passes")


def test_the_rank_correlation_is_scipys_and_its_interval_resamples_sources():
    rng = np.random.default_rng(0)
    x = rng.random((9, 4))
    same, none = study.spearman(x, 2 * x + 1), study.spearman(x, rng.random((9, 4)))
    assert [same.mean, same.low, same.high] == pytest.approx([1, 1, 1]) and none.low < 0 < none.high
    assert study.spearman(x, x[::-1]).mean == pytest.approx(stats.spearmanr(x.ravel(), x[::-1].ravel()).statistic)
    assert np.isnan(study.spearman(x, np.ones((9, 4))).mean)
    # Copies of a cell within a source are no more sources: the interval stays as it was.
    y = rng.random((9, 1))
    one, many = (study.spearman(x[:, :1].repeat(n, 1), y.repeat(n, 1)) for n in (1, 8))
    assert [one.mean, one.low, one.high] == pytest.approx([many.mean, many.low, many.high])


def test_the_examination_counts_every_text_and_a_tie_as_half():
    read = [{"seed": 0, "known": {}, "examination": {"own": [[1, 0.5]], "shuffled": [[0.5, 0.5]], "elsewhere": [[2, 2]]}}]
    above, below = (study.graded_above(read, kind) for kind in ("shuffled", "elsewhere"))
    assert above.mean == 0.75 and below.mean == 0 and study.examined({"a": above, "b": below}) == "does not pass"
    assert study.examined({"a": study.graded_above([], "shuffled")}).startswith("was not examined")


def test_the_notebook_recorded_what_the_rows_say():
    """Of a notebook that was not run again after new rows came this fails too: its outputs are stale."""
    recorded = results(NOTEBOOKS / "08_data_mixtures.ipynb")
    path = FOLDER / "rows.json"
    rows = json.loads(path.read_text()) if path.is_file() else []
    whole = [s for s in range(5) if {r["arm"] for r in rows if (r["seed"], r["pool"]) == (s, "poison")} >= set(ARMS)]
    assert recorded["seeds"] == len(whole)
    if len(whole) > 1:
        for arm, wanted in compared([r for r in rows if r["seed"] in whole], "poison", ARMS).items():
            assert recorded["differences"][arm] == pytest.approx(wanted[:3], abs=1e-8), arm


# --- checkers of the exercises


def test_the_checkers_tell_open_right_and_wrong_answers_apart(capsys):
    for check in (exercises.water_level, exercises.fewest_epochs, exercises.my_gap):
        check(...)
    assert capsys.readouterr().out.count("○ not answered yet") == 3
    exercises.water_level([0.05, 0.15, 0.3, 0.5])
    exercises.fewest_epochs(2.5)
    exercises.my_gap(lambda w, slope: slope.max() - slope @ w)
    assert capsys.readouterr().out.count("✓") == 3
    for wrong in ([0.25] * 4, [0.05, 0.15, 0.3, 0.4], [1.0], [0.05, 0.1, 0.3, 0.55]):
        with pytest.raises(AssertionError):
            exercises.water_level(wrong)
    with pytest.raises(AssertionError):
        exercises.fewest_epochs(3)
    with pytest.raises(AssertionError, match="expected"):
        exercises.my_gap(lambda w, slope: slope.max())
