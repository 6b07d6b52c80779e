"""The one door: what is let in, what is refused, and in which words."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import peft
import pytest
import torch
from datasets import Dataset, DatasetDict
from jaxtyping import Float
from torch import Tensor

import fisherlib as fl
from fisherlib._door import check_fields, checked, numbers

WHOLE, NUMBER, LIST = (3, np.int64(3)), (0.5, np.float32(0.5)), ([1], (1,), range(2), np.ones(2), torch.ones(2))
# A hint, what is let in, and what is not.
KINDS = {
    "a whole number": (int, WHOLE, (*NUMBER, "3", True, np.True_, None, [3], 1j, torch.tensor(3.0), torch.tensor([3]))),
    "a number": (float | int, (*WHOLE, *NUMBER, float("nan")), ("3", True, None, [3], 1j)),
    "a number or nothing": (int | None, (3, None), (0.5, "3")),
    "yes or no": (bool, (True, False), (1, "True", None, np.array(1), torch.tensor(0.0))),
    "a text": (str, ("", "3"), (3, None, b"3", ["3"])),
    "a path": (str | Path, ("a", Path("a")), (3, None, ["a"], b"a")),
    "a list": (Sequence[int], (*LIST, pd.Series([1])), ("abc", b"abc", 3, None, {}, {1}, np.float64(3), torch.tensor(3))),
    "a dict": (Mapping, ({},), ([], "a", None)),
    "a list or a text": (str | Sequence[str], ("abc", ["a"]), (b"abc", 3)),
    "a function": (Callable[[int], int], (len, lambda x: x), (3, "len", None)),
    "an array": (Float[np.ndarray, " N"], (np.ones(2),), ([1.0], torch.ones(2), "a", np.ones(2, complex))),
    "a tensor": (
        Float[Tensor, "N d"] | None,
        (torch.ones(2), None),
        ([1.0], np.ones(2), torch.ones(2, dtype=torch.complex64)),
    ),
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


class Elsewhere:
    """A path of another library."""

    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return self.path


@pytest.mark.parametrize(
    ("hint", "given", "taken"),
    [
        (int, torch.tensor(300), 300),
        (int | None, np.array(300), 300),
        (float | int, torch.tensor(0.5), 0.5),
        (float | int, torch.tensor(0.5, requires_grad=True), 0.5),
        (float, np.array(0.25, dtype=np.float32), 0.25),
        (bool, np.True_, True),
        (bool | None, torch.tensor(False), False),
        (str | Path, Elsewhere("a/b"), Path("a/b")),
        (Path, Elsewhere(b"a"), Path("a")),
    ],
)
def test_what_is_of_the_kind_in_all_but_its_class_comes_in_as_one_of_it(hint, given, taken):
    def function(x):
        return x

    function.__annotations__ = {"x": hint}
    found = checked(function)(given)
    assert found == taken and type(found) is type(taken)


def test_a_tensor_comes_in_without_its_gradient():
    @checked
    def function(x: Tensor, y: Sequence[float]):
        return x, y

    @dataclass(frozen=True)
    class Held:
        x: Tensor

        def __post_init__(self):
            check_fields(self)

    x = torch.ones(3, requires_grad=True)
    for found in (*function(x, x), Held(x).x):
        assert not found.requires_grad and found.data_ptr() == x.data_ptr()
    assert x.requires_grad and numbers(torch.ones(2, dtype=torch.bfloat16, requires_grad=True), "costs").tolist() == [1, 1]


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


def test_a_selection_has_what_is_asked_for_under_its_name(tiny, ids):
    chosen = fl.select(FEATURES, examples=1)
    for call, cure in (
        (lambda: fl.fine_tune(tiny, None, ids, weights=chosen), "give its weights"),
        (lambda: fl.select(FEATURES, examples=1, costs=chosen), "give its costs"),
        (lambda: FEATURES.subset(chosen), "give its indices"),
    ):
        with pytest.raises(ValueError, match=f"got a Selection: {cure}$"):
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


def test_a_model_and_a_tokenizer_are_what_behaves_like_one(tiny):
    rows = Dataset.from_list([{"prompt": "a", "response": "b"}])
    for other, cure in (
        (DatasetDict(train=rows), "give one of its splits"),
        (rows.to_iterable_dataset(), r"make one with Dataset.from_list\(list\(rows\)\)"),
        (rows.to_pandas(), "make one with Dataset.from_pandas"),
        (Path("rows.jsonl"), "read the file with fl.load_pool"),
    ):
        with pytest.raises(ValueError, match=f"expected rows, a datasets.Dataset.*, got an? .*: {cure}$"):
            fl.extract_features(tiny, None, other)
    for model in ("smollm2-135m", None, 3, FEATURES):
        with pytest.raises(ValueError, match="expected model, a causal language model, got .*: load one with fl.load_model"):
            fl.extract_features(model, None, [[1, 2]])
    with pytest.raises(ValueError, match="expected tokenizer, a tokenizer, got a str: load the one of the model"):
        fl.encode(rows, "smollm2-135m")


def test_a_compiled_model_is_the_model_itself(tiny, ids):
    compiled = torch.compile(tiny, backend="eager")
    wanted, found = (fl.extract_features(model, None, ids, progress=False) for model in (tiny, compiled))
    assert torch.equal(found.values, wanted.values) and found.info == wanted.info
    assert fl.held_out_nll(compiled, None, ids).nll == fl.held_out_nll(tiny, None, ids).nll
    assert type(fl.fine_tune(compiled, None, ids, progress=False).model) is type(tiny)


@pytest.mark.parametrize(
    "head", [{"target_modules": ["lm_head"]}, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}]
)
@pytest.mark.filterwarnings("ignore")
def test_a_model_with_adapters_is_to_be_merged_first(tiny, ids, head):
    adapted = peft.get_peft_model(copy.deepcopy(tiny), peft.LoraConfig(r=2, **head))
    for model in (adapted, adapted.get_base_model()):
        for call in (fl.extract_features, fl.held_out_nll, fl.fine_tune):
            with pytest.raises(ValueError, match=r"one with adapters of PEFT: merge them with merge_and_unload\(\)$"):
                call(model, None, ids)
    fl.extract_features(adapted.merge_and_unload(), None, ids, progress=False)
