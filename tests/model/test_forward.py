"""The one loop over rows: nothing of training in what it computes, and a model that is afterwards as it was."""

import copy

import numpy as np
import pytest
import torch

import fisherlib as fl
from fisherlib.model import evaluating, nll, per_token
from fisherlib.text import encode

SETTINGS = {"tokens_per_batch": 20, "precision": "float32", "progress": False}


@pytest.fixture
def forgetful(tiny):
    """A model that drops half of its attention while it trains, in training."""
    model = copy.deepcopy(tiny)
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    return model.train()


def losses(model, rows):
    return fl.extract_features(model, None, rows, precision="float32", progress=False).nll.numpy()


def held_out(model, rows):
    return fl.held_out_nll(model, None, rows, precision="float32", progress=False).nll_sums


def scored(model, rows):
    return np.concatenate(per_token(model, encode(rows, None), nll, **SETTINGS))


@pytest.mark.parametrize("number", [losses, held_out, scored])
def test_no_dropout_and_the_mode_stays(forgetful, ids, number):
    trained = number(forgetful, ids)
    assert forgetful.training
    forgetful.eval()
    assert (number(forgetful, ids) == trained).all() and not forgetful.training


@pytest.mark.parametrize("number", [losses, held_out, scored])
def test_an_error_in_the_midst_leaves_the_model_as_it_was(forgetful, ids, number, monkeypatch):
    passes = []

    def breaks(*_, **__):
        passes.append(1)
        if len(passes) > 1:
            raise RuntimeError("out of memory")

    forgetful.model.layers[1].register_forward_pre_hook(breaks)
    with pytest.raises(RuntimeError, match="out of memory"):
        number(forgetful, ids)
        number(forgetful, ids)
    assert forgetful.training and not torch.is_inference_mode_enabled() and torch.is_grad_enabled()


def test_a_loop_that_stops_early_leaves_the_model_as_it_was(forgetful):
    for _ in range(2):
        with evaluating(forgetful):
            assert not forgetful.training and torch.is_inference_mode_enabled()
            break
    assert forgetful.training and not torch.is_inference_mode_enabled()


def test_padding_on_either_side_gives_the_same_losses_of_the_same_tokens(tiny, ids):
    right, left = (per_token(tiny, encode(ids, None), nll, padding_side=side, **SETTINGS) for side in ("right", "left"))
    assert [len(values) for values in right] == [max(len(row) - 1, 0) for row in ids]
    for one, other in zip(right, left, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("units", [True, False])
def test_auto_is_the_precision_that_the_device_has_units_for(tiny, ids, units, monkeypatch, tmp_path):
    monkeypatch.setattr("fisherlib.model.head.computes_bfloat16", lambda _: units)
    named = "bfloat16" if units else "float32"
    chosen = fl.extract_features(tiny, None, ids, out_dir=tmp_path)
    assert chosen.info["precision"] == named  # a folder remembers what was computed, not what was asked
    assert torch.equal(chosen.nll, fl.extract_features(tiny, None, ids, precision=named).nll)
    assert (fl.held_out_nll(tiny, None, ids).nll_sums == fl.held_out_nll(tiny, None, ids, precision=named).nll_sums).all()
    other = "float32" if units else "bfloat16"
    with pytest.raises(ValueError, match=f"{named} there, {other} here"):
        fl.extract_features(tiny, None, ids, out_dir=tmp_path, precision=other)
