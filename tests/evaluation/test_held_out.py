"""Held-out loss whatever the batch, and intervals that cover what they should."""

import copy

import numpy as np
import pytest
import torch

import fisherlib as fl
from fisherlib.evaluation.held_out import HeldOut


def test_two_ways_to_the_same_loss(tiny, ids):
    features = fl.extract_features(tiny, None, ids, precision="float32")
    expected = HeldOut.from_features(features)
    for tokens_per_batch in (1, 13, 1000):
        got = fl.held_out_nll(tiny, None, ids, tokens_per_batch=tokens_per_batch, precision="float32")
        assert np.array_equal(got.tokens, expected.tokens)
        np.testing.assert_allclose(got.nll_sums, expected.nll_sums, atol=1e-4)
    assert got.nll == pytest.approx(float(features.nll.mean()), abs=1e-5)


def test_the_interval_covers_the_truth_and_not_everything():
    rng = np.random.default_rng(0)
    covered, excluded = 0, 0
    for seed in range(150):
        tokens = rng.integers(5, 40, 60).astype(float)
        base = rng.normal(4, 1, 60)
        worse = base + 0.1 + rng.normal(0, 0.3, 60)  # true difference 0.1 per token
        d = fl.paired_difference(HeldOut(worse * tokens, tokens), HeldOut(base * tokens, tokens), resamples=400, seed=seed)
        covered += d.low <= 0.1 <= d.high
        excluded += not d.low <= 0.4 <= d.high
    assert 0.87 <= covered / 150 <= 0.99
    assert excluded == 150


def test_verdicts():
    same = HeldOut(np.arange(5.0), np.ones(5))
    assert fl.paired_difference(same, same).verdict == "tie"


def test_what_cannot_be_judged_is_an_error_and_no_tie():
    good = HeldOut(np.arange(5.0), np.ones(5))
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="an arm diverged"):
            fl.paired_difference(HeldOut(np.array([0, 1, 2, 3, bad]), np.ones(5)), good)
    with pytest.raises(ValueError, match="at least two held-out examples"):
        fl.paired_difference(HeldOut(np.ones(1), np.ones(1)), HeldOut(np.ones(1), np.ones(1)))
    unscored = np.array([1.0, 0, 1, 0, 0])
    d = fl.paired_difference(HeldOut(2 * unscored, unscored), HeldOut(unscored, unscored))
    assert (d.mean, d.low, d.high) == (1.0, 1.0, 1.0)


def test_only_the_same_examples_can_be_compared():
    with pytest.raises(ValueError, match="the same held-out examples"):
        fl.paired_difference(HeldOut(np.ones(3), np.ones(3)), HeldOut(np.ones(3), np.array([1.0, 1.0, 2.0])))


def test_a_loss_that_is_not_finite_names_the_first_row(tiny, ids):
    broken = copy.deepcopy(tiny)
    with torch.no_grad():
        broken.model.embed_tokens.weight[ids[5][3]] = torch.nan
    bad = min(i for i, row in enumerate(ids) if ids[5][3] in row[:-1])
    with pytest.raises(ValueError, match=f"^row {bad}: expected a finite loss, got nan: the model has diverged"):
        fl.held_out_nll(broken, None, ids)
