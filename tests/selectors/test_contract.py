"""The contract of all selectors: what is written once does what it says, whatever the idea that it is put around."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from jaxtyping import Float, TypeCheckError

import fisherlib as fl
from fisherlib import selectors
from fisherlib.features import Indices, TokenFeatures
from fisherlib.selectors._contract import Ranking, selector

FEATURES = fl.TokenFeatures.from_list([torch.eye(4)[: (3, 0, 1, 2)[i]] for i in range(4)])  # lengths 3, 0, 1, 2


@selector("from a place on")
def from_a_place(rows: Dataset | None, features: TokenFeatures, *, seed: int, first: int = 2) -> Indices:
    """Examples from `first` on. Source: a test."""
    return np.arange(first, len(features))


def test_an_order_is_filled_timed_and_noted():
    chosen = from_a_place(None, FEATURES, examples=3, seed=7)
    assert chosen.indices.tolist() == [2, 3, 0]  # what the order leaves out follows, and who has no tokens comes last
    assert chosen.settings == {
        **{"method": "from a place on", "budget": {"examples": 3}, "seed": 7, "first": 2},
        "features": FEATURES.info,
    }
    assert list(chosen.settings) == ["method", "budget", "seed", "first", "features"]
    assert from_a_place(None, FEATURES, examples=4, first=3).indices.tolist() == [3, 0, 2, 1]
    assert from_a_place(None, FEATURES, tokens=4, first=3).indices.tolist() == [3, 2]  # 0 no longer fits
    assert from_a_place(None, FEATURES, tokens=4, first=3).settings["budget"] == {"tokens": 4}
    expected = fl.score_selection(FEATURES, [2, 3, 0])
    assert np.array_equal(chosen.gains, expected.gains) and np.array_equal(chosen.costs, [1, 2, 3])


def test_seconds_are_those_of_the_choice_and_not_of_its_score(monkeypatch):
    ticks = iter([10.0, 14.0])
    monkeypatch.setattr("fisherlib.selectors._contract.time.perf_counter", lambda: next(ticks))
    assert from_a_place(None, FEATURES, examples=1).seconds == 4.0


def test_what_is_visible_is_the_whole_call():
    signature = inspect.signature(from_a_place)
    shown = "(rows: datasets.arrow_dataset.Dataset | None, features: fisherlib.features.token_features.TokenFeatures, *, "
    shown += "examples: int | None = None, tokens: float | int | None = None, seed: int = 0, first: int = 2) -> "
    assert str(signature) == shown + "fisherlib.greedy.selection.Selection"
    assert from_a_place.__doc__.startswith("Examples from `first` on.") and from_a_place.__name__ == "from_a_place"
    assert from_a_place.title == "from a place on" and "@selector" in inspect.getsource(from_a_place)
    with pytest.raises(TypeError, match="from_a_place\\(\\) got an unexpected keyword argument 'last'"):
        from_a_place(None, FEATURES, examples=1, last=2)
    for name in ("uniform", "longest", "ifd", "deduplicated"):
        parameters = inspect.signature(getattr(selectors, name)).parameters
        assert list(parameters)[:5] == ["rows", "features", "examples", "tokens", "seed"]
    assert inspect.signature(selectors.ifd).parameters["options"].kind == inspect.Parameter.VAR_KEYWORD


@pytest.mark.slow  # `make test-fast` goes without these checks
def test_annotations_are_checked_in_tests_as_those_of_any_function():
    """The test suite checks shapes: a selector that is made of a function is no way around."""
    with pytest.raises(TypeCheckError, match="scores"):
        selectors.ifd(None, FEATURES, examples=1, scores=np.ones((4, 1)))
    with pytest.raises(ValueError, match="expected threshold, a number, got a str 'low'"):  # the door is there for users too
        selectors.slearn(None, FEATURES, examples=1, scores=np.ones(4), threshold="low")


def test_a_ranking_says_more():
    @selector("usual name")
    def told(rows, features, *, seed, loud: bool = False):
        return Ranking([2, 0], {"method": "another name", "seed": None, "note": 1}, weights=np.array([4.0, 1, 3, 2]))

    chosen = told(None, FEATURES, examples=2, seed=3)
    assert chosen.settings == {
        **{"method": "another name", "budget": {"examples": 2}, "seed": None, "note": 1},
        "features": {},
    }
    assert list(chosen.settings) == ["method", "budget", "seed", "note", "features"]
    assert chosen.weights.tolist() == [3.0, 4.0]


def test_a_selection_of_another_selector_stays_as_it_is():
    inner = replace(fl.select(FEATURES, examples=2), seconds=5.0)

    @selector("outer")
    def outer(rows, features, *, tokens):
        return inner

    assert outer(None, FEATURES, tokens=2) is inner


def test_a_selector_takes_of_the_budget_what_it_asks_for():
    seen = []

    @selector("asks")
    def asks(rows, features, *, examples, tokens, seed):
        seen.append((examples, tokens, seed))
        return [0]

    @selector("asks for nothing")
    def asks_nothing(rows, features):
        return [0]

    asks(None, FEATURES, examples=2, seed=4)
    asks(None, FEATURES, tokens=1.5)
    assert seen == [(2, None, 4), (None, 1.5, 0)]
    assert asks_nothing(None, FEATURES, examples=1, seed=4).settings["seed"] is None  # it was not used


def test_a_budget_may_be_the_length_of_an_option():
    @selector("like", examples_of="like")
    def like_it(rows, features, *, like):
        return Ranking(like)

    assert like_it(None, FEATURES, like=[3, 2]).indices.tolist() == [3, 2]
    assert like_it(None, FEATURES, like=[3, 2], tokens=2).indices.tolist() == [3]
    with pytest.raises(ValueError, match="expected exactly one of examples= and tokens="):
        from_a_place(None, FEATURES)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (
            np.array([0.3, 0.1, 0.2, 0.9]),
            "expected the indices of examples, the best first, got float64: sort with np.argsort",
        ),
        (np.array([True, False, True, True]), "the best first, got bool"),
        ([2, 2], "expected different indices"),
        ([-1], "expected indices from 0 to 3, got -1"),
    ],
)
def test_an_order_that_is_none_is_refused(returned, message, as_a_user):
    @selector("wrong")
    def wrong(rows, features, *, losses: Float[np.ndarray, " N"] | None = None):
        return returned

    with pytest.raises(ValueError, match=message):
        wrong(None, FEATURES, examples=3)
