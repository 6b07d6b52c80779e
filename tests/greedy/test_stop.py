"""What is known already, when to stop, where the curve bends, and several budgets from one order."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fisherlib as fl
from fisherlib.greedy import nested, with_seen
from tests.greedy.test_select import POOLS, make_pool

# --- what was trained on already -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", ["none", "trace"])
@pytest.mark.parametrize("prior", [0.5, np.diag([1.0, 2.0, 3.0, 4.0])], ids=["number", "matrix"])
def test_what_was_seen_is_a_prior_and_costs_nothing(weighting, prior, monkeypatch, tmp_path):
    features, seen = make_pool("random", 1, 40, 4, 5), make_pool("random", 2, 15, 4, 6)
    draw = torch.Generator().manual_seed(0)
    features, seen = (
        fl.TokenFeatures(f.values, f.offsets, trace_weights=torch.rand(len(f.values), generator=draw))
        for f in (features, seen)
    )
    weights = seen.trace_weights.double() if weighting == "trace" else torch.ones(len(seen.values)).double()
    V0 = np.diag([prior] * 4) if np.ndim(prior) == 0 else prior
    V0 = V0 + (seen.values.double().T @ (weights[:, None] * seen.values.double())).numpy()
    monkeypatch.setattr("fisherlib.greedy.seen._NUMBERS", 16)  # four rows at a time
    seen.save(tmp_path / "seen")
    plain = fl.select(features, tokens=40, prior=prior, weighting=weighting)
    for source in (seen, fl.TokenFeatures.load(tmp_path / "seen")):
        after = fl.select(features, tokens=40, start=source, prior=prior, weighting=weighting)
        expected = fl.select(features, tokens=40, prior=V0, weighting=weighting)
        assert after.indices.tolist() == expected.indices.tolist() and np.allclose(after.gains, expected.gains)
        assert after.upper_bound == pytest.approx(expected.upper_bound)
        assert 35 <= after.costs.sum() <= 40 and after.settings["seen"]["tokens"] == len(seen.values)
        assert after.settings["prior"] == plain.settings["prior"]
        known = with_seen(source, prior, weighting)
        certified = fl.certify(features, after, prior=known, weighting=weighting)
        assert certified.objective == pytest.approx(after.objective)
    assert after.indices.tolist() != plain.indices.tolist()


def test_who_was_seen_is_no_news():
    features = make_pool("random", 3, 30, 60, 4)  # more directions than the picks have tokens: others are always news
    first = fl.select(features, examples=5)
    after = fl.select(features, examples=5, start=features.subset(first.indices))
    assert not set(after.indices) & set(first.indices)
    assert after.gains[0] == pytest.approx(fl.select(features, examples=6).gains[5])


def test_what_cannot_have_been_seen(tmp_path):
    features = make_pool("random", 4, 20, 4, 4)
    with pytest.raises(ValueError, match="expected a start of the features' width 4, got 5: extract both alike"):
        fl.select(features, examples=3, start=make_pool("random", 4, 20, 5, 4))
    with pytest.raises(ValueError, match="expected features with trace_weights for weighting='trace'"):
        fl.select(
            fl.TokenFeatures(features.values, features.offsets, trace_weights=torch.ones(len(features.values))),
            examples=3, weighting="trace", start=features,
        )  # fmt: skip
    bad = make_pool("random", 4, 20, 4, 4)
    bad.values[3] = torch.nan
    with pytest.raises(ValueError, match="expected finite features as start, got NaN or infinity"):
        fl.select(features, examples=3, start=bad)
    fl.select(features, examples=3, start=features.subset([1, 2]), checkpoint=tmp_path / "c.json")
    for other in (None, features.subset([1, 3])):
        with pytest.raises(ValueError, match="got another seen in"):
            fl.select(features, examples=3, start=other, checkpoint=tmp_path / "c.json")


# --- when to stop --------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(POOLS),
    seed=st.integers(0, 10**6),
    n=st.integers(2, 40),
    longest=st.sampled_from([1, 5]),
    stop=st.floats(0.05, 0.95),
    rule=st.sampled_from(["gain", "gain_per_token"]),
    by_tokens=st.booleans(),
)
def test_a_stop_cuts_the_curve_where_it_falls_below(kind, seed, n, longest, stop, rule, by_tokens):
    features = make_pool(kind, seed, n, 4, longest)
    total = int(features.lengths.sum())
    if not total:
        return
    budget = {"tokens": total} if by_tokens else {"examples": n}
    whole, part = (fl.select(features, **budget, rule=rule, stop=share) for share in (None, stop))
    assert part.indices.tolist() == whole.indices[: len(part)].tolist()
    lengths = features.lengths.numpy()[whole.indices].clip(min=1)
    score = whole.gains / lengths if rule == "gain_per_token" else whole.gains
    assert (score[: len(part)] >= stop * score[0]).all()
    if len(part) < len(whole):
        assert score[len(part)] < stop * score[0]
        assert "less than" in part.stopped and part.stopped in repr(part) and f"{score[0]:.3g}" in part.stopped
    else:
        assert part.stopped is None or (score[-1] >= stop * score[0])
    assert whole.stopped is None


def test_floors_come_before_a_stop():
    features, labels = make_pool("heavy-tailed", 5, 90, 6, 5), ["a", "b", "c"] * 30
    options = {"tokens": 120, "rule": "gain_per_token", "stop": 0.5, "groups": labels}
    free, floored = fl.select(features, **options), fl.select(features, **options, quotas={"b": (50, None)})
    assert free.stopped and floored.stopped and free.by_group()[1]["got"] < 45
    assert floored.by_group()[1]["met"] and floored.by_group()[1]["got"] <= 50 + 5
    after = floored.indices[len(free) :]
    assert (
        len(after) and {labels[i] for i in after} == {"b"} and floored.indices[: len(free)].tolist() == free.indices.tolist()
    )


def test_a_stopped_selection_is_kept_and_found_again(tmp_path):
    features, path = make_pool("heavy-tailed", 6, 90, 6, 5), tmp_path / "c.json"
    first = fl.select(features, examples=60, stop=0.2, checkpoint=path)
    again = fl.select(features, examples=60, stop=0.2, checkpoint=path)
    assert first.stopped and again.stopped == first.stopped == fl.Selection.load(path).stopped and len(again) == len(first)
    with pytest.raises(ValueError, match="got another stop in"):
        fl.select(features, examples=60, stop=0.3, checkpoint=path)
    assert first.prefix(examples=2).stopped is None


def test_no_stop_is_none():
    features = make_pool("random", 6, 9, 6, 5)
    for wrong in (0, 1, -0.5, float("nan")):
        with pytest.raises(ValueError, match="expected stop, a share of the first pick's gain, between 0 and 1, got"):
            fl.select(features, examples=3, stop=wrong)
    with pytest.raises(ValueError, match="expected rule='gain' or 'gain_per_token' beside stop=, got 'best'"):
        fl.select(features, tokens=9, stop=0.5, rule="best")


# --- the bend ------------------------------------------------------------------------------------------------------------


def curve(gains, costs, unit="tokens"):
    gains, costs = np.array(gains, dtype=float), np.array(costs, dtype=float)
    settings = {"budget": {unit: len(gains)}}
    return fl.Selection(np.arange(len(gains)), gains, costs, len(gains), settings=settings)


def test_the_knee_is_the_last_pick_above_the_average():
    assert curve([8, 6, 1, 1], [1, 1, 1, 1]).knee() == 2
    assert curve([5, 5, 5], [1, 1, 1]).knee() == 3  # a straight line
    assert curve([9], [3]).knee() == 1
    assert curve([8, 6, 1, 1], [8, 2, 1, 1]).knee() == 2
    assert curve([8, 6, 1, 1], [100, 2, 1, 1], "examples").knee() == 2
    assert curve([0, 0], [1, 1]).knee() == 2
    with pytest.raises(ValueError, match="expected a selection with picks"):
        fl.Selection(np.array([], dtype=int), np.array([]), np.array([]), 4).knee()
    selection = fl.select(make_pool("heavy-tailed", 7, 200, 8, 6), tokens=400, rule="gain_per_token")
    rates, average = selection.gains / selection.costs, selection.objective / selection.costs.sum()
    assert 1 < selection.knee() < len(selection) and (rates[: selection.knee()] >= average).all()
    assert rates[selection.knee()] < average


# --- several budgets -----------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(POOLS),
    seed=st.integers(0, 10**6),
    n=st.integers(2, 40),
    longest=st.sampled_from([1, 5]),
    shares=st.lists(st.floats(0.05, 1.0), min_size=1, max_size=4),
    rule=st.sampled_from(["gain", "gain_per_token"]),
    by_tokens=st.booleans(),
)
def test_nested_selections_are_what_each_budget_would_begin_with(kind, seed, n, longest, shares, rule, by_tokens):
    features = make_pool(kind, seed, n, 4, longest)
    lengths = features.lengths.numpy()
    total = int(lengths.sum())
    if not total:
        return
    unit, most, least = ("tokens", total, int(lengths.max())) if by_tokens else ("examples", n, 1)
    budgets = [max(round(share * most), least) for share in shares]
    found = nested(features, **{unit: budgets}, rule=rule)
    assert len(found) == len(budgets)
    for budget, part in zip(budgets, found, strict=True):
        alone = fl.select(features, **{unit: budget}, rule=rule)
        assert part.indices.tolist() == alone.indices[: len(part)].tolist()
        assert np.allclose(part.gains, alone.gains[: len(part)], rtol=1e-9, atol=1e-12)
        assert part.settings["budget"] == {unit: budget} and part.settings["nested_in"] == {unit: max(budgets)}
        if by_tokens:
            longer = max(found, key=len).indices[len(part) : len(part) + 1]
            assert part.costs.sum() <= budget and (not len(longer) or budget - part.costs.sum() < lengths[longer[0]])
        else:
            assert len(part) == len(alone)
        if budget == max(budgets):
            assert part.indices.tolist() == alone.indices.tolist() and part.upper_bound == pytest.approx(alone.upper_bound)
        else:
            certified = fl.certify(features, part)
            assert part.upper_bound is None and certified.upper_bound >= alone.objective * (1 - 1e-9) - 1e-9


def test_the_best_of_nested_ones_is_a_rule_and_says_so(tmp_path):
    features = make_pool("heavy-tailed", 8, 90, 6, 8)
    budgets = [60, 200, 100]
    for prior in (1.0, 100.0):
        rules = {rule: fl.select(features, tokens=200, rule=rule, prior=prior) for rule in ("gain", "gain_per_token")}
        better = max(rules.values(), key=lambda selection: selection.objective)
        found = nested(features, tokens=budgets, rule="best", prior=prior, checkpoint=tmp_path / f"{prior}.json")
        assert found[1].indices.tolist() == better.indices.tolist() and found[1].certificate
        assert (
            found[0].settings["rule"] == better.settings["rule"] and "without exchanges" in found[0].settings["rule_asked"]
        )
        assert found[0].indices.tolist() == found[2].indices[: len(found[0])].tolist()
    assert len([*tmp_path.iterdir()]) == 4


def test_nested_after_a_stop_and_what_is_no_list_of_budgets():
    features = make_pool("random", 9, 90, 6, 8)
    short, long, longer = nested(features, examples=[3, 60, 80], stop=0.05)
    assert long.stopped and len(short) == 3 < len(long) == len(longer) < 60 and short.stopped is None
    for wrong in ({}, {"examples": [1], "tokens": [1]}, {"tokens": []}):
        with pytest.raises(ValueError, match="expected a list of budgets, examples= or tokens=, got"):
            nested(features, **wrong)
    with pytest.raises(ValueError, match="expected budgets of tokens for rule='best'"):
        nested(features, examples=[3], rule="best")
    with pytest.raises(ValueError, match="expected budgets that pay for the first pick .* got 0.5: raise it"):
        nested(features, tokens=[0.5, 200])
    with pytest.raises(ValueError, match="expected tokens, a list, got a"):
        nested(features, tokens=200)
