"""The baselines keep the budget and their definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fisherlib as fl
from fisherlib.selectors import longest, uniform


def pool(seed, n=20):
    rng = np.random.default_rng(seed)
    return fl.TokenFeatures.from_list([torch.randn(int(t), 5) for t in rng.integers(0, 7, n)])


@pytest.mark.parametrize("selector", [uniform, longest])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), share=st.floats(0.1, 1.0))
def test_budgets_are_kept_and_filled(selector, seed, share):
    features = pool(seed)
    costs = features.lengths.numpy()
    budget = max(int(share * costs.sum()), int(costs[costs > 0].min()))
    chosen = selector(None, features, tokens=budget, seed=seed)
    left = budget - chosen.costs.sum()
    rest = np.setdiff1d(np.flatnonzero(costs), chosen.indices)
    assert left >= 0 and len(set(chosen.indices)) == len(chosen)
    assert (costs[rest] > left).all()  # nothing that fits was left out
    assert len(selector(None, features, examples=7, seed=seed)) == 7


def test_information_is_that_of_the_definition():
    features = pool(1)
    chosen = uniform(None, features, examples=6, seed=2)
    X = features.subset(chosen.indices).values.double().numpy()
    assert chosen.objective == pytest.approx(np.linalg.slogdet(np.eye(5) + X.T @ X)[1], abs=1e-10)
    again = fl.score_selection(features, fl.select(features, examples=6).indices)
    assert again.objective == pytest.approx(fl.select(features, examples=6).objective, abs=1e-10)


def test_uniform_is_uniform_and_seeded():
    features = pool(2, n=6)
    counts = np.zeros(6)
    for seed in range(600):
        counts[uniform(None, features, examples=2, seed=seed).indices] += 1
    assert np.abs(counts - 200).max() < 55  # 4.8 standard deviations of a binomial(600, 1/3)
    assert np.array_equal(*(uniform(None, features, examples=3, seed=5).indices for _ in range(2)))


def test_longest_takes_the_longest_and_the_first_of_equals():
    features = fl.TokenFeatures.from_list([torch.ones(t, 2) for t in (2, 5, 3, 5, 1)])
    assert longest(None, features, examples=3).indices.tolist() == [1, 3, 2]
    assert longest(None, features, tokens=7).indices.tolist() == [1, 0]
