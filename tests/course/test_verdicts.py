"""What the committed rows say together: families, floors, mixes, tails; and the statistics beneath them."""

import itertools
import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fisherlib.course.study import statistics, store, verdicts, why
from fisherlib.course.study.pools import POOLS, UNSEEN, Sizes, composition, draw_pool
from fisherlib.evaluation import equivalence_margin, paired_t, ratio_variance, sign_flip

# --- statistics ------------------------------------------------------------------------------------------------------


def test_a_lucky_spread_is_floored_and_a_wide_one_is_not():
    d = np.array([-0.016, -0.015, -0.017, -0.016, -0.018])
    plain, floored, wide = paired_t(d), paired_t(d, at_least=0.01), paired_t(d, at_least=1e-6)
    assert wide == plain
    half = stats.t.ppf(0.975, 4) * 0.01 / np.sqrt(5)
    assert (floored.low, floored.high) == pytest.approx((d.mean() - half, d.mean() + half))
    assert floored.p == pytest.approx(2 * stats.t.sf(-d.mean() / (0.01 / np.sqrt(5)), 4)) and floored.p > plain.p
    assert paired_t([0.0, 0.0], at_least=0.1).high > 0 == paired_t([0.0, 0.0]).high


def test_the_margin_is_the_smallest_at_which_both_one_sided_tests_reject():
    smallest = equivalence_margin(paired_t(d := np.array([0.02, -0.01, 0.015, 0.0, 0.01])))

    def equivalent(margin):
        below = stats.ttest_1samp(d, margin, alternative="less").pvalue
        return max(below, stats.ttest_1samp(d, -margin, alternative="greater").pvalue) < 0.05

    assert equivalent(smallest * 1.0001) and not equivalent(smallest * 0.9999)


def test_the_sign_flip_test_counts_all_signs():
    d = [0.3, -0.1, 0.2, 0.4, 0.25]
    as_far = [abs(np.dot(signs, d)) >= abs(sum(d)) - 1e-12 for signs in itertools.product((1, -1), repeat=5)]
    assert sign_flip(d) == (np.mean(as_far), 2 / 32)
    assert sign_flip(np.abs(d))[0] == 0.0625 == sign_flip(np.abs(d))[1]  # five seeds cannot say more
    assert sign_flip([0.0, 0.0])[0] == 1
    with pytest.raises(ValueError, match="1 to 20 seeds"):
        sign_flip(np.ones(21))


def test_the_noise_of_a_test_sample_is_what_new_samples_show():
    rng = np.random.default_rng(0)
    strata = np.repeat(["a", "b"], 200)
    tokens = rng.integers(5, 60, 400).astype(float)
    sums = tokens * rng.normal(np.where(strata == "a", 3.0, -3.0), 1.0)

    def drawn(of):
        picks = np.concatenate([rng.choice(group, len(group)) for group in of])
        return sums[picks].sum() / tokens[picks].sum()

    sides = [np.flatnonzero(strata == name) for name in "ab"]
    assert ratio_variance(sums, tokens, strata) == pytest.approx(np.var([drawn(sides) for _ in range(4000)]), rel=0.1)
    assert ratio_variance(sums, tokens) == pytest.approx(np.var([drawn([np.arange(400)]) for _ in range(4000)]), rel=0.1)
    assert ratio_variance(sums, tokens) > 3 * ratio_variance(sums, tokens, strata)  # so many of each are always drawn
    assert ratio_variance(np.array([1.0, 5.0]), np.array([1.0, 2.0]), ["a", "b"]) == 0


def made(values: dict[str, list[list[float]]], domains=("dialogue",) * 4, **about) -> pd.DataFrame:
    """Rows of four test examples of two tokens; `values`: for each method and seed the loss per token of each example."""
    fixed = {"pool": "clean", "training": "full", "tokens": 100, "examples": 0, "sizes": json.dumps(asdict(Sizes()))}
    return pd.DataFrame(
        [
            fixed
            | {"method": method, "seed": seed, "nll": float(np.mean(losses)), "nll_sums": [2 * x for x in losses]}
            | {"scored_tokens": [2.0] * 4, "domains": list(domains), "key": f"{method}{seed}{about}"}
            | about
            for method, of in values.items()
            for seed, losses in enumerate(of)
        ]
    )


BASE = [[4.0, 4.2, 3.9, 4.1], [5.0, 4.8, 5.1, 4.9], [3.0, 3.3, 3.1, 3.2]]


def shifted(by):
    return [[x + b for x, b in zip(losses, bs, strict=True)] for losses, bs in zip(BASE, by, strict=True)]


def test_an_arm_that_is_another_counts_once_and_shares_its_verdict():
    a = shifted([[-0.1] * 4, [-0.11] * 4, [-0.09] * 4])
    b = shifted([[0.2] * 4, [-0.2] * 4, [0.1] * 4])
    result = statistics.against(made({"uniform": BASE, "a": a, "b": b, "recipe": a, "semhash": BASE}), resamples=0)
    assert result["same_as"].to_dict() == {"a": "", "b": "", "recipe": "a", "semhash": "uniform"}
    assert result["p_holm"]["a"] == pytest.approx(2 * result["p"]["a"]) == result["p_holm"]["recipe"]
    assert result["verdict"].to_dict() == {"a": "better", "recipe": "better", "b": "tie", "semhash": "tie"}
    assert result["p_holm"]["semhash"] == 1


def test_the_floor_is_the_noise_of_the_test_and_is_flagged():
    lucky = [[-0.5, 0.1, 0.1, -0.1], [-0.1, 0.3, -0.5, -0.1], [0.2, -0.4, 0.1, -0.34]]  # means near -0.1, examples apart
    result = statistics.against(made({"uniform": BASE, "a": shifted(lucky)}), resamples=0).loc["a"]
    noise = np.sqrt(np.mean([np.var(of, ddof=1) / 4 for of in lucky]))
    assert result["noise"] == pytest.approx(noise) == result["spread"] and result["floored"]
    d = np.mean(lucky, axis=1)
    assert stats.ttest_1samp(d, 0).pvalue < 0.05 < result["p"] and result["verdict"] == "tie"
    even = statistics.against(made({"uniform": BASE, "a": shifted([[0.1] * 4, [0.3] * 4, [-0.1] * 4])}), resamples=0).loc[
        "a"
    ]
    assert not even["floored"] and even["spread"] == pytest.approx(0.2)


def test_a_mix_weighs_groups_of_domains():
    table = made({"uniform": BASE, "a": shifted([[0.4, 0.0, 0.0, -0.4]] * 3)}, domains=("x", "y", "y", "z"))
    mix = {("x",): 0.9, ("y", "z"): 0.1}
    result = statistics.against(table, domains=mix, resamples=0).loc["a"]
    assert result["mean"] == pytest.approx(0.9 * 0.4 + 0.1 * (-0.4 / 3))
    values = [0.9 * losses[0] + 0.1 * np.mean(losses[1:]) for losses in shifted([[0.4, 0.0, 0.0, -0.4]] * 3)]
    assert result["value"] == pytest.approx(np.mean(values))


def test_rows_of_two_settings_are_not_compared():
    table = pd.concat([made({"uniform": BASE}, epochs=2), made({"uniform": BASE}, epochs=6)])
    with pytest.raises(ValueError, match="one setting, got epochs"):
        statistics.rows_of(table, "clean", "full", tokens=100)
    assert len(statistics.rows_of(table, "clean", "full", tokens=100, epochs=6)) == 3


# --- verdicts --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table():
    return verdicts.load()


def test_all_studies_are_one_table_and_each_row_is_there_once(table):
    folders = [store.read(verdicts.RESULTS / name)[0] for name in verdicts.STUDIES]
    assert set(table["key"]) == set().union(*(set(part["key"]) for part in folders))
    assert table["key"].is_unique and sum(map(len, folders)) > len(table)
    assert table[["epochs", "learning_rate", "sizes"]].notna().all().all()


def test_studies_that_differ_are_refused(tmp_path):
    for name, value in (("one", 4.0), ("two", 4.1)):
        (tmp_path / name).mkdir()
        about = {"settings": {"epochs": 2, "learning_rate": 5e-5, "sizes": asdict(Sizes())}}
        (tmp_path / name / "about.json").write_text(json.dumps(about))
        made({"uniform": [[value] * 4]}).drop(columns="sizes").to_parquet(tmp_path / name / "full.parquet")
    assert len(verdicts.load(tmp_path / "one", tmp_path / "one")) == 1
    with pytest.raises(ValueError, match="one number for each row"):
        verdicts.load(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("pool", POOLS)
def test_a_family_holds_the_arms_of_all_notebooks(table, pool):
    result = verdicts.verdicts(table, pool, tokens=2000)
    arms = {"density", "recipe", "dedup_in_clusters", "ifd", "farthest_point"}
    assert arms <= set(result.index) and (result["family"] == (result["same_as"] == "").sum()).all()
    assert result.loc["dedup_where_fisher", "same_as"] == "recipe"
    counted = result[result["same_as"] == ""]
    smallest = counted.loc[counted["p"].idxmin()]
    assert smallest["p_holm"] == pytest.approx(min(1, smallest["p"] * len(counted)))
    assert (result.loc["semhash", "same_as"] == "uniform") == (pool == "clean")


def test_a_protocol_keeps_its_family(table):
    answer = why.confirmed(table)
    for pool in UNSEEN:
        result = verdicts.verdicts(table, pool, tokens=2000)
        assert result.loc["recipe", ["p_holm", "verdict"]].tolist() == answer.loc[pool, ["p_holm", "verdict"]].tolist()
        assert result["family"].to_dict() == {"recipe": 3, "fisher_per_token": 2}
    majority = verdicts.verdicts(table, "code_mix", tokens=2000, part="majority").loc["recipe"]
    assert majority["family"] == 2 and majority["verdict"] == "worse"  # 19 in 20 examples of that pool


def test_a_change_that_lay_closer_than_the_test_can_tell_is_not_sure():
    rows = store.read(verdicts.RESULTS / "05b_why")[0]
    name = "uniform where FisherSFT looks"
    floored, plain = (why.what_moved(part).loc[name] for part in (rows, rows.drop(columns="nll_sums")))
    assert floored["moved"] == plain["moved"] and floored["floored"] and not plain["floored"]
    assert (plain["verdict"], floored["verdict"]) == ("better", "tie")


def test_parts_are_the_domains_and_the_pool_s_own_mix(table):
    found = verdicts.by_part(table, "code_mix", tokens=2000)
    assert set(found.index.get_level_values("part")) == {
        "test", "own mix", "majority", "rest", "code", "dialogue", "guide", "html", "stylesheet"
    }  # fmt: skip
    recipe = found.loc["recipe", "mean"]
    assert recipe["own mix"] == pytest.approx(0.95 * recipe["majority"] + 0.05 * recipe["rest"])
    assert recipe["majority"] == recipe["code"]
    one = verdicts.by_part(table, "guide", tokens=2000)
    assert set(one.index.get_level_values("part")) == {"test"}
    with pytest.raises(ValueError, match="expected a part out of"):
        verdicts.verdicts(table, "guide", tokens=2000, part="code")


@pytest.mark.parametrize("pool", ["clean", "imbalanced", "code_mix"])
def test_the_composition_is_that_of_the_draw(pool):
    sizes = Sizes(pool_examples=100, test_examples=10)
    drawn = draw_pool(pool, 0, sizes)
    assert pd.Series(drawn.train["domain"]).value_counts().to_dict() == composition(pool, sizes)
    with pytest.raises(ValueError, match="fixed mix"):
        composition("project", sizes)


def test_the_tail_is_the_mean_of_the_worst_examples():
    row = pd.Series({"nll_sums": [2.0, 9.0, 0.0, 4.0, 1.0], "scored_tokens": [1.0, 3.0, 0.0, 1.0, 1.0]})
    assert verdicts.tail(row, share=0.5) == 3.5 and verdicts.tail(row) == 4.0  # 4, 3, 2 and 1 a token; one has none


def test_the_bend_of_a_pool_is_fishersft_s_information_over_uniform_s():
    table = verdicts.load()
    found = verdicts.bends(table, tokens=2000)
    assert found["bend"].is_monotonic_increasing and (found["bend"] > 1).all()
    rows = verdicts.family(table, "redundant", tokens=2000).groupby("method")["information"].mean()
    assert found.loc["redundant", "bend"] == pytest.approx(rows["fisher_per_token"] / rows["uniform"])
    assert found.loc["redundant", "verdict"] == "better" and found.loc["clean", "verdict"] == "tie"
