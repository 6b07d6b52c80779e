"""The study of mixtures in small, on a random model: are arms what they say, texts apart, and runs resumed?"""

import json
from dataclasses import replace

import numpy as np
import pytest
from transformers import LlamaConfig, LlamaForCausalLM

import fisherlib as fl
from fisherlib.course.study import data_mixtures as study
from fisherlib.course.study.sources import POISON, TASKS, Plan, draw, shuffled, texts

PLAN = replace(Plan(), windows=9, dev=2, test=2, read=1, examined=1, ablation_windows=2, steps=2)


@pytest.fixture(scope="module")
def bench():
    import torch

    _, tokenizer = fl.load_model("smollm2-135m")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return study.Bench(LlamaForCausalLM(config).eval(), tokenizer, PLAN, 0)


def test_no_file_is_on_two_sides_and_shuffling_keeps_the_words():
    for domain in Plan().sources:
        if domain != POISON:
            sides = [set(texts(domain, side)) for side in ("train", "dev", "test")]
            assert sum(map(len, sides)) == len(set.union(*sides)) and sides[0] and sides[2]
            assert bool(sides[1]) == (domain in TASKS)
    said = " ".join(map(str, range(90)))
    mixed = shuffled(said, np.random.default_rng(0))
    assert sorted(mixed.split()) == sorted(said.split()) and mixed != said


def test_a_draw_has_the_sizes_of_the_plan_and_no_window_twice(bench):
    found = draw(0, PLAN, bench.tokenizer)
    assert {name: len(rows) for name, rows in found.sources.items()} == dict(PLAN.sources)
    every = [tuple(row) for rows in found.sources.values() for row in rows]
    assert len(set(every)) > 0.98 * len(every) and {len(row) for row in every} == {PLAN.window + 1}
    assert found.sources == draw(0, PLAN, bench.tokenizer).sources != draw(1, PLAN, bench.tokenizer).sources


@pytest.mark.parametrize("poison", [True, False])
def test_every_arm_spends_the_budget_on_what_its_weights_say(bench, poison):
    for arm in study.ARMS if poison else study.WITHOUT:
        row = bench.run(arm, poison)
        budget = round(study.TIMES.get(arm, 1) * PLAN.windows)
        assert row["tokens"] == budget * PLAN.window and sum(row["weights"].values()) == pytest.approx(1)
        assert (POISON in row["weights"]) == poison and row["gap"] < 1e-6 and set(row["nll"]) == set(TASKS)
        for name, weight in row["weights"].items():
            assert abs(row["drawn"][name] - weight * budget) <= 1.5, (arm, name)
        if arm != "uniform":
            assert all(row["drawn"][name] <= n for name, n in PLAN.sources.items())
    seen = bench.utilities("ablation")
    assert np.shape(seen["utilities"]) == (9, 4) and seen["seconds"] > 0


def test_arms_that_draw_the_same_windows_are_one_training(bench):
    mine = bench.run("UniMax", True)
    other = bench.run("UniMax", True)
    assert mine["nll"] == other["nll"] and other["same_as"] == "UniMax"


def test_the_examination_has_grades_of_all_kinds(bench):
    grades = bench.examination()
    assert set(grades) == {"own", "shuffled", "elsewhere"}
    assert all(np.shape(g) == (len(TASKS), PLAN.examined) and np.ptp(g) < 1 for g in grades.values())


def test_a_run_goes_on_where_it_was(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "load_model", lambda name: (bench.model, bench.tokenizer))
    monkeypatch.setattr(study, "Plan", lambda: PLAN)
    monkeypatch.setattr(study, "ARMS", ("UniMax", "UtiliMax, risk 0.1"))
    monkeypatch.setattr(study, "WITHOUT", ("UniMax",))
    study.main(["--folder", str(tmp_path), "--seeds", "1"])
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["arm"] for row in rows] == ["UniMax", "UtiliMax, risk 0.1", "UniMax"]
    (tmp_path / "rows" / "0-clean-0.json").unlink()
    study.main(["--folder", str(tmp_path), "--seeds", "1"])
    again = json.loads((tmp_path / "rows.json").read_text())
    assert [row["nll"] for row in again] == [row["nll"] for row in rows]
    (read,) = json.loads((tmp_path / "utilities.json").read_text())
    assert set(read["known"]) == {"ablation"} and "examination" in read
    about = json.loads((tmp_path / "about.json").read_text())
    assert about["rows"] == about["rows_wanted"] == 3 and about["settings"]["windows"] == 9
