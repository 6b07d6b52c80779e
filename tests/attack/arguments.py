"""Attacks on arguments: in place of each argument of each public function, every value that is none of it."""

import random
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch

import fisherlib as fl
from fisherlib import selectors
from fisherlib.evaluation import judging
from tests.attack import things
from tests.attack.runner import Case

NAN, INF = float("nan"), float("inf")


@cache
def values() -> dict[str, Any]:
    """Everything that somebody might give by mistake."""
    return {
        "None": None,
        "''": "",
        "'abc'": "abc",
        "'3'": "3",
        "b'3'": b"3",
        "-1": -1,
        "0": 0,
        "1": 1,
        "1.5": 1.5,
        "1e30": 1e30,
        "10**30": 10**30,
        "nan": NAN,
        "inf": INF,
        "-inf": -INF,
        "True": True,
        "1j": 1j,
        "[]": [],
        "[1, 2]": [1, 2],
        "['a']": ["a"],
        "{}": {},
        "(0, 1)": (0, 1),
        "object": object(),
        "a function": things.rows,
        "a Path": Path("abc"),
        "a Pool": fl.Pool("mine", things.rows(), things.rows()),
        "a Dataset": things.rows(),
        "a shorter Dataset": things.rows().select(range(5)),
        "features": things.features(),
        "a Selection": things.selection(),
        "a model": things.reader(),
        "a tokenizer": things.tokenizer(),
        "numpy 1": np.int64(1),
        "numpy 0.5": np.float32(0.5),
        "numpy nan": np.float64(NAN),
        "numpy True": np.bool_(True),
        "numpy ones": np.ones(3),
        "numpy words": np.array(["a", "b"]),
        "tensor 1": torch.tensor(1),
        "tensor ones": torch.ones(3),
        "tensor matrix": torch.ones(2, 3),
        "torch.int8": torch.int8,
    }


class Kind(NamedTuple):
    """Which of `values` are right for an argument; for which it may be decided either way; all others are wrong."""

    right: str = ""
    either: str = ""

    def oracle(self, name: str) -> str:
        return "right" if name in names(self.right) else "either" if name in names(self.either) else "wrong"


def names(text: str) -> set[str]:
    """Names between bars, since they have spaces in them."""
    return {part.strip() for part in text.split("|")} - {""}


LARGE = "1e30|10**30|tensor 1"  # too large for some, or a number in a shape that may do or not
NUMBER = f"{LARGE}|-1|1.5|nan|inf|-inf|numpy nan|numpy 0.5"  # of what is only reported
COUNT = Kind("1|numpy 1", LARGE)
MAYBE_COUNT = Kind("None|1|numpy 1", LARGE)
SEED = Kind("0|1|numpy 1", LARGE)
POSITIVE = Kind("1|1.5|numpy 1|numpy 0.5", LARGE)
MAYBE_POSITIVE = Kind("None|1|1.5|numpy 1|numpy 0.5", LARGE)
FLAG = Kind("None|True", "0|1|numpy 1|numpy True")
TRUTH = Kind("True", "0|1|numpy 1|numpy True|None")
CHOICE = Kind()
TEXT = Kind("'abc'|'3'", "''")
MAYBE_TEXT = Kind("None|'abc'|'3'", "''")
MAYBE_PATH = Kind("None|'abc'|'3'|a Path", "''|b'3'")
ROWS = Kind("a Dataset")
ANY_ROWS = Kind("a Dataset|a shorter Dataset")  # where nothing else says how many there are
MAYBE_ROWS = Kind("a Dataset|None")
FEATURES = Kind("features")
MODEL = Kind("a model")
TOKENIZER = Kind("a tokenizer")
SELECTION = Kind("a Selection")
NUMBERS = Kind("None")  # one for each of 12
INDICES = Kind("[1, 2]|(0, 1)", "[]|{}|''")
GROUPS = Kind("None", "'abc'|'3'|''")
METHOD = Kind()


def each(arguments: str, kind: Kind) -> dict[str, Kind]:
    return dict.fromkeys(arguments.split(), kind)


# By name, wherever an argument is called so.
KINDS = {
    **each("weighting rule device dtype precision padding_side method ratio how entropy acquisition", CHOICE),
    **each("reduction doubt pooling loss base_url endpoint first second head", CHOICE),
    **each("costs weights scores losses spread order shares answers", NUMBERS),
    **each("tokens_per_batch tokens_per_step dim dimensions resamples per_cluster shingle neighbours", COUNT),
    **each("examples max_new_tokens repeats answer_tokens reply_tokens", COUNT),
    **each("batch_size steps_per_epoch n_clusters lora_rank", MAYBE_COUNT),
    **each("prior ridge z timeout", POSITIVE),
    **each("memory bandwidth scale", MAYBE_POSITIVE),
    **each("checkpoint out_dir cache", MAYBE_PATH),
    **each("question name reply key grading", TEXT),
    **each("refill discounted", TRUTH),
    "rows": ROWS,
    "features": FEATURES,
    "target": FEATURES,
    "model": MODEL,
    "tokenizer": TOKENIZER,
    "selection": SELECTION,
    "start": Kind("None|a Selection"),
    "indices": INDICES,
    "selections": Kind("", "[]|{}"),
    "pairs": Kind("[]", "{}"),
    "groups": GROUPS,
    "then": METHOD,
    "copies": Kind("None"),
    "opening": MAYBE_TEXT,
    "progress": FLAG,
    "seed": SEED,
    "show": Kind("0|1|numpy 1", LARGE),
    "retries": Kind("0|1|numpy 1", LARGE),
    "max_tokens": Kind("None", LARGE),
    "epochs": Kind("1|numpy 1", "tensor 1"),
    "sample": Kind("", "1|numpy 1|" + LARGE),
    "classes": Kind("", "1|numpy 1|" + LARGE),
    "tokens": Kind("", "1|1.5|numpy 1|numpy 0.5|tensor 1"),  # whether it buys the cheapest depends on the pool
    "stochastic": Kind("None|numpy 0.5"),
    "test_fraction": Kind("0|numpy 0.5", "tensor 1"),
    "threshold": Kind("numpy 0.5|1", "0|numpy 1|1.5|tensor 1"),
    "hard": Kind("numpy 0.5", "0|1|numpy 1|tensor 1"),
    "difficulty": Kind("1|numpy 0.5", "0|1.5|numpy 1|" + LARGE),
    "mix": Kind("1|numpy 0.5", "0|numpy 1|tensor 1"),
    "learning_rate": Kind("1|1.5|numpy 1|numpy 0.5", "0|" + LARGE),
    "temperature": Kind("0|1|1.5|numpy 1|numpy 0.5", LARGE),
}


class Call(NamedTuple):
    """A function, arguments with which it works, and where an argument of a usual name is of another kind."""

    function: Callable
    given: dict
    kinds: Mapping = MappingProxyType({})
    instead: Mapping = MappingProxyType({})  # of an argument that is tried: one that must then be left out


@cache
def functions() -> dict[str, Call]:
    """The public functions of the library."""
    rows, features, chosen, held = things.rows(), things.features(), things.selection(), things.held_out()
    run = {"model": things.reader(), "tokenizer": things.tokenizer(), "rows": rows, "progress": False}
    exact = {"precision": "float32"}
    either = {"tokens": "examples", "examples": "tokens"}
    arrays = {name: getattr(chosen, name) for name in ("indices", "gains", "costs")}
    array = Kind("", "numpy ones")
    columns = Kind("None")
    return {
        "load_pool": Call(fl.load_pool, {"source": rows, "test_fraction": 0.5, "seed": 0}, {"source": ANY_ROWS}),
        "encode": Call(fl.encode, {"rows": rows, "tokenizer": things.tokenizer(), "max_tokens": None}),
        "MaskAudit": Call(fl.MaskAudit, {"rows": rows, "tokenizer": things.tokenizer(), "show": 2}),
        "load_model": Call(fl.load_model, {"name": "absent", "dtype": "float32"}, {"name": Kind()}),
        "extract_features": Call(
            fl.extract_features,
            run | exact | {"out_dir": None, "tokens_per_batch": 64, "padding_side": "right", "dtype": torch.float32},
        ),
        "TokenFeatures": Call(
            fl.TokenFeatures,
            {"values": features.values, "offsets": features.offsets, "nll": None, "labels": None, "trace_weights": None},
            {"values": Kind(), "offsets": Kind(), "nll": columns, "labels": columns, "trace_weights": columns},
        ),
        "TokenFeatures.from_list": Call(
            fl.TokenFeatures.from_list, {"blocks": [np.ones((2, 3))]}, {"blocks": Kind("", "tensor matrix|features")}
        ),
        "TokenFeatures.load": Call(fl.TokenFeatures.load, {"folder": "absent"}, {"folder": Kind()}),
        "TokenFeatures.save": Call(features.save, {"folder": "new"}, {"folder": Kind("'abc'|'3'|a Path", "b'3'")}),
        "TokenFeatures.subset": Call(features.subset, {"indices": [0]}),
        "TokenFeatures.column": Call(features.column, {"name": "nll"}, {"name": CHOICE}),
        "TokenFeatures.sum": Call(features.sum, {"x": features.nll}, {"x": Kind()}),
        "TokenFeatures.mean": Call(features.mean, {"x": features.nll}, {"x": Kind()}),
        "compress": Call(fl.compress, {"features": features, "dim": 2, "method": "pca", "seed": 0}),
        "forecast": Call(
            fl.forecast,
            {"features": features, "examples": 3, "tokens": None, "sample": 12, "seed": 0, "device": "cpu", "memory": None},
            {},
            either,
        ),
        "select": Call(
            fl.select,
            {
                "features": features,
                "examples": 3,
                "tokens": None,
                "costs": None,
                "rule": "gain",
                "weighting": "none",
                "prior": 1.0,
            }
            | {
                "start": None,
                "batch_size": None,
                "device": "cpu",
                "dtype": "auto",
                "memory": None,
                "stochastic": None,
                "seed": 0,
            }
            | {"checkpoint": None, "progress": False},
            {},
            either,
        ),
        "Selection": Call(
            fl.Selection,
            arrays
            | {"pool_size": 12, "upper_bound": None, "evaluations": 0, "seconds": 0.0, "settings": {}, "weights": None},
            {"indices": Kind(), "gains": array, "costs": array, "pool_size": Kind("", "10**30"), "settings": Kind("{}")}
            | {"upper_bound": Kind("None", LARGE), "evaluations": Kind("0|1|numpy 1", NUMBER)}
            | {"seconds": Kind("0|1|1.5|numpy 1|numpy 0.5", NUMBER), "weights": Kind("None", "numpy ones")},
        ),
        "Selection.prefix": Call(chosen.prefix, {"examples": 2, "tokens": None}, {}, either),
        "Selection.of_subset": Call(
            chosen.of_subset, {"kept": np.arange(12), "pool_size": 20}, {"kept": Kind(), "pool_size": Kind("", LARGE)}
        ),
        "Selection.to_dataset": Call(chosen.to_dataset, {"rows": rows}, {"rows": ROWS}),
        "Selection.save": Call(chosen.save, {"path": "new.json"}, {"path": Kind("'abc'|'3'|a Path", "b'3'")}),
        "Selection.load": Call(fl.Selection.load, {"path": "absent"}, {"path": Kind()}),
        "score_selection": Call(
            fl.score_selection, {"features": features, "indices": [0, 1], "prior": 1.0, "weighting": "none", "device": "cpu"}
        ),
        "certify": Call(
            fl.certify, {"features": features, "selection": chosen, "prior": 1.0, "weighting": "none", "device": "cpu"}
        ),
        "fine_tune": Call(
            fl.fine_tune,
            run
            | exact
            | {"epochs": 1, "learning_rate": 1e-4, "tokens_per_step": 256, "steps_per_epoch": None, "weights": None}
            | {"lora_rank": None, "order": None, "seed": 0},
        ),
        "fit_heads": Call(
            fl.fit_heads, {"features": features, "selections": [[0, 1]], "classes": 9, "dimensions": 2, "ridge": 10.0}
        ),
        "held_out_nll": Call(fl.held_out_nll, run | exact | {"tokens_per_batch": 64}),
        "HeldOut.from_features": Call(fl.HeldOut.from_features, {"features": features}),
        "paired_difference": Call(fl.paired_difference, {"first": held, "second": held, "resamples": 99, "seed": 0}),
    }


@cache
def ways_to_choose() -> dict[str, Call]:
    """Every selector, and the functions behind them."""
    rows, features, chosen, head = (
        things.rows(),
        things.features(),
        things.selection(),
        selectors.head_matrix(things.reader()),
    )
    run = {"rows": rows, "model": things.reader(), "tokenizer": things.tokenizer(), "progress": False}
    scores, seed = np.linspace(0, 1, 12), {"seed": 0}
    own: dict[str, dict] = {
        "adaicl": {"discounted": False, "neighbours": 3, "hard": 0.5},
        "ask_llm": {"scores": scores},
        "clustered": {"n_clusters": 2, "z": 2, "scale": None, "losses": None},
        "deduplicated": {"then": selectors.uniform, "threshold": 0.8, "refill": False, "copies": None},
        "density": {"bandwidth": None},
        "facility_location": {},
        "farthest_point": {"start": "centre"},
        "i_optimal": {"target": None, "rule": "gain", "prior": 1.0},
        "ifd": {"scores": scores},
        "in_clusters": {"n_clusters": 2, "like": None, "then": selectors.uniform},
        "isa": {"entropy": "high", "dimensions": 2},
        "length_matched": {"like": chosen, "ratio": 1.1},
        "llmaaa": {"acquisition": "k-means", "reduction": "mean"},
        "longest": {},
        "nearest_to_centre": {"n_clusters": 2},
        "quotas": {"groups": None, "shares": None},
        "recipe": {"mix": "keep", "groups": None, "copies": None},
        "semhash": {"threshold": 0.9},
        "sentence_optimal": {"pooling": "mean", "rule": "gain", "prior": 1.0},
        "slearn": {"scores": scores},
        "sparft": {"n_clusters": 2, "dimensions": 2, "difficulty": 1.0},
        "uniform": {},
        "uniform_in_clusters": {"n_clusters": 2},
    }
    special = {
        "rows": MAYBE_ROWS, "start": Kind("1|numpy 1|0", ""), "like": Kind("None"),
        "target": Kind("None|features"), "scores": Kind(),
    }  # fmt: skip
    budget = {"rows": rows, "features": features, "examples": 3, "tokens": None, "seed": 0}
    either = {"tokens": "examples", "examples": "tokens"}
    made = {}
    for name, options in own.items():
        kinds = special | ({"rows": ROWS} if name in ("deduplicated", "recipe", "semhash") else {})
        kinds |= {"like": SELECTION, "ratio": Kind("1.5", "1|numpy 1|" + LARGE)} if name == "length_matched" else {}
        kinds |= {"n_clusters": COUNT} if name in ("in_clusters", "sparft") else {}
        made[name] = Call(getattr(selectors, name), budget | options, kinds, either)
    two = {"features": features, "target": features, "head": head, "loss": "sum"}
    scored = {"features": features, "head": head, "doubt": "entropy", "reduction": "mean"}
    made |= {
        "ask_llm_scores": Call(selectors.ask_llm_scores, run | {"tokens_per_batch": 256, "padding_side": "right"}),
        "cluster_labels": Call(
            selectors.cluster_labels, {"features": features, "n_clusters": 2} | seed, {"n_clusters": COUNT}
        ),
        "density_scores": Call(selectors.density_scores, {"features": features, "bandwidth": None} | seed),
        "fit_plateau": Call(
            selectors.fit_plateau,
            {"sizes": [1, 2, 4, 8], "performance": [1, 2, 3, 4]},
            {"sizes": Kind(), "performance": Kind()},
        ),
        "ifd_scores": Call(selectors.ifd_scores, run | {"ratio": "loss", "opening": None, "tokens_per_batch": 256}),
        "ifd_warm_up": Call(
            selectors.ifd_warm_up,
            {"features": features, "n_clusters": 2, "per_cluster": 2, "spread": None} | seed,
            {"n_clusters": COUNT},
        ),
        "isa_entropies": Call(selectors.isa_entropies, {"features": features, "dimensions": 2} | seed),
        "head_matrix": Call(selectors.head_matrix, {"model": things.reader()}),
        "llmaaa_scores": Call(selectors.llmaaa_scores, scored),
        "meta_gradients": Call(selectors.meta_gradients, two, {"target": Kind("features", "None")}),
        "meta_weights": Call(selectors.meta_weights, two, {"target": Kind("features", "None")}),
        "near_duplicates": Call(selectors.near_duplicates, {"rows": rows, "threshold": 0.8, "shingle": 5} | seed),
        "read_grade": Call(selectors.read_grade, {"reply": "Grade: 5"}),
        "slearn_kept": Call(selectors.slearn_kept, {"scores": scores, "threshold": 1.0}, {"scores": Kind("numpy ones")}),
        "slearn_scores": Call(selectors.slearn_scores, run | {"how": "token accuracy", "tokens_per_batch": 256}),
        "sparft_clusters": Call(
            selectors.sparft_clusters, {"features": features, "n_clusters": 2, "dimensions": 2} | seed, {"n_clusters": COUNT}
        ),
    }
    return made


@cache
def judges() -> dict[str, Call]:
    endpoint = judging.Endpoint("http://127.0.0.1:9/v1", "m")
    texts = {"texts": {"a": ["x"], "b": ["y"]}, "contexts": ["z"]}
    place = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "key": "k", "timeout": 1.0, "retries": 0, "options": {}}
    return {
        "judge": Call(
            judging.judge,
            {"pairs": [], "endpoint": endpoint, "cache": None, "temperature": 0.0, "repeats": 1, "progress": False},
        ),
        "Endpoint": Call(judging.Endpoint, place, {"model": Kind("'abc'|'3'"), "options": Kind("{}")}),
        "all_pairs": Call(judging.all_pairs, texts, {"texts": Kind("", "{}"), "contexts": Kind("['a']")}),
        "continuations": Call(
            judging.continuations,
            {
                "model": things.reader(),
                "tokenizer": things.tokenizer(),
                "rows": things.rows().select(range(2)),
                "max_new_tokens": 2,
            }
            | {"temperature": 0.7, "seed": 0, "tokens_per_batch": 256, "progress": False},
            {"rows": ANY_ROWS},
        ),
        "prompt_ids": Call(judging.prompt_ids, {"rows": things.rows(), "tokenizer": things.tokenizer()}, {"rows": ANY_ROWS}),
    }


def arguments(group: str, calls: Callable[[], dict[str, Call]], share: int) -> Iterator[Case]:
    """In place of each argument, what is right there, and of all other values a `share` that is drawn for it."""
    for name, (function, given, kinds, instead) in calls().items():
        for argument in given:
            kind = kinds.get(argument) or KINDS[argument]
            if argument == "rows" and "features" not in given and argument not in kinds:
                kind = ANY_ROWS
            drawn = random.Random(f"{name} {argument}").sample(list(values()), share)
            for value in values():
                if argument in ("like", "then", "copies") and value in ("a function", "a model", "a tokenizer"):
                    continue  # what can be called is the caller's own, and so is what it raises
                if value in drawn or value in names(kind.right):
                    changed = given | {argument: values()[value]}
                    if argument in instead:
                        changed[instead[argument]] = None
                    call = partial(anywhere, function, changed)
                    yield Case(group, f"{name}({argument}={value})", call, kind.oracle(value), limit=20.0)


def anywhere(function: Callable, given: dict, _folder: Path):
    return function(**given)
