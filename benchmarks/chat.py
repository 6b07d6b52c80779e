"""A large pool that nobody has to download: chat rows of chained words, and small random models that read them.

Each response is a chain of words of the training plays, in which a word follows another as often as it does there. So
n-grams are as common as in real text, and only the near-copies are alike.
"""

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import fisherlib as fl

WORDS = 118  # of a response on average: 200 tokens
COPIES, CHANGED = 0.3, 30  # the share of near-copies; each has up to so many other words than its original
_VOCABULARY = 2048
_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def rows(n: int, seed: int = 0) -> tuple[list[dict], np.ndarray]:
    """Rows of `messages`, and of each the row that it is a near-copy of, -1 for none."""
    rng = np.random.default_rng(seed)
    words = np.array(_words())
    kinds, said = np.unique(words, return_inverse=True)
    order = np.argsort(said[:-1], kind="stable")  # where each word stands, one word after the other
    first = np.searchsorted(said[:-1][order], np.arange(len(kinds) + 1))
    longest = WORDS * 3 // 2
    chains = np.empty((n, longest), dtype=int)
    chains[:, 0] = said[rng.integers(len(said) - 1, size=n)]
    for t in range(1, longest):
        begin, end = first[chains[:, t - 1]], first[chains[:, t - 1] + 1]
        place = np.minimum(begin + (rng.random(n) * (end - begin)).astype(int), len(order) - 1)
        chains[:, t] = said[order[place] + 1]
    lengths = rng.integers(WORDS // 2, longest, size=n, endpoint=True)
    copied = rng.random(n) < COPIES
    copied[0] = False
    source = np.full(n, -1)
    for i in np.flatnonzero(copied):
        source[i] = _original(copied, int(i), rng)
        chains[i], lengths[i] = chains[source[i]], lengths[source[i]]
        places = rng.choice(lengths[i], rng.integers(1, CHANGED, endpoint=True), replace=False)
        chains[i, places] = rng.integers(len(kinds), size=len(places))
    asked = kinds[chains[:, :2]]
    return [
        {
            "messages": [
                {"role": "user", "content": f"Go on from: {asked[i, 0]} {asked[i, 1]}"},
                {"role": "assistant", "content": " ".join(kinds[chains[i, : lengths[i]]])},
            ]
        }
        for i in range(n)
    ], source


def _original(copied: np.ndarray, i: int, rng: np.random.Generator) -> int:
    while copied[at := int(rng.integers(i))]:
        pass
    return at


def _words() -> list[str]:
    return " ".join(row["response"] for row in fl.load_pool("shakespeare").train).split()


def write(path: Path, n: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows(n)[0]:
            file.write(json.dumps(row) + "\n")


def model(folder: Path, d: int) -> None:
    """A folder with a random Llama of one layer and width `d`, and a tokenizer of 2,048 pieces with a chat template."""
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer, bare.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    specials = ["<|user|>", "<|assistant|>", "<|end|>"]
    learner = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bare.train_from_iterator([" ".join(_words())], learner)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<|end|>", additional_special_tokens=specials[:2])
    tokenizer.chat_template = _TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=d,
        intermediate_size=2 * d,
        num_hidden_layers=1,
        num_attention_heads=d // 32,
        num_key_value_heads=d // 32,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
