"""UniMax, UtiliMax and the information mixture: closed forms, brute force, KKT, certificates; and what is drawn of them."""

import itertools

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

import fisherlib as fl
from fisherlib.mixtures import Mixture, information_mixture, unimax, utilimax
from fisherlib.mixtures.mixture import frank_wolfe_gap

SIZES = st.lists(st.integers(1, 1000), min_size=1, max_size=8)


@st.composite
def budgets(draw):
    """Sizes, and a budget that some epochs over them can fill."""
    sizes, epochs = draw(SIZES), draw(st.sampled_from([0.5, 1, 2.5, 4]))
    return sizes, draw(st.integers(1, max(int(epochs * sum(sizes)), 1))), epochs


def feasible(mixture, sizes, tokens, epochs):
    w = mixture.weights
    return (
        w.min() >= 0
        and w.sum() == pytest.approx(1, abs=1e-9)
        and (w * tokens <= epochs * np.array(sizes) * (1 + 1e-9) + 1e-9).all()
    )


def test_water_filling_by_hand():
    mixture = unimax([1, 2, 4, 30, 100], tokens=40)
    assert mixture.weights == pytest.approx([0.1, 0.2, 0.7 / 3, 0.7 / 3, 0.7 / 3], abs=1e-12)
    assert mixture.objective == pytest.approx((mixture.weights**2).sum()) and mixture.gap == 0


@given(budgets())
@settings(max_examples=200, deadline=None)
def test_unimax_is_flat_but_for_its_caps(case):
    sizes, tokens, epochs = case
    if epochs * sum(sizes) < tokens:
        return
    mixture = unimax(sizes, tokens=tokens, epochs=epochs)
    assert feasible(mixture, sizes, tokens, epochs)
    open_ones = mixture.weights < mixture.caps - 1e-12
    level = mixture.weights[open_ones]
    assert not len(level) or np.ptp(level) < 1e-12
    assert not len(level) or (mixture.weights <= level[0] + 1e-12).all()


@given(budgets(), st.floats(0.01, 50), st.floats(0.0, 1), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_equal_utilities_give_unimax_at_every_risk(case, risk, level, tasks):
    sizes, tokens, epochs = case
    if epochs * sum(sizes) < tokens:
        return
    equal = np.full((len(sizes), tasks), level)
    flat = unimax(sizes, tokens=tokens, epochs=epochs).weights
    for weight in (risk, 0):
        assert utilimax(equal, sizes, tokens=tokens, epochs=epochs, risk=weight).weights == pytest.approx(flat, abs=1e-9)


@pytest.mark.parametrize("risk", [0, 0.05, 1, 3])
def test_a_grid_of_three_sources_finds_nothing_better(risk):
    rng = np.random.default_rng(1)
    U, sizes, tokens = rng.random((3, 4)), [30, 50, 200], 100
    mixture = utilimax(U, sizes, tokens=tokens, epochs=1, risk=risk)
    assert feasible(mixture, sizes, tokens, 1) and mixture.gap < 1e-6
    grid = [(a, b, 1 - a - b) for a, b in itertools.product(np.linspace(0, 1, 401), repeat=2) if 0 <= 1 - a - b <= 1]
    grid = np.array([w for w in grid if (np.array(w) <= mixture.caps + 1e-12).all()])
    values = np.linalg.norm(grid @ U - 1, axis=1) + risk * (grid**2).sum(1)
    assert mixture.objective <= values.min() + 1e-9 and values.min() < mixture.objective + 2e-3


@pytest.mark.parametrize("seed", range(10))
def test_uncapped_sources_have_one_slope_and_permuting_them_permutes_the_weights(seed):
    rng = np.random.default_rng(seed)
    K, T = int(rng.integers(2, 9)), int(rng.integers(1, 9))
    U, sizes, risk = rng.random((K, T)), rng.integers(10, 200, K), float(rng.choice([0.1, 1, K]))
    tokens = int(sizes.sum())
    mixture = utilimax(U, sizes.tolist(), tokens=tokens, risk=risk)
    w = mixture.weights
    miss = U.T @ w - 1
    slope = U @ miss / np.linalg.norm(miss) + 2 * risk * w
    inside = (w > 1e-7) & (w < mixture.caps - 1e-7)
    assert np.ptp(slope[inside]) < 1e-4 if inside.sum() > 1 else True
    assert mixture.gap < 1e-6
    order = rng.permutation(K)
    other = utilimax(U[order], sizes[order].tolist(), tokens=tokens, risk=risk)
    assert other.weights == pytest.approx(w[order], abs=1e-4) and other.objective == pytest.approx(
        mixture.objective, abs=1e-9
    )


def test_without_risk_a_poison_source_is_dropped_and_with_much_risk_it_is_kept():
    U = np.array([[1.0, 0.1], [0.1, 1.0], [0.0, 0.0]])
    sizes = [300, 300, 900]
    kept = {risk: utilimax(U, sizes, tokens=300, risk=risk).weights[2] for risk in (0, 0.1, 3, 100)}
    assert kept[0] == pytest.approx(0, abs=1e-6) and kept[100] == pytest.approx(1 / 3, abs=0.01)
    assert np.diff(list(kept.values())).min() > -1e-12  # up to rounding, it never falls with the risk


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_the_gap_is_the_linear_program_of_scipy(gradient, seed):
    from scipy.optimize import linprog

    rng, K = np.random.default_rng(seed), len(gradient)
    caps = rng.uniform(1 / K, 1, K)
    weights = rng.dirichlet(np.ones(K))
    best = linprog(gradient, A_eq=np.ones((1, K)), b_eq=[1], bounds=[(0, cap) for cap in caps])
    expected = max(float(np.dot(gradient, weights) - best.fun), 0)
    assert frank_wolfe_gap(np.array(gradient), weights, caps) == pytest.approx(
        expected, abs=2e-6
    )  # HiGHS decides slopes within 1e-7 as ties


def some_sources(seed=0, d=6, names="abc"):
    rng = np.random.default_rng(seed)
    scales = {name: rng.uniform(0.1, 2, d) for name in names}
    return {
        name: fl.TokenFeatures.from_list([rng.normal(size=(5, d)) * scale for _ in range(int(rng.integers(10, 30)))])
        for name, scale in scales.items()
    }


def log_det(sources, w, tokens, prior):
    M = [(x.values.double().T @ x.values.double() / len(x.values)).numpy() for x in sources.values()]
    return np.linalg.slogdet(prior + tokens * np.einsum("k,kij->ij", w, M))[1]


def test_no_grid_point_has_more_information_and_the_gap_says_so():
    sources, prior = some_sources(), np.diag(np.arange(1.0, 7.0))
    mixture = information_mixture(sources, tokens=60, epochs=1, prior=prior)
    assert mixture.gap < 1e-6 and mixture.objective == pytest.approx(log_det(sources, mixture.weights, 60, prior))
    for a, b in itertools.product(np.linspace(0, 1, 41), repeat=2):
        w = np.array([a, b, 1 - a - b])
        if w.min() >= 0 and (w <= mixture.caps).all():
            assert log_det(sources, w, 60, prior) <= mixture.objective + mixture.gap + 1e-9


def test_copies_of_one_source_share_its_part_and_the_total_counts():
    (x,) = some_sources(names="a").values()
    mixture = information_mixture([x, x, x], tokens=30, epochs=4)
    assert mixture.weights == pytest.approx([1 / 3] * 3)  # all tie, so the flattest


def test_where_rows_of_a_source_are_alike_fisher_sft_comes_near_the_mixture_as_the_budget_grows():
    """Then a choice of whole rows is a mixture: never above the relaxation, and both shares and information come near."""
    rng = np.random.default_rng(3)
    rows = {name: rng.normal(size=(5, 4)) * rng.uniform(0.1, 2, 4) for name in "abcd"}
    sources = {name: fl.TokenFeatures.from_list([x] * 200) for name, x in rows.items()}
    whole = fl.TokenFeatures.from_list([x for x in rows.values() for _ in range(200)])
    groups = np.repeat([*rows], 200)
    apart, lost = [], []
    for tokens in (10, 100, 1000):
        mixture = information_mixture(sources, tokens=tokens, epochs=1)
        chosen = fl.select(whole, tokens=tokens, progress=False)
        spent = np.array([chosen.costs[groups[chosen.indices] == name].sum() for name in mixture])
        apart.append(np.abs(spent / tokens - mixture.weights).sum())
        lost.append(mixture.objective + mixture.gap - chosen.objective)
    assert min(lost) >= -1e-9 and apart == sorted(apart, reverse=True) and apart[-1] < 0.02


def test_a_mixture_is_a_quota():
    sources = some_sources(3, d=4)
    whole = fl.TokenFeatures.from_list([x[i].numpy() for x in sources.values() for i in range(len(x))])
    groups = [name for name, x in sources.items() for _ in range(len(x))]
    mixture = unimax({name: len(x.values) for name, x in sources.items()}, tokens=90, epochs=1)
    chosen = fl.select(whole, tokens=90, groups=groups, quotas=mixture, progress=False)
    for name, share in mixture.items():
        spent = chosen.costs[[groups[i] == name for i in chosen.indices]].sum()
        assert abs(spent - 90 * share) <= 5
    assert dict(mixture) == pytest.approx(dict.fromkeys("abc", 1 / 3))
    with pytest.raises(KeyError):
        mixture["d"]


# --- drawing


def rows_of(mark, lengths):
    return [[mark, i, *[0] * (n - 1)] for i, n in enumerate(lengths)]  # the first token does not count


@given(budgets(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_what_is_drawn_has_the_total_the_shares_and_no_row_too_often(case, seed):
    rng = np.random.default_rng(seed)
    sources = {k: rows_of(k, rng.integers(1, 7, size % 12 + 1)) for k, size in enumerate(case[0])}
    sizes = {k: sum(len(row) - 1 for row in rows) for k, rows in sources.items()}
    tokens, epochs = min(case[1], int(case[2] * sum(sizes.values()))), case[2]
    if tokens < 1:
        return
    mixture = unimax(sizes, tokens=tokens, epochs=epochs)
    drawn = mixture.draw(sources, seed=seed, show=False)
    assert drawn == mixture.draw(sources, seed=seed, show=False)
    assert tokens - 7 < sum(len(row) - 1 for row in drawn) <= tokens + 1
    for k in sources:
        mine = [tuple(row) for row in drawn if row[0] == k]
        assert abs(sum(len(row) - 1 for row in mine) - mixture[k] * tokens) < 7 + 1
        assert max(map(mine.count, mine), default=0) <= np.ceil(epochs)


def test_datasets_are_drawn_as_one_and_what_was_asked_is_said(real, capsys):
    _, tokenizer = real
    sources = {
        name: Dataset.from_list([{"prompt": "a", "response": f"{name} {i}", "id": i} for i in range(9)])
        for name in ("old", "new")
    }
    mixture = unimax({"old": 40, "new": 40}, tokens=40)
    drawn = mixture.draw(sources, tokenizer=tokenizer)
    assert isinstance(drawn, Dataset) and {text.split()[0] for text in drawn["response"]} == {"old", "new"}
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == ["old", "new"] and "asked 20 tokens, got " in said[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: unimax([], tokens=4), "expected the number of tokens of each source"),
        (lambda: unimax([3, 0], tokens=4), "expected the number of tokens of each source"),
        (lambda: unimax([3, 4], tokens=0), "expected a budget of at least 1 token"),
        (lambda: unimax([3, 4], tokens=10, epochs=1), "give epochs=1.43 or more"),
        (lambda: utilimax(np.ones((2, 3)), [3, 4, 5], tokens=4, risk=1), r"expected utilities \[3, tasks\]"),
        (lambda: utilimax(np.full((2, 3), 1.5), [3, 4], tokens=4, risk=1), "expected utilities"),
        (lambda: utilimax(np.full((2, 3), np.nan), [3, 4], tokens=4, risk=1), "expected utilities"),
        (lambda: utilimax(np.ones((2, 3)), [3, 4], tokens=4, risk=-1), "expected a risk of at least 0"),
        (lambda: information_mixture(some_sources(), {"a": 3}, tokens=4), "expected features of one width for the sources"),
        (
            lambda: information_mixture(some_sources(), tokens=4, prior=np.zeros((6, 6))),
            "expected a positive definite prior",
        ),
        (lambda: information_mixture(some_sources(), tokens=4, prior=np.eye(3)), "expected a positive definite prior"),
        (lambda: unimax([9, 9], tokens=9).draw([[[1, 2]]]), "expected the sources 0, 1, got 0"),
        (lambda: unimax([9, 9], tokens=18, epochs=1).draw([[[1, 2]], [[1, 2]]]), "make the mixture with today's sizes"),
    ],
)
def test_what_makes_no_mixture_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_mixture_shows_its_shares():
    assert repr(unimax({"plays": 100, "code": 10}, tokens=80)) == (
        "Mixture({'plays': 0.5, 'code': 0.5}, 80 tokens, at most 4 epochs)"
    )
    assert isinstance(unimax([3], tokens=3), Mixture)
