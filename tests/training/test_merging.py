"""Merging is a mean of weights: exact for equal models, a mean of logits for heads, wrong for unmerged low-rank parts."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import fisherlib as fl


def other(model, seed, *, only_head=False):
    """A copy whose weights are moved at random."""
    moved, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in moved.named_parameters():
            if not only_head or "lm_head" in name:
                weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return moved


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


@pytest.mark.parametrize("weights", [None, [1, 1, 1], [0.1, 0.2, 0.7], [3.0, 0, 1e-9]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_equal_models_merge_to_themselves_to_the_last_bit(tiny, weights, dtype):
    model = copy.deepcopy(tiny).to(dtype)
    assert same(fl.merge([model, copy.deepcopy(model), copy.deepcopy(model)], weights), model)


def test_weights_are_shares_their_order_is_the_models_and_nothing_else_changes(tiny):
    a, b = other(tiny, 1), other(tiny, 2)
    before = copy.deepcopy(a)
    quarter = fl.merge([a, b], [1, 3])
    expected = 0.25 * a.lm_head.weight + 0.75 * b.lm_head.weight
    torch.testing.assert_close(quarter.lm_head.weight, expected)
    assert same(quarter, fl.merge([a, b], [0.25, 0.75])) and same(fl.merge([a, b], [1, 0]), a)
    torch.testing.assert_close(fl.merge([b, a], [3, 1]).lm_head.weight, expected)
    assert same(a, before) and quarter.lm_head.weight.data_ptr() != a.lm_head.weight.data_ptr()


def test_tied_weights_stay_tied(tiny):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**{**tiny.config.to_diff_dict(), "tie_word_embeddings": True})
    a = LlamaForCausalLM(config)
    b = other(a, 3)
    merged = fl.merge([a, b])
    assert merged.lm_head.weight.data_ptr() == merged.model.embed_tokens.weight.data_ptr()
    torch.testing.assert_close(merged.lm_head.weight, (a.lm_head.weight + b.lm_head.weight) / 2)


@settings(max_examples=60, deadline=None)
@given(arrays(float, (3, 5, 4), elements=st.floats(-5, 5)), st.lists(st.integers(0, 4), min_size=3, max_size=3).filter(any))
def test_the_loss_of_merged_heads_is_the_mean_loss_and_the_mean_log_of_a_normaliser(thetas, weights):
    """Z is the normaliser of the weighted geometric mean of the chances."""
    w = np.array(weights) / np.sum(weights)
    X, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 5
    log_p = [z - np.logaddexp.reduce(z, axis=1, keepdims=True) for z in X @ np.swapaxes(thetas, 1, 2)]
    merged = X @ np.tensordot(w, thetas, 1).T
    nll = (np.logaddexp.reduce(merged, axis=1) - merged[np.arange(30), y]).mean()
    log_z = np.logaddexp.reduce(np.tensordot(w, log_p, 1), axis=1)
    mean_nll = -sum(wk * lp[np.arange(30), y].mean() for wk, lp in zip(w, log_p, strict=True))
    assert nll == pytest.approx(mean_nll + log_z.mean(), abs=1e-9)
    assert (log_z <= 1e-12).all()  # so the merged head is never worse than the mean of the heads


def test_heads_merge_to_the_mean_of_their_logits_whole_networks_do_not(tiny, ids):
    batch = torch.tensor([ids[0]])
    apart = {}
    for only_head in (True, False):
        models = [other(tiny, seed, only_head=only_head) for seed in (4, 5)]
        with torch.no_grad():
            mean = sum(model(batch).logits for model in models) / 2
            apart[only_head] = float((fl.merge(models)(batch).logits - mean).abs().max())
    assert apart[True] < 1e-4 and apart[False] > 100 * apart[True]


def test_low_rank_parts_averaged_before_they_are_merged_are_far_off():
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(3, 2, 20)), rng.normal(size=(3, 30, 2))
    right, wrong = np.mean(B @ A, axis=0), B.mean(0) @ A.mean(0)
    assert np.linalg.norm(wrong - right) > 0.3 * np.linalg.norm(right)
    assert np.allclose(np.mean([B[0] @ A[0]] * 3, axis=0), B[0] @ A[0])


def test_what_lora_training_returns_is_whole_and_merges(tiny, ids):
    tuned = [fl.fine_tune(tiny, None, ids, lora_rank=2, learning_rate=0.05, seed=k, progress=False).model for k in (0, 1)]
    merged = fl.merge(tuned)
    name = "model.layers.0.mlp.up_proj.weight"
    base = tiny.state_dict()[name]
    moves = [model.state_dict()[name] - base for model in tuned]
    assert moves[0].abs().max() > 1e-4
    torch.testing.assert_close(merged.state_dict()[name] - base, (moves[0] + moves[1]) / 2, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_merged_is_refused(tiny):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(copy.deepcopy(tiny), LoraConfig(r=2, target_modules="all-linear"))
    wide = copy.deepcopy(tiny)
    wide.resize_token_embeddings(120)
    for models, weights, message in (
        ([], None, "at least one model"),
        ([tiny, tiny], [1], "for each of 2 models"),
        ([tiny, tiny], [0, 0], "one above 0"),
        ([tiny, tiny], [2, -1], "at least 0"),
        ([tiny, tiny], [1, float("nan")], "finite weight"),
        ([tiny, wide], None, "model 1: expected the weights of model 0"),
        ([adapted.get_base_model()] * 2, None, "merge it into the weights before"),
    ):
        with pytest.raises(ValueError, match=message):
            fl.merge(models, weights)
