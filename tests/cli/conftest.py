"""A tiny model, a folder with data, and the command."""

import os
import shlex
import signal

import pytest
import torch

from tests.cli.things import TEMPLATE, rows, write


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a tiny random model and a tokenizer of bytes that has a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    specials = ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    bare.pre_tokenizer, bare.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<|end|>", additional_special_tokens=specials[:3])
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        initializer_range=0.5,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch, model):
    """A folder of one's own, with `my.jsonl` and `my-model` in it."""
    monkeypatch.chdir(tmp_path)
    os.symlink(model, "my-model")
    write(tmp_path / "my.jsonl", *rows())
    return tmp_path


@pytest.fixture
def command(here, capsys, monkeypatch):
    """Run the command; returns its code, and what it wrote on stdout and stderr."""
    from fisherlib.cli import main

    monkeypatch.setenv("TQDM_LEAVE", "")  # as the command sets it, and gone after the test

    def run(text, *more):
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit) as ended:
            main([*shlex.split(text), *map(str, more)])
        signal.signal(signal.SIGTERM, before)
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run
