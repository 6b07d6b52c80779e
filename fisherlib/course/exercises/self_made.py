"""Checkers of the exercises of notebook 11."""

import numpy as np

from fisherlib.course.notebook import attempt
from fisherlib.training.rejection import answer_of, equations, holds, is_right, paths

_WORDS = ("each", "one", "it is", "then")


def lucky(my_text, answer: str) -> None:
    """A solution with the right answer and a wrong equation, which the verifier refuses. Raises `AssertionError`."""
    if my_text is not ...:
        text = str(my_text)
        wrong = [equation for equation in equations(text) if not holds(equation)]
        if answer_of(text) != answer:
            raise AssertionError(f"expected a text that ends with #### {answer}, got the answer {answer_of(text)!r}")
        if not wrong or is_right(text, answer):
            raise AssertionError(f"expected an equation in << >> that does not hold, got {equations(text)}, which all do")
    attempt("the right answer by luck, refused", my_text if my_text is ... else True, True)


def chance_of_a_subset(my_chance, n: int, right: int, k: int) -> None:
    """The chance that k of the n solutions, of which `right` are right, hold a right one: by drawing many subsets."""
    rng = np.random.default_rng(0)
    drawn = np.mean([(rng.permutation(n)[:k] < right).any() for _ in range(20_000)])
    attempt("the chance that a subset holds a right one", my_chance, drawn, atol=0.02)


def distinct_paths(my_number, chances, k: int) -> None:
    """How many different right paths k solutions hold, if each path has its chance: by drawing many times."""
    rng = np.random.default_rng(0)
    p = [*chances, 1 - sum(chances)]
    drawn = [len(set(rng.choice(len(p), k, p=p)) - {len(chances)}) for _ in range(20_000)]
    attempt("the expected number of different right paths", my_number, np.mean(drawn), atol=0.03)


def first_of_each(my_distinct) -> None:
    """`my_distinct(texts)`: the first text of each list of equations, as indices. Raises `AssertionError`."""
    if my_distinct is not ...:
        for seed in range(8):
            rng = np.random.default_rng(seed)
            texts = []
            for _ in range(7):
                path = paths((3, 5, 4))[rng.integers(2)][: rng.integers(1, 4)]
                texts.append(" ".join(f"{rng.choice(_WORDS)} <<{equation}>>" for equation in path))
            lists = [equations(text) for text in texts]
            expected = [i for i, one in enumerate(lists) if one not in lists[:i]]
            mine = sorted(int(i) for i in my_distinct(texts))
            if mine != expected:
                raise AssertionError(f"of {texts}\nexpected {expected}, got {mine}: is it the whole list that is compared?")
    attempt("one solution for each list of equations", my_distinct if my_distinct is ... else True, True)
