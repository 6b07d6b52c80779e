"""The study: pools with the properties that their names promise, rows that survive a kill, statistics that hold."""

import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from transformers import LlamaConfig, LlamaForCausalLM

import fisherlib as fl
from fisherlib.assets import ROOT
from fisherlib.course.study import claims, plans, statistics, store, why
from fisherlib.course.study.__main__ import main
from fisherlib.course.study.arms import ALL, NONE
from fisherlib.course.study.methods import ARMS, RECIPES, RELATED, VARIANTS, choose, title
from fisherlib.course.study.pools import MAJORITY, POOLS, UNSEEN, Sizes, draw_pool, with_near_copies
from fisherlib.course.study.profiles import PROFILES
from fisherlib.course.study.rows import Bench, Row, Settings, key
from fisherlib.course.study.runs import collect, run_rows
from fisherlib.course.study.variants import mean_nll, rare_share
from fisherlib.text import project_files
from tests.training.test_heads import labelled

SIZES = Sizes(pool_examples=60, test_examples=10, bases=4, variants=0.7, rare=0.2)


# --- pools -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", [*POOLS, *UNSEEN])
def test_a_pool_is_drawn_by_its_seed_and_shares_no_document_with_its_test(pool):
    first, again, other = (draw_pool(pool, seed, SIZES) for seed in (3, 3, 4))
    assert first.train.to_list() == again.train.to_list() and first.test.to_list() == again.test.to_list()
    assert first.train["response"] != other.train["response"] and first.test["response"] != other.test["response"]
    assert len(first.train) == 60 and len(first.test) == 10
    assert set(first.train["document"]).isdisjoint(first.test["document"])
    assert set(first.train["response"]).isdisjoint(first.test["response"])


@pytest.mark.parametrize("pool", ["redundant", "guide_redundant"])
def test_most_of_a_redundant_pool_are_variants_of_a_few(pool):
    rows = draw_pool(pool, 0, SIZES).train.to_list()
    variants = [row for row in rows if row["base"] >= 0]
    assert len(variants) == round(0.7 * 60) + 4 and {row["base"] for row in variants} == set(range(4))
    by_prompt = {base: {row["prompt"] for row in variants if row["base"] == base} for base in range(4)}
    assert all(len(prompts) == 1 for prompts in by_prompt.values())
    for base in range(4):
        words = [row["response"].split() for row in variants if row["base"] == base]
        assert len({len(w) for w in words}) == 1
        # two variants of one text differ in at most three words each
        assert all(sum(x != y for x, y in zip(a, b, strict=True)) <= 6 for a, b in itertools.combinations(words, 2))


def test_near_copies_are_as_many_as_asked_for_and_near_to_their_originals():
    rows = draw_pool("clean", 0, SIZES).train.remove_columns("base")
    mixed = with_near_copies(rows, share=0.5, originals=3, seed=1)
    assert len(mixed) == len(rows) and mixed.to_list() == with_near_copies(rows, share=0.5, originals=3, seed=1).to_list()
    groups = fl.selectors.near_duplicates(mixed, threshold=0.5)
    assert np.mean(groups != np.arange(len(groups))) == pytest.approx(0.5, abs=0.05)
    assert set(mixed["base"]) == {-1, 0, 1, 2}
    with pytest.raises(ValueError, match="expected bases and variants to fit"):
        with_near_copies(rows, share=0.99, originals=3, seed=1)
    with pytest.raises(ValueError, match="expected rows with a response"):
        with_near_copies(rows.remove_columns("response"), share=0.5, originals=3, seed=1)


@pytest.mark.parametrize(
    ("pool", "majority", "rare"),
    [("imbalanced", MAJORITY, set(project_files.FILES)), ("code_mix", "code", {MAJORITY, "guide", "html", "stylesheet"})],
)
def test_the_rare_domains_are_rare_in_the_pool_and_equal_in_the_test(pool, majority, rare):
    drawn = draw_pool(pool, 0, SIZES)
    counts, tests = (pd.Series(side["domain"]).value_counts() for side in (drawn.train, drawn.test))
    assert counts[majority] == 60 - 4 * 3 and all(counts[domain] == 3 for domain in rare)
    assert set(tests) == {2} and set(tests.index) == {majority, *rare}


def test_the_text_of_the_confirmation_was_in_no_other_pool():
    def files(domains):
        return {name for sides in domains.values() for names in sides.values() for name in names}

    assert files(project_files.FILES).isdisjoint(files(project_files.UNSEEN))


@pytest.mark.parametrize("domain", project_files.FILES | project_files.UNSEEN)
def test_each_domain_has_enough_rows_of_whole_lines(domain):
    train, test = project_files.chunks(domain)
    assert len(train) >= 80 and len(test) >= 25
    assert {row["document"] for row in train} == set((project_files.FILES | project_files.UNSEEN)[domain]["train"])
    assert all(row["response"].strip() and row["prompt"].strip() for row in train + test)
    responses = [" ".join(row["response"].split()) for row in train + test]
    assert len(set(responses)) == len(responses)


def test_a_file_is_cut_at_its_lines():
    lines = [f"line {i} " + "x" * 40 for i in range(9)]
    chunks = project_files.split("\n\n".join(lines), shortest=90, longest=240)
    assert chunks == ["\n".join(lines[k : k + 2]) for k in range(0, 8, 2)]
    assert project_files.split("y" * 300) == []


# --- rows ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory, real):
    """Settings with a random model of the real vocabulary, which costs next to nothing."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(real[1]), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    real[1].save_pretrained(folder)
    return Settings(SIZES, model=str(folder), epochs=1, tokens_per_step=64, classes=30, dimensions=8, precision="auto")


ROWS = [
    Row("clean", "full", NONE, 0),
    *(Row("clean", training, m, 0, tokens=150) for training in ("full", "head") for m in ("uniform", "fisher_per_token")),
    Row("redundant", "head_update", "dedup_uniform", 1, examples=5),
    Row("redundant", "head_update", NONE, 1),
    Row("imbalanced", "head_weak", ALL, 0),
    Row("imbalanced", "head", "length_matched", 0, tokens=150),
    Row("imbalanced", "full", "longest", 0, examples=4),
    Row("imbalanced", "lora", "longest", 0, examples=4),
]
TIMED = ["seconds", "training_seconds", "selection_seconds"]


@pytest.mark.slow
def test_a_killed_run_goes_on_and_gives_the_same_table(small, tmp_path):
    whole = run_rows(ROWS, small, tmp_path / "whole", progress=False)
    child = multiprocessing.get_context("spawn").Process(target=run_rows, args=(ROWS, small, tmp_path / "cut"))
    child.start()
    deadline = time.monotonic() + 120
    while not (done := list((tmp_path / "cut" / "rows").glob("*.json"))) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.join(60)
    assert done and len(collect(tmp_path / "cut", small, ROWS)) < len(ROWS)
    before = {path: path.stat().st_mtime_ns for path in done}
    resumed = run_rows(ROWS, small, tmp_path / "cut", progress=False)
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())  # what was done is not done again
    pd.testing.assert_frame_equal(whole.drop(columns=TIMED), resumed.drop(columns=TIMED))
    assert not list(tmp_path.glob("*/rows/*.new"))


@pytest.mark.slow
def test_rows_hold_what_they_promise(small, tmp_path):
    table = run_rows(ROWS, small, tmp_path, progress=False).set_index(["pool", "training", "method"]).sort_index()
    assert table["nll"].to_numpy() == pytest.approx(
        [sum(s) / sum(t) for s, t in zip(table["nll_sums"], table["scored_tokens"], strict=True)]
    )
    full = table.loc["clean", "full"]
    assert full["steps"].to_dict() == {NONE: 0, "uniform": 2, "fisher_per_token": 2}
    assert full["chosen_tokens"].drop(NONE).between(130, 150).all()
    assert full["nll"][NONE] == pytest.approx(np.log(49152), abs=0.5)  # a random model knows nothing
    assert table.loc[("redundant", "head_update", "dedup_uniform"), "chosen_examples"] == 5
    everything = table.loc[("imbalanced", "head_weak", ALL)]
    assert (
        everything["kl"] == everything["max_logit_error"] == 0 and everything["chosen_tokens"] == everything["pool_tokens"]
    )
    assert everything["majority_share"] == pytest.approx(48 / 60)
    # one row of its own, in another folder, is the same number
    (alone,) = run_rows(ROWS[2:3], small, tmp_path / "alone", progress=False)["nll"]
    assert alone == full["nll"]["fisher_per_token"]
    written = store.write(table.reset_index(), tmp_path / "results", small, "a command", wanted=12)
    read, about = store.read(tmp_path / "results")
    assert len(written) == 6 and about["rows"] == len(read) == len(ROWS) and about["rows_wanted"] == 12
    assert sorted(read["key"]) == sorted(table["key"]) == sorted(key(row, small) for row in ROWS)
    assert json.loads(json.dumps(about)) == about and about["settings"]["sizes"]["bases"] == 4


def test_committed_rows_are_filed_under_what_decides_them():
    """A key that changed would run them again beside themselves."""
    for table in ("05_fine_tuning/full", "05_fine_tuning/head", "07_related/full"):
        rows = pd.read_parquet(ROOT / "notebooks" / "results" / f"{table}.parquet")
        for row in rows.itertuples():
            filed = Row(row.pool, row.training, row.method, int(row.seed), int(row.tokens), int(row.examples))
            assert key(filed, Settings()) == row.key
    assert key(filed, Settings(precision="float32")) != row.key


def test_a_study_goes_on_from_its_committed_tables(small, tmp_path):
    table = run_rows(ROWS[2:6], small, tmp_path / "here", progress=False)
    store.write(table, tmp_path / "results", small, "a command", wanted=4)
    assert (
        store.restore(tmp_path / "results", tmp_path / "there") == 4
        and store.restore(tmp_path / "results", tmp_path / "there") == 0
    )
    again = run_rows(ROWS[2:6], small, tmp_path / "there", progress=False, seconds=0)  # nothing is left to run
    losses = ["nll_sums", "scored_tokens"]
    many = ["token_nll", "log_leverage"]  # kept by seed only, where a plan asks for them
    pd.testing.assert_frame_equal(again.drop(columns=losses), table.drop(columns=[*losses, *many]), check_like=True)
    for a, b in zip(again["nll_sums"], table["nll_sums"], strict=True):
        assert np.allclose(a, b, rtol=1e-6)


def test_the_features_of_an_earlier_layer_choose_but_do_not_train(small, tmp_path):
    rows = [Row("clean", "head", method, 0, tokens=150) for method in ("layer_0", "fisher_per_token")]
    table = run_rows(rows, small, tmp_path, progress=False)
    assert table["information"][0] <= table["information"][1] * (1 + 1e-9)  # both are measured on the last layer's features
    bench = Bench(small, tmp_path)
    bench.load("clean", 0)
    early = bench.early_features("layer_0").values
    assert not torch.allclose(early, bench.features.values, atol=1e-2)
    # Before any layer, a token's state is its embedding, normed; the label of a token is the input of the next.
    known = bench.model.model.norm(bench.model.get_input_embeddings().weight)
    after = [bench.features.labels[int(a) : int(b) - 1] for a, b in itertools.pairwise(bench.features.offsets)]
    inner = [early[int(a) + 1 : int(b)] for a, b in itertools.pairwise(bench.features.offsets)]
    assert torch.allclose(torch.cat(inner), known[torch.cat(after)].float(), atol=2e-2)
    with pytest.raises(ValueError, match="expected a layer before the last of 1, got layer_1"):
        run_rows([replace(rows[0], method="layer_1")], small, tmp_path, progress=False)


@pytest.mark.slow
def test_the_related_methods_choose_by_scores_that_are_kept(small, tmp_path):
    rows = [Row("imbalanced", "head", method, 0, tokens=150) for method in RELATED]
    table = run_rows(rows, small, tmp_path, progress=False)
    assert len(table) == len(RELATED) and table["chosen_tokens"].between(100, 150).all()
    bench = Bench(small, tmp_path)
    bench.load("imbalanced", 0)
    kept = {path.name for path in bench.place.glob("*.npy")}
    assert kept == {"ifd.npy", "token_accuracy.npy", "entropy.npy"}
    rows, features, model = bench.replicate.train, bench.features, {"model": bench.model, "tokenizer": bench.tokenizer}
    for method in ("ifd", "slearn"):
        direct = getattr(fl.selectors, method)(rows, features, tokens=150, **model)
        assert bench.selection(Row("imbalanced", "head", method, 0, tokens=150)).indices.tolist() == direct.indices.tolist()
    both = bench.selection(Row("imbalanced", "head", "ifd_then_fisher", 0, tokens=150)).indices
    assert (bench.scores("ifd")[both] <= 1).all()
    bench.model = None  # what is kept is read, not computed again
    assert bench.scores("slearn").shape == (60,)


def test_the_ablations_share_rows_with_the_study_and_always_have_uniform_beside_them(tmp_path, capsys):
    rows = {key(row, of_part): row for of_part, part in plans.PLANS["ablations"] for row in part}
    assert len(rows) == sum(len(part) for _, part in plans.PLANS["ablations"])
    shared = {key(row, PROFILES["full"].settings) for row in PROFILES["full"].rows()} & set(rows)
    assert {rows[k].method for k in shared} >= {"uniform", "fisher_per_token", "fisher_weighted"}
    for of_part, part in plans.PLANS["ablations"]:
        assert all(key(replace(row, method="uniform"), of_part) in rows for row in part)
    main(["--profile", "ablations", "--folder", str(tmp_path), "--seconds", "0"])
    assert f"0 of {len(rows)} rows are done" in capsys.readouterr().out


def test_the_table_of_a_plan_says_under_which_settings_each_row_was_run(small, tmp_path, monkeypatch):
    longer = replace(small, epochs=2)
    monkeypatch.setitem(plans.PLANS, "ablations", [(small, ROWS[1:2]), (longer, ROWS[1:2])])
    main(["--profile", "ablations", "--folder", str(tmp_path / "run"), "--results", str(tmp_path / "results" / "why")])
    table, about = store.read(tmp_path / "results" / "why")
    assert table["epochs"].tolist() == [1, 2] and len(set(table["key"])) == 2 and about["rows_wanted"] == 2
    assert "epochs" not in about["settings"] and about["settings"]["classes"] == 30  # what all rows share
    # A study beside it has the rows already.
    main(["--profile", "ablations", "--folder", str(tmp_path / "other"), "--results", str(tmp_path / "results" / "b")])
    assert store.read(tmp_path / "results" / "b")[0]["seconds"].tolist() == table["seconds"].tolist()


def test_the_time_limit_stops_before_the_next_row(small, tmp_path):
    assert len(run_rows(ROWS, small, tmp_path, progress=False, seconds=0)) == 0
    assert len(run_rows(ROWS[:1], small, tmp_path, progress=False)) == 1


@pytest.mark.slow
def test_the_command_writes_what_is_done_and_no_path(tmp_path, capsys):
    main(["--profile", "smoke", "--folder", str(tmp_path / "a"), "--seconds", "0"])
    assert f"0 of {len(PROFILES['smoke'].rows())} rows are done" in capsys.readouterr().out
    main(
        [
            "--profile",
            "smoke",
            "--folder",
            str(tmp_path / "a"),
            "--training",
            "head_update",
            "--pool",
            "clean",
            "--seconds",
            "1",
        ]
    )
    table, about = store.read(tmp_path / "a")
    assert len(table) >= 1 and set(table["training"]) == {"head_update"} and set(table["pool"]) == {"clean"}
    assert about["command"] == ".venv/bin/python -m fisherlib.study --profile smoke"
    assert str(tmp_path) not in json.dumps(about)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"training": "prompt"}, "expected training to be one of"),
        ({"tokens": 0}, "expected one budget"),
        ({"examples": 3}, "expected one budget"),
        ({"method": NONE}, "expected one budget"),
        ({"method": NONE, "tokens": 0}, "expected something to fit a head from scratch to"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Row(**{"pool": "clean", "training": "head", "method": "uniform", "seed": 0, "tokens": 10} | wrong)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="expected pool to be one of"):
        draw_pool("dirty", 0, SIZES)
    with pytest.raises(ValueError, match="expected method to be one of"):
        choose("best", Dataset.from_list([{"text": "x"}]), labelled(), seed=0, tokens=5)
    with pytest.raises(ValueError, match="make the pool smaller"):
        draw_pool("clean", 0, Sizes(pool_examples=10**6))
    with pytest.raises(ValueError, match="results of a study"):
        store.read("nowhere")


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_runs_every_arm_once_and_uniform_everywhere(name):
    profile = PROFILES[name]
    rows = profile.rows()
    assert len(set(rows)) == len(rows)
    assert {row.method for row in rows if row.training == "full"} >= set(ARMS) - {ALL}
    keys = {key(row, profile.settings) for row in rows}
    assert len(keys) == len(rows)
    uniform = {row for row in rows if row.method == "uniform"}
    for row in rows:
        if row.budget:
            assert Row(row.pool, row.training, "uniform", row.seed, row.tokens, row.examples) in uniform
    assert all(title(method) for method in ARMS)


# --- variants --------------------------------------------------------------------------------------------------------


def with_nll(seed=0):
    features = labelled(seed=seed)
    nll = torch.rand(len(features.values), generator=torch.Generator().manual_seed(seed))
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, 60, len(nll)))  # about half of them are rare
    return fl.TokenFeatures(features.values, features.offsets, nll=nll, labels=labels)


TEXTS = Dataset.from_list([{"text": "".join(np.random.default_rng(i).permutation(list("abcdefghijkl")))} for i in range(40)])


@pytest.mark.parametrize("name", [*VARIANTS, *RECIPES])
def test_a_variant_keeps_the_budget_and_fills_it(name):
    for seed in range(3):
        features = with_nll(seed)
        chosen = choose(name, TEXTS, features, seed=seed, tokens=50)
        assert len(set(chosen.indices)) == len(chosen) and 43 <= features.lengths.numpy()[chosen.indices].sum() <= 50
        again = choose(name, TEXTS, features, seed=seed, tokens=50)
        assert chosen.indices.tolist() == again.indices.tolist()


def test_variants_change_what_their_name_says():
    features = with_nll()
    lengths, nll, rare = features.lengths.numpy(), mean_nll(features), rare_share(features)
    counts = np.bincount(features.labels.numpy())
    first = features.labels[: lengths[0]].numpy()
    assert nll[0] == pytest.approx(float(features.nll[: lengths[0]].mean()))
    assert rare[0] == pytest.approx(np.mean([counts[label] <= 3 for label in first]))
    picks = {name: choose(name, TEXTS, features, seed=1, tokens=50).indices for name in VARIANTS}
    assert nll[picks["without_memorised"]].min() > np.sort(nll)[9]  # ten of forty are left out
    assert nll[picks["without_extremes"]].max() <= np.quantile(nll, 0.95)
    assert rare[picks["fisher_of_common"]].max() <= np.median(rare) < rare[picks["uniform_of_uncommon"]].min()
    half = fl.selectors.uniform(TEXTS, features, tokens=25, seed=1).indices
    assert picks["half_uniform"][: len(half)].tolist() == half.tolist()


def test_a_direction_that_the_target_never_needs_is_not_chosen_for_its_own_sake():
    e = np.eye(3)
    often = [np.tile(e[0], (4, 1)) + 0.1 * e[1] for _ in range(9)]
    features = fl.TokenFeatures.from_list([torch.tensor(x) for x in [*often, np.tile(0.5 * e[2], (4, 1))]])
    rows = Dataset.from_list([{"text": str(i)} for i in range(10)])
    assert choose("fisher_per_token", rows, features, seed=0, tokens=8).indices.tolist() == [0, 9]
    assert choose("target_prior", rows, features, seed=0, tokens=8).indices.tolist() == [0, 1]


# --- statistics ------------------------------------------------------------------------------------------------------


def test_holm_of_a_known_example():
    # By hand: .005 x 4, .01 x 3, .03 x 2, .04 x 1 raised to .06
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.9, 0.5]) == pytest.approx([1, 1])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p):
    """An arm is rejected iff every set of arms that holds it is, each at the level divided by its size."""
    n = len(p)
    closed = [
        max(
            min(1.0, len(group) * min(p[i] for i in group))
            for size in range(1, n + 1)
            for group in itertools.combinations(range(n), size)
            if k in group
        )
        for k in range(n)
    ]
    assert statistics.holm(p) == pytest.approx(closed)


def test_the_t_interval_is_that_of_the_formula():
    d = np.array([0.10, 0.02, 0.07, 0.05, 0.11])
    mean, half = d.mean(), stats.t.ppf(0.975, 4) * d.std(ddof=1) / np.sqrt(5)
    result = statistics.paired_t(d)
    assert (result.mean, result.low, result.high) == pytest.approx((mean, mean - half, mean + half))
    assert result.p == pytest.approx(2 * stats.t.sf(mean / (d.std(ddof=1) / np.sqrt(5)), 4))
    same = statistics.paired_t([0.0, 0.0, 0.0])
    assert (same.mean, same.p) == (0, 1)
    with pytest.raises(ValueError, match="at least two seeds"):
        statistics.paired_t([1.0])


def test_the_two_level_bootstrap_covers_both_levels():
    """Its variance is that between the seeds plus that within them: against the formula, on numbers made up."""
    rng = np.random.default_rng(0)
    tokens = [np.ones(200) for _ in range(8)]
    sums = [rng.normal(shift, 1.0, 200) for shift in rng.normal(0, 0.2, 8)]
    low, high = statistics.two_level_bootstrap(sums, tokens, resamples=5_000)
    means = np.array([s.mean() for s in sums])
    error = np.sqrt(means.var() / 8 + np.mean([s.var() / 200 for s in sums]) / 8)
    assert (low + high) / 2 == pytest.approx(means.mean(), abs=0.1 * error)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.05)


def table_of(values: dict[str, list[float]], **about) -> pd.DataFrame:
    """Rows with one domain of two tokens, whose losses are the values."""
    fixed = {"pool": "clean", "training": "full", "tokens": 100, "examples": 0, "domains": ["dialogue"] * 2}
    return pd.DataFrame(
        [
            fixed | {"method": m, "seed": s, "nll": v, "nll_sums": [v, v], "scored_tokens": [1.0, 1.0]} | about
            for m, column in values.items()
            for s, v in enumerate(column)
        ]
    )


def test_differences_are_paired_by_seed():
    level = np.array([4.0, 5.0, 6.0, 7.0])  # the seeds differ far more than the arms
    table = table_of(
        {"uniform": level, "a": level - [0.10, 0.11, 0.09, 0.10], "b": level + np.array([0.2, -0.2, 0.1, -0.1]), NONE: level}
    )
    result = statistics.against(table)
    assert list(result.index) == ["a", "b"] and result["seeds"].to_list() == [4, 4]
    assert result["mean"]["a"] == pytest.approx(-0.1) and result["value"]["a"] == pytest.approx(5.4)
    assert result["verdict"].to_dict() == {"a": "better", "b": "tie"}
    assert result["p_holm"]["a"] == pytest.approx(2 * result["p"]["a"])
    assert result["low"]["a"] < result["bootstrap_low"]["a"] <= -0.1 <= result["bootstrap_high"]["a"] < result["high"]["a"]
    with pytest.raises(ValueError, match="expected rows of nobody"):
        statistics.against(table, reference="nobody")
    with pytest.raises(ValueError, match="two seeds"):
        statistics.against(table[table["seed"] == 0])


def test_a_domain_is_judged_by_its_own_tokens():
    table = table_of({"uniform": [1.0, 1.0], "a": [1.0, 1.0]})
    table["domains"] = [["dialogue", "python"]] * 4
    table["nll_sums"] = [[2.0, 3.0], [2.0, 3.0], [2.0, 1.0], [2.0, 1.5]]
    assert statistics.against(table, domains=["dialogue"])["mean"]["a"] == 0
    assert statistics.against(table, domains=["python"])["mean"]["a"] == pytest.approx(-1.75)


def test_tokens_to_match_reads_the_curve_backwards():
    curve = {1000: 4.0, 500: 4.5, 2000: 3.9, 4000: 3.95}
    assert statistics.tokens_to_match(curve, 4.0) == pytest.approx(1000)
    assert statistics.tokens_to_match(curve, 4.25) == pytest.approx(np.sqrt(500 * 1000))
    assert statistics.tokens_to_match(curve, 3.9) == pytest.approx(2000)  # a plateau: the smallest that is enough
    assert statistics.tokens_to_match({500: 4.5, 1000: 4.0, 2000: 4.1, 4000: 3.95}, 4.0) == pytest.approx(1000)
    assert statistics.tokens_to_match(curve, 3.8) == np.inf and statistics.tokens_to_match(curve, 5.0) == 0.0


def test_five_seeds_cover_with_t_and_not_with_the_percentile_bootstrap():
    rng = np.random.default_rng(0)

    def t(d):
        result = statistics.paired_t(d)
        return result.low, result.high

    def percentile(d):
        return tuple(np.quantile(rng.choice(d, (500, len(d))).mean(1), [0.025, 0.975]))

    assert statistics.coverage(t, 5, trials=2000, rng=rng) == pytest.approx(0.95, abs=0.015)
    assert statistics.coverage(percentile, 5, trials=2000, rng=rng) < 0.88


def test_arms_that_lack_a_seed_are_not_averaged():
    level = np.array([4.0, 5.0, 6.0])
    table = table_of({"uniform": level, "a": level, "b": level})
    table = table[(table["method"] != "b") | (table["seed"] == 0)]
    assert set(claims.complete(table)["method"]) == {"uniform", "a"}


def test_a_claim_holds_ties_or_fails():
    level = np.array([4.0, 5.0, 6.0])
    sure, unsure = np.array([0.1, 0.11, 0.09]), np.array([0.3, -0.2, 0.1])
    claim = claims.Claim("a beats uniform", "clean", "full", "a")
    for shift, expected in ((-sure, "holds"), (sure, "fails"), (unsure, "tie")):
        judged = claims.judge(claim, table_of({"uniform": level, "a": level + shift}))
        assert judged["verdict"] == expected and judged["low"] < judged["mean"] < judged["high"]
    above = claims.Claim("a loses", "clean", "full", "a", above=True)
    assert claims.judge(above, table_of({"uniform": level, "a": level + sure}))["verdict"] == "holds"
    # every budget must agree: here one is only a tie, and that is the one whose numbers are shown
    both = pd.concat([
        table_of({"uniform": level, "a": level - sure}), table_of({"uniform": level, "a": level - unsure}, tokens=200),
    ])  # fmt: skip
    judged = claims.judge(claim, both)
    assert judged["verdict"] == "tie" and judged["budget"] == "200 tokens"
    assert judged["budgets"] == {"run": 2, "agree": 2, "sure": 1, "against": 0}
    assert "| a beats uniform |" in claims.markdown(pd.DataFrame([judged])) and "**tie**" in claims.markdown(
        pd.DataFrame([judged])
    )
    for one_sided in (table_of({"uniform": level}), both[both["seed"] == 0]):
        missing = claims.judge(claim, one_sided)
        assert missing["verdict"] == "not run" and "| – |" in claims.markdown(pd.DataFrame([missing]))


# --- what moved the gap ----------------------------------------------------------------------------------------------


def ablation(extra=()):
    """Uniform at 4 plus a seed's own level, FisherSFT 0.02 above it, other rows `(method, epochs, [above the level])`."""
    level, rows = np.array([0.0, 0.3, -0.2]), []
    given = [("uniform", 2, [0.0] * 3), ("fisher_per_token", 2, [0.02, 0.03, 0.01]), *extra]
    for method, epochs, above in given:
        for seed, value in enumerate(above):
            row = {"method": method, "seed": seed, "tokens": 2000, "epochs": epochs, "learning_rate": 5e-5}
            rows.append(row | {"nll": 4 + level[seed] + value})
    return pd.DataFrame(rows)


def test_what_moved_the_gap_is_the_difference_of_differences():
    table = ablation(
        [
            ("half_uniform", 2, [0.0, 0.012, -0.011]),  # the gap falls by 0.02, give or take 0.002
            ("uniform", 6, [0.1, 0.1, 0.1]),
            ("fisher_per_token", 6, [0.15, 0.15, 0.15]),  # and there it is 0.05
            ("target_prior", 2, [0.5]),  # one seed only
        ]
    )
    moved = why.what_moved(table)
    assert moved.index.tolist() == ["nothing", "half uniform, half FisherSFT", "6 epochs"]
    assert moved["moved"].to_numpy(dtype=float) == pytest.approx([0, (-0.02 - 0.018 - 0.021) / 3, 0.03])
    assert moved["gap"].to_numpy(dtype=float) == pytest.approx([0.02, 0.001 / 3, 0.05])
    by_hand = stats.ttest_1samp([-0.02, -0.018, -0.021], 0.0)
    half = moved.loc["half uniform, half FisherSFT"]
    assert (half["low"], half["high"]) == pytest.approx(tuple(by_hand.confidence_interval(0.95)))
    assert half["p_holm"] == pytest.approx(2 * by_hand.pvalue) and half["verdict"] == "better"
    assert moved.loc["6 epochs", "verdict"] == "worse" and np.isnan(moved.loc["nothing", "p_holm"])
    other = table["learning_rate"].where(table["epochs"] == 2, 1.5e-4)
    assert why.what_moved(table.assign(learning_rate=other)).index[-1] == "6 epochs, learning rate times 3"
    with pytest.raises(ValueError, match="expected two seeds of fisher_per_token and uniform"):
        why.what_moved(table[table["seed"] == 0])


def test_the_protocol_is_met_pool_by_pool():
    def table(**shift):
        noise = np.array([0.0, 0.01, -0.01, 0.005])
        rows = [
            {"pool": pool, "training": "full", "method": method, "seed": seed, "tokens": 2000, "examples": 0}
            | {"nll": 4 + seed + (noise[seed] + shift.get(pool, 0)) * (method == "recipe")}
            for pool in UNSEEN for method in ("uniform", "recipe", "fisher_per_token") for seed in range(4)
        ]  # fmt: skip
        return pd.DataFrame(rows)

    won = why.confirmed(table(guide_redundant=-0.1, code_mix=-0.1))
    assert won["verdict"].tolist() == ["tie", "better", "better"] and all(won["met"])
    p = [stats.ttest_1samp(np.array([0.0, 0.01, -0.01, 0.005]) + shift, 0.0).pvalue for shift in (0, -0.1, -0.1)]
    assert won["p_holm"].tolist() == pytest.approx(statistics.holm(p).tolist())  # the third arm does not count
    lost = why.confirmed(table(guide=0.1, code_mix=-0.004))
    assert lost["verdict"].tolist() == ["worse", "tie", "tie"] and not any(lost["met"])


@pytest.mark.parametrize("name", ["05b_confirmation", "09_keep_learning"])
def test_the_protocol_is_older_than_the_rows(name):
    folder = ROOT / "notebooks" / "results" / name

    def git(*command):
        return subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, timeout=60)

    for commit in json.loads((folder / "about.json").read_text())["commit"]:
        if git("cat-file", "-e", commit).returncode:
            pytest.skip("needs the history of the repository")
        there = git("show", f"{commit}:notebooks/results/{name}/protocol.md")
        assert there.stdout == (folder / "protocol.md").read_text()
        listed = git("ls-tree", "--name-only", commit, f"notebooks/results/{name}/").stdout.split()
        assert [file.split("/")[-1] for file in listed] == ["protocol.md"]  # and no results yet


def test_the_confirmation_asks_its_question_first_and_on_new_draws():
    parts = plans.PLANS["confirmation"]
    rows = [row for _, part in parts for row in part]
    known = {
        (row.pool, row.seed) for part in (PROFILES["full"].rows(), *(r for _, r in plans.PLANS["recipes"])) for row in part
    }
    assert known.isdisjoint({(row.pool, row.seed) for row in rows}) and {row.pool for row in rows} == set(UNSEEN)
    asked = [row.method for row in rows[: len(UNSEEN) * len(plans.NEW_SEEDS) * 2]]
    assert set(asked) == {"uniform", "recipe"} and asked.count("recipe") == 18
    features = with_nll()
    rows = choose("recipe", TEXTS, features, seed=2, tokens=50), fl.recipe(TEXTS, features, seed=2, tokens=50, mix="fisher")
    assert rows[0].indices.tolist() == rows[1].indices.tolist()
    assert rows[0].indices.tolist() == choose("dedup_where_fisher", TEXTS, features, seed=2, tokens=50).indices.tolist()
