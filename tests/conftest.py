import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import jaxtyping
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import fisherlib as fl


@pytest.fixture
def as_a_user(monkeypatch):
    """Without the checks of annotations, which only tests have: what is refused is refused by the library itself."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def tiny():
    """A random Llama: 97 tokens, 16 dimensions, untied head."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        initializer_range=0.5,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def real():
    """The shipped model and its tokenizer."""
    return fl.load_model("smollm2-135m")


@pytest.fixture(scope="session")
def plays():
    return fl.load_pool("shakespeare")


@pytest.fixture
def ids():
    generator = torch.Generator().manual_seed(1)
    lengths = [7, 3, 12, 5, 1, 9, 0, 12]
    return [torch.randint(1, 97, (n,), generator=generator).tolist() for n in lengths]
