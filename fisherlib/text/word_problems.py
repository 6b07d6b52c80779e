"""Word problems from a small grammar, with two ways to solve each, in the notation of GSM8K: `<<3+5=8>>`, `#### 32`."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from fisherlib._door import checked

SYSTEM_LINE = "Count."
NUMBERS = range(1, 10)
SIDES = ("train", "test")
_STORIES = (  # what holds, what is held, two kinds of it
    ("bag", "pen", "red", "blue"),
    ("box", "egg", "white", "brown"),
    ("team", "player", "old", "new"),
    ("case", "book", "thick", "thin"),
    ("room", "chair", "low", "high"),
    ("garden", "tree", "small", "tall"),
)


def side_of(numbers: Sequence[int]) -> str | None:
    """The side that three numbers belong to, by their remainders of a division by 3.

    >>> [fl.rejection.side_of(numbers) for numbers in ((2, 3, 4), (2, 5, 8), (2, 5, 3))]
    ['train', 'test', None]

    All alike: test. All different: train. So two numbers that meet in a problem of the test never meet in training,
    though each number alone is on both sides. (Our choice; the paper has GSM8K's own split.)
    """
    kinds = len({number % 3 for number in numbers})
    return {1: "test", 3: "train"}.get(kinds)


def paths(numbers: Sequence[int]) -> list[list[str]]:
    """Both ways to solve (a + b) c, as lists of equations: the bracket first, or the two products first.

    >>> fl.rejection.paths((3, 5, 4))
    [['3+5=8', '8*4=32'], ['3*4=12', '5*4=20', '12+20=32']]
    """
    a, b, c = numbers
    total = (a + b) * c
    return [
        [f"{a}+{b}={a + b}", f"{a + b}*{c}={total}"],
        [f"{a}*{c}={a * c}", f"{b}*{c}={b * c}", f"{a * c}+{b * c}={total}"],
    ]


@checked
def word_problems(n: int, *, seed: int = 0, side: str = "train") -> Dataset:
    """`n` problems, no two with the same numbers; rows with `prompt`, `response`, `answer` and `numbers`.

    >>> row = fl.rejection.word_problems(40, seed=0)[0]
    >>> row["prompt"]
    'Each case has 8 thick and 6 thin books. How many in 7?'
    >>> row["response"], row["answer"]
    ('each <<8+6=14>> sum <<14*7=98>> #### 98', '98')

    Of the ways to solve a problem its response shows one, by chance, and its wording varies a little. No two numbers that
    stand together in a problem of one `side` do so in one of the other (`side_of`). What comes out on the way may: 8 * 4
    occurs on both. Of each side the problems of a smaller n are the first of a larger one, with the same `seed`.
    Raises `ValueError` for another side, or for more problems than there are (162 for training, 81 for the test).
    Source: extension; the notation is that of GSM8K (arXiv 2110.14168).
    """
    if side not in SIDES:
        raise ValueError(f"expected a side of {SIDES}, got {side!r}")
    known = [triple for triple in itertools.product(NUMBERS, repeat=3) if side_of(triple) == side]
    if not 1 <= n <= len(known):
        raise ValueError(f"expected 1 to {len(known)} problems, which are all of the side {side!r}, got {n}")
    rng = np.random.default_rng([seed, SIDES.index(side)])
    return Dataset.from_list([_row(known[i], rng) for i in rng.permutation(len(known))[:n]])


def _row(numbers: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
    (a, b, c), (place, thing, one, other) = numbers, _STORIES[rng.integers(len(_STORIES))]
    which = int(rng.integers(2))
    words = [[str(rng.choice(["each", "one"]))], [one, other]][which]
    words = [*words, str(rng.choice(["total", "sum"]))]
    equations = paths(numbers)[which]
    answer = equations[-1].partition("=")[2]
    said = " ".join(f"{word} <<{equation}>>" for word, equation in zip(words, equations, strict=True))
    return {
        "system": SYSTEM_LINE,
        "prompt": f"Each {place} has {a} {one} and {b} {other} {thing}s. How many in {c}?",
        "response": f"{said} #### {answer}",
        "answer": answer,
        "numbers": list(numbers),
    }
