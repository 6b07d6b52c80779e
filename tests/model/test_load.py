"""A model is loaded whole or refused: no weight is drawn at random, no code of others is run."""

import json
import os
import pickle
import shutil
import sys

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import fisherlib as fl
from tests.pretend import accelerator

SIZES = {"vocab_size": 97, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of a model with an untied head, and one with a tied head."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?")))
    for name, tied in (("untied", False), ("tied", True)):
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied)).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved / "untied", tmp_path / "model")


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(folder, cause, **options):
    with pytest.raises(ValueError, match=f"^expected a causal language model, could not load .*{cause}") as error:
        fl.load_model(folder, **options)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize("name", ["tied", "untied"])
def test_a_whole_model_is_loaded_and_a_tied_head_is_not_missing(saved, name):
    model, _ = fl.load_model(saved / name)
    again, _ = fl.load_model(saved / name)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == (name == "tied")


def test_weights_go_straight_to_where_they_are_asked(saved, monkeypatch):
    here, _ = fl.load_model(saved / "untied")
    assert here.device.type == "cpu" and here.dtype == torch.float32
    with accelerator() as device:
        for name in ("pretend", "pretend:0", torch.device("pretend")):
            there, _ = fl.load_model(saved / "untied", device=name)
            assert all(tensor.device == torch.device("pretend:0") for tensor in [*there.parameters(), *there.buffers()])
            assert all(torch.equal(p.cpu(), q) for p, q in zip(there.parameters(), here.parameters(), strict=True))
        weights = sum(p.nbytes for p in here.parameters())
        assert weights <= device.arrived / 3 < weights + 1000  # once for each name, beside a buffer or two
        with pytest.raises(ValueError, match="expected pretend:0 to pretend:0, got 'pretend:1': change device="):
            fl.load_model(saved / "untied", device="pretend:1")
    for name in ("pretend", "tpu"):
        with pytest.raises(ValueError, match=f"expected .*device.*, got '{name}'"):
            fl.load_model(saved / "untied", device=name)


def test_auto_is_half_precision_on_an_accelerator_only(saved, monkeypatch):
    monkeypatch.setattr("fisherlib.model.load.computes_bfloat16", lambda _: True)
    here, _ = fl.load_model(saved / "untied", dtype="auto", device="auto")
    assert here.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert fl.load_model(saved / "untied", dtype="auto")[0].dtype == torch.float32
    with accelerator():
        assert fl.load_model(saved / "untied", dtype="auto", device="pretend")[0].dtype == torch.bfloat16
        monkeypatch.setattr("fisherlib.model.load.computes_bfloat16", lambda _: False)
        assert fl.load_model(saved / "untied", dtype="auto", device="pretend")[0].dtype == torch.float32
    with pytest.raises(ValueError, match="expected dtype 'float32', 'bfloat16', 'float16' or 'auto', got 'float64'"):
        fl.load_model(saved / "untied", dtype="float64")


def test_missing_weights_are_not_drawn_at_random(folder, saved, tmp_path):
    edit(folder, num_hidden_layers=3)
    refused(folder, r"its files lack 9 of the weights that its config says, like model.layers.2.input_layernorm.weight\)")
    headless = shutil.copytree(saved / "tied", tmp_path / "headless")
    edit(headless, tie_word_embeddings=False)
    refused(headless, r"lack 1 of the weights .*lm_head.weight\)")


def test_what_the_model_has_no_use_for_is_fine(folder):
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    save_file(load_file(path) | {"a.head.of.its.own": torch.ones(2, 2)}, path, metadata={"format": "pt"})
    fl.load_model(folder)


def test_shapes_are_those_of_the_config(folder):
    edit(folder, hidden_size=32)
    refused(folder, r"lm_head.weight has shape \[97, 16\] in its files, \[97, 32\] by its config\)")


def test_weights_are_finite(folder):
    model, _ = fl.load_model(folder)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = 1e6
    model.save_pretrained(folder)
    fl.load_model(folder)
    refused(folder, r"model.layers.1.mlp.up_proj.weight has NaN or infinity as float16\)", dtype="float16")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = torch.nan
    model.save_pretrained(folder)
    refused(folder, r"up_proj.weight has NaN or infinity as float32\)")


@pytest.mark.parametrize("damage", ["zeroed", "cut", "empty"])
def test_damaged_weights_are_one_clear_error(folder, damage):
    path = folder / "model.safetensors"
    size = path.stat().st_size
    if damage == "zeroed":
        path.write_bytes(bytes(size))
    else:
        os.truncate(path, 0 if damage == "empty" else size // 2)
    refused(folder, "deserializing header")


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_is_not_executed(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Evil(str(tmp_path / "ran"))}))
    refused(folder, "Weights only load failed")
    for content in (b"", b"PK\x03\x04 and no more"):
        (folder / "pytorch_model.bin").write_bytes(content)
        refused(folder, "")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("part", ["model", "tokenizer"])
def test_code_of_its_own_is_refused_without_a_question(folder, tmp_path, part, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on the terminal"))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    if part == "model":
        edit(
            folder,
            model_type="mine",
            architectures=["Mine"],
            auto_map={"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"},
        )
    else:
        path = folder / "tokenizer_config.json"
        own = {"auto_map": {"AutoTokenizer": ["mine.T", None]}, "tokenizer_class": "Mine"}
        path.write_text(json.dumps(json.loads(path.read_text()) | own))
    refused(folder, r"it needs code of its own, which is not run here\)")
    assert not (tmp_path / "ran").exists() and "mine" not in sys.modules


@pytest.mark.parametrize(
    "changes", [{"num_attention_heads": 0}, {"hidden_size": "x"}, {"architectures": 3}, {"hidden_act": "?"}]
)
def test_an_odd_config_is_one_clear_error(folder, changes):
    edit(folder, **changes)
    refused(folder, "")
