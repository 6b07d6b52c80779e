"""The study of self-made data: equal tokens and steps, the contrasts recomputed by other code, checkers, what rows hold."""

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from transformers import LlamaConfig, LlamaForCausalLM

import fisherlib as fl
from fisherlib.course.exercises import self_made as exercises
from fisherlib.course.notebook import NOTEBOOKS
from fisherlib.course.study import self_made, self_made_claims
from fisherlib.text import encode
from fisherlib.training.rejection import equations, holds, word_problems

PLANNED = {"problems": 32, "tokens": 1600, "steps": 32, "k": 4, "test_problems": 40}  # as protocol.md says
RESULTS = NOTEBOOKS / "results" / "11_self_made_data"


# --- made-up rows -----------------------------------------------------------------------------------------------------


def made_up(seeds, effect, problems=6, test=8):
    """Rows of all arms, with `effect` {arm: chance to be right}."""
    rng, rows = np.random.default_rng(0), []
    for seed in seeds:
        answers = word_problems(test, seed=seed, side="test")["answer"]
        for arm in self_made.ARMS:
            p = effect.get(arm, 0.5)
            row = {
                "arm": arm,
                "seed": seed,
                "right": (rng.random(test) < p).astype(int).tolist(),
                "nll": 1 - p / 10,
                "own": 3,
            }
            if arm == "SFT":
                row["said_test"] = [[f"#### {a}", f"#### {a}", "#### 0", "none"] for a in answers]
                written = word_problems(problems, seed=seed)["response"]
                row["said"] = [[text, text, "each <<1+1=3>> #### 2", "#### 2"] for text in written]
            rows.append(row)
    return pd.DataFrame(rows)


def test_a_contrast_is_a_paired_t_over_seeds_and_knows_the_noise_of_the_test():
    table = made_up(range(4), {"RFT": 0.9, "SFT": 0.3})
    found = self_made_claims.contrasts(table, self_made_claims.PAPER)
    wide = table.assign(share=table["right"].map(np.mean)).pivot(index="seed", columns="arm", values="share")
    gain = found.loc["own solutions: RFT minus SFT"]
    d = wide["RFT"] - wide["SFT"]
    assert gain["mean"] == pytest.approx(d.mean()) and gain["seeds"] == 4
    assert gain["high"] - gain["mean"] >= stats.t.ppf(0.975, 3) * d.std(ddof=1) / 2 - 1e-12
    alike = table.copy()
    alike["right"] = [[1, 0] * 4 if arm == "RFT" else [0, 1] * 4 for arm in table["arm"]]
    flat = self_made_claims.contrasts(alike, {"gain": {"RFT": 1.0, "SFT": -1.0}}).loc["gain"]
    assert flat["mean"] == 0 and flat["high"] > 0.3  # the seeds agree to the last bit; the test problems do not


def test_a_contrast_takes_the_seeds_that_have_its_arms_and_one_alone_is_judged_by_its_problems():
    table = made_up(range(3), {})
    gain = {"gain": {"RFT": 1.0, "SFT": -1.0}}
    partly = table.drop(index=table.index[(table["arm"] == "RFT") & (table["seed"] == 1)])
    assert self_made_claims.contrasts(partly, gain).loc["gain", "seeds"] == 2
    assert self_made_claims.contrasts(partly, self_made_claims.BRIDGE)["seeds"].to_dict()["originals alone"] == 3
    one = table[table["seed"] == 0]
    result = self_made_claims.contrasts(one, gain).loc["gain"]
    d = np.subtract(*(np.array(one.set_index("arm")["right"][arm], float) for arm in ("RFT", "SFT")))
    assert (result["mean"], result["seeds"]) == (pytest.approx(d.mean()), 1)
    assert result["p"] == pytest.approx(stats.ttest_1samp(d, 0).pvalue)
    assert self_made_claims.contrasts(one, gain, "nll").loc["gain", ["low", "verdict"]].tolist() == [-np.inf, "tie"]
    alone = self_made_claims.contrasts(table[table["arm"] == "SFT"], self_made_claims.PAPER)
    assert (alone["verdict"] == "not run").sum() == 4 and alone["verdict"].iloc[-1] != "not run"  # the vote is SFT's own
    listed = self_made_claims.listed(alone)
    json.dumps(listed, allow_nan=False)
    assert listed["own solutions: RFT minus SFT"] == [None] * 4 + ["not run", 0]
    assert set(self_made_claims.panels(table[table["arm"] == "SFT"], 6)) == set(self_made_claims.panels(table, 6))


def test_the_vote_takes_the_most_frequent_answer_and_the_first_of_equals():
    table = made_up([0], {})
    right = self_made_claims.right_by_arm(table, 0)
    assert right[self_made_claims.MAJORITY].all() and (right[self_made_claims.ONE] == 0.5).all()
    assert right[self_made_claims.ANY].all()
    at = table.index[table["arm"] == "SFT"][0]
    answers = word_problems(8, seed=0, side="test")["answer"]
    table.at[at, "said_test"] = [["#### 0", f"#### {a}", f"#### {a}", "#### 0"] for a in answers]
    assert not self_made_claims.right_by_arm(table, 0)[self_made_claims.MAJORITY].any()


def test_the_pool_of_a_row_is_what_is_kept_of_its_samples():
    pool = self_made_claims.pool_of(made_up([0], {}), 0)
    assert len(pool) == 12 and pool["own"] == [False] * 6 + [True] * 6 and pool["response"][:6] == pool["response"][6:]
    groups = np.arange(12) % 6
    table = self_made_claims.taken(pool, {"all": np.arange(12), "one": np.array([0, 6])}, groups)
    assert table.loc["all", "near-copies"] == 0.5 and table.loc["one"].tolist() == [2, 0.5, 1, 1, 0.5]


# --- the arms ---------------------------------------------------------------------------------------------------------


def test_every_arm_has_the_same_tokens_and_reads_all_of_its_rows_equally_often():
    _, tokenizer = self_made.base_model()
    for n in (3, 8):
        rows = word_problems(n, seed=0)
        lengths = [sum(e.is_response) for e in encode(rows, tokenizer)]
        drawn = self_made.stream(rows, tokenizer, 600, seed=1)
        spent = sum(sum(e.is_response) for e in encode(drawn, tokenizer))
        assert 600 <= spent < 600 + max(lengths)
        often = pd.Series(drawn["prompt"]).value_counts()
        assert len(often) == n and often.max() - often.min() <= 1


def test_only_the_upper_half_learns():
    model, _ = self_made.base_model()
    layers = model.model.layers
    assert [all(not w.requires_grad for w in layer.parameters()) for layer in layers] == [True] * 15 + [False] * 15
    assert not model.get_input_embeddings().weight.requires_grad


# --- the committed rows, by other code --------------------------------------------------------------------------------


def recomputed(table, weights):
    """Mean, interval and p of a contrast of arms by pandas and scipy alone; the vote is counted here."""
    differences, noises = [], []
    for seed in sorted(set(table["seed"])):
        rows = table[table["seed"] == seed].set_index("arm")
        if not set(weights) - {self_made_claims.MAJORITY} <= set(rows.index) or "SFT" not in rows.index:
            continue
        d = 0
        for arm, weight in weights.items():
            if arm in rows.index:
                right = np.array(rows.loc[arm, "right"], float)
            else:  # the most frequent of the sampled answers
                test = word_problems(len(rows.loc["SFT", "said_test"]), seed=int(seed), side="test")
                said = [[t.rpartition("####")[2].strip() if "####" in t else "" for t in of]
                        for of in rows.loc["SFT", "said_test"]]  # fmt: skip
                voted = [max(of, key=lambda one, of=of: (of.count(one), -of.index(one))) for of in said]
                right = np.array([v == a for v, a in zip(voted, test["answer"], strict=True)], float)
            d = d + weight * right
        differences.append(d.mean())
        noises.append(d.var(ddof=1) / len(d))
    if len(differences) == 1:
        result = stats.ttest_1samp(d, 0)
        return d.mean(), *result.confidence_interval(0.95), result.pvalue
    spread = max(np.std(differences, ddof=1), np.sqrt(np.mean(noises))) / np.sqrt(len(differences))
    half, mean = stats.t.ppf(0.975, len(differences) - 1) * spread, np.mean(differences)
    return mean, mean - half, mean + half, 2 * stats.t.sf(abs(mean) / spread, len(differences) - 1)


def test_other_code_finds_the_notebook_s_numbers_and_verdicts_in_the_rows():
    table = pd.read_json(RESULTS / "rows.json")
    told = fl.notebook.results(NOTEBOOKS / "11_self_made_data.ipynb")
    for name, family in (("claims", self_made_claims.PAPER), ("bridge", self_made_claims.BRIDGE)):
        run = [key for key in family if told[name][key][4] != "not run"]
        found = {key: recomputed(table, family[key]) for key in run}
        order = sorted(found, key=lambda key: found[key][3])
        least = 0.0
        for rank, key in enumerate(order):
            mean, low, high, p = found[key]
            least = max(least, min(1.0, p * (len(order) - rank)))
            said = told[name][key]
            assert said[:4] == pytest.approx([mean, low, high, least], abs=1e-9)
            assert said[4] == ("tie" if least >= 0.05 else "above" if mean > 0 else "below")
        assert all(told[name][key][0] is None for key in set(family) - set(run))
    assert told["rows"] == len(table)


def test_the_rows_are_what_their_settings_say():
    table, about = self_made_claims.load(RESULTS)
    settings = about["settings"]
    assert all(settings[name] == value for name, value in PLANNED.items())
    assert about["rows"] == len(table) <= about["rows_wanted"] == 50 and not table.duplicated(["arm", "seed"]).any()
    for row in table.to_dict("records"):
        assert row["steps"] == 32 and 1600 <= row["tokens"] < 1645 and len(row["right"]) == 40
        assert row["commit"] in about["commit"] and len(about["commit"]) == 1
        if row["arm"] != "RFT":
            continue
        pool = self_made_claims.pool_of(table, row["seed"])
        own = pool.filter(lambda row: row["own"])
        assert all(holds(equation) for text in own["response"] for equation in equations(text))
        assert len(own) == row["kept"] and len(pool) == 32 + row["kept"] == row["solutions"]


def test_a_killed_run_goes_on_and_ends_with_the_same_table(tmp_path, monkeypatch):
    """Every arm of one seed on a random model: what was done is not done again."""
    _, tokenizer = self_made.base_model()
    config = LlamaConfig(
        vocab_size=49_152, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=128, eos_token_id=2, bos_token_id=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    plan = self_made.Plan(problems=4, tokens=200, steps=2, k=2, test_problems=3, max_new_tokens=6)
    monkeypatch.setattr(self_made, "Plan", lambda: plan)
    monkeypatch.setattr(self_made, "base_model", lambda: (model, tokenizer))
    arguments = ["--folder", str(tmp_path), "--seeds", "1"]
    self_made.main(arguments)
    first = self_made_claims.load(tmp_path)[0].drop(columns="seconds")
    (tmp_path / "rows" / "3-0.json").unlink()  # of an arm that learns from what another arm's row has sampled
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "rows").iterdir()}
    self_made.main(arguments)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "rows").iterdir()}
    assert len(after) == 10 and all(after[name] == stamp for name, stamp in stamps.items())
    table, about = self_made_claims.load(tmp_path)
    pd.testing.assert_frame_equal(table.drop(columns="seconds"), first)
    assert about["rows"] == about["rows_wanted"] == 10 and set(table["steps"]) == {2}
    assert json.loads((tmp_path / "rows" / "0-0.json").read_text())[0]["said_test"]


# --- the exercises ----------------------------------------------------------------------------------------------------


def test_checkers_tell_open_right_and_wrong_answers_apart(capsys):
    exercises.lucky(..., "32")
    exercises.chance_of_a_subset(..., 6, 2, 3)
    exercises.distinct_paths(..., [0.4, 0.2, 0.1], 4)
    exercises.first_of_each(...)
    assert capsys.readouterr().out.count("○ not answered yet") == 4
    exercises.lucky("<<3+5=9>> <<8*4=32>> #### 32", "32")
    exercises.chance_of_a_subset(0.8, 6, 2, 3)
    exercises.distinct_paths(3 - 0.6**4 - 0.8**4 - 0.9**4, np.array([0.4, 0.2, 0.1]), 4)
    exercises.first_of_each(
        lambda texts: list({tuple(equations(t)): i for i, t in reversed([*enumerate(texts)])}.values())[::-1]
    )
    assert capsys.readouterr().out.count("✓") == 4
    for text in ("<<3+5=8>> #### 32", "<<3+5=9>> #### 31", "#### 32"):
        with pytest.raises(AssertionError, match="expected"):
            exercises.lucky(text, "32")
    with pytest.raises(AssertionError):
        exercises.chance_of_a_subset(1 - (2 / 3) ** 3, 6, 2, 3)
    with pytest.raises(AssertionError):
        exercises.distinct_paths(4 * 0.7, np.array([0.4, 0.2, 0.1]), 4)
    with pytest.raises(AssertionError, match="whole list"):
        exercises.first_of_each(lambda texts: [0])


def test_doublings_are_doublings():
    shares = [self_made.ARMS[name].share for name in ("SFT, half of the problems", "SFT", "SFT, twice the problems")]
    assert all(2 * few == many for few, many in pairwise(shares))
