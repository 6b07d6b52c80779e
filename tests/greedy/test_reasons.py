"""The reasons of picks and of all others are what the definitions say, wherever the features are."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fisherlib as fl
from fisherlib.greedy import CODES, nearest, with_seen
from tests.greedy.test_select import POOLS, make_pool, objective
from tests.pretend import accelerator


def means(features):
    found = np.array([features[i].double().numpy().mean(0) if len(features[i]) else np.zeros(features.dim)
                      for i in range(len(features))])  # fmt: skip
    centred = found - found[features.lengths.numpy() > 0].mean(0)
    return found, centred


def cosine(features, i, j):
    found, centred = means(features)
    none = [np.linalg.norm(centred[k]) <= 1e-6 * np.linalg.norm(found[k]) for k in (i, j)]
    if any(none):
        return float(all(none))
    return centred[i] @ centred[j] / np.linalg.norm(centred[i]) / np.linalg.norm(centred[j])


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(POOLS),
    seed=st.integers(0, 10**6),
    n=st.integers(2, 16),
    longest=st.sampled_from([1, 5]),
    rule=st.sampled_from(["gain", "gain_per_token", "best"]),
    by_tokens=st.booleans(),
    prior=st.sampled_from([1.0, 0.3]),
)
def test_every_number_is_what_its_definition_says(kind, seed, n, longest, rule, by_tokens, prior):
    features = make_pool(kind, seed, n, 4, longest)
    lengths = features.lengths.numpy()
    if not lengths.sum():
        return
    budget = {"tokens": max(int(lengths.sum()) // 2, int(lengths.max()))} if by_tokens else {"examples": n // 2 + 1}
    rule = rule if by_tokens or rule != "best" else "gain"
    selection = fl.select(features, **budget, rule=rule, prior=prior)
    reasons, V0 = fl.explain(features, selection), prior * np.eye(features.dim)
    assert [row["index"] for row in reasons.chosen] == selection.indices.tolist()
    assert sorted(row["index"] for row in reasons.chosen + reasons.rejected) == list(range(n))
    assert [row["index"] for row in reasons.rejected] == sorted(row["index"] for row in reasons.rejected)
    assert sorted(row["rank"] for row in reasons.chosen + reasons.rejected) == list(range(1, n + 1))
    by_rank = sorted(reasons.chosen + reasons.rejected, key=lambda row: row["rank"])
    assert all(a["first_gain"] >= b["first_gain"] for a, b in itertools.pairwise(by_rank))
    for row in reasons.chosen + reasons.rejected:
        i, before = row["index"], selection.indices[: row["pick"] - 1 if "pick" in row else None].tolist()
        assert row["first_gain"] == pytest.approx(objective(features, [i], V0), abs=1e-8)
        now = objective(features, [*before, i], V0) - objective(features, before, V0)
        assert row["gain"] == pytest.approx(now, abs=1e-7)
        if "pick" in row:
            assert row["gain"] == pytest.approx(selection.gains[row["pick"] - 1], rel=1e-6, abs=1e-9)
            assert row["gain_per_token"] == pytest.approx(row["gain"] / max(lengths[i], 1))
            assert sum(row["tokens"]) == pytest.approx(row["gain"], rel=1e-6, abs=1e-9) and len(row["tokens"]) == lengths[i]
            known = V0 + sum((features[j].double().numpy().T @ features[j].double().numpy() for j in before), 0 * V0)
            dets = [
                np.linalg.slogdet(known + X.T @ X)[1]
                for X in (features[i].double().numpy()[:t] for t in range(lengths[i] + 1))
            ]
            assert row["tokens"] == pytest.approx(np.diff(dets), abs=1e-7)  # what each adds, given those before it
            assert row["gain"] == pytest.approx((1 - row["taken"]) * row["first_gain"], abs=1e-9)
        if not lengths[before].any() or not lengths[i]:
            assert row["nearest"] is row["nearest_pick"] is row["cosine"] is row["copy"] is None
            continue
        near = row["nearest"]
        assert near == selection.indices[row["nearest_pick"] - 1] and near in before
        assert row["cosine"] == pytest.approx(max(cosine(features, i, j) for j in before if lengths[j]), abs=1e-6)
        assert lengths[near] and row["cosine"] == pytest.approx(cosine(features, i, near), abs=1e-6)
        assert row["copy"] is None or "pick" in row or row["cosine"] >= 0.8
        X, one, other = features[i].double().numpy(), *(objective(features, [k], V0) for k in (i, near))
        twice = np.linalg.slogdet(V0 + 2 * X.T @ X)[1] - np.linalg.slogdet(V0)[1]
        if row["copy"] is not None and 2 * one - twice > 1e-6:
            shared = one + other - objective(features, [i] + [near] * (near != i), V0)
            assert row["copy"] == pytest.approx(shared / (2 * one - twice), rel=1e-5, abs=1e-6)
    assert json.loads(json.dumps([reasons.chosen, reasons.rejected])) == [reasons.chosen, reasons.rejected]
    assert_reasons_hold(features, selection, reasons)


def assert_reasons_hold(features, selection, reasons):
    lengths, ((unit, amount),) = features.lengths.numpy(), selection.settings["budget"].items()
    per_token = selection.settings["rule"] != "gain"
    left = amount - (selection.costs.sum() if unit == "tokens" else len(selection))
    scores = [row["gain_per_token" if per_token else "gain"] for row in reasons.chosen]
    for row in reasons.rejected:
        score = row["gain"] / (max(lengths[row["index"]], 1) if per_token else 1)
        if row["reason"] == "no_tokens":
            assert lengths[row["index"]] == 0
        elif row["reason"] == "duplicate":
            assert row["copy"] >= 0.9 and row["cosine"] >= 0.95
        elif row["reason"] == "below":
            assert score <= min(scores) * (1 + 1e-6)
        elif row["reason"] == "too_long":
            assert score > min(scores) * (1 - 1e-6) and unit == "tokens" and lengths[row["index"]] > left
        else:
            assert row["reason"] == "passed_over" and selection.settings["rule"] == "best"


def test_a_copy_is_found_and_what_only_looks_alike_is_none():
    features = make_pool("random", 1, 30, 60, 4)
    blocks = [features[i] for i in range(30)]
    copy, near, other = blocks[0] * 1.0001, blocks[0] + 0.001, -blocks[0]
    features = fl.TokenFeatures.from_list([*blocks, copy, near, other, torch.zeros(0, 60)])
    selection = fl.score_selection(features, [0, 5, 9])
    reasons = {row["index"]: row for row in fl.explain(features, selection).rejected}
    for i in (30, 31):
        assert reasons[i]["reason"] == "duplicate" and reasons[i]["nearest"] == 0
        assert reasons[i]["copy"] == pytest.approx(1, abs=0.01)
    assert (
        reasons[32]["copy"] is None and reasons[32]["reason"] != "duplicate"
    )  # it says the same to log det, but it is another text
    assert reasons[33]["reason"] == "no_tokens"
    assert sum(row["reason"] == "duplicate" for row in reasons.values()) == 2
    assert "2 duplicate" in repr(fl.explain(features, selection)) and set(CODES) >= {r["reason"] for r in reasons.values()}


def test_full_groups_long_rows_and_a_stop():
    features, labels = make_pool("random", 2, 60, 40, 8), ["a", "b", "c"] * 20
    asked = {"tokens": 60, "groups": labels, "rule": "gain_per_token"}
    selection = fl.select(features, **asked, quotas={"a": (None, 8), "b": (30, None)})
    reasons = fl.explain(features, selection, groups=labels)
    found = {reason: {row["group"] for row in reasons.rejected if row["reason"] == reason} for reason in CODES}
    assert "a" in found["quota"] and reasons.chosen[0]["group"] == labels[reasons.chosen[0]["index"]]
    with pytest.raises(ValueError, match="expected the groups that the quotas of this selection are of, got none"):
        fl.explain(features, selection)
    with pytest.raises(ValueError, match="expected the groups that the selection was made with, got others"):
        fl.explain(features, selection, groups=labels[1:] + labels[:1])
    open_ended = fl.select(features, **asked)
    assert {row["reason"] for row in fl.explain(features, open_ended).rejected} <= {"below", "too_long", "duplicate"}
    stopped = fl.select(features, examples=50, stop=0.8)
    assert {row["reason"] for row in fl.explain(features, stopped).rejected} == {"stopped"}
    gain = fl.select(features, tokens=60)
    reasons = fl.explain(features, gain)
    assert any(row["reason"] == "too_long" for row in reasons.rejected)
    assert_reasons_hold(features, gain, reasons)
    chance = fl.explain(features, fl.selectors.uniform(None, features, tokens=60, seed=1))
    assert {row["reason"] for row in chance.rejected} == {"passed_over", "below"}


@pytest.mark.parametrize("weighting", ["none", "trace"])
def test_wherever_the_features_are_and_in_whatever_parts(weighting, tmp_path, monkeypatch):
    features = make_pool("with empty rows", 3, 90, 12, 12)
    features = replace(features, trace_weights=torch.rand(len(features.values), generator=torch.Generator().manual_seed(0)))
    selection = fl.select(features, tokens=150, weighting=weighting, prior=0.5)
    here = fl.explain(features, selection)
    features.save(tmp_path / "features")
    monkeypatch.setattr(nearest, "_COSINES", 40)
    found = [fl.explain(fl.TokenFeatures.load(tmp_path / "features"), selection, memory=0.001)]
    with accelerator():
        found.append(fl.explain(features, selection, device="pretend"))
    for there in found:
        for a, b in zip(here.chosen + here.rejected, there.chosen + there.rejected, strict=True):
            assert a.keys() == b.keys()
            for name, value in a.items():
                assert value == b[name] if not isinstance(value, float | list) else np.allclose(value, b[name], atol=1e-7), (
                    name
                )


def test_a_matrix_prior_what_was_seen_and_other_costs_are_asked_for():
    features, seen = make_pool("random", 4, 30, 6, 5), make_pool("random", 5, 10, 6, 5)
    after = fl.select(features, examples=5, start=seen, prior=2.0)
    with pytest.raises(ValueError, match="expected the prior of the selection, a matrix, got none: give prior="):
        fl.explain(features, after)
    reasons = fl.explain(features, after, prior=with_seen(seen, 2.0))
    assert [row["gain"] for row in reasons.chosen] == pytest.approx(after.gains.tolist())
    with pytest.raises(ValueError, match="expected the features, prior and weighting that the picks gained by, got others"):
        fl.explain(features, after, prior=2.0)
    costs = np.linspace(1, 2, 30)
    dear = fl.select(features, tokens=9, costs=costs, prior=np.eye(6))
    with pytest.raises(ValueError, match="expected the costs that the picks were paid with, got others: give costs="):
        fl.explain(features, dear, prior=np.eye(6))
    assert len(fl.explain(features, dear, prior=torch.eye(6), costs=costs).chosen) == len(dear)
    with pytest.raises(ValueError, match="expected a selection from this pool of 10, got 5 picks from 30"):
        fl.explain(seen, after)


def test_the_tokens_of_a_long_example_share_what_it_gains():
    """More tokens than directions, one of them again and again: the first of its kind carries the gain."""
    block = torch.cat([3 * torch.eye(4)[:1], 2 * torch.eye(4)[1:2], torch.zeros(1, 4), 3 * torch.eye(4)[:1].repeat(6, 1)])
    reasons = fl.explain(fl.TokenFeatures.from_list([block]), fl.score_selection(fl.TokenFeatures.from_list([block]), [0]))
    tokens = reasons.chosen[0]["tokens"]
    assert tokens[:3] == pytest.approx([np.log(10), np.log(5), 0]) and tokens[3] == pytest.approx(np.log(19 / 10))
    assert tokens[3:] == sorted(tokens[3:], reverse=True) and sum(tokens) == pytest.approx(np.log(64 * 5))
