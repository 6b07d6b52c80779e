"""The one loop over rows: nothing of training in what it computes, and a model that is afterwards as it was."""

import copy

import numpy as np
import pytest
import torch
from datasets import Dataset

import fisherlib as fl
from fisherlib.model import all_finite, continuations, evaluating, nll, one_behind, pad, per_token
from fisherlib.model.forward import batches
from fisherlib.text import Encoded, encode

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


def padded_slowly(examples, side):
    """What `pad` gives, token by token."""
    T = max(max(len(e.input_ids) for e in examples), 1)
    batch = {
        name: torch.zeros(len(examples), T, dtype=torch.int64) for name in ("input_ids", "attention_mask", "position_ids")
    }
    predicts = []
    for b, example in enumerate(examples):
        n = len(example.input_ids)
        begin = T - n if side == "left" else 0
        for t in range(T):
            batch["position_ids"][b, t] = min(max(t - begin, 0), max(n - 1, 0))
        for t, (token, counts) in enumerate(zip(example.input_ids, example.is_response, strict=True)):
            batch["input_ids"][b, begin + t], batch["attention_mask"][b, begin + t] = token, 1
            if counts and t > 0:
                predicts.append(b * T + begin + t - 1)
    return batch | {"predicts": torch.tensor(predicts, dtype=torch.int64)}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("lengths", [[5, 1, 0, 3, 5, 2], [0], [0, 0], [1], [4, 4], [1, 7]])
def test_padding_is_that_of_a_plain_loop(side, lengths):
    draw = torch.Generator().manual_seed(sum(lengths))
    ids, marks = ([torch.randint(0, end, (n,), generator=draw) for n in lengths] for end in (97, 2))
    examples = [Encoded(row.tolist(), mark.bool().tolist()) for row, mark in zip(ids, marks, strict=True)]
    # Some first tokens are marked, too: nothing predicts them.
    wanted, found = padded_slowly(examples, side), pad(examples, side)
    assert wanted.keys() == found.keys()
    for name, tensor in wanted.items():
        assert tensor.dtype == found[name].dtype and torch.equal(tensor, found[name]), name
    for indices, batch in batches(examples, 6, side, "cpu"):
        for name, tensor in padded_slowly([examples[i] for i in indices], side).items():
            assert torch.equal(tensor, batch[name]), name


def test_one_behind_gives_all_in_order_and_each_after_the_next_began():
    for n in range(4):
        begun = []
        given = [(step, len(begun)) for step in one_behind(begun.append(i) or i for i in range(n))]
        assert given == [(i, min(i + 2, n)) for i in range(n)]


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


DOORS = {
    "extract_features": lambda model, rows: fl.extract_features(model, None, rows),
    "fine_tune": lambda model, rows: fl.fine_tune(model, None, rows),
    "held_out_nll": lambda model, rows: fl.held_out_nll(model, None, rows),
    "per_token": scored,
}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_ids_outside_the_vocabulary_are_named_before_the_model_runs(tiny, door, monkeypatch):
    monkeypatch.setattr(type(tiny), "forward", lambda *_, **__: pytest.fail("the model was run"))
    for ids, shown in (([1, 97], "97"), ([2**31 - 1, 2], "2,147,483,647")):
        with pytest.raises(
            ValueError, match=f"^row 2: expected token ids from 0 to 96 .*, got {shown}: give the tokenizer of"
        ):
            door(tiny, [[], [96, 0], ids])


class OtherTokenizer:
    """What knows more tokens than the model."""

    is_fast, chat_template, eos_token, eos_token_id = True, None, "", 1

    def __init__(self, *ids):
        self.ids = list(ids)

    def __call__(self, text, **_):
        return {"input_ids": self.ids, "offset_mapping": [(0, 1), (1, 2)]}


def test_a_tokenizer_of_another_model_is_refused_before_the_model_runs(tiny):
    rows = Dataset.from_list([{"prompt": "a", "response": "b"}])
    with pytest.raises(ValueError, match="row 0: expected token ids from 0 to 96 .*, got 500"):
        fl.held_out_nll(tiny, OtherTokenizer(5, 500), rows)
    with pytest.raises(ValueError, match="row 0: expected token ids from 0 to 96 .*, got 500"):
        continuations(tiny, OtherTokenizer(500, 5), rows)


@pytest.mark.parametrize("setting", [{"seed": -1}, {"temperature": np.inf}, {"max_new_tokens": 0}, {"tokens_per_batch": 0}])
def test_generation_refuses_numbers_that_are_none(tiny, setting):
    rows = Dataset.from_list([{"prompt": "a", "response": "b"}])
    with pytest.raises(ValueError, match="^expected .*, got"):
        continuations(tiny, OtherTokenizer(5, 7), rows, **setting)


@pytest.mark.parametrize("door", ["extract_features", "held_out_nll"])
@pytest.mark.parametrize("tokens", [0, -1])
def test_a_batch_holds_a_token(tiny, ids, door, tokens):
    with pytest.raises(ValueError, match=f"expected tokens_per_batch of at least 1, got {tokens}"):
        getattr(fl, door)(tiny, None, ids, tokens_per_batch=tokens)


def test_settings_are_checked_where_the_model_need_not_run(tiny, ids, tmp_path):
    fl.extract_features(tiny, None, ids, out_dir=tmp_path)
    with pytest.raises(ValueError, match="padding_side 'left' or 'right', got 'up'"):
        fl.extract_features(tiny, None, ids, out_dir=tmp_path, padding_side="up")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_one_number_that_is_not_finite_is_found(kind):
    for bad in (torch.nan, torch.inf, -torch.inf):
        tensor = torch.randn(5, 7).to(kind)
        assert all_finite(tensor)
        tensor[3, 2] = bad
        assert not all_finite(tensor)
    assert all_finite(torch.empty(0, 3)) and all_finite(torch.ones(2, dtype=torch.int64))
