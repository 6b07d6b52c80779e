"""A small model rates sentences as people did, and judges pairs of texts: its numbers read by chance, and by expectation."""

import copy
from dataclasses import dataclass
from functools import cache

import numpy as np
from datasets import Dataset
from jaxtyping import Float

from fisherlib._types import Model, Tokenizer
from fisherlib.evaluation.decisions import answer_distribution, number_distribution
from fisherlib.evaluation.judging.pairwise import messages_of
from fisherlib.text import load_pool
from fisherlib.text.ratings import SCALE, Rated, rated_sentences

KINDS = ("shuffled", "loop", "elsewhere")  # of false texts, as in notebook 06


@dataclass(frozen=True)
class Sentences:
    """What is rated: `test` sentences, and `labelled` ones of other reviews, whose truths may be used."""

    labelled: list[Rated]
    test: list[Rated]
    others: list[Rated]  # of further reviews: for demonstrations


@cache
def sentences(labelled: int, test: int) -> Sentences:
    """Whole reviews on one side each; the same in every seed."""
    rng, known = np.random.default_rng(0), rated_sentences()
    reviews = sorted({one.review for one in known})
    side = dict(zip(reviews, (rng.permutation(len(reviews)) % 5).tolist(), strict=True))
    mixed = [known[i] for i in rng.permutation(len(known))]
    of = {
        s: [one for one in mixed if side[one.review] in sides] for s, sides in {"t": (0, 1), "l": (2,), "o": (3, 4)}.items()
    }
    return Sentences(of["l"][:labelled], of["t"][:test], of["o"])


def demonstrations(others: list[Rated], count: int, seed: int) -> list[Rated]:
    """Of a random hundred, `count` that lie evenly among their ratings, in random order."""
    rng = np.random.default_rng([seed, count])
    drawn = sorted((others[i] for i in rng.choice(len(others), 100, replace=False)), key=lambda one: one.mean)
    return [drawn[int((k + 0.5) * len(drawn) / count)] for k in rng.permutation(count)]


def rate(model: Model, tokenizer: Tokenizer, asked: list[Rated], shown: list[Rated], **options) -> Float[np.ndarray, "N 9"]:
    """The chance of each digit 1 to 9 after some rated sentences and the one to rate, as plain text."""
    before = "".join(f"Review: {one.sentence}\nRating: {round(one.mean)}\n\n" for one in shown)
    rows = [{"prompt": f"{before}Review: {one.sentence}\nRating: ", "response": "5"} for one in asked]
    return number_distribution(model, without_template(tokenizer), Dataset.from_list(rows), SCALE, **options)


def without_template(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer for plain text: solved examples are then text to go on with, and no conversation."""
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = None
    return plain


def pairs(kind: str, count: int) -> list[tuple[str, str, str]]:
    """(prompt, true speech, false one) of held-out plays, as in notebook 06."""
    test, rng = load_pool("shakespeare").test.shuffle(seed=0), np.random.default_rng(0)
    long = [row for row in test if 8 <= len(row["response"].split()) <= 25]
    found = []
    for row, other in zip(long[:count], long[count:], strict=False):
        words = row["response"].split()
        false = {
            "shuffled": rng.permutation(words).tolist(),
            "loop": (words[:4] * len(words))[: len(words)],
            "elsewhere": other["response"].split(),
        }
        found.append((row["prompt"], " ".join(words), " ".join(false[kind])))
    return found


def letters(model: Model, tokenizer: Tokenizer, asked: list[tuple[str, str, str]], **options) -> Float[np.ndarray, "2 N 3"]:
    """The chances of A, B and *tie* with the true text first, and with it second: the calls of notebook 06's judge."""
    both = []
    for swap in (False, True):
        turns = [messages_of(prompt, *((false, true) if swap else (true, false))) for prompt, true, false in asked]
        both += [{"messages": [*one, {"role": "assistant", "content": "A"}]} for one in turns]
    p = answer_distribution(model, tokenizer, Dataset.from_list(both), ["A", "B", "tie"], **options)
    return p.reshape(2, len(asked), 3)


def earned(p: Float[np.ndarray, "2 N 3"], read: str) -> Float[np.ndarray, " N"]:
    """What the true text earns in each pair, mean of both orders: by the likeliest `read` "letter", or by "expectation".

    A win counts 1, a tie one half. As numbers these are RAIL's mode and mean.
    """
    p = p / p.sum(2, keepdims=True)
    if read == "letter":
        p = (p == p.max(2, keepdims=True)).astype(float)
        p = p / p.sum(2, keepdims=True)
    first, second = p[0] @ [1.0, 0.0, 0.5], p[1] @ [0.0, 1.0, 0.5]
    return (first + second) / 2
