"""Rejection sampling (RFT): a model solves its training problems many times, and learns what a verifier lets through."""

import ast
import math
import operator
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Float, Int

from fisherlib._door import checked
from fisherlib._types import Model, Tokenizer
from fisherlib.model import continuations
from fisherlib.text import word_problems as problems

paths, side_of, word_problems = problems.paths, problems.side_of, problems.word_problems

_MOST_CHARACTERS = 64  # of an equation; checked before anything is parsed
_LARGEST = 1e12
_OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_ALLOWED = re.compile(r"[0-9.+\-*/() ]+=[0-9.+\-*/() ]+", re.ASCII)


def equations(text: str) -> list[str]:
    """What stands between `<<` and `>>`, in order and without spaces.

    >>> fl.rejection.equations("each <<3 + 5 = 8>> total <<8*4=32>> #### 32")
    ['3+5=8', '8*4=32']

    An opening that is not closed before the next one gives nothing.
    """
    return ["".join(found.split()) for found in re.findall(r"<<([^<>]*)>>", text)]


def answer_of(text: str) -> str | None:
    """What follows the last `####`, without spaces and commas of thousands; None if there is nothing.

    >>> fl.rejection.answer_of("total <<8*4=32>> #### 32"), fl.rejection.answer_of("32")
    ('32', None)
    """
    _, mark, after = text.rpartition("####")
    return after.strip().replace(",", "") or None if mark else None


def holds(equation: str) -> bool:
    """Whether both sides of an equation are the same number, within 1e-3 as in the authors' collector.

    >>> [fl.rejection.holds(text) for text in ("3+5=8", "9*9=80", "9**9**9=1", "__import__('os')=1")]
    [True, False, False, False]

    Text of a model is parsed, never evaluated: only numbers, + - * / and brackets are read, no power, name or call, at most
    64 characters, and no number above 1e12. All else is False, at once. Exactly one "=". (The collector calls
    `eval`, and looks only at what stands between the first two "=": both are changed here.)
    """
    if len(equation) > _MOST_CHARACTERS or not _ALLOWED.fullmatch(equation):
        return False
    try:
        left, right = (_value(ast.parse(side.strip(), mode="eval").body) for side in equation.split("="))
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError):
        return False
    return abs(left - right) < 1e-3


def _value(node: ast.AST) -> float:
    """Raises `ValueError` for anything but a finite number and the four operations on such."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        value = float(node.value)
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        value = _OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = -_value(node.operand)
    else:
        raise ValueError(f"expected numbers and + - * /, got {type(node).__name__}")
    if not abs(value) <= _LARGEST:
        raise ValueError(f"expected a number up to {_LARGEST:g}, got {value}")
    return value


def is_right(text: str, answer: str, *, allow_no_equations: bool = False) -> bool:
    """Whether the final answer is `answer`, there is an equation, each that is opened is closed, and each holds.

    `allow_no_equations`: also a bare answer, which the authors' collector keeps (once for each problem).
    """
    found = equations(text)
    whole = text.count("<<") == text.count(">>") == len(found)
    return answer_of(text) == answer and whole and (bool(found) or allow_no_equations) and all(map(holds, found))


@checked
def distinct(texts: Sequence[str]) -> list[int]:
    """Which of the solutions of one problem to keep: one for each list of equations, in the order of first occurrence.

    >>> fl.rejection.distinct(["each <<3+5=8>>", "one <<3+5=8>>", "red <<3*4=12>>", "each <<3+5=8>>"])
    [0, 2]

    Of those with the same list the one whose wording is farthest from the others' lists: the largest sum of Levenshtein
    distances to the texts kept for the other lists (those first seen of each); of equal ones the first. O(n^2) distances.
    Source: paper; that the others are the first of each list is our choice, so that the result needs no search.
    Needs the package `rapidfuzz` (the extra `rejection`).
    """
    from rapidfuzz.distance import Levenshtein

    groups: dict[tuple[str, ...], list[int]] = {}
    for number, text in enumerate(texts):
        groups.setdefault(tuple(equations(text)), []).append(number)
    kept = []
    for own, members in groups.items():
        others = [texts[first] for other, (first, *_) in groups.items() if other != own]
        far = [sum(Levenshtein.distance(texts[i], other) for other in others) for i in members]
        kept.append(members[int(np.argmax(far))])
    return kept


@checked
def solutions(
    model: Model,
    tokenizer: Tokenizer,
    rows: Dataset,
    *,
    k: int,
    temperature: float | int = 0.7,
    max_new_tokens: int = 48,
    seed: int = 0,
    progress: bool | None = None,
) -> list[list[str]]:
    """`k` sampled solutions of each row's problem. For a smaller k take the first of each.

    All are drawn at once, which on a CPU takes far less time than k calls. Cost: that of `continuations` of k times as many
    rows. Raises `ValueError` for k below 1, and as `continuations` does.
    """
    if k < 1:
        raise ValueError(f"expected at least one solution for each problem, got k={k}")
    said = continuations(
        model,
        tokenizer,
        rows.select(np.repeat(np.arange(len(rows)), k)),
        max_new_tokens=max_new_tokens,
        temperature=float(temperature),
        seed=seed,
        progress=progress,
    )
    return [said[i : i + k] for i in range(0, len(said), k)]


@checked
def keep(rows: Dataset, said: Sequence[Sequence[str]], *, allow_no_equations: bool = False) -> Dataset:
    """`rows`, and after them what is kept of the solutions `said` [N, k]: right, and one for each list of equations.

    Two columns more: `problem`, the row that a solution belongs to, and `own`, False for the originals. The originals stay
    whatever was said; so a kept solution may have the equations, or the very words, of its original, as in the paper.
    Raises `ValueError` for rows without `answer`, or not one list of solutions for each row.
    """
    if "answer" not in rows.column_names or len(said) != len(rows):
        raise ValueError(
            f"expected rows with a column 'answer' and a list of solutions for each of {len(rows):,}, got columns "
            f"{rows.column_names} and {len(said):,} lists: name the answers, or give the rows that were solved"
        )
    made = [dict(row) | {"problem": i, "own": False} for i, row in enumerate(rows)]
    for i, (row, texts) in enumerate(zip(rows, said, strict=True)):
        right = [text for text in texts if is_right(text, row["answer"], allow_no_equations=allow_no_equations)]
        made += [dict(row) | {"response": right[j], "problem": i, "own": True} for j in distinct(right)]
    return Dataset.from_list(made)


@checked
def rejection_sample(
    model: Model,
    tokenizer: Tokenizer,
    rows: Dataset,
    *,
    k: int,
    temperature: float | int = 0.7,
    max_new_tokens: int = 48,
    allow_no_equations: bool = False,
    seed: int = 0,
    progress: bool | None = None,
) -> Dataset:
    """The pool that a model makes of its training problems: `rows`, then its own solutions that the verifier lets through.

    Each problem is solved `k` times. A solution is kept if its answer is that of the column `answer` and each of its
    equations holds, one for each list of equations (`is_right`, `distinct`, `keep`). Fine-tune the *base* model on the
    result. Source: arXiv 2308.01825, which has k = 100, temperature 0.7 and 3 epochs; our own are the verifier, which parses
    and needs an equation, and every size.
    Cost: k times that of `continuations`. Raises `ValueError` for k below 1, for rows without a prompt or an `answer`.
    """
    if "answer" not in rows.column_names:
        raise ValueError(f"expected rows with a column 'answer' to verify by, got {rows.column_names}: add it")
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "seed": seed, "progress": progress}
    said = solutions(model, tokenizer, rows, k=k, temperature=temperature, **options)
    return keep(rows, said, allow_no_equations=allow_no_equations)


@checked
def pass_at_k(right: Sequence[int] | Int[np.ndarray, " N"], n: int, k: int) -> Float[np.ndarray, " N"]:
    """Of each problem the chance that at least one of k solutions is right, if `right` of n that were sampled are.

    >>> fl.rejection.pass_at_k([0, 1, 4], n=4, k=2)
    array([0. , 0.5, 1. ])

    1 - C(n - c, k) / C(n, k): the share of all sets of k of the n that hold a right one, so it is unbiased for
    1 - (1 - p)^k, whereas 1 - (1 - c / n)^k is too low. Source: M. Chen et al., arXiv 2107.03374.
    Raises `ValueError` unless 1 <= k <= n and 0 <= c <= n.
    """
    counts = np.asarray(right)
    if not 1 <= k <= n or (counts < 0).any() or (counts > n).any():
        raise ValueError(f"expected 1 <= k <= n and counts from 0 to n, got k={k}, n={n} and counts {counts}")
    return np.array([1 - math.comb(n - int(c), k) / math.comb(n, k) for c in counts])
