"""One door: a public function refuses what is not of the kind that its annotations name, before it begins anything."""

import collections.abc
import dataclasses
import functools
import inspect
import os
import types
import typing
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float

_Function = TypeVar("_Function", bound=Callable)
# What to do instead, by what was wanted and what was given. By name: the door comes before all wings.
_CURES = {
    ("Dataset", "Pool"): "give pool.train",
    ("Dataset", "DatasetDict"): "give one of its splits",
    ("Dataset", "IterableDataset"): "make one with Dataset.from_list(list(rows))",
    ("Dataset", "DataFrame"): "make one with Dataset.from_pandas",
    ("Dataset", "str"): "read the file with fl.load_pool",
    ("Dataset", "PosixPath"): "read the file with fl.load_pool",
    ("Dataset", "TokenFeatures"): "rows come before their features",
    ("Dataset", "NoneType"): "give the dataset",
    ("Dataset", ""): "make one with Dataset.from_list",
    ("TokenFeatures", "list"): "make them with TokenFeatures.from_list",
    ("TokenFeatures", "tuple"): "make them with TokenFeatures.from_list",
    ("TokenFeatures", "ndarray"): "make them with TokenFeatures.from_list",
    ("TokenFeatures", "str"): "open a folder of them with TokenFeatures.load",
    ("TokenFeatures", "PosixPath"): "open a folder of them with TokenFeatures.load",
    ("TokenFeatures", "Dataset"): "rows come before their features",
    ("TokenFeatures", "Pool"): "extract them with fl.extract_features from pool.train",
    ("TokenFeatures", "Selection"): "features come before a selection of them",
    ("TokenFeatures", ""): "extract them with fl.extract_features",
    ("Selection", "str"): "open the manifest with fl.Selection.load",
    ("Selection", "PosixPath"): "open the manifest with fl.Selection.load",
    ("Selection", ""): "make one of picks with fl.score_selection(features, picks)",
    ("Sequence", "Selection"): "give its indices",
    ("Model", ""): "load one with fl.load_model",
    ("Tokenizer", ""): "load the one of the model with fl.load_model",
    ("ndarray", "Tensor"): "give its .numpy()",
    ("ndarray", "list"): "make it with np.array",
    ("Tensor", "ndarray"): "make it with torch.from_numpy",
    ("Tensor", "list"): "make it with torch.tensor",
    ("str", "dtype"): "give its name as a text",
    ("Integral", "slice"): "take several with subset(range(...))",
}
_WORDS = {
    "Dataset": "a datasets.Dataset",
    "TokenFeatures": "TokenFeatures",
    "Model": "a causal language model",
    "Tokenizer": "a tokenizer",
    "Real": "a number",
    "Integral": "a whole number",
    "str": "a text",
    "bool": "True or False",
    "Path": "a path",
    "Order": "an order like ClusterOrder",
    "dict": "a dict",
    "Mapping": "a dict",
    "Sequence": "a list",
    "Iterable": "a list",
    "Callable": "a function",
    "ndarray": "an array",
    "dtype": "a torch.dtype",
    "device": "a torch.device",
}


def checked(function: _Function) -> _Function:
    """Make `function` refuse arguments of another kind than its annotations name, with a `ValueError` in one line.

    Only the kind is looked at: a number where a number is wanted (of Python or NumPy; True is none), rows where rows are
    wanted. Sizes, shapes and what a list holds are for the function itself to check. What is of the kind in all but its
    class comes in as one of it: a tensor or an array of one number as that number, a path of another library as a `Path`,
    a tensor without its gradient, a compiled model as the model itself.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args, **kwargs):
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:  # a missing or an unknown argument: Python's own words name it, and the function
            return function(*args, **kwargs)
        several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        bound.arguments |= check_kinds(
            {name: value for name, value in bound.arguments.items() if signature.parameters[name].kind not in several},
            _hints(function),
        )
        return function(*bound.args, **bound.kwargs)

    return typing.cast(_Function, call)


def check_kinds(arguments: Mapping[str, Any], hints: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as the function is to get them. One without a hint may be anything.

    Raises `ValueError` for the first that is not of the kind of its hint.
    """
    taken = {}
    for name, given in arguments.items():
        wanted = _kinds(hints[name]) if name in hints else None
        taken[name] = value = given if wanted is None else _taken(given, wanted)
        if wanted is None or _is_one_of(value, wanted):
            _check_value(name, value, wanted or ())
            continue
        kind = type(value).__name__
        first = next((k.__name__ for k in wanted if {(k.__name__, kind), (k.__name__, "")} & set(_CURES)), "")
        cure = _CURES.get((first, kind)) or _CURES.get((first, "")) or f"change {name}="
        if kind == "Selection" and hasattr(value, name):
            cure = f"give its {name}"
        shown = f" {value!r}" if isinstance(value, (str, int, float, complex)) and len(repr(value)) < 60 else ""
        article = "an" if kind[0] in "aeiouAEIOU" else "a"
        got = "None" if value is None else f"{article} {kind}{shown if cure.startswith('change') else ''}"
        named = [k for k in wanted if k is not type(None) and (k is not Integral or Real not in wanted)]
        said = list(dict.fromkeys(_WORDS.get(k.__name__, f"a {k.__name__}") for k in named))
        either = ", ".join(said[:-1]) + " or " + said[-1] if len(said) > 1 else said[0]
        raise ValueError(f"expected {name}, {either}, got {got}: {cure}")
    return taken


def check_fields(made: Any) -> None:
    """The same for the fields of a dataclass, to begin its `__post_init__` with."""
    cls: Any = type(made)
    given = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
    for name, value in check_kinds(given, _hints(cls)).items():
        if value is not given[name]:
            object.__setattr__(made, name, value)  # a frozen one is still being made


def numbers(values: Any, name: str) -> Float[np.ndarray, "..."]:
    """A list of numbers in float64. Raises `ValueError` if they are none."""
    try:
        if isinstance(values, torch.Tensor):
            values = values.detach().to("cpu", torch.float64).numpy()  # NumPy knows no bfloat16
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"expected {name} to be numbers, got others ({error}): check {name}=") from error


def _check_value(name: str, value: Any, kinds: tuple[type, ...]) -> None:
    """What is wrong with any seed, path, array or model, whoever gets it."""
    if name == "seed" and value is not None and not 0 <= value < 2**32:
        raise ValueError(f"expected seed from 0 to {2**32 - 1:,}, got {value}: change seed=")
    whole = Path in kinds and isinstance(value, (str, Path))
    if whole and ("\0" in str(value) or any(len(part.encode()) > 255 for part in Path(value).parts)):
        raise ValueError(f"expected {name}, a path that a disk can hold, got {str(value)[:40]!r}: change {name}=")
    if "complex" in str(getattr(value, "dtype", "")):
        raise ValueError(f"expected {name}, real numbers, got complex ones: change {name}=")
    # The layers of an adapter stand in the place of those whose weights are read, and copied, here.
    if any(kind.__name__ == "Model" for kind in kinds) and hasattr(value, "peft_config"):
        raise ValueError(
            f"expected {name}, a causal language model, got one with adapters of PEFT: merge them with merge_and_unload()"
        )


@functools.cache
def _hints(function: Any) -> dict[str, Any]:
    return typing.get_type_hints(function)


def _taken(value: Any, kinds: tuple[type, ...]) -> Any:
    """The same value in a class that is wanted, where nothing is lost by that."""
    if any(kind.__name__ == "Model" for kind in kinds):
        return getattr(value, "_orig_mod", value)  # of torch.compile, which would not see our hooks
    if isinstance(value, torch.Tensor) and value.requires_grad:
        value = value.detach()
    if isinstance(value, os.PathLike) and not isinstance(value, Path) and Path in kinds:
        return Path(os.fsdecode(value))
    one = isinstance(value, (torch.Tensor, np.ndarray, np.bool_)) and value.ndim == 0
    if one and {Real, Integral, bool} & set(kinds) and not isinstance(value, kinds):
        return value.item()
    return value


def _is_one_of(value: Any, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in kinds
    for text in (str, bytes):  # a sequence too, but never meant as one
        if isinstance(value, text):
            return text in kinds
    if isinstance(value, kinds):
        return True
    array = getattr(value, "ndim", 0) > 0 and not hasattr(value, "columns")  # a table of pandas lists its columns
    return collections.abc.Sequence in kinds and array  # an array is as good as a list


def _kinds(hint: Any) -> tuple[type, ...] | None:
    """What a hint allows, as classes for isinstance; None for anything. Numbers of NumPy count as numbers."""
    if hint is None:
        return (type(None),)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        parts = [_kinds(part) for part in typing.get_args(hint)]
        return None if None in parts else tuple(dict.fromkeys(kind for part in parts if part for kind in part))
    if hasattr(hint, "array_type"):  # of jaxtyping
        return _kinds(hint.array_type)
    if hint is float:
        return (Real,)
    if hint in (int, np.integer):
        return (Integral,)
    origin = typing.get_origin(hint) or hint
    if origin is collections.abc.Callable:
        return (collections.abc.Callable,)
    duck = getattr(origin, "_is_protocol", False) and not getattr(origin, "_is_runtime_protocol", False)
    return (origin,) if isinstance(origin, type) and origin not in (Any, object) and not duck else None
