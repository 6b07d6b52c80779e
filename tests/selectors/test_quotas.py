"""Shares of a budget for groups, and the recipe: what is asked for is spent, by chance, in uniform's own order."""

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

import fisherlib as fl
from fisherlib.selectors import deduplicated, near_duplicates, quotas, uniform

KINDS = ("code", "prose", "rare")


def pool(n=120, copies=0, seed=0):
    """Three kinds in the ratio 6 : 3 : 1, far apart; the last `copies` rows repeat the first ones."""
    rng = np.random.default_rng(seed)
    kinds, lengths = rng.choice(3, n, p=[0.6, 0.3, 0.1]), rng.integers(2, 9, n)
    kinds[n - copies :], lengths[n - copies :] = kinds[:copies], lengths[:copies]
    blocks = [9 * np.eye(6)[k] + rng.normal(size=(t, 6)) for k, t in zip(kinds, lengths, strict=True)]
    words = [" ".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 40)) for _ in range(n)]
    words[n - copies :] = words[:copies]
    rows = Dataset.from_list([{"prompt": "p", "response": w, "kind": KINDS[k]} for w, k in zip(words, kinds, strict=True)])
    return rows, fl.TokenFeatures.from_list([torch.tensor(b, dtype=torch.float32) for b in blocks])


def spent(chosen, rows):
    """The share of the budget that each kind got."""
    kinds = np.array(rows["kind"])[chosen.indices]
    return {kind: chosen.costs[kinds == kind].sum() / chosen.costs.sum() for kind in KINDS}


@pytest.mark.parametrize("unit", [{"tokens": 250}, {"examples": 50}])
def test_by_default_the_mix_stays(unit):
    rows, features = pool()
    price = features.lengths.numpy() if "tokens" in unit else np.ones(len(features))
    kinds, within = np.array(rows["kind"]), {"tokens": 10 / 250, "examples": 2 / 50}[next(iter(unit))]
    chosen = quotas(rows, features, groups="kind", seed=3, **unit)
    for kind, share in spent(fl.Selection(chosen.indices, chosen.gains, price[chosen.indices], len(rows)), rows).items():
        assert abs(share - price[kinds == kind].sum() / price.sum()) < within
    assert chosen.settings["shares"]["rare"] == pytest.approx(price[kinds == "rare"].sum() / price.sum())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), weights=st.tuples(*[st.integers(0, 5)] * 3).filter(any), budget=st.integers(9, 150))
def test_inside_a_group_the_order_is_uniforms_and_no_share_is_overdrawn(seed, weights, budget):
    rows, features = pool(n=60)
    chosen = quotas(rows, features, groups="kind", shares=dict(zip(KINDS, weights, strict=True)), tokens=budget, seed=seed)
    order, kinds = np.random.default_rng(seed).permutation(60).tolist(), np.array(rows["kind"])
    begun = []
    for kind, weight in zip(KINDS, weights, strict=True):
        quota = np.floor(weight / sum(weights) * budget)
        for i in order:
            if kinds[i] == kind and int(features.lengths[i]) <= quota:
                begun.append(i)
                quota -= int(features.lengths[i])
    assert chosen.indices[: len(begun)].tolist() == begun
    left = budget - chosen.costs.sum()
    unpicked = np.setdiff1d(np.arange(60), chosen.indices)
    assert 0 <= left < features.lengths[torch.from_numpy(unpicked)].min() if len(unpicked) else left >= 0


def test_one_group_is_uniform_and_none_comes_last():
    features = pool()[1]
    assert (
        quotas(None, features, groups=["all"] * 120, tokens=200).indices.tolist()
        == uniform(None, features, tokens=200).indices.tolist()
    )
    labels = [None if i % 2 else "kept" for i in range(120)]
    most = quotas(None, features, groups=np.array(labels, dtype=object), examples=70).indices
    assert (most[:60] % 2 == 0).all() and (most[60:] % 2 == 1).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"groups": "topic"}, "groups to be a column .* got 'topic' and the columns"),
        ({"groups": ["a", "b"]}, "a label for each of 120 examples, got 2"),
        ({"groups": "kind", "shares": {"code": 1, "verse": 1}}, r"got \['verse'\]: name groups that are there"),
        ({"groups": "kind", "shares": {"code": -1, "prose": 2}}, "shares of at least 0"),
        ({"groups": "kind", "shares": {"code": 0.0}}, "one of them above"),
        ({"groups": "kind", "shares": {"code": np.nan}}, "shares of at least 0"),
        ({"groups": "kind", "shares": {"code": "much"}}, "shares to be numbers, got others"),
        ({"groups": "kind", "shares": {"code": [1], "prose": 1}}, "shares to be numbers, got others"),
        ({"groups": b"x" * 120}, "expected groups, .*, got a bytes"),
    ],
)
def test_bad_groups_and_shares_are_refused(options, said, as_a_user):
    rows, features = pool()
    with pytest.raises(ValueError, match=said):
        quotas(rows, features, tokens=50, **options)


# --- the recipe ------------------------------------------------------------------------------------------------------


def test_the_recipe_keeps_the_mix_without_its_copies():
    rows, features = pool(n=150, copies=50)
    kept = near_duplicates(rows, threshold=0.5) == np.arange(150)
    kinds, lengths = np.array(rows["kind"]), features.lengths.numpy()
    for seed in range(5):
        chosen = fl.recipe(rows, features, tokens=200, seed=seed, groups="kind")
        assert kept[chosen.indices].all() and chosen.settings["removed"] == 50
        for kind, share in spent(chosen, rows).items():
            assert abs(share - lengths[kept & (kinds == kind)].sum() / lengths[kept].sum()) < 0.05
            assert chosen.settings["shares"][kind]["pool"] == chosen.settings["shares"][kind]["wanted"]


def test_on_the_way_to_fisher_sft_its_shares_are_mixed_in():
    rows, features = pool()
    whole = fl.recipe(rows, features, tokens=200, groups="kind", mix=1.0).settings["shares"]
    picks = fl.select(features, tokens=200, rule="gain_per_token")
    fisher = spent(picks, rows)
    assert {kind: share["wanted"] for kind, share in whole.items()} == pytest.approx(fisher)
    assert abs(fisher["rare"] - whole["rare"]["pool"]) > 0.02  # it does ask for another mix here
    half = fl.recipe(rows, features, tokens=200, groups="kind", mix=0.5).settings["shares"]
    for kind, share in half.items():
        assert share["wanted"] == pytest.approx((share["pool"] + fisher[kind]) / 2)
    same = (fl.recipe(rows, features, tokens=200, groups="kind", mix=mix).indices.tolist() for mix in ("fisher", 1.0))
    assert len(set(map(tuple, same))) == 1


def test_clusters_are_the_groups_unless_they_are_named():
    rows, features = pool()
    chosen = fl.recipe(rows, features, tokens=200)
    assert chosen.settings["mix"] == "keep" and set(chosen.settings["shares"]) == {str(k) for k in range(8)}
    named = fl.recipe(rows, features, tokens=200, groups=fl.selectors.cluster_labels(features))
    assert named.indices.tolist() == chosen.indices.tolist()


def test_a_budget_beyond_what_is_left_takes_all_of_it_and_then_copies():
    rows, features = pool(n=150, copies=50)
    left = int(features.lengths[:100].sum())
    for mix in ("keep", 0.5, "fisher"):
        chosen = fl.recipe(rows, features, tokens=left + 30, mix=mix).indices
        assert set(range(100)) < set(chosen) and (chosen[:100] < 100).all()


def test_fisher_is_the_recipe_of_notebook_05b():
    rows, features = pool(copies=20)

    def informative(_, kept, *, seed, **budget):
        return fl.select(kept, rule="gain_per_token", **budget)

    parts = {"threshold": 0.5, "refill": True, "then": fl.selectors.in_clusters, "like": informative}
    for seed in range(3):
        expected = deduplicated(rows, features, tokens=120, seed=seed, **parts)
        got = fl.recipe(rows, features, tokens=120, seed=seed, mix="fisher")
        assert got.indices.tolist() == expected.indices.tolist() and (got.gains == expected.gains).all()


@pytest.mark.parametrize("mix", ["Fisher", 1.5, -0.1, float("nan"), "0.5"])
def test_another_mix_is_refused(mix):
    rows, features = pool()
    with pytest.raises(ValueError, match="'keep', 'fisher' or a number from 0 to 1, got"):
        fl.recipe(rows, features, tokens=50, mix=mix)


def test_labels_may_be_tensors_and_columns_of_any_format(as_a_user):
    features = fl.TokenFeatures.from_list([torch.ones(2, 3)] * 6)
    kinds = [0, 0, 0, 1, 1, 2]
    rows = Dataset.from_dict({"text": list("abcdef"), "kind": kinds}).with_format("torch")
    wanted = fl.selectors.quotas(None, features, groups=kinds, tokens=8)
    for groups, of in ((torch.tensor(kinds), None), (np.array(kinds), None), ("kind", rows)):
        found = fl.selectors.quotas(of, features, groups=groups, tokens=8)
        assert found.indices.tolist() == wanted.indices.tolist() and found.settings["shares"] == wanted.settings["shares"]
    with pytest.raises(ValueError, match="expected a label for each of 6 examples, got 1: change groups="):
        fl.selectors.quotas(None, features, groups=torch.tensor(1), tokens=8)


@pytest.mark.parametrize(
    "label", [float("nan"), np.float32("nan"), pd.NA, pd.NaT, [1], {"a": 1}, {1}, np.ones(2), torch.ones(2)], ids=repr
)
def test_a_label_that_makes_no_group_is_refused_by_its_row(label, as_a_user):
    features = fl.TokenFeatures.from_list([torch.ones(2, 3)] * 4)
    rows = Dataset.from_dict({"text": list("abcd")})
    for method in (fl.selectors.quotas, fl.recipe):
        with pytest.raises(ValueError, match=r"^row 2: expected a label of a group, .*, got .*: change groups=$"):
            method(rows, features, groups=["a", None, label, label], tokens=4)


def test_labels_of_one_name_are_refused_and_numbers_are_numbers(as_a_user):
    features = fl.TokenFeatures.from_list([torch.ones(2, 3)] * 4)
    with pytest.raises(ValueError, match="expected labels of different names, got 1 and '1': change groups="):
        fl.selectors.quotas(None, features, groups=[1, 1, "1", "1"], tokens=4)
    wanted = fl.selectors.quotas(None, features, groups=[1, 1, 2, 2], tokens=4)
    mixed = [1, np.int64(1), torch.tensor(2), np.array(2)]
    found = fl.selectors.quotas(None, features, groups=mixed, tokens=torch.tensor(4), seed=np.array(0))
    assert found.settings == wanted.settings and found.indices.tolist() == wanted.indices.tolist()
    assert type(found.settings["seed"]) is int and type(found.settings["budget"]["tokens"]) is int


def test_a_mixture_of_sources_is_a_mix_of_the_recipe_and_the_choice_inside_is_its_own():
    rows, features = pool(copies=30)
    kinds = np.array(rows["kind"])
    held = {kind: int(features.lengths.numpy()[kinds == kind].sum()) for kind in KINDS}
    mixture = fl.mixtures.unimax(held, tokens=60, epochs=1)
    chosen = fl.recipe(rows, features, tokens=60, mix=mixture, groups="kind", seed=2)
    for kind, share in spent(chosen, rows).items():
        assert abs(share - mixture[kind]) < 9 / 60
    assert chosen.settings["mix"] == pytest.approx(dict(mixture)) and chosen.settings["removed"] == 30
    assert chosen.settings["shares"]["rare"]["wanted"] == pytest.approx(mixture["rare"])
    again = fl.recipe(rows, features, tokens=60, mix=dict(mixture), groups=kinds.tolist(), seed=2)
    assert again.indices.tolist() == chosen.indices.tolist()
    with pytest.raises(ValueError, match="expected groups beside the shares of a mix"):
        fl.recipe(rows, features, tokens=60, mix=mixture)
    with pytest.raises(ValueError, match="expected shares of the groups"):
        fl.recipe(rows, features, tokens=60, mix={"poetry": 1.0}, groups="kind")
