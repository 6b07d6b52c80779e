"""The study of notebook 10b: it resumes, and what is read from its rows is what other code reads from them."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fisherlib.course.study import taught, teaching


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    columns = [*taught.OWNED, *taught.OTHERS, "length", "second_stage_tokens", "second_stage_seconds"]
    made = [
        {"arm": arm, "seed": seed} | {name: rng.normal() for name in columns} for seed in range(5) for arm in teaching.ARMS
    ]
    table = pd.DataFrame(made)
    table.loc[table["arm"] == taught.RANKING, "tau"] += 9  # surely better
    table.loc[table["arm"] == taught.RANKING, "nll_people"] += 9  # surely worse
    return table


def test_answers_are_those_of_other_code(rows):
    found = taught.answers(rows)
    assert list(found["question"]) == ["Q1", "Q1", "Q2", "Q2", "Q3", "Q3", "Q4", "Q4", "Q5", "Q5", "Q5", "Q5"]
    for row in found.itertuples():
        a, b = (rows[rows["arm"] == arm].sort_values("seed")[row.metric].to_numpy() for arm in (row.arm, row.reference))
        test = stats.ttest_rel(a, b)
        low, high = test.confidence_interval()
        assert (row.mean, row.low, row.high, row.p) == pytest.approx(((a - b).mean(), low, high, test.pvalue))
    for _, part in found.groupby("question"):
        ordered = part.sort_values("p")
        corrected = np.maximum.accumulate(ordered["p"] * np.arange(len(part), 0, -1)).clip(upper=1)
        assert ordered["p_holm"].tolist() == pytest.approx(corrected.tolist())
    said = found.set_index(["question", "metric"])["verdict"]
    assert said["Q1", "tau"] == said["Q2", "tau"] == "better" and said["Q4", "nll_people"] == "worse"


def test_a_sentence_has_the_numbers_and_says_what_is_missing(rows, tmp_path):
    found = taught.answers(rows)
    one = found[found["metric"] == "tau"].iloc[0]
    text = taught.sentence(found, "Q1")
    assert f"{one['mean']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}], surely better" in text and "(5 seeds)" in text
    few = taught.answers(rows[rows["seed"] == 0])
    assert few.empty and "no rows" in taught.sentence(few, "Q1")
    none = taught.load(tmp_path)
    assert none.empty and taught.means(none).empty and taught.answers(none).empty
    assert taught.means(rows[rows["arm"] != taught.PEOPLE]).index.tolist() == [
        a for a in teaching.ARMS if a != taught.PEOPLE
    ]


def test_agreement_is_kendall_s_tau_without_the_target():
    mine = [np.array([9.0, 1, 2, 3]), np.array([0.0, 1, 1])]
    theirs = [np.array([-9.0, 1, 3, 2]), np.array([0.0, 1, 2])]
    assert teaching.agreement(mine, theirs) == pytest.approx(1 / 3)  # the second question ties for me: left out
    assert np.isnan(teaching.agreement(mine[1:], theirs[1:]))


def test_a_study_goes_on_where_it_was(tmp_path, monkeypatch):
    ran = []

    def run(model, tokenizer, own, arm, plan, seed):
        ran.append((arm, seed))
        return dict.fromkeys(("tau", "teacher_score", "seconds"), 1.0) | {
            "arm": arm, "seed": seed, "machine": "m", "versions": "v", "commit": "c",
        }  # fmt: skip

    monkeypatch.setattr(teaching, "run", run)
    monkeypatch.setattr(teaching, "material", lambda *a: None)
    monkeypatch.setattr(teaching, "load_model", lambda name: (object(), object()))
    arguments = ["--folder", str(tmp_path), "--seeds"]
    teaching.main([*arguments, "1"])
    (tmp_path / "rows" / "2-0.json").unlink()
    teaching.main([*arguments, "2"])
    assert ran == [(arm, 0) for arm in teaching.ARMS] + [(teaching.ARMS[2], 0)] + [(arm, 1) for arm in teaching.ARMS]
    about = json.loads((tmp_path / "about.json").read_text())
    assert about["rows"] == about["rows_wanted"] == len(pd.read_json(tmp_path / "rows.json")) == 12
