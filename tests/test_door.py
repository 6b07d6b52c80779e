"""The one door: what is let in, what is refused, and in which words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from jaxtyping import Float
from torch import Tensor

import fisherlib as fl
from fisherlib._door import check_fields, checked, numbers

WHOLE, NUMBER, LIST = (3, np.int64(3)), (0.5, np.float32(0.5)), ([1], (1,), range(2), np.ones(2), torch.ones(2))
# A hint, what is let in, and what is not.
KINDS = {
    "a whole number": (int, WHOLE, (*NUMBER, "3", True, np.True_, None, [3], 1j, torch.tensor(3))),
    "a number": (float | int, (*WHOLE, *NUMBER, float("nan")), ("3", True, None, [3], 1j)),
    "a number or nothing": (int | None, (3, None), (0.5, "3")),
    "yes or no": (bool, (True, np.True_), (1, "True", None)),
    "a text": (str, ("", "3"), (3, None, b"3", ["3"])),
    "a path": (str | Path, ("a", Path("a")), (3, None, ["a"], b"a")),
    "a list": (Sequence[int], (*LIST, pd.Series([1])), ("abc", b"abc", 3, None, {}, {1}, np.float64(3), torch.tensor(3))),
    "a dict": (Mapping, ({},), ([], "a", None)),
    "a function": (Callable[[int], int], (len, lambda x: x), (3, "len", None)),
    "an array": (Float[np.ndarray, " N"], (np.ones(2),), ([1.0], torch.ones(2), "a")),
    "a tensor": (Float[Tensor, "N d"] | None, (torch.ones(2), None), ([1.0], np.ones(2))),
    "anything": (Any, (3, None, "a", [], object()), ()),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds(name):
    hint, right, wrong = KINDS[name]

    def function(x):
        return x

    function.__annotations__ = {"x": hint}
    door = checked(function)
    for value in right:
        assert door(value) is value and door(x=value) is value
    for value in wrong:
        with pytest.raises(ValueError, match="^expected x, .+, got .+: .+$") as error:
            door(value)
        assert "\n" not in str(error.value)


@checked
def seeded(features: fl.TokenFeatures, *more: int, seed: int = 0, out: str | Path = "x", **options: int) -> int:
    """What it does."""
    return seed


FEATURES = fl.TokenFeatures.from_list([torch.ones(2, 2)])


def test_the_words():
    for call, message in (
        (lambda: seeded([1]), "expected features, TokenFeatures, got a list: make them with TokenFeatures.from_list"),
        (lambda: seeded(None), "expected features, TokenFeatures, got None: extract them with fl.extract_features"),
        (lambda: seeded(FEATURES, seed="3"), "expected seed, a whole number, got a str '3': change seed="),
        (lambda: seeded(FEATURES, seed=-1), "expected seed from 0 to 4,294,967,295, got -1: change seed="),
        (lambda: seeded(FEATURES, out=3), "expected out, a text or a path, got an int 3: change out="),
        (lambda: seeded(FEATURES, out="a\0b"), "expected out, a path that a disk can hold, got .*: change out="),
        (lambda: seeded(FEATURES, out="x" * 300), "expected out, a path that a disk can hold, got .*: change out="),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            call()


def test_a_call_that_is_no_call_has_pythons_words():
    with pytest.raises(TypeError, match=r"seeded\(\) missing 1 required positional argument: 'features'"):
        seeded()
    assert seeded(FEATURES, "whatever", seed=2, other="whatever") == 2  # what is open is not looked at
    assert seeded.__doc__ == "What it does." and seeded.__name__ == "seeded"


def test_fields():
    @dataclass
    class Made:
        n: int
        name: str | None = None

        def __post_init__(self):
            check_fields(self)

    assert Made(np.int64(3)).n == 3
    with pytest.raises(ValueError, match="expected name, a text, got an int 3: change name="):
        Made(3, 3)


def test_numbers():
    assert numbers([1, 2.5], "costs").tolist() == [1.0, 2.5]
    with pytest.raises(ValueError, match="expected costs to be numbers, got others .*: check costs="):
        numbers(["a"], "costs")


def test_a_model_and_a_tokenizer_are_what_behaves_like_one():
    rows = Dataset.from_list([{"prompt": "a", "response": "b"}])
    for model in ("smollm2-135m", None, 3, FEATURES):
        with pytest.raises(ValueError, match="expected model, a causal language model, got .*: load one with fl.load_model"):
            fl.extract_features(model, None, [[1, 2]])
    with pytest.raises(ValueError, match="expected tokenizer, a tokenizer, got a str: load the one of the model"):
        fl.encode(rows, "smollm2-135m")
