"""The verdicts of notebook 12, found again in the committed rows by other code: pandas and scipy alone."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fisherlib.course.notebook import NOTEBOOKS
from fisherlib.course.study import decided, documents
from fisherlib.evaluation import Interval

FOLDER = NOTEBOOKS / "results" / "12_decide_and_merge"
ROWS = json.loads((FOLDER / "rows.json").read_text())
DIGITS = np.arange(1, 10)


def of(part):
    return [row for row in ROWS if row["part"] == part]


@pytest.fixture(scope="module")
def long():
    """One line for each draw and sentence: the truth, and each reading by its definition."""
    lines = []
    for row in of("ratings"):
        for at, (p, y) in enumerate(zip(row["p"], row["truth"], strict=True)):
            p = np.array(p) / np.sum(p)
            median = int(DIGITS[np.searchsorted(np.cumsum(p), 0.5 - 1e-12)])
            lines.append(
                (row["seed"], at, at < row["labelled"], y, float(np.dot(p, DIGITS)), median, int(DIGITS[np.argmax(p)]))
            )
    table = pd.DataFrame(lines, columns=["draw", "sentence", "labelled", "y", "mean", "median", "mode"])
    for draw, rows in table.groupby("draw"):
        known = rows[rows["labelled"]]
        for name in ("mean", "mode"):
            if known[name].nunique() > 1:
                fit = stats.linregress(known[name], known["y"])
                line = fit.intercept + fit.slope * rows[name]
            else:
                line = known["y"].mean()
            table.loc[table["draw"] == draw, f"{name}, line"] = line
        table.loc[table["draw"] == draw, "constant"] = known["y"].mean()
    return table[~table["labelled"]]


def test_the_table_of_readings_is_found_again(long):
    table = decided.rated(of("ratings"))
    for name in ("mean", "median", "mode", "mean, line", "mode, line", "constant"):
        error = long[name] - long["y"]
        assert table.loc[name, "RMSE"] == pytest.approx(np.sqrt((error**2).mean()), abs=1e-6), name
        assert table.loc[name, "MAE"] == pytest.approx(error.abs().mean(), abs=1e-6), name
    ranks = long.groupby("draw").apply(lambda rows: rows["mean"].corr(rows["y"], method="spearman"), include_groups=False)
    assert table.loc["mean", "Spearman"] == pytest.approx(ranks.mean(), abs=1e-6)
    assert table.loc["mean, line", "Spearman"] == pytest.approx(ranks.mean(), abs=1e-6)  # slopes are positive


def test_verdicts_on_readings_are_found_again(long):
    """By scipy's own bootstrap over sentences; ends within a tenth of the interval's width."""
    found = {name[:2]: i for name, i in decided.rated_contrasts(of("ratings")).items()}
    squared = {name: (long[name] - long["y"]) ** 2 for name in ("mean", "mode", "mean, line", "mode, line", "constant")}
    absolute = {name: (long[name] - long["y"]).abs() for name in ("median", "mode")}
    asked = {
        "R1": squared["mean"] - squared["mode"],
        "R2": absolute["median"] - absolute["mode"],
        "R4": squared["mean"] - squared["constant"],
        "R5": squared["mean, line"] - squared["constant"],
        "R6": squared["mean, line"] - squared["mode, line"],
    }
    for name, d in asked.items():
        each = d.groupby(long["sentence"]).mean().to_numpy()
        again = stats.bootstrap((each,), np.mean, method="percentile", n_resamples=3000, rng=1).confidence_interval
        width = found[name].high - found[name].low
        assert found[name].mean == pytest.approx(each.mean(), abs=1e-9), name
        assert (found[name].low, found[name].high) == pytest.approx((again.low, again.high), abs=0.1 * width), name


@pytest.mark.parametrize("kind", ["shuffled", "loop", "elsewhere"])
def test_what_the_judge_earns_is_found_again(kind):
    rows = of(f"judge {kind}")
    if not rows:
        return
    table = decided.judged({f"judge {kind}": rows}).loc[kind]
    first, second = (
        pd.DataFrame(p, columns=["A", "B", "tie"]).pipe(lambda t: t.div(t.sum(axis=1), axis=0)) for p in rows[0]["p"]
    )
    by_chance = (first["A"] + first["tie"] / 2 + second["B"] + second["tie"] / 2) / 2
    worth_first, worth_second = {"A": 1, "B": 0, "tie": 0.5}, {"A": 0, "B": 1, "tie": 0.5}
    by_letter = (first.idxmax(axis=1).map(worth_first) + second.idxmax(axis=1).map(worth_second)) / 2
    assert table["expectation"].mean == pytest.approx(by_chance.mean()) and table["letter"].mean == pytest.approx(
        by_letter.mean()
    )
    t = stats.ttest_1samp(by_chance, 0.5).statistic
    assert table["t, expectation"] == pytest.approx(t)


def test_the_re_ranker_is_found_again_by_other_code():
    rows = of("search")
    if not rows:
        return
    from sklearn.linear_model import LogisticRegression

    row = rows[0]
    scores, log_p, right = (np.array(row[name]) for name in ("scores", "log_p", "relevant"))
    Q, K = scores.shape
    X = np.stack([scores, np.tile(np.log1p(np.arange(K)), (Q, 1)), log_p - log_p.mean(1, keepdims=True)], axis=2)
    first = []
    for q in range(Q):
        train = np.arange(Q) % 5 != q % 5
        flat = X[train].reshape(-1, 3)
        centre, spread = flat.mean(0), flat.std(0)
        fit = LogisticRegression().fit((flat - centre) / spread, right[train].ravel())
        first.append(right[q, np.argmax(((X[q] - centre) / spread) @ fit.coef_[0])])
    table = decided.ranked(row)
    assert table["re-ranker"].tolist() == first
    assert table["TF-IDF"].mean() == right[:, 0].mean() and table["found"].mean() == right.any(1).mean()


def test_accuracies_and_their_differences_are_found_again():
    by_fold = pd.DataFrame([{"fold": row["seed"], "stage": row["part"]} for row in ROWS if row["part"] in documents.STAGES])
    complete = [] if by_fold.empty else [f for f, rows in by_fold.groupby("fold") if len(rows) == len(documents.STAGES)]
    if not complete:
        return
    lines = [
        {"fold": row["seed"], "arm": arm, "q": q, "hit": float(np.argmax(p) == right), "loss": -np.log(max(p[right], 1e-6))}
        for row in ROWS
        if row["part"] in documents.STAGES and row["seed"] in complete
        for arm, chances in row["p"].items()
        for q, p, right in zip(row["test"], chances, row["right"], strict=True)
    ]
    table = pd.DataFrame(lines)
    hit, loss = decided.answered(decided.load(FOLDER))
    for arm, rows in table.groupby("arm"):
        if arm in hit:
            assert hit[arm].mean() == pytest.approx(rows["hit"].mean()), arm
            assert loss[arm].mean() == pytest.approx(rows["loss"].mean(), abs=1e-4), arm
    found = decided.answered_contrasts(decided.load(FOLDER)).loc["D4 merged − no tuning"]
    wide = table.pivot(index="q", columns="arm", values="loss")
    d = wide["merged | re-ranker"] - wide["no tuning | re-ranker"]
    assert found["log-loss"].mean == pytest.approx(d.mean(), abs=1e-4)


def test_a_sign_is_what_its_interval_says():
    for low, high, wanted, said in (
        (1, 2, 1, "appears"),
        (1, 2, -1, "the opposite"),
        (-1, 2, 1, "tie"),
        (-2, -1, -1, "appears"),
    ):
        assert decided.sign(Interval((low + high) / 2, float(low), float(high)), wanted=wanted) == said


def test_a_changed_digit_is_seen(long):
    rows = json.loads(json.dumps(of("ratings")))
    before = decided.rated(rows).loc["mean", "RMSE"]
    rows[0]["truth"][-1] += 1
    assert decided.rated(rows).loc["mean", "RMSE"] != before


def test_the_rows_are_those_of_the_protocol():
    about = json.loads((FOLDER / "about.json").read_text())
    assert about["rows"] == len(ROWS) <= about["rows_wanted"] == 29
    assert {row["part"] for row in ROWS} <= {"ratings", "search", *documents.STAGES, *(f"judge {k}" for k in decided.KINDS)}
    assert len({(row["part"], row["seed"]) for row in ROWS}) == len(ROWS)
