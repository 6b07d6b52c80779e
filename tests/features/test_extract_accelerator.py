"""Extraction on a pretend accelerator: the features of the CPU, and one wait for the device in each batch."""

import copy
import json

import pytest
import torch

import fisherlib as fl
from fisherlib.features import extract as F
from fisherlib.features import folder as feature_folder
from fisherlib.model import tokens_at_once

DEVICE = "pretend"
COLUMNS = ("values", "trace_weights", "nll", "labels")
EXACT = {"precision": "float32", "progress": False}


@pytest.fixture
def passes(monkeypatch):
    """The batches that models are run on."""
    made, run = [], F.at_responses
    monkeypatch.setattr(F, "at_responses", lambda *a, **k: made.append(a[1]) or run(*a, **k))
    return made


def assert_close(there, here):
    assert torch.equal(there.offsets, here.offsets) and torch.equal(there.labels, here.labels)
    for name in COLUMNS:
        column = getattr(there, name)
        assert type(column) is torch.Tensor and not column.is_inference()
        torch.testing.assert_close(column, getattr(here, name), rtol=1e-4, atol=1e-4)


# --- the same features -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("tokens_per_batch", [1, 20, 10_000, "auto"])
def test_batches_of_any_size_give_the_features_of_the_cpu(tiny, twin, ids, side, tokens_per_batch, tmp_path, monkeypatch):
    here = fl.extract_features(tiny, None, ids, **EXACT)
    options = {"tokens_per_batch": tokens_per_batch, "padding_side": side, **EXACT}
    assert_close(fl.extract_features(twin, None, ids, **options), here)
    for number, examples in enumerate((1, 3, 1024)):
        monkeypatch.setattr(F, "_SHARD_EXAMPLES", examples)
        assert_close(fl.extract_features(twin, None, ids, out_dir=tmp_path / f"{number}", **options), here)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_what_is_stored_may_have_any_width(tiny, twin, ids, dtype):
    here, there = (fl.extract_features(model, None, ids, dtype=dtype, **EXACT) for model in (tiny, twin))
    assert here.values.dtype == there.values.dtype == dtype
    wide = fl.extract_features(tiny, None, ids, **EXACT)
    assert torch.equal(here.values, wide.values.to(dtype))  # rounded once, and beside it the other columns not at all
    for features in (here, there):
        for name in ("trace_weights", "nll"):
            torch.testing.assert_close(getattr(features, name), getattr(wide, name), rtol=1e-4, atol=1e-5)


def test_an_interrupted_extraction_goes_on_there(tiny, twin, ids, tmp_path, monkeypatch):
    monkeypatch.setattr(F, "_SHARD_EXAMPLES", 2)
    append = feature_folder.Writer.append

    def stops(self, columns, examples):
        if self.info["done"] == 4:
            raise KeyboardInterrupt
        append(self, columns, examples)

    fl.extract_features(twin, None, ids, out_dir=tmp_path / "whole", **EXACT)
    with monkeypatch.context() as patch:
        patch.setattr(feature_folder.Writer, "append", stops)
        with pytest.raises(KeyboardInterrupt):
            fl.extract_features(twin, None, ids, out_dir=tmp_path / "part", **EXACT)
    assert json.loads((tmp_path / "part" / "info.json").read_text())["done"] == 4
    fl.extract_features(twin, None, ids, out_dir=tmp_path / "part", **EXACT)
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "part" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("place", [None, "f"])
def test_what_cannot_be_stored_names_its_row_though_the_next_batch_runs(twin, ids, place, tmp_path, passes):
    broken, out_dir = twin, place and tmp_path / place
    with torch.no_grad():
        broken.model.norm.weight.mul_(1e6)
        broken.lm_head.weight.mul_(1e-6)
    options = {"tokens_per_batch": 1, "out_dir": out_dir, **EXACT}
    with pytest.raises(ValueError, match=r"^row 2: expected features within torch.float16 \(up to 65,504\), got .*bfloat16"):
        fl.extract_features(broken, None, ids, dtype=torch.float16, **options)
    assert len(passes) == 2
    with torch.no_grad():
        broken.model.embed_tokens.weight[ids[5][3]] = torch.nan
    bad = next(i for i in sorted(range(len(ids)), key=lambda i: -len(ids[i])) if ids[5][3] in ids[i][:-1])
    with pytest.raises(ValueError, match=f"^row {bad}: expected finite features, got NaN or infinity"):
        fl.extract_features(broken, None, ids, **options)


# --- what the device is asked ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
def test_each_batch_is_waited_for_once(twin, ids, device, side, passes):
    """Beside what the model itself asks: transformers looks at the mask."""
    own: list[int] = []
    twin.model.register_forward_pre_hook(lambda *_: own.append(-device.reads))
    twin.model.register_forward_hook(lambda *_: own.append(device.reads))
    reads = []
    for tokens_per_batch in (1, 10, 20, 1000):
        passes.clear()
        own.clear()
        before = device.reads
        fl.extract_features(twin, None, ids, tokens_per_batch=tokens_per_batch, padding_side=side, **EXACT)
        reads.append((len(passes), device.reads - before - sum(own)))
    beside = {asked - batches for batches, asked in reads}
    assert len({batches for batches, _ in reads}) > 2 and len(beside) == 1  # fingerprints, the scale: once in a call


def test_a_batch_is_looked_at_when_the_next_one_was_begun(tiny, twin, ids, tmp_path, monkeypatch):
    said, fetch = [], F.fetch

    def told(tensor):
        number, arrived = said.count("begun"), fetch(tensor)
        said.append("begun")
        return lambda: said.append(number) or arrived()

    monkeypatch.setattr(F, "fetch", told)
    monkeypatch.setattr(F, "_SHARD_EXAMPLES", 3)  # a shard is written while the next one is computed, too
    for model, wanted in ((twin, ["begun", "begun", 0, "begun", 1, 2]), (tiny, ["begun", 0, "begun", 1, "begun", 2])):
        said.clear()
        fl.extract_features(model, None, ids, out_dir=tmp_path / model.device.type, **EXACT)
        assert said == wanted


def test_held_out_text_too_is_waited_for_once_a_batch(tiny, twin, ids, device):
    def beside(tokens):
        before = device.reads
        fl.held_out_nll(twin, None, ids, tokens_per_batch=tokens, **EXACT)
        return device.reads - before

    batches = {1: len(ids), 1000: 1}
    a_batch = (beside(1) - beside(1000)) / (batches[1] - batches[1000])
    with torch.inference_mode():
        before = device.reads
        ones = torch.ones(1, 3, dtype=torch.int64, device=DEVICE)
        twin(input_ids=ones, attention_mask=ones, position_ids=ones.cumsum(1) - 1, use_cache=False)
    assert a_batch <= device.reads - before + 1


# --- how much at once, and how wide ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "tokens"), [(0, 2048), (2**20, 2048), (2**24, 4096), (2**24 + 999_999, 4096), (2**26, 16_384), (2**40, 16_384)]
)
def test_batches_are_as_large_as_free_memory_allows(twin, tiny, free, tokens, monkeypatch):
    monkeypatch.setattr(type(torch.pretend), "mem_get_info", lambda self, device=None: (free, 2**50))
    assert tokens_at_once(twin, 64) == tokens  # 16 * (5 * 16 + 32) + 64 * 4 = 2,048 bytes a token
    assert tokens_at_once(tiny, 64) == 2048
    monkeypatch.delattr(type(torch.pretend), "mem_get_info")
    assert tokens_at_once(twin, 64) == 2048


def test_what_pytorch_keeps_for_later_is_free(twin, monkeypatch):
    monkeypatch.setattr(type(torch.pretend), "mem_get_info", lambda self, device=None: (2**20, 2**50))
    for name, number in (("memory_reserved", 2**25), ("memory_allocated", 2**24)):
        monkeypatch.setattr(type(torch.pretend), name, lambda self, device, number=number: number, raising=False)
    assert tokens_at_once(twin, 64) == 4096


def test_the_size_of_a_batch_is_a_number_or_auto(tiny, ids):
    with pytest.raises(ValueError, match="expected tokens_per_batch of at least 1, or 'auto', got 'all'"):
        fl.extract_features(tiny, None, ids, tokens_per_batch="all")


def stored(model, ids, **options):
    return fl.extract_features(model, None, ids, progress=False, **options).values.dtype


def test_features_have_the_half_precision_of_a_model_that_is_there(tiny, twin, ids, tmp_path):
    assert stored(twin, ids) == torch.float32  # the device has no bfloat16
    for half in (torch.bfloat16, torch.float16):
        narrow = copy.deepcopy(tiny).to(half).to(DEVICE)
        assert stored(narrow, ids) == stored(narrow, ids, out_dir=tmp_path / str(half)) == half
        assert stored(narrow, ids, dtype=torch.float32) == torch.float32
    for precision, kept in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):  # the pretend device mixes none
        assert F._working_dtype(twin, precision) == kept and F._working_dtype(tiny, precision) == torch.float32


def test_features_of_the_cpu_stay_in_float32(tiny, ids, tmp_path, monkeypatch):
    monkeypatch.setattr("fisherlib.model.head.computes_bfloat16", lambda _: True)
    for model in (tiny, copy.deepcopy(tiny).bfloat16()):
        out_dir = tmp_path / str(model.dtype)
        assert stored(model, ids) == stored(model, ids, out_dir=out_dir) == torch.float32
