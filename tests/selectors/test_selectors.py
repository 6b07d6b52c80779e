"""What all selectors have in common: budgets, order, seeds, memory-mapped features, and what they refuse."""

import inspect
from functools import partial

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

import fisherlib as fl
from fisherlib import selectors
from fisherlib.course.study.methods import METHODS
from fisherlib.selectors import _pooled
from fisherlib.selectors._contract import Selector


def draw_pool(seed, n=20):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 7, n)
    lengths[0] = 3  # never a pool without tokens
    blocks = [torch.from_numpy(rng.normal(size=(t, 5)) + 10) for t in lengths]
    nll = torch.from_numpy(rng.exponential(size=lengths.sum()))
    rows = Dataset.from_list([{"text": " ".join(map(str, rng.integers(0, 10**6, 9)))} for _ in lengths])
    return rows, fl.TokenFeatures.from_list(blocks, nll=nll)


def scores_of(features):
    """Something for `ask_llm` that follows an example wherever it stands."""
    if not isinstance(features, fl.TokenFeatures):  # what a selector should refuse
        return np.ones(len(features))
    return np.array([float(X.sum()) % 1 for X in (features[i] for i in range(len(features)))])


def like_the_longest(rows, features, **call):
    good = isinstance(features, fl.TokenFeatures)  # if not, the selector should refuse it
    tenth = selectors.longest(None, features if good else draw_pool(5)[1], examples=max(len(features) // 4, 1))
    return selectors.length_matched(rows, features, like=tenth, **call)


def with_scores(select, **options):
    """Half of them above 1, which IFD puts last, and SLearnLLM's threshold too."""

    def chosen(rows, features, **call):
        return select(rows, features, scores=2 * scores_of(features), **options, **call)

    return chosen


def behind(choose):
    """The selector that a partial call is of."""
    return behind(choose.func) if isinstance(choose, partial) else choose


def for_tests(method):
    """A method of the table with all that it needs beside the call."""
    if method.name == "length_matched":
        return like_the_longest
    return with_scores(method.choose) if method.scores else method.choose


def is_one(method):
    """Not what the study made of several: these keep the contract if their parts do."""
    parts = method.choose.keywords.values() if isinstance(method.choose, partial) else ()
    return isinstance(behind(method.choose), Selector) and not any(map(callable, parts))


SELECTORS = {method.name: for_tests(method) for method in METHODS if is_one(method)} | {
    "dedup_uniform": partial(selectors.deduplicated, threshold=0.5),  # those of the study find copies as they did then
    "recipe": partial(selectors.recipe, mix="fisher"),
    "llmaaa_least_confidence": with_scores(selectors.llmaaa, acquisition="least confidence"),
    "sentence_optimal, sum": partial(selectors.sentence_optimal, pooling="sum", rule="gain_per_token"),
    "i_optimal, by gain": selectors.i_optimal,
    "slearn, threshold": with_scores(selectors.slearn, threshold=1.0),
    "in_clusters, like the longest": partial(selectors.in_clusters, n_clusters=3, like=selectors.longest),
    "adaicl_plus, few": partial(selectors.adaicl, discounted=True, neighbours=3),
    "isa, low": partial(selectors.isa, entropy="low"),
}
HELPERS = {"head_matrix", "ifd_warm_up", "meta_gradients", "meta_weights", "near_duplicates", "read_grade"}
HELPERS |= {"ask_llm_scores", "density_scores", "ifd_scores", "llmaaa_scores", "slearn_scores"}
HELPERS |= {"slearn_grades", "slearn_kept", "fit_plateau", "isa_entropies", "sparft_clusters"}
HELPERS |= {"Plateau", "Ranking", "cluster_labels", "installed", "selector"}
NAMES = sorted(name for name, thing in vars(selectors).items() if isinstance(thing, Selector))
BY_SCORE = ["ask_llm", "ifd", "slearn", "llmaaa_entropy", "llmaaa_least_confidence"]
every = pytest.mark.parametrize("select", SELECTORS.values(), ids=SELECTORS)
some = settings(max_examples=8, deadline=None)  # for each of thirty selectors


def test_all_have_the_same_call_and_a_row_in_the_table_of_methods():
    public = {name for name, thing in vars(selectors).items() if callable(thing) and not name.startswith("_")}
    assert public == HELPERS | set(NAMES)  # and what a new name is must be said
    assert {getattr(selectors, name) for name in NAMES} <= {behind(method.choose) for method in METHODS}
    for name in NAMES:
        parameters = inspect.signature(getattr(selectors, name)).parameters
        assert list(parameters)[:2] == ["rows", "features"]
        assert [parameters[k].default for k in ("examples", "tokens", "seed")] == [None, None, 0]
        assert all(p.kind == p.KEYWORD_ONLY for p in list(parameters.values())[2:] if p.kind != p.VAR_KEYWORD)


@every
@some
@given(seed=st.integers(0, 1000), share=st.floats(0.1, 1.0))
def test_budgets_are_kept_and_filled(select, seed, share):
    rows, features = draw_pool(seed)
    costs = features.lengths.numpy()
    budget = max(int(share * costs.sum()), int(costs[costs > 0].min()))
    chosen = select(rows, features, tokens=budget, seed=seed)
    left = budget - chosen.costs.sum()
    rest = np.setdiff1d(np.flatnonzero(costs), chosen.indices)
    assert left >= 0 and len(set(chosen.indices)) == len(chosen) and (costs[chosen.indices] > 0).all()
    assert (costs[rest] > left).all()  # nothing that fits was left out
    assert chosen.settings["budget"] == {"tokens": budget}
    n = max(int(share * len(features)), 1)
    chosen = select(rows, features, examples=n, seed=seed)
    filled = int((costs[chosen.indices] > 0).sum())
    assert len(chosen) == n and filled == min(n, int((costs > 0).sum()))
    assert (costs[chosen.indices[:filled]] > 0).all()  # examples without tokens come last
    assert np.array_equal(chosen.costs, costs[chosen.indices])


@every
def test_a_seed_is_an_answer(select, tmp_path):
    rows, features = draw_pool(3)
    for budget in ({"examples": 6}, {"tokens": 30}):
        first = select(rows, features, seed=5, **budget)
        np.random.seed(1)  # nobody else's dice
        torch.manual_seed(1)
        again = select(rows, features, seed=5, **budget)
        assert np.array_equal(first.indices, again.indices)
        first.save(tmp_path / "s.json")
        loaded = fl.Selection.load(tmp_path / "s.json")
        assert loaded.settings == first.settings and np.array_equal(loaded.indices, first.indices)
        rescored = fl.score_selection(features, first.indices)
        assert first.objective == pytest.approx(rescored.objective, abs=1e-10) and first.upper_bound is None


@pytest.mark.parametrize(
    "name",
    [
        *("uniform", "length_matched", "density", "clustered", "uniform_in_clusters", "dedup_uniform", "in_clusters"),
        *("recipe", "slearn, threshold", "sparft", "isa", "semhash"),
    ],
)
def test_another_seed_is_another_answer(name):
    rows, features = draw_pool(3)
    picks = {tuple(SELECTORS[name](rows, features, examples=6, seed=seed).indices) for seed in range(8)}
    assert len(picks) > 4


@every
def test_features_on_a_disk_and_in_small_parts_give_the_same(select, tmp_path, monkeypatch):
    rows, features = draw_pool(4)
    whole = select(rows, features, examples=7)
    features.save(tmp_path / "f")
    monkeypatch.setattr(_pooled, "_AT_ONCE", 17)
    mapped = select(rows, fl.TokenFeatures.load(tmp_path / "f"), examples=7)
    assert np.array_equal(whole.indices, mapped.indices)


@pytest.mark.parametrize(
    "name",
    ["longest", "sentence_optimal", "sentence_optimal, sum", "farthest_point", "adaicl", "adaicl_plus", *BY_SCORE],
)
@some
@given(seed=st.integers(0, 1000))
def test_another_order_of_the_pool_gives_the_same_examples(name, seed):
    rows, features = draw_pool(seed)
    rng = np.random.default_rng(seed)
    if name == "longest":  # ties go to the lowest index: no ties here
        features = fl.TokenFeatures.from_list([torch.ones(int(t), 2) for t in rng.permutation(20)])
    moved = rng.permutation(20)
    for budget in ({"examples": 6}, {"tokens": 25}):
        before = SELECTORS[name](rows, features, **budget)
        after = SELECTORS[name](rows.select(moved), features.subset(moved), **budget)
        if before.costs.min() > 0:
            assert np.array_equal(moved[after.indices], before.indices)


@pytest.mark.parametrize(
    "name",
    ["longest", "nearest_to_centre", "sentence_optimal", "sentence_optimal, sum", "farthest_point", *BY_SCORE],
)
def test_of_equals_the_first_are_taken(name):
    features = fl.TokenFeatures.from_list([torch.full((2, 3), 0.1)] * 9, nll=torch.ones(18))
    assert SELECTORS[name](None, features, examples=5).indices.tolist() == [0, 1, 2, 3, 4]
    assert SELECTORS[name](None, features, tokens=7).indices.tolist() == [0, 1, 2]


@every
@pytest.mark.parametrize("n", [1, 2, 3])
def test_tiny_pools(select, n):
    rows = Dataset.from_list([{"text": f"{i}{i}{i}{i}{i}{i}"} for i in range(n)])
    features = fl.TokenFeatures.from_list([torch.randn(2, 3) for _ in range(n)], nll=torch.ones(2 * n))
    assert sorted(select(rows, features, examples=n).indices) == list(range(n))
    assert len(select(rows, features, tokens=2)) == 1


@every
def test_what_is_refused(select):
    rows, features = draw_pool(5)
    with pytest.raises(ValueError, match="expected exactly one of examples= and tokens="):
        select(rows, features, examples=2, tokens=3)
    with pytest.raises(ValueError, match="from 1 to 20"):
        select(rows, features, examples=21)
    with pytest.raises(ValueError, match="whole pool"):
        select(rows, features, tokens=10_000)
    with pytest.raises(ValueError, match="the 20 rows that the features are of, got 19 rows"):
        select(rows.select(range(19)), features, examples=2)
    with pytest.raises(ValueError, match="at least the cheapest example"):
        select(rows, features, tokens=0.5)


@every
def test_what_is_not_what_it_should_be_is_refused_by_name(select, as_a_user):
    rows, features = draw_pool(5)
    for wrong, message in (
        ((fl.Pool("mine", rows, rows), features), "expected rows, a datasets.Dataset, got a Pool: give pool.train"),
        ((features, rows), "expected rows, a datasets.Dataset, got a TokenFeatures: rows come before their features"),
        ((None, rows), "expected features, TokenFeatures, got a Dataset: rows come before their features"),
        ((rows, [features[0]]), "expected features, TokenFeatures, got a list: make them with TokenFeatures.from_list"),
        ((rows.to_list(), features), "expected rows, a datasets.Dataset, got a list: make one with Dataset.from_list"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            select(*wrong, examples=2)
    for budget, message in (
        ({"tokens": "3"}, "expected tokens, a number, got a str '3': change tokens="),
        ({"tokens": True}, "expected tokens, a number, got a bool True: change tokens="),
        ({"examples": True}, "expected examples, a whole number, got a bool True: change examples="),
        ({"examples": [2]}, "expected examples, a whole number, got a list: change examples="),
        ({"examples": 2.5}, "expected examples, a whole number, got a float 2.5: change examples="),
        ({"examples": float("nan")}, "expected examples, a whole number, got a float nan"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            select(rows, features, **budget)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "density",
            "clustered",
            "uniform_in_clusters",
            "nearest_to_centre",
            "sentence_optimal",
            "farthest_point",
            "llmaaa_k_means",
        ),
        *("adaicl", "sparft", "isa"),
    ],
)
def test_features_that_cannot_be_pooled_are_refused(name):
    bad = fl.TokenFeatures.from_list([torch.ones(1, 2), torch.tensor([[1.0, float("nan")]])], nll=torch.ones(2))
    with pytest.raises(ValueError, match="NaN or infinity in example 1: extract"):
        SELECTORS[name](None, bad, examples=1)
    empty = fl.TokenFeatures.from_list([torch.ones(0, 2)] * 2, nll=torch.ones(0))
    with pytest.raises(ValueError, match="an example with tokens, got none in 2"):
        SELECTORS[name](None, empty, examples=1)


def test_information_is_that_of_the_definition():
    _, features = draw_pool(1)
    chosen = selectors.uniform(None, features, examples=6, seed=2)
    X = features.subset(chosen.indices).values.double().numpy()
    assert chosen.objective == pytest.approx(np.linalg.slogdet(np.eye(5) + X.T @ X)[1], abs=1e-10)


def test_clustered_refuses_an_nll_that_is_not_finite():
    features = fl.TokenFeatures.from_list([torch.randn(2, 3) for _ in range(6)], nll=torch.full((12,), torch.nan))
    with pytest.raises(ValueError, match="expected a finite nll, got NaN or infinity: extract the features again"):
        fl.selectors.clustered(None, features, tokens=6)
