"""The three engines have one interface, and what they stand on: a budget, and picks among some that are mapped back."""

import contextlib
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fisherlib as fl
from fisherlib.greedy import Budget
from fisherlib.greedy.engine import Engine, replay
from fisherlib.greedy.information import Information
from fisherlib.greedy.one_token import OneToken
from fisherlib.greedy.race import Race
from fisherlib.greedy.screen import Screen, screen_of
from fisherlib.greedy.small_pool import SmallPool


def make_pool(n: int, longest: int, seed: int) -> fl.TokenFeatures:
    rng = np.random.default_rng(seed)
    return fl.TokenFeatures.from_list([torch.tensor(rng.normal(size=(t, 6))) for t in rng.integers(0, longest + 1, n)])


def race(features, price, dtype="float32"):
    information = Information(features, 1.0, "none", "cpu")
    return Race(information, screen_of(information, dtype), np.ones(len(features)), price)


def one_token(features, price):
    return OneToken(features, 1.0, "none", np.ones(len(features)), price)


def small_pool(features, price):
    return SmallPool(Information(features, 1.0, "none", "cpu"), np.ones(len(features)), price)


@pytest.mark.parametrize("kind", [race, one_token, small_pool])
def test_next_takes_nothing_and_take_decides(kind):
    features = make_pool(40, 1, 0)
    price = np.linspace(1, 3, 40)
    engine = kind(features, price)
    assert isinstance(engine, Engine)
    first = engine.next(9.0)
    assert first == engine.next(9.0) and price[engine.next(1.5)[0]] <= 1.5
    engine.take(3)  # not the best: an engine takes what it is told
    gain = np.log1p(float(features[first[0]].square().sum()))
    again = engine.next(9.0)
    assert again[0] != 3 and engine.information.exact([first[0]])[0] <= gain + 1e-12
    taken = [3]
    while (found := engine.next(9.0)) is not None:
        assert found[0] not in taken and found[1] == pytest.approx(float(engine.information.exact([found[0]])[0]), rel=1e-9)
        engine.take(found[0])
        taken.append(found[0])
    assert sorted(taken) == list(range(40)) and engine.next(9.0) is None


@pytest.mark.parametrize("kind", [race, one_token, small_pool])
def test_what_was_too_dear_may_be_next_when_there_is_more(kind):
    features, price = make_pool(40, 1, 0), np.linspace(1, 3, 40)
    engine = kind(features, price)
    for left in (1.2, 9.0, 1.5, 2.5, 9.0):
        found, alone = engine.next(left), kind(features, price).next(left)
        assert found[0] == alone[0] and found[1] == pytest.approx(alone[1], rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 60), begun=st.integers(0, 5), left=st.floats(1.0, 3.0))
def test_all_engines_pick_the_same(seed, n, begun, left):
    features, rng = make_pool(n, 1, seed), np.random.default_rng(seed)
    price = rng.uniform(0.5, 3, n)
    engines = [kind(features, price) for kind in (race, partial(race, dtype="float64"), one_token, small_pool)]
    start = rng.permutation(n)[: min(begun, n)].tolist()
    gains = [replay(engine.information, start, engine.take) for engine in engines]
    assert all(np.allclose(gains[0], others) for others in gains[1:])
    for _ in range(min(n, 8)):
        found = [engine.next(left) for engine in engines]
        if found[0] is None:
            assert found == [None] * 4
            break
        assert len({best for best, _ in found}) == 1 and np.allclose([gain for _, gain in found], found[0][1], rtol=1e-9)
        for engine in engines:
            engine.take(found[0][0])
    for engine in engines[1:]:
        assert np.allclose(engines[0].information.leverages(), engine.information.leverages())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 80),
    longest=st.integers(2, 14),  # below and above the 6 dimensions; some have no tokens
    scale=st.sampled_from([1e-5, 0.03, 1.0, 30.0, 1e3]),  # the first and the last are left to `Information`
    copies=st.booleans(),
    budget=st.sampled_from(["examples", "tokens"]),
    rule=st.sampled_from(["gain", "gain_per_token", "best"]),
    weighting=st.sampled_from(["none", "trace"]),
    grouped=st.booleans(),
)
def test_a_small_pool_gives_the_race_s_answer(seed, n, longest, scale, copies, budget, rule, weighting, grouped):
    """With `batch_size` the race runs, without it the small pool's engine: same picks, gains and certificate."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, longest + 1, n)
    lengths[0] = longest
    values = torch.tensor(scale * rng.normal(size=(lengths.sum(), 6)) * rng.choice([0.1, 1.0], (lengths.sum(), 1)))
    features = fl.TokenFeatures(
        values, torch.tensor([0, *lengths.cumsum()]), trace_weights=torch.tensor(rng.random(len(values)))
    )
    if copies:
        features = features.subset(rng.integers(0, n, n))
    assume(features.lengths.max() > 1)
    asked = {"examples": 1 + n // 2} if budget == "examples" else {"tokens": max(int(features.lengths.sum()) // 2, longest)}
    asked |= {"rule": rule if budget == "tokens" else "gain", "weighting": weighting, "dtype": "float64"}
    if grouped:
        asked |= {"groups": (np.arange(n) % 2).tolist(), "quotas": {0: (None, 0.7)}}
    small, raced = fl.select(features, **asked), fl.select(features, **asked, batch_size=32)
    assert small.indices.tolist() == raced.indices.tolist()
    assert np.allclose(small.gains, raced.gains, rtol=1e-8, atol=1e-15)
    assert small.upper_bound == pytest.approx(raced.upper_bound, rel=1e-8)
    assert small.evaluations <= 1.5 * raced.evaluations + n


@pytest.mark.parametrize(
    ("dtype", "longest", "options", "small"),
    [
        ("float64", 9, {}, True),
        ("float64", 1, {}, False),
        ("float32", 9, {}, False),
        ("auto", 9, {}, False),
        ("float64", 9, {"batch_size": 8}, False),
        ("float64", 9, {"memory": 0.01}, False),
        ("float64", 9, {"stochastic": 0.1}, False),
    ],
)
def test_who_runs_where(monkeypatch, dtype, longest, options, small):
    made, init = [], SmallPool.__init__
    monkeypatch.setattr(SmallPool, "__init__", lambda self, *rest: made.append(self) or init(self, *rest))
    fl.select(make_pool(50, longest, 0), examples=10, dtype=dtype, **options)
    assert bool(made) == small


def test_a_small_pool_s_padded_array_is_small():
    one_long = fl.TokenFeatures(torch.zeros(3000, 8), torch.tensor([0, 2000, *range(2001, 3001)]))
    assert not SmallPool.fits(one_long, "cpu", "float64", None)  # 1,001 examples, padded to 2,000 tokens each
    assert SmallPool.fits(one_long.subset(range(1, 1001)), "cpu", "float64", None)


def test_a_screen_takes_any_number_in_parts_that_fit():
    features = make_pool(200, 12, 1)
    whole = Information(features, 1.0, "none", "cpu")
    parts = Information(features, 1.0, "none", "cpu", 300_000)
    assert len(parts.blocks.parts(np.arange(200))) > len(whole.blocks.parts(np.arange(200))) == 1
    for state in (whole, parts):
        gains, errors = (found.numpy() for found in Screen(state, torch.float32).gains(np.arange(200)))
        assert (np.abs(gains - state.exact(range(200))) <= errors).all() and np.isfinite(errors).all()
        assert state.evaluations == 400


def test_threads_are_given_back():
    before = torch.get_num_threads()
    for engine in (race(make_pool(20, 3, 0), np.ones(20)), one_token(make_pool(20, 1, 0), np.ones(20))):
        with contextlib.suppress(KeyError), engine.threads():
            raise KeyError
        assert torch.get_num_threads() == before


def test_a_budget_says_who_may_still_be_taken():
    costs = np.array([2.0, 5.0, 1.0, 4.0])
    by_tokens, by_examples = Budget(costs, None, 7), Budget(costs, 2, None)
    assert (by_tokens.asked, by_tokens.unit, by_tokens.amount) == ({"tokens": 7}, "tokens", 7.0)
    assert (by_examples.asked, by_examples.unit, by_examples.amount) == ({"examples": 2}, "examples", 2.0)
    by_tokens.take(1)
    by_examples.take(1)
    assert by_tokens.left == 2 and by_tokens.affordable().tolist() == [True, False, True, False]
    assert by_examples.left == 1 and by_examples.affordable().tolist() == [True, False, True, True]
    by_tokens.take([0])
    by_examples.take([3])
    assert by_tokens.left == by_examples.left == 0
    assert not by_tokens.affordable().any() and not by_examples.affordable().any()


def test_picks_among_some_are_picks_of_the_pool():
    features = make_pool(30, 4, 2)
    kept = [25, 3, 8, 12, 0, 19]
    among = fl.select(features.subset(kept), examples=3)
    mapped = among.of_subset(kept, 30)
    assert mapped.indices.tolist() == [kept[i] for i in among.indices] and mapped.pool_size == 30
    assert mapped.upper_bound is None and mapped.objective == among.objective
    assert np.allclose(fl.score_selection(features, mapped.indices).gains, among.gains)
    with pytest.raises(ValueError, match="expected the 6 examples that were selected from, got 5"):
        among.of_subset(kept[:5], 30)
