"""The studies of notebook 10 in small: rows that no seed shares, the same answers for all arms, rounds from log 2 on."""

import json
from dataclasses import replace

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from transformers import LlamaConfig, LlamaForCausalLM

from fisherlib.course.study import objective_answers as answers
from fisherlib.course.study import objectives, self_play
from fisherlib.model import load_model
from fisherlib.text import encode

SMALL = objectives.Plan(rows=4, test_pairs=3)


@pytest.fixture(scope="module", autouse=True)
def without_bars():
    datasets.disable_progress_bars()


@pytest.fixture(scope="module")
def model():
    """A random model that reads what the real one reads."""
    tokenizer = load_model(objectives.MODEL)[1]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=256,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval(), tokenizer


def test_no_row_is_in_two_seeds_and_a_bad_answer_is_of_the_same_play():
    plan = replace(SMALL, rows=objectives.Plan().rows, test_pairs=objectives.Plan().test_pairs)
    owner = {row["response"]: row["document"] for side in ("train", "test") for row in objectives._short(side, plan)}
    seen = []
    for seed in range(5):
        train, test = objectives.draw(plan, seed)
        assert len(train) == plan.rows and len(test) == 2 * plan.test_pairs
        for row in [*train, *test]:
            (bad,) = row["alternatives"]
            assert owner[bad] == row["document"] and bad != row["response"]
        seen += [row["response"] for row in test] + [
            text for row in train for text in (row["response"], *row["alternatives"])
        ]
        assert [row["alternatives"] for row in test][::2] == [[row["response"]] for row in test][1::2]
        assert [row["alternatives"] for row in test][1::2] == [[row["response"]] for row in test][::2]
    assert len(seen) == len(set(seen))
    with pytest.raises(ValueError, match="take a lower seed"):
        objectives.draw(plan, 1000)


def test_all_arms_see_the_same_good_answers_and_start_at_their_formula(model):
    start = objectives.Start(SMALL, 0, *model)
    rows = {arm: objectives.run(arm, 0, SMALL, start) for arm in objectives.ARMS}
    assert len({(row["good_tokens"], row["steps"]) for row in rows.values()}) == 1
    bad = {arm: row["bad_tokens"] for arm, row in rows.items()}
    assert bad.pop("MLE") == 0 and len(set(bad.values())) == 1
    first = {arm: row["losses"][0] for arm, row in rows.items()}
    assert first["DPO"] == pytest.approx(np.log(2), abs=1e-4)
    assert first["DPO + MLE"] == pytest.approx(np.log(2) + first["MLE"], abs=1e-3)
    assert first["MATE"] < first["MLE"] <= first["ExMATE"] < first["ExMATE, c = 100"] < first["MLE"] + 100
    assert rows["MLE"]["good_test_before"] == rows["DPO"]["good_test_before"]
    json.dumps(rows)


def test_self_play_begins_at_log_2_and_its_controls_see_the_same_answers(model):
    plan = self_play.Plan(rows=4, test_rows=4, max_new_tokens=5)
    found = {row["arm"]: row for row in self_play.run_seed(plan, 0, self_play.Start(plan, 0, *model))}
    assert tuple(found) == self_play.ARMS
    spin, equal, long = found.values()
    assert all(losses[0] == pytest.approx(np.log(2), abs=1e-5) for losses in spin["losses"])
    assert spin["data_tokens"] == equal["data_tokens"] and spin["steps"] == equal["steps"] and equal["own_tokens"] == [0] * 3
    assert long["data_tokens"] == [n * long["epochs"] for n in equal["data_tokens"]]
    assert spin["own_tokens"][1] > spin["own_tokens"][0]  # the round before counts too
    assert len({tuple(row["data_start"]) for row in found.values()}) == 1
    assert all(0 < len(row["own_round_3"]) == 4 for row in found.values())
    json.dumps(found)


def test_gradients_are_those_of_the_summed_log_likelihood_and_leave_the_model(model):
    tuned, tokenizer = model
    rows = objectives.draw(SMALL, 0)[0].remove_columns("alternatives")
    own = [one.input_ids[one.is_response.index(True) :][: sum(one.is_response)] for one in encode(rows, tokenizer)]
    before = [weight.requires_grad for weight in tuned.parameters()]
    human, (same,) = self_play.gradients(tuned, tokenizer, rows, [own])
    assert torch.equal(human, same) and float(human.norm()) > 0
    assert [weight.requires_grad for weight in tuned.parameters()] == before
    step = 1e-3 * human / human.norm()
    scores = []
    for sign in (1, -1):
        moved = load_copy(tuned)
        sizes = [weight.numel() for weight in moved.model.layers[-1].parameters()]
        with torch.no_grad():
            for weight, part in zip(moved.model.layers[-1].parameters(), step.split(sizes), strict=True):
                weight += sign * part.reshape(weight.shape)
        pairs = rows.add_column("alternatives", [[ids] for ids in own])
        scores.append(objectives.scores(moved, tokenizer, pairs)[:, 0].sum())
    assert (scores[0] - scores[1]) / 2e-3 == pytest.approx(float(human.norm()), rel=0.02)


def load_copy(model):
    import copy

    return copy.deepcopy(model)


def test_the_mean_loss_of_a_token_is_of_each_kind(model):
    rows = objectives.draw(SMALL, 0)[0].remove_columns("alternatives")
    tuned, tokenizer = model
    own = [one.input_ids[one.is_response.index(True) :][: sum(one.is_response)] for one in encode(rows, tokenizer)]
    found = objectives.likelihood_of(tuned, tokenizer, rows, {"texts": rows["response"][:], "ids": own})
    assert list(found.index) == ["good", "texts", "ids"]
    assert found["texts"] == pytest.approx(found["good"], abs=1e-5) and found["ids"] == pytest.approx(
        found["good"], abs=1e-5
    )


def made_up(seeds=4):
    """Rows of known numbers: MATE is better than MLE by about 3 nats in each couple, all else is equal."""
    rng, rows = np.random.default_rng(0), []
    for seed in range(seeds):
        before = {f"{w}_{s}_before": rng.normal(-50, 5, 6).tolist() for w in ("good", "bad") for s in ("train", "test")}
        for arm in objectives.ARMS:
            after = {name.replace("before", "after"): np.array(of) + rng.normal(0, 0.1, 6) for name, of in before.items()}
            if arm == "MATE":
                after["good_test_after"] = after["good_test_after"] + 1.5
            rows.append(
                {"arm": arm, "seed": seed, "tokens_test": [10] * 6} | before | {k: list(v) for k, v in after.items()}
            )
    return pd.DataFrame(rows)


def test_answers_are_what_the_definition_says():
    table = made_up()
    values = answers.numbers(table)
    row = table[(table["arm"] == "MATE") & (table["seed"] == 2)].iloc[0]
    gap = np.array(row["good_test_after"]) - np.array(row["bad_test_after"])
    assert values.loc[("MATE", 2), "margin"] == pytest.approx((gap[::2] + gap[1::2]).mean())
    assert values.loc[("MATE", 2), "loss"] == pytest.approx(-np.sum(row["good_test_after"]) / 60)
    assert values.loc[("before training", 2), "good learned"] == 0
    asked = answers.objective_questions(values)
    found = asked["a better surrogate for MLE?"]
    assert found.loc["MATE: margin", "verdict"] == "higher" and found.loc["MATE: loss", "verdict"] == "lower"
    d = [values.loc[("MATE", seed), "margin"] - values.loc[("MLE", seed), "margin"] for seed in range(4)]
    assert found.loc["MATE: margin", "p"] == pytest.approx(stats.ttest_1samp(d, 0).pvalue)
    interval = stats.t.interval(0.95, 3, np.mean(d), stats.sem(d))
    assert found.loc["MATE: margin", ["low", "high"]].tolist() == pytest.approx(list(interval))
    assert "MATE: margin" in answers.in_words(asked)


def test_one_seed_has_no_interval_and_is_not_judged():
    asked = answers.objective_questions(answers.numbers(made_up(seeds=1)))
    assert {verdict for table in asked.values() for verdict in table["verdict"]} == {"one seed"}
    said = answers.in_words(asked) + answers.summary(dict(asked["displacement"].iterrows()))
    assert "nan" not in said and "tie" not in said and "not judged" in said
    one = asked["displacement"].loc["DPO: good"]
    assert "cannot say" in answers.appears(one, "lower") and "cannot say" in answers.within(one)
    kept = answers.as_record(asked)["displacement"]["DPO: good"]
    assert kept["low"] is None and kept["seeds"] == 1 and "NaN" not in json.dumps(kept)
    with pytest.raises(ValueError, match="at least two seeds"):
        answers.contrasts({"nothing": np.array([])})


def test_a_seed_that_lacks_an_arm_is_left_out(tmp_path):
    (tmp_path / "study").mkdir()
    table = made_up(seeds=3).iloc[:-1]
    (tmp_path / "study" / "rows.json").write_text(json.dumps(table.to_dict("records")))
    (tmp_path / "study" / "about.json").write_text('{"wanted": 55}')
    kept, about = answers.read("study", tmp_path)
    assert set(kept["seed"]) == {0, 1} and len(kept) == 2 * len(objectives.ARMS) and about == {"wanted": 55}


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(ValueError, match="run the study"):
        answers.read("10_objectives", tmp_path)
