"""Sums and means of what tokens have, over each example."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fisherlib as fl

KINDS = [torch.float32, torch.float64]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000), longest=st.sampled_from([1, 8, 300]), kind=st.sampled_from([torch.float32, torch.float64])
)
def test_sums_and_means_are_those_of_each_example_one_token_after_the_other(seed, longest, kind):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, longest + 1, 9)
    features = fl.TokenFeatures.from_list([torch.ones(int(t), 2) for t in lengths])
    x = torch.from_numpy(rng.normal(size=lengths.sum())).to(kind)
    parts = np.split(x.double().numpy(), lengths.cumsum()[:-1])
    in_turn = np.array([part.cumsum()[-1] if len(part) else 0.0 for part in parts])  # to the last bit
    assert np.array_equal(features.sum(x), in_turn) and np.array_equal(features.sum(x.numpy()), in_turn)
    assert np.array_equal(features.mean(x), in_turn / np.maximum(lengths, 1))
    owner = torch.arange(9).repeat_interleave(torch.from_numpy(lengths))  # as committed numbers were summed
    assert np.array_equal(features.sum(x), torch.zeros(9, dtype=torch.float64).index_add_(0, owner, x.double()).numpy())


def test_another_number_of_them_is_refused():
    features = fl.TokenFeatures.from_list([torch.ones(2, 3), torch.ones(0, 3)])
    with pytest.raises(ValueError, match="expected a number for each of 2 tokens, got shape \\(3,\\)"):
        features.sum(np.ones(3))
    assert features.mean(torch.tensor([1.0, 3.0])).tolist() == [2.0, 0.0]
