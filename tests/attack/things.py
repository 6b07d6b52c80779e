"""What the cases work on: tiny random models, a tokenizer of bytes, a pool, and what is made of them; each made once."""

import copy
from dataclasses import replace
from functools import cache

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import fisherlib as fl

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PAIRS = [{"prompt": f"What is {i}?", "response": f"It is {'very ' * (i % 4)}{i}.", "id": i} for i in range(12)]
CHATS = [
    {"messages": [{"role": "user", "content": f"Say {i}"}, {"role": "assistant", "content": f"I say {i}"}]}
    for i in range(12)
]
TEXTS = [{"text": f"The number {i} comes after {i - 1}."} for i in range(12)]
IDS = [[3, 1, 4, 1, 5], [9, 2, 6], [5, 3, 5, 8, 9, 7], [9, 3], [2, 3, 8, 4, 6, 2], [6, 4, 3], [3, 8], [3, 2, 7, 9, 5]]
EXACT = {"precision": "float32", "progress": False}


@cache
def tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """A token for each byte, and the two of ChatML."""
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|im_start|>")
    fast.chat_template = template
    return fast


@cache
def model(vocabulary: int = 99) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, max_position_embeddings=256, **sizes)).eval()


@cache
def reader() -> LlamaForCausalLM:
    """A model that knows the bytes."""
    return model(260)


@cache
def rows() -> Dataset:
    return Dataset.from_list(PAIRS)


@cache
def features() -> fl.TokenFeatures:
    """Of `rows`, extracted: with labels, losses and whatever extraction notes of where they come from."""
    return fl.extract_features(reader(), tokenizer(), rows(), **EXACT)


@cache
def of_ids() -> fl.TokenFeatures:
    return fl.extract_features(model(), None, IDS, **EXACT)


@cache
def selection() -> fl.Selection:
    chosen = fl.select(features(), examples=3, progress=False)
    return replace(chosen, seconds=0.25)  # the same manifest each time, to the last byte


@cache
def held_out() -> fl.HeldOut:
    return fl.held_out_nll(reader(), tokenizer(), rows(), progress=False)


def poisoned(value: float) -> LlamaForCausalLM:
    """A model with one weight that is no number."""
    made = copy.deepcopy(model())
    with torch.no_grad():
        made.model.norm.weight[0] = value
    return made
