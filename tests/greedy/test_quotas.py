"""Quotas are kept whatever the pool, cost nothing where they would be met anyway, and leave half of the optimum."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fisherlib as fl
from fisherlib.greedy import information, quota_price, quota_prices
from fisherlib.greedy.information import TIE
from fisherlib.greedy.one_token import OneToken
from fisherlib.greedy.race import Race
from fisherlib.greedy.screen import screen_of
from tests.greedy.test_select import POOLS, grams, make_pool, most_of_all, objective
from tests.pretend import accelerator

NAMES = np.array(["code", "prose", "verse"])


def labels_for(n, seed, groups=3):
    return NAMES[np.random.default_rng([seed, 1]).integers(0, groups, n)].tolist()


def held(features, labels, by_tokens):
    """What each group costs in all."""
    price = features.lengths.numpy() if by_tokens else np.ones(len(features))
    return {label: float(price[[x == label for x in labels]].sum()) for label in dict.fromkeys(labels)}


def drawn_quotas(features, labels, budget, seed):
    """Floors that the pool and the budget can fill, and ceilings above them, some of each; in whole numbers."""
    rng, ((unit, amount),) = np.random.default_rng([seed, 2]), budget.items()
    quotas, left = {}, amount
    for label, there in held(features, labels, unit == "tokens").items():
        low = int(rng.integers(0, int(min(there, left)) + 1)) if rng.random() < 0.6 else 0
        high = int(rng.integers(low, amount + 1)) if rng.random() < 0.6 else None
        quotas[label], left = (low, high), left - low
    return quotas


def naive(features, budget, labels, quotas, rule="gain"):
    """The rule as it is written: every candidate at every pick, in float64."""
    ((unit, amount),) = budget.items()
    lengths, outer = features.lengths.numpy().astype(float), grams(features)
    price = lengths if unit == "tokens" else np.ones(len(lengths))
    V, picks, left, reserving = np.eye(features.dim), [], float(amount), True
    spent = dict.fromkeys(dict.fromkeys(labels), 0.0)
    low = {label: quotas.get(label, (0, None))[0] for label in spent}
    high = {label: np.inf if quotas.get(label, (0, None))[1] is None else quotas[label][1] for label in spent}
    while unit == "tokens" or len(picks) < amount:
        needs = {label: max(low[label] - spent[label], 0) for label in spent}
        rest = []
        for i in range(len(price)):
            others = sum(need for label, need in needs.items() if label != labels[i]) if reserving else 0
            if i not in picks and price[i] <= min(high[labels[i]] - spent[labels[i]], left - others):
                rest.append(i)
        gains = dict(zip(rest, (np.linalg.slogdet(V + outer[rest])[1] - np.linalg.slogdet(V)[1]).clip(0.0), strict=True))
        score = {i: g / (max(lengths[i], 1) if rule == "gain_per_token" else 1) for i, g in gains.items()}
        best = next((i for i in rest if score[i] >= max(score.values()) * (1 - TIE) - 1e-12), None)
        if best is None or (unit == "tokens" and gains[best] <= 1e-12):
            if reserving and any(needs.values()):
                reserving = False
                continue
            return picks
        picks.append(best)
        left, V = left - price[best], V + outer[best]
        spent[labels[best]] += price[best]
    return picks


def assert_kept(selection, features, labels, quotas, budget):
    ((unit, amount),) = budget.items()
    price = features.lengths.numpy() if unit == "tokens" else np.ones(len(features))
    assert price[selection.indices].sum() <= amount and selection.groups == tuple(labels[i] for i in selection.indices)
    for row in selection.by_group():
        mine = [i for i in selection.indices if labels[i] == row["group"]]
        low, high = quotas[row["group"]]
        assert row["got"] == price[mine].sum() <= (np.inf if high is None else high)
        rest = [price[i] for i in range(len(price)) if labels[i] == row["group"] and i not in mine and price[i] > 0]
        assert low - row["got"] < min(rest, default=np.inf) and (unit == "tokens" or row["got"] >= low)
        assert rest or row["got"] >= low
        assert row["met"] and row["examples"] == len(mine)


def problems(most=12):
    """What `built` makes a problem of: kind, seed, examples, width, longest, groups, budget in tokens, its share."""
    return st.tuples(
        st.sampled_from(POOLS),
        st.integers(0, 10**6),
        st.integers(1, most),
        st.integers(1, 5),
        st.sampled_from([1, 5]),
        st.integers(1, 3),
        st.booleans(),
        st.floats(0.1, 1.0),
    )


def built(problem):
    """Features, a budget, labels and quotas that can be kept."""
    kind, seed, n, d, longest, groups, by_tokens, share = problem
    features = make_pool(kind, seed, n, d, longest)
    total = int(features.lengths.sum())
    assume(total)
    budget = {"tokens": max(round(share * total), 1)} if by_tokens else {"examples": max(round(share * n), 1)}
    labels = labels_for(n, seed, groups)
    return features, budget, labels, drawn_quotas(features, labels, budget, seed)


def selected(features, **options):
    """The selection; None where nothing fits, or nothing that fits adds anything."""
    try:
        return fl.select(features, **options)
    except ValueError as error:
        assert "cheapest example" in str(error) or "adds information" in str(error) or "fits into" in str(error), error
        return None


@settings(max_examples=100, deadline=None)
@given(
    problem=problems(),
    rule=st.sampled_from(["gain", "gain_per_token"]),
    batch_size=st.sampled_from([1, 32]),
    dtype=st.sampled_from(["auto", "bfloat16", "float32", "float64"]),
)
def test_quotas_are_kept_and_the_picks_are_the_naive_ones(problem, rule, batch_size, dtype):
    features, budget, labels, quotas = built(problem)
    options = {"rule": rule, "batch_size": batch_size, "dtype": dtype}
    selection = selected(features, **budget, groups=labels, quotas=quotas, **options)
    expected = naive(features, budget, labels, quotas, rule)
    assert expected == ([] if selection is None else selection.indices.tolist())
    if selection is not None:
        assert_kept(selection, features, labels, quotas, budget)
        assert selection.objective == pytest.approx(objective(features, expected), abs=1e-8)


@settings(max_examples=30, deadline=None)
@given(problem=problems(), seed=st.integers(0, 100))
def test_with_quotas_that_are_met_anyway_the_picks_are_the_same(problem, seed):
    features, budget, labels, _ = built(problem)
    by_tokens, rng = "tokens" in budget, np.random.default_rng(seed)
    for rule in ("gain", "gain_per_token"):
        free = selected(features, **budget, groups=labels, rule=rule)
        if free is None:
            continue
        quotas = {}
        for row in free.by_group():
            got = int(row["got"])
            quotas[row["group"]] = (int(rng.integers(0, got + 1)), int(got + rng.integers(0, 3)))
        kept = fl.select(features, **budget, groups=labels, quotas=quotas, rule=rule)
        assert kept.indices.tolist() == free.indices.tolist()
        assert np.allclose(kept.gains, free.gains, rtol=1e-9, atol=1e-12)  # others were evaluated beside them
        assert quota_price(features, kept) == pytest.approx(0.0, abs=1e-9)
        exactly = {row["group"]: (int(row["got"]), int(row["got"])) for row in free.by_group()}
        kept = fl.select(features, **budget, groups=labels, quotas=exactly, rule=rule)
        assert kept.indices.tolist() == free.indices.tolist()
        assert by_tokens or len(kept) == budget["examples"]


@settings(max_examples=30, deadline=None)
@given(problem=problems(most=9))
def test_half_of_the_optimum_under_ceilings(problem):
    features, _, labels, _ = built(problem)
    n = len(features)
    examples = max(n // 2, 1)
    quotas = {label: (0, max(labels.count(label) // 2, 1)) for label in dict.fromkeys(labels)}
    selection = fl.select(features, examples=examples, groups=labels, quotas=quotas)

    def allowed(chosen):
        return len(chosen) <= examples and all(
            sum(labels[i] == label for i in chosen) <= most for label, (_, most) in quotas.items()
        )

    optimum = most_of_all(features, allowed)
    assert optimum / 2 - 1e-9 <= selection.objective <= optimum + 1e-9 <= selection.upper_bound + 1e-8


@settings(max_examples=25, deadline=None)
@given(problem=problems(most=9))
def test_the_best_keeps_quotas_too_and_is_never_less_than_either_rule(problem):
    features, budget, labels, _ = built(problem)
    budget = {"tokens": budget.get("tokens") or max(int(features.lengths.sum()) // 2, 1)}
    quotas = drawn_quotas(features, labels, budget, 5)
    options = {**budget, "groups": labels, "quotas": quotas}
    best = selected(features, **options, rule="best")
    if best is None:
        return
    for rule in ("gain", "gain_per_token"):
        assert best.objective >= fl.select(features, **options, rule=rule).objective * (1 - 1e-9)
    price, high = features.lengths.numpy(), {label: np.inf if q[1] is None else q[1] for label, q in quotas.items()}
    for row in best.by_group():
        assert row["got"] <= high[row["group"]] and row["met"]
    assert price[best.indices].sum() <= budget["tokens"]


def test_an_exchange_breaks_no_quota():
    """In a pool where the best exchanges would all be into one group."""
    features, labels = make_pool("heavy-tailed", 3, 120, 8, 6), ["code"] * 30 + ["prose"] * 90
    free = fl.select(features, tokens=80, rule="best", groups=labels)
    assert free.by_group()[0]["share"] < 0.6
    best = fl.select(features, tokens=80, rule="best", groups=labels, quotas={"code": 0.6})
    code = best.by_group()[0]
    assert 48 - 6 < code["got"] <= 48 and code["met"] and best.objective < free.objective


SHARES = [
    ({"examples": 10}, {"code": 0.25}, 2, 3),
    ({"examples": 10}, {"code": 0.3}, 3, 3),
    ({"examples": 30}, {"code": 0.1}, 3, 3),  # 0.1 * 30 is more than 3 in floating point
    ({"examples": 10}, {"code": (0.25, None)}, 2, 10),
    ({"examples": 10}, {"code": (None, 0.25)}, 0, 3),
    ({"examples": 10}, {"code": 4}, 4, 4),
    ({"examples": 10}, {"code": np.int64(4)}, 4, 4),
    ({"examples": 10}, {"code": [0.5, 7]}, 5, 7),
    ({"tokens": 101}, {"code": 0.25}, 25.25, 25.25),
    ({"tokens": 100}, {"code": (20, 0.5)}, 20, 50),
    ({"tokens": 100}, {"code": 0.0}, 0, 0),
]


@pytest.mark.parametrize(("budget", "quotas", "low", "high"), SHARES, ids=str)
def test_what_a_bound_means(budget, quotas, low, high):
    features, labels = make_pool("random", 4, 90, 6, 4), ["code", "prose"] * 45
    selection = fl.select(features, **budget, groups=labels, quotas=quotas)
    code, prose = selection.by_group()
    assert (code["floor"], code["ceiling"]) == (low, high if None not in np.ravel(quotas["code"])[1:] else None)
    assert low - 4 * ("tokens" in budget) <= code["got"] <= high and code["met"] and prose["ceiling"] is None
    assert code["share"] + prose["share"] == pytest.approx(1)


def test_the_pools_own_shares():
    features = make_pool("heavy-tailed", 5, 300, 6, 5)
    labels = labels_for(300, 5)
    for budget in ({"tokens": 200}, {"examples": 60}):
        selection = fl.select(features, **budget, groups=labels, quotas="pool", rule="gain_per_token")
        shares = held(features, labels, "tokens" in budget)
        for row in selection.by_group():
            share = shares[row["group"]] / sum(shares.values())
            assert row["share_of_pool"] == pytest.approx(share)
            assert abs(row["got"] - share * next(iter(budget.values()))) < (5 if "tokens" in budget else 1)


def test_a_price_is_measured_and_may_be_negative():
    features, labels = make_pool("heavy-tailed", 6, 60, 6, 5), labels_for(60, 6)
    selection = fl.select(features, tokens=60, groups=labels, quotas={"verse": 0.8}, prior=0.5)
    free = fl.select(features, tokens=60, prior=0.5)
    assert quota_price(features, selection) == pytest.approx(free.objective - selection.objective) and free != selection
    prices = []
    for seed in range(30):
        features = make_pool("random", seed, 12, 4, 6)
        kept = selected(features, tokens=14, groups=["a", "b"] * 6, quotas={"a": (5, None)})
        prices.append(quota_price(features, kept))
    assert min(prices) < -1e-6 < 1e-6 < max(prices)
    with pytest.raises(ValueError, match="expected a selection with quotas, got one without groups"):
        quota_price(features, fl.select(features, tokens=14))
    costs = np.linspace(1, 2, 12)
    dear = fl.select(features, tokens=8, costs=costs, prior=np.eye(4), groups=["a", "b"] * 6, quotas={"a": 0.1})
    with pytest.raises(ValueError, match="expected the features and costs that the picks were paid with.*give costs="):
        quota_price(features, dear, prior=np.eye(4))
    with pytest.raises(ValueError, match="expected the prior of the selection, a matrix .*: give prior="):
        quota_price(features, dear, costs=costs)
    assert quota_price(features, dear, costs=costs, prior=np.eye(4)) > 0


@pytest.mark.parametrize("budget", [{"tokens": 61}, {"examples": 20}], ids=str)
def test_each_quota_has_its_price(budget):
    features, labels = make_pool("heavy-tailed", 6, 60, 6, 5), labels_for(60, 6)
    quotas = {"verse": 0.55, "code": (0.2, 0.3)}
    selection = fl.select(features, **budget, groups=labels, quotas=quotas)
    prices = quota_prices(features, selection, labels)
    assert prices.keys() == quotas.keys()
    for label, price in prices.items():
        others = {other: bound for other, bound in quotas.items() if other != label}
        lifted = fl.select(features, **budget, groups=labels, quotas=others)
        assert price == pytest.approx(lifted.objective - selection.objective, abs=1e-9)
    with pytest.raises(ValueError, match="expected a selection with quotas, got one without groups"):
        quota_prices(features, fl.select(features, **budget), labels)


WRONG = {
    "quotas alone": ({"quotas": {"a": 0.5}}, "expected groups= beside quotas=, a label for each example, got none"),
    "too few labels": ({"groups": ["a"]}, "expected a label for each of 6 examples, got 1: change groups="),
    "names": ({"groups": [1, "1", 2, 2, 2, 2]}, "expected labels of different names"),
    "not a number": ({"groups": [np.nan] * 6}, "row 0: expected a label of a group"),
    "a word": ({"quotas": "half"}, "expected quotas as a dict, .* or 'pool', got 'half'"),
    "a list": ({"quotas": [0.5]}, "expected quotas, a dict or a text, got a list"),
    "unknown": ({"quotas": {"c": 0.5}}, "expected quotas of the groups .'a', 'b'., got .'c'."),
    "above one": ({"quotas": {"a": 1.5}}, "expected as quota of 'a' a share from 0.0 to 1.0, a whole number of examples"),
    "negative": ({"quotas": {"a": (-1, None)}}, "expected as quota of 'a'"),
    "nan": ({"quotas": {"a": float("nan")}}, "expected as quota of 'a'"),
    "true": ({"quotas": {"a": True}}, "expected as quota of 'a'"),
    "three": ({"quotas": {"a": (0.1, 0.2, 0.3)}}, "expected as quota of 'a'"),
    "nothing": ({"quotas": {"a": None}}, "expected as quota of 'a'"),
    "upside down": ({"quotas": {"a": (0.9, 0.1)}}, "expected a floor below the ceiling of 'a'"),
    "too little there": (
        {"quotas": {"b": (3, None)}},
        "expected a floor that the pool can fill, got 3 examples of 'b', of which it holds 2: lower it",
    ),
    "too much": ({"quotas": {"a": (0.6, 1.0), "b": (2, 2)}}, "expected floors within the budget of 3 examples, got"),
}


@pytest.mark.parametrize("name", WRONG)
def test_quotas_that_cannot_be(name, monkeypatch):
    monkeypatch.setattr(Race, "__init__", None)  # before any work
    options, message = WRONG[name]
    if name == "too much":
        options = {"quotas": {"a": (2, None), "b": (2, 2)}}
    with pytest.raises(ValueError, match=message) as error:
        fl.select(make_pool("random", 0, 6, 3, 4), examples=3, **{"groups": ["a", "a", "a", "a", "b", "b"], **options}
                  if name != "quotas alone" else options)  # fmt: skip
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_nothing_may_come_in():
    features = make_pool("random", 0, 6, 3, 4)
    with pytest.raises(ValueError, match="expected quotas that at least one example fits into, got none that do"):
        fl.select(features, tokens=9, groups=["a"] * 6, quotas={"a": 0})
    with pytest.raises(ValueError, match="expected a selection with groups, got one without: give groups="):
        fl.select(features, tokens=9).by_group()


def test_a_start_counts_towards_its_group():
    features, labels = make_pool("random", 1, 30, 6, 5), ["a", "b", "c"] * 10
    start = fl.score_selection(features, [0, 3, 6, 9])
    selection = fl.select(features, examples=10, groups=labels, quotas={"a": (None, 5), "b": 4}, start=start)
    assert selection.indices[:4].tolist() == [0, 3, 6, 9]
    a, b, c = selection.by_group()
    assert a["got"] <= 5 and b["got"] == 4 and c["got"] >= 1
    with pytest.raises(ValueError, match="expected a start within the quotas, got 4 of 'a', over 3: raise it"):
        fl.select(features, examples=10, groups=labels, quotas={"a": 3}, start=start)
    with pytest.raises(ValueError, match="expected a start that leaves 7 for the floors of .'b'., got 6: raise the budget"):
        fl.select(features, examples=10, groups=labels, quotas={"b": 7}, start=start)
    with pytest.raises(ValueError, match="covers the start selection"):
        fl.select(features, examples=3, groups=labels, quotas={"b": 2}, start=start)


def test_a_checkpoint_is_of_these_groups_and_goes_on(tmp_path, monkeypatch):
    features, labels, path = make_pool("random", 2, 60, 6, 5), labels_for(60, 2), tmp_path / "c.json"
    options = {"tokens": 90, "groups": labels, "quotas": {"code": 0.5, "prose": (0.1, 0.2)}, "rule": "gain_per_token"}
    whole, following, calls = fl.select(features, **options), Race.next, []

    def stopping(self, left):
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return following(self, left)

    with monkeypatch.context() as patch:
        patch.setattr(Race, "next", stopping)
        with pytest.raises(KeyboardInterrupt):
            fl.select(features, **options, checkpoint=path)
    saved = fl.Selection.load(path)
    assert saved.groups == whole.groups[:8] and isinstance(saved.groups, tuple)
    for changed, named in (
        ({"groups": labels[::-1]}, "groups"),
        ({"quotas": None}, "groups"),
        ({"quotas": "pool"}, "groups"),
    ):
        with pytest.raises(ValueError, match=f"got another {named}"):
            fl.select(features, **(options | changed), checkpoint=path)
    ended = fl.select(features, **options, checkpoint=path)
    assert ended.indices.tolist() == whole.indices.tolist() and ended.by_group() == whole.by_group()
    again = fl.select(features, **options, checkpoint=path)
    assert again.indices.tolist() == whole.indices.tolist() and fl.Selection.load(path).by_group() == whole.by_group()
    assert whole.prefix(examples=3).groups == whole.groups[:3] and len(whole.prefix(examples=3).by_group()) == 3


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(65, 400))
def test_one_vector_each_sees_who_may_run_again(seed, n):
    """What is given free at the end lets others in than the engine's front was drawn for."""
    features, rng = make_pool("heavy-tailed", seed, n, 6, 1), np.random.default_rng(seed)
    price, group = rng.integers(1, 9, n).astype(float), rng.integers(0, 2, n)
    state = information.Information(features, 1.0, "none", "cpu")
    race = Race(state, screen_of(state, "float64"), np.ones(n), price, groups=group)
    engine = OneToken(features, 1.0, "none", np.ones(n), price, group)
    for limits in ([1.0, 0.0], [0.0, 0.0], [0.0, 2.0], [9.0, 1.0], [3.0, 3.0], [9.0, 9.0]):
        for _ in range(5):
            found, other = race.next(np.array(limits)), engine.next(np.array(limits))
            assert (found is None) == (other is None)
            if found is None:
                break
            assert found[0] == other[0] and found[1] == pytest.approx(other[1], rel=1e-9)
            race.take(found[0])
            engine.take(found[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_on_an_accelerator_a_round_still_asks_once(dtype):
    features, n = make_pool("heavy-tailed", 3, 300, 16, 9), 300
    labels = labels_for(n, 3)
    with accelerator() as device:
        state, rounds, read = information.Information(features, 1.0, "none", "pretend"), [], Race._read
        group = np.unique(labels, return_inverse=True)[1]
        race = Race(state, screen_of(state, dtype), np.ones(n), np.ones(n), batch_size=16, groups=group)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Race, "_read", lambda self, most: rounds.append(most) or read(self, most))
            race.take(race.next(np.full(3, 9.0))[0])
            for left in range(8, 0, -1):
                rounds.clear()
                before = device.reads
                best, _ = race.next(np.array([left, 9.0, left]))
                assert device.reads - before == len(rounds) <= 8
                race.take(best)


@pytest.mark.parametrize("options", [{"tokens": 150}, {"tokens": 150, "rule": "best"}, {"examples": 40},
                                     {"examples": 30, "stochastic": 0.1}], ids=str)  # fmt: skip
def test_wherever_the_features_are(options, tmp_path):
    features, labels = make_pool("with empty rows", 7, 120, 12, 12), labels_for(120, 7)
    asked = {"groups": labels, "quotas": {"code": 0.5, "verse": (None, 0.2)}, **options}
    here = fl.select(features, **asked)
    assert all(row["met"] for row in here.by_group())
    features.save(tmp_path / "features")
    mapped = fl.TokenFeatures.load(tmp_path / "features")
    assert fl.select(mapped, **asked, memory=0.001).indices.tolist() == here.indices.tolist()
    with accelerator():
        there = fl.select(features, **asked, device="pretend")
    assert there.indices.tolist() == here.indices.tolist() and there.by_group() == here.by_group()


def test_labels_may_be_of_any_plain_kind():
    features = make_pool("random", 8, 12, 4, 3)
    for labels in ([1, 2, 3] * 4, torch.tensor([1, 2, 3] * 4), np.array([1, 2, 3] * 4), [None, "a", "b"] * 4):
        selection = fl.select(features, examples=6, groups=labels, quotas="pool")
        assert [row["got"] for row in selection.by_group()] == [2.0, 2.0, 2.0]
        assert set(selection.groups) == set(labels.tolist() if hasattr(labels, "tolist") else labels)


def test_brute_force_knows_these_optima():
    """The reference itself: in a pool of equal examples any allowed set of the size is best."""
    features = make_pool("all equal", 0, 6, 2, 2)
    allowed = [s for s in itertools.combinations(range(6), 2) if s[0] < 3 <= s[1]]
    most = most_of_all(features, lambda chosen: tuple(chosen) in allowed)
    assert most == pytest.approx(objective(features, allowed[0]))
