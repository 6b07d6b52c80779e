"""The selection is the naive float64 greedy's, and what it promises holds against brute force."""

import contextlib
import dataclasses
import itertools
from functools import cache, partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fisherlib as fl
from fisherlib.greedy import memory
from fisherlib.greedy.blocks import Blocks
from fisherlib.greedy.information import TIE, Information
from fisherlib.greedy.memory import plan_memory
from fisherlib.greedy.screen import Screen

POOLS = ("random", "duplicated", "heavy-tailed", "wide", "with empty rows", "one direction", "all equal")


def make_pool(kind: str, seed: int, n: int, d: int, longest: int) -> fl.TokenFeatures:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, n)
    blocks = [rng.normal(size=(t, d)) for t in lengths]
    if kind == "duplicated":
        blocks = [blocks[i] for i in rng.integers(0, max(n // 3, 1), n)]
    elif kind == "heavy-tailed":
        blocks = [b * np.exp(2 * rng.normal()) for b in blocks]
    elif kind == "wide":
        blocks = [np.repeat(b, 6, axis=1) * rng.normal(size=6 * d) for b in blocks]
    elif kind == "with empty rows":
        blocks = [b[: rng.integers(0, len(b) + 1)] for b in blocks]
    elif kind == "one direction":
        blocks = [b[:, :1] * np.ones(d) for b in blocks]
    elif kind == "common mean":  # as language models' features have: a few coordinates are large in every token
        blocks = [b + 50 * (np.arange(d) % 5 == 0) for b in blocks]
    elif kind == "all equal":
        blocks = [blocks[0]] * n
    # through float32, so that the reference sees just what the library sees
    return fl.TokenFeatures.from_list([torch.tensor(b, dtype=torch.float32) for b in blocks])


def naive(features, *, examples=None, tokens=None, rule="gain", V0=None, ids=()):
    """The definition: every log-determinant of every candidate at every pick, in float64."""
    outer, lengths = grams(features), features.lengths.tolist()
    V = np.eye(features.dim) if V0 is None else V0.copy()
    picks, left = list(ids), tokens
    for i in picks:
        V += outer[i]
    while True:
        rest = [i for i in range(len(outer)) if i not in picks]
        rest = rest[:0] if examples is not None and len(picks) == examples else rest
        rest = [i for i in rest if tokens is None or lengths[i] <= left]
        if not rest:
            return picks
        now = np.linalg.slogdet(V)[1]
        gains = dict(zip(rest, (np.linalg.slogdet(V + outer[rest])[1] - now).clip(0.0), strict=True))
        score = {i: g / (max(lengths[i], 1) if rule == "gain_per_token" else 1) for i, g in gains.items()}
        highest = max(score.values())
        best = next(i for i in rest if score[i] >= highest * (1 - TIE) - 1e-12)
        if tokens is not None:
            if gains[best] <= 1e-12:
                return picks
            left -= lengths[best]
        picks.append(best)
        V += outer[best]


def grams(features):
    """X^T X of every example, [N, d, d] in float64."""
    blocks = [features[i].double().numpy() for i in range(len(features))]
    return np.stack([X.T @ X for X in blocks])


def most_of_all(features, affordable, V0=None):
    """The largest objective of a set that is affordable, of all sets of at most ten examples; `affordable`: of an array."""
    sets = np.array(list(itertools.product([0.0, 1.0], repeat=len(features))))
    sets = sets[[affordable(np.flatnonzero(s)) for s in sets]]
    V0 = np.eye(features.dim) if V0 is None else V0
    return (np.linalg.slogdet(V0 + np.einsum("si,ijk->sjk", sets, grams(features)))[1] - np.linalg.slogdet(V0)[1]).max()


def objective(features, indices, V0=None):
    V = np.eye(features.dim) if V0 is None else V0
    total = V + sum((features[i].double().T @ features[i].double()).numpy() for i in indices)
    return np.linalg.slogdet(total)[1] - np.linalg.slogdet(V)[1]


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(POOLS),
    seed=st.integers(0, 10**6),
    n=st.integers(1, 14),
    d=st.integers(1, 6),
    longest=st.integers(1, 6),
    share=st.floats(0.05, 1.0),
    rule=st.sampled_from(["gain", "gain_per_token"]),
    by_tokens=st.booleans(),
    batch_size=st.sampled_from([1, 3, 32]),
    dtype=st.sampled_from(["bfloat16", "float32", "float64"]),
)
def test_equals_naive(kind, seed, n, d, longest, share, rule, by_tokens, batch_size, dtype):
    features = make_pool(kind, seed, n, d, longest)
    total = int(features.lengths.sum())
    if by_tokens:
        shortest = int(features.lengths[features.lengths > 0].min()) if total else 0
        budget = {"tokens": max(round(share * total), shortest)}
        if total == 0:
            return
    else:
        budget = {"examples": max(round(share * n), 1)}
    selection = fl.select(features, **budget, rule=rule, batch_size=batch_size, dtype=dtype)
    expected = naive(features, **budget, rule=rule)
    assert selection.indices.tolist() == expected
    assert selection.objective == pytest.approx(objective(features, expected), abs=1e-8)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("rule", ["gain", "gain_per_token"])
@pytest.mark.parametrize("prior", [1e-4, 1.0, 300.0])
def test_equals_naive_on_a_larger_pool(rule, prior, dtype):
    for kind in ("heavy-tailed", "common mean"):
        features, expected = larger(kind, rule, prior)
        selection = fl.select(features, examples=40, rule=rule, prior=prior, dtype=dtype)
        assert selection.indices.tolist() == expected


@cache
def larger(kind, rule, prior):
    """A pool and the naive picks, once for all kinds of numbers."""
    features = make_pool(kind, 5, 120, 16, 20)
    return features, naive(features, examples=40, rule=rule, V0=prior * np.eye(16))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_screen_cannot_choose_between_near_ties(dtype):
    """Two gains that differ by less than the screen resolves: the float64 decision must take the larger, later one."""
    X = torch.randn(6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    blocks = [X, X * (1 + 1e-8), X * 0.5]
    features = fl.TokenFeatures.from_list(blocks)
    assert fl.select(features, examples=1, dtype=dtype).indices.tolist() == [1]
    # closer than TIE is a tie, and a tie goes to the lowest index
    tied = fl.TokenFeatures.from_list([X, X * (1 + 1e-11)])
    assert fl.select(tied, examples=1, dtype=dtype).indices.tolist() == [0]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    closeness=st.sampled_from([1e-2, 1e-3, 1e-4, 1e-6]),
    mean=st.sampled_from([0.0, 30.0]),
    stored=st.sampled_from([torch.float32, torch.bfloat16]),
    dtype=st.sampled_from(["bfloat16", "float32"]),
)
def test_a_pool_of_near_ties_is_decided_as_in_float64(seed, closeness, mean, stored, dtype):
    """Examples that are all nearly the same, around a common mean that makes rounding errors large: the hardest pool."""
    rng = np.random.default_rng(seed)
    base = mean + rng.normal(size=(8, 24))
    blocks = [base[rng.permutation(8)] + closeness * rng.normal(size=(8, 24)) for _ in range(40)]
    features = fl.TokenFeatures.from_list([torch.tensor(block).to(stored) for block in blocks])
    expected = fl.select(features, examples=25, dtype="float64")
    assert expected.indices.tolist()[:3] == naive(features, examples=3)
    selection = fl.select(features, examples=25, dtype=dtype)
    assert selection.indices.tolist() == expected.indices.tolist()
    assert np.allclose(selection.gains, expected.gains, rtol=1e-9)


ERROR_CASES = [  # and how small the largest error must be: one that is always true and never useful would pass as well
    ("heavy-tailed", 48, 1e-3, np.inf, np.inf),
    ("common mean", 48, 1.0, 0.1, np.inf),
    ("random", 48, 1.0, 0.01, 1.0),
    ("random", 48, 1e8, 1e-3, 1e-3),
    ("random", 3, 1.0, 1e-3, 0.5),
    ("random", 1, 1e10, 1e-3, 1e-3),
]


@pytest.mark.parametrize(("kind", "d", "prior", "useful", "useful_in_bfloat16"), ERROR_CASES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_error_estimates_hold(kind, d, prior, useful, useful_in_bfloat16, dtype):
    features = make_pool(kind, 3, 60, d, 30)
    state = Information(features, prior, "none", "cpu")
    screen = Screen(state, getattr(torch, dtype))
    for pick in (4, 9, 33):
        state.add(pick)
        coarse, error = screen.gains(np.arange(60))
        fine = state.exact(range(60))
        assert (np.abs(coarse - fine) <= error).all()
        assert error.max() < (useful if dtype == "float32" else useful_in_bfloat16)


@pytest.mark.parametrize("d", [1, 64, 256])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_error_estimates_hold_with_weights(d, stored):
    """A weight scales a whole row: were it rounded by itself, the errors of a row would not average out."""
    draw = torch.Generator().manual_seed(0)
    values, weights = torch.randn(400, d, generator=draw).to(stored), torch.rand(400, generator=draw)
    features = fl.TokenFeatures(values, torch.arange(401), trace_weights=weights)
    for dtype in ("bfloat16", "float32"):
        state = Information(features, 1.0, "trace", "cpu")
        coarse, error = Screen(state, getattr(torch, dtype)).gains(np.arange(400))
        assert (np.abs(coarse - state.exact(range(400))) <= error).all()


def test_a_screen_that_promises_too_much_changes_no_pick(monkeypatch):
    """Were an error estimate too small, float64 would still decide between those that it looks at."""
    features = make_pool("duplicated", 1, 60, 6, 8)
    expected, screen = fl.select(features, examples=20, dtype="float64").indices, Screen.gains
    monkeypatch.setattr(Screen, "gains", lambda self, i: (1.001 * screen(self, i)[0], torch.zeros(len(i))))
    assert fl.select(features, examples=20, dtype="float32").indices.tolist() == expected.tolist()


@pytest.mark.parametrize("above", [3e-9, 5e-9, 1e-8])
def test_one_vector_each_and_all_but_equal(above):
    x = np.zeros((100, 4))
    x[:, 0], x[50, 0] = 1, np.sqrt(np.expm1(np.log1p(1.0) * (1 + above)))
    assert fl.select(fl.TokenFeatures(torch.tensor(x), torch.arange(101)), examples=3).indices.tolist() == [50, 0, 1]


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_a_matrix_prior_of_any_kind_of_tensor(kind):
    features = make_pool("random", 0, 20, 4, 3)
    prior = torch.eye(4, dtype=kind).requires_grad_()
    assert fl.select(features, examples=5, prior=prior).indices.tolist() == fl.select(features, examples=5).indices.tolist()


def test_memory_changes_the_batches_and_not_the_answer(tmp_path):
    features = make_pool("heavy-tailed", 2, 200, 12, 30)
    features.save(tmp_path / "features")
    mapped = fl.TokenFeatures.load(tmp_path / "features")
    expected = fl.select(features, examples=40)
    for source in (features, mapped):
        for gigabytes in (0.0005, 0.002, 1.0):
            selection = fl.select(source, examples=40, memory=gigabytes)
            assert plan_memory(source, "none", "cpu", int(gigabytes * 1e9)).total <= gigabytes * 1e9
            assert selection.indices.tolist() == expected.indices.tolist()
            assert np.allclose(selection.gains, expected.gains, rtol=1e-9)
    for least in range(40_000, 120_000, 500):  # bytes: down to what is too little
        with contextlib.suppress(ValueError):
            assert plan_memory(features, "none", "cpu", least).total <= least
    with pytest.raises(ValueError, match="expected at least .* GB for 200 examples of width 12.* raise memory="):
        fl.select(features, examples=40, memory=1e-5)


@pytest.mark.parametrize("weighting", ["none", "trace"])
def test_blocks_that_are_far_away_are_read_once_and_kept(tmp_path, monkeypatch, weighting):
    """A mapped file stands for features that do not fit on a GPU: the second time a block comes from the cache."""
    features = make_pool("with empty rows", 5, 60, 6, 9)
    weights = torch.rand(len(features.values), generator=torch.Generator().manual_seed(0))
    features = fl.TokenFeatures(features.values, features.offsets, trace_weights=weights)
    features.save(tmp_path / "features")
    near = Blocks(features, weighting, "cpu")
    monkeypatch.setattr(memory, "_CACHE", 100 * 6 * 4)  # 100 rows
    far = Blocks(fl.TokenFeatures.load(tmp_path / "features"), weighting, "cpu")
    rng = np.random.default_rng(0)
    for size in (1, 3, 60, 8, 20, 60, 12, 12, 5):  # more than fits, too, and with some that were never asked for
        some = rng.choice(60, size, replace=False)
        for _ in range(3):
            assert torch.equal(far.padded(some, torch.float64), near.padded(some, torch.float64))
    monkeypatch.setattr(far, "_values", torch.full_like(far._values, torch.nan))  # the file is out of reach
    assert torch.equal(far.padded(some, torch.float64), near.padded(some, torch.float64))
    other = np.setdiff1d(np.flatnonzero(features.lengths.numpy()), some)
    assert far.padded(other, torch.float64).isnan().any()


@pytest.mark.parametrize("kind", ["random", "heavy-tailed", "common mean", "duplicated"])
def test_the_updated_root_gives_the_gains_of_a_fresh_inverse(kind):
    """Whatever is evaluated together, and wherever the root is made anew, gains must not drift, mix or lose their digits."""
    features = make_pool(kind, 1, 50, 24, 6)
    state = Information(features, 0.01, "none", "cpu")
    rng = np.random.default_rng(0)
    for pick in range(30):
        state.add(pick)
        some = np.sort(rng.choice(50, 9, replace=False))
        fresh = [
            np.linalg.slogdet(np.eye(len(X)) + X @ np.linalg.inv(state.V.numpy()) @ X.T)[1]
            for X in map(np.asarray, (features[i].double() for i in some))
        ]
        assert np.allclose(state.exact(some), fresh, rtol=1e-9, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(POOLS), seed=st.integers(0, 10**6), by_tokens=st.booleans(), prior=st.sampled_from([0.01, 1.0]))
def test_certificate_bounds_the_brute_force_optimum(kind, seed, by_tokens, prior):
    features = make_pool(kind, seed, 8, 3, 4)
    costs = features.lengths.numpy()
    if by_tokens and costs.sum() < 3:
        return
    budget = {"tokens": max(int(costs.sum()) // 2, int(costs[costs > 0].min()))} if by_tokens else {"examples": 3}
    selection = fl.select(features, **budget, prior=prior, rule="gain_per_token" if by_tokens else "gain")
    V0 = prior * np.eye(features.dim)
    best = most_of_all(features, lambda s: costs[s].sum() <= budget["tokens"] if by_tokens else len(s) <= 3, V0)
    assert best <= selection.upper_bound + 1e-8
    assert 0 <= selection.certificate <= 1
    assert selection.objective >= selection.certificate * best - 1e-8
    if not by_tokens:
        assert selection.objective >= (1 - 1 / np.e) * best - 1e-9


def test_the_whole_pool_is_certified_optimal():
    features = make_pool("random", 0, 9, 4, 5)
    assert fl.select(features, examples=9).certificate == pytest.approx(1.0, abs=1e-9)


def test_gains_telescope_and_never_rise():
    features = make_pool("random", 1, 40, 6, 5)
    selection = fl.select(features, examples=40)
    assert selection.objective == pytest.approx(objective(features, range(40)), abs=1e-9)
    assert (np.diff(selection.gains) <= 1e-9).all()


def test_overflow_in_float32_is_decided_in_float64():
    """Norms whose squares exceed float32: the screen is blind there, the answer must not be."""
    X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    huge = torch.tensor([[1e22, 0.0, 0.0]], dtype=torch.float64)
    features = fl.TokenFeatures.from_list([X, huge, X[:, [2, 0, 1]] * 3, X[[4, 2]]])
    assert fl.select(features, examples=4).indices.tolist() == naive(features, examples=4)


def test_lazy_evaluates_less_than_naive():
    features = make_pool("heavy-tailed", 2, 300, 12, 20)
    selection = fl.select(features, examples=40, batch_size=1)
    assert selection.evaluations < 0.6 * (300 * 40 - 40 * 39 // 2)


def test_permuting_the_pool_permutes_the_selection():
    features = make_pool("random", 3, 30, 5, 6)
    order = np.random.default_rng(0).permutation(30)
    moved = fl.select(features.subset(order), examples=12)
    assert [int(order[i]) for i in moved.indices] == fl.select(features, examples=12).indices.tolist()


def test_rotation_and_joint_scaling_change_nothing():
    features = make_pool("random", 4, 30, 5, 6)
    Q = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    reference = fl.select(features, examples=12).indices.tolist()
    blocks = [features[i].double() for i in range(30)]
    assert fl.select(fl.TokenFeatures.from_list([b @ Q for b in blocks]), examples=12).indices.tolist() == reference
    scaled = fl.TokenFeatures.from_list([7 * b for b in blocks])
    assert fl.select(scaled, examples=12, prior=49.0).indices.tolist() == reference
    mixed = Q * torch.arange(1.0, 6.0)  # x -> x B with V0 -> B^T V0 B
    both = fl.select(fl.TokenFeatures.from_list([b @ mixed for b in blocks]), examples=12, prior=_symmetric(mixed.T @ mixed))
    assert both.indices.tolist() == reference


def _symmetric(matrix):
    return (matrix + matrix.T) / 2


@pytest.mark.parametrize(("d", "prior"), [(1, 1.0), (3, 1.0), (4, 1e7), (16, 1e8)])
def test_equals_naive_where_gains_are_tiny(d, prior):
    """Many picks in few dimensions, or a huge prior: gains near the rounding of float32's 1 + w^2."""
    rng = np.random.default_rng(d)
    features = fl.TokenFeatures.from_list(
        [torch.tensor(rng.normal(size=(k, d)), dtype=torch.float32) for k in rng.integers(1, 7, 300)]
    )
    padded = np.zeros((300, 6, d))  # a row of zeros adds an eigenvalue of zero
    for block, i in zip(padded, range(300), strict=True):
        block[: len(features[i])] = features[i]
    picks = (
        fl.select(features, examples=120).indices if prior == 1 else fl.select(features, examples=25, prior=prior).indices
    )
    V = prior * np.eye(d)
    for i in picks:  # log1p of eigenvalues: slogdet itself would lose these gains
        W = np.linalg.solve(np.linalg.cholesky(V), padded.transpose(0, 2, 1))
        gains = np.log1p(np.linalg.eigvalsh(W.transpose(0, 2, 1) @ W).clip(0)).sum(axis=1)
        gains[picks[: np.flatnonzero(picks == i)[0]]] = -1
        assert gains[i] >= gains.max() * (1 - 2 * TIE)
        V += padded[i].T @ padded[i]


def test_an_unaffordable_giant_does_not_spoil_the_certificate():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        small = [torch.tensor(rng.normal(size=(int(t), 3))) for t in rng.integers(1, 5, 7)]
        features = fl.TokenFeatures.from_list([torch.full((40, 3), 1e8, dtype=torch.float64), *small])
        selection = fl.select(features, tokens=9, rule="gain_per_token")
        costs = features.lengths.numpy()
        assert most_of_all(features, lambda s, costs=costs: costs[s].sum() <= 9) <= selection.upper_bound + 1e-8


def test_scoring_a_selection_uses_prior_and_weighting():
    features = make_pool("random", 12, 20, 4, 5)
    weights = torch.rand(len(features.values), generator=torch.Generator().manual_seed(1))
    weighted = fl.TokenFeatures(features.values, features.offsets, trace_weights=weights)
    for prior in (0.1, 50.0):
        V0 = prior * np.eye(4)
        scored = fl.score_selection(features, [4, 1, 9], prior=prior)
        assert scored.objective == pytest.approx(objective(features, [4, 1, 9], V0), abs=1e-9)
        scaled = fl.TokenFeatures(features.values.double() * weights.double().sqrt()[:, None], features.offsets)
        by_weight = fl.score_selection(weighted, [4, 1, 9], prior=prior, weighting="trace")
        assert by_weight.objective == pytest.approx(objective(scaled, [4, 1, 9], V0), abs=1e-6)


@pytest.mark.parametrize("copies", [2, 3])
def test_a_further_copy_gains_at_most_min_t_d_log_k_over_k_minus_1(copies):
    X = torch.randn(12, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    selection = fl.select(fl.TokenFeatures.from_list([X] * copies), examples=copies, prior=1e-9)
    limit = 12 * np.log(copies / (copies - 1))
    assert selection.gains[-1] <= limit + 1e-9
    assert selection.gains[-1] == pytest.approx(limit, rel=1e-6)


def test_equal_examples_come_in_order_and_empty_ones_last():
    equal = make_pool("all equal", 0, 7, 4, 5)
    assert fl.select(equal, examples=7).indices.tolist() == list(range(7))
    X = torch.eye(3)
    features = fl.TokenFeatures.from_list([X[:0], 0.01 * X[:1], X[:0], X])
    assert fl.select(features, examples=4).indices.tolist() == [3, 1, 0, 2]
    assert fl.select(features, tokens=4).indices.tolist() == [3, 1]


@pytest.mark.parametrize("budgets", [{"examples": (7, 20)}, {"tokens": (25, 80)}])
def test_continuing_a_selection(budgets):
    ((kind, (small, large)),) = budgets.items()
    features = make_pool("random", 6, 40, 5, 6)
    first = fl.select(features, **{kind: small})
    longer = fl.select(features, **{kind: large}, start=first)
    assert longer.indices[: len(first)].tolist() == first.indices.tolist()
    spent = int(first.costs.sum()) if kind == "tokens" else 0
    assert longer.indices.tolist() == naive(features, **{kind: large - spent}, ids=first.indices.tolist())
    assert longer.objective == pytest.approx(objective(features, longer.indices), abs=1e-8)
    if kind == "examples":
        assert longer.indices.tolist() == fl.select(features, examples=large).indices.tolist()


def test_continuing_under_another_prior_recomputes_what_was_gained():
    features = make_pool("random", 6, 40, 5, 6)
    first = fl.select(features, examples=7, prior=100.0)
    longer = fl.select(features, examples=12, start=first, prior=0.1)
    V0 = 0.1 * np.eye(5)
    assert longer.objective == pytest.approx(objective(features, longer.indices, V0), abs=1e-8)
    assert longer.indices.tolist() == naive(features, examples=12, V0=V0, ids=first.indices.tolist())


def test_trace_weighting_scales_the_rows():
    features = make_pool("random", 7, 20, 4, 5)
    weights = torch.rand(len(features.values), generator=torch.Generator().manual_seed(0))
    weighted = fl.TokenFeatures(features.values, features.offsets, trace_weights=weights)
    scaled = fl.TokenFeatures(features.values.double() * weights.double().sqrt()[:, None], features.offsets)
    by_weight = fl.select(weighted, examples=8, weighting="trace")
    assert by_weight.indices.tolist() == fl.select(scaled, examples=8).indices.tolist()
    assert by_weight.indices.tolist() != fl.select(features, examples=8).indices.tolist()


def test_matrix_prior_is_what_is_already_known():
    features = make_pool("random", 8, 20, 4, 5)
    known = features[3].double()
    V0 = torch.eye(4, dtype=torch.float64) + known.T @ known
    assert fl.select(features, examples=6, prior=V0).indices.tolist() == naive(features, examples=6, V0=V0.numpy())


def test_costs_are_what_the_budget_counts():
    features = make_pool("random", 9, 12, 4, 5)
    costs = np.linspace(1.5, 4, 12)
    selection = fl.select(features, tokens=10.0, costs=costs, rule="gain_per_token")
    assert selection.costs.sum() <= 10 < costs.sum()
    assert np.array_equal(selection.costs, costs[selection.indices])


def test_half_precision_features_are_cast_before_any_product():
    features = make_pool("random", 10, 25, 6, 6)
    half = fl.TokenFeatures(features.values.bfloat16(), features.offsets)
    same = fl.TokenFeatures(features.values.bfloat16().double(), features.offsets)
    assert fl.select(half, examples=10).indices.tolist() == fl.select(same, examples=10, dtype="float64").indices.tolist()


# --- other people's picks, fewer dimensions, random samples, forecasts --------------------------------------------------


def test_certify_bounds_the_optimum_for_any_picks():
    features = make_pool("random", 6, 8, 3, 4)
    for picks in ([0, 1, 2], [7, 3, 5]):
        certified = fl.certify(features, fl.score_selection(features, picks), prior=0.5)
        best = max(objective(features, s, 0.5 * np.eye(3)) for s in itertools.combinations(range(8), 3))
        assert certified.objective == pytest.approx(objective(features, picks, 0.5 * np.eye(3)), abs=1e-9)
        assert certified.objective <= best <= certified.upper_bound + 1e-9
    chosen = fl.select(features, tokens=9)
    again = fl.certify(features, chosen)
    assert again.objective == pytest.approx(chosen.objective, abs=1e-9)
    assert again.upper_bound == pytest.approx(chosen.upper_bound, abs=1e-9)


@pytest.mark.parametrize(
    "budget",
    [None, 5, "tokens", ["tokens"], *({"tokens": t} for t in (None, "5", [5], True, float("nan"), -3, float("inf")))],
)
def test_a_budget_that_none_can_be_is_refused_by_certify(budget):
    features = make_pool("random", 6, 8, 3, 4)
    chosen = dataclasses.replace(fl.select(features, tokens=9), settings={"budget": budget})
    with pytest.raises(ValueError, match=r"expected settings of a budget like \{'tokens': 300\}, got .*: make it anew with"):
        fl.certify(features, chosen)


def test_compression_costs_what_certify_says():
    features = make_pool("random", 7, 80, 16, 5)
    full = fl.select(features, examples=15)
    for method in ("pca", "random"):
        small = fl.compress(features, 8, method=method)
        assert small.dim == 8 and torch.equal(small.offsets, features.offsets)
        certified = fl.certify(features, fl.select(small, examples=15))
        assert certified.objective <= full.objective + 1e-9  # on this pool
        assert certified.upper_bound >= full.objective - 1e-9
        assert certified.objective > 0.9 * full.objective
    flat = fl.TokenFeatures.from_list([features[i] @ torch.eye(16)[:, :5] @ torch.ones(5, 16) for i in range(80)])
    one = fl.compress(flat, 1)  # all tokens on one line: one direction keeps everything
    assert fl.select(one, examples=5).indices.tolist() == fl.select(flat, examples=5).indices.tolist()
    with pytest.raises(ValueError, match="a width from 1 to 15"):
        fl.compress(features, 16)
    with pytest.raises(ValueError, match="expected method"):
        fl.compress(features, 4, method="svd")


def test_stochastic_greedy_keeps_its_guarantee_on_average_and_looks_at_less():
    features = make_pool("heavy-tailed", 8, 400, 8, 4)
    full = fl.select(features, examples=20)
    runs = [fl.select(features, examples=20, stochastic=0.1, seed=seed) for seed in range(8)]
    assert all(len(set(run.indices.tolist())) == 20 for run in runs)
    assert len({tuple(run.indices) for run in runs}) > 1
    assert np.mean([run.objective for run in runs]) >= (1 - 1 / np.e - 0.1) * full.objective
    assert all(run.objective <= full.upper_bound + 1e-9 for run in runs)
    again = fl.select(features, examples=20, stochastic=0.1, seed=0)
    assert again.indices.tolist() == runs[0].indices.tolist()
    # a sample of everyone is the greedy itself
    assert fl.select(features, examples=20, stochastic=1e-12).indices.tolist() == full.indices.tolist()
    for wrong in ({"examples": 5, "stochastic": 1.5}, {"tokens": 50, "stochastic": 0.1}):
        with pytest.raises(ValueError, match="expected stochastic between 0 and 1, with examples="):
            fl.select(features, **wrong)


def test_the_forecast_is_of_the_right_size():
    features = make_pool("heavy-tailed", 9, 600, 24, 8)
    for budget in ({"examples": 60}, {"tokens": 240}):
        expected = fl.forecast(features, **budget, sample=120)
        selection = fl.select(features, **budget)
        assert 0.3 < expected.evaluations / selection.evaluations < 3
        assert expected.seconds > 0 and expected.gigabytes > 0
    best = fl.forecast(features, tokens=400, rule="best", sample=120)
    spent = fl.select(features, tokens=400, rule="best").evaluations
    assert spent / 2 < best.evaluations < 2 * spent
    assert best.gigabytes == fl.forecast(features, tokens=400, sample=120).gigabytes  # one engine at a time
    whole = fl.forecast(features, examples=60, sample=1000)
    assert whole.evaluations == fl.select(features, examples=60).evaluations
    with pytest.raises(ValueError, match="raise memory="):
        fl.forecast(features, examples=10, memory=1e-6)
    with pytest.raises(ValueError, match="exactly one of"):
        fl.forecast(features)
    with pytest.raises(ValueError, match="hold for a sample of the pool too, got .'costs'."):
        fl.forecast(features, examples=10, costs=np.ones(600))
    assert fl.forecast(features, tokens=8, sample=120).evaluations > 0  # a sample's share would not pay for one example


def test_no_features_and_negative_weights_are_refused():
    for call in (fl.select, fl.forecast, partial(fl.selectors.uniform, None)):
        with pytest.raises(ValueError, match="expected features of at least one example, got none"):
            call(fl.TokenFeatures(torch.zeros(0, 3), torch.tensor([0])), examples=1)
    features = fl.TokenFeatures(torch.ones(4, 2), torch.tensor([0, 2, 4]), trace_weights=-torch.ones(4))
    with pytest.raises(ValueError, match="expected trace_weights of at least 0, got others: extract the features again"):
        fl.select(features, examples=1, weighting="trace")


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("cost", [3.0, 40.0], ids=["affordable", "never affordable"])
def test_features_that_are_not_finite_are_refused_by_the_example(value, cost, dtype):
    features = make_pool("random", 11, 20, 4, 5)
    features.values[features.offsets[7]] = value
    costs = np.full(20, 3.0)
    costs[7] = cost
    for budget in (9, 30):
        with pytest.raises(ValueError, match="expected finite features, got NaN or infinity in example 7: extract the"):
            fl.select(features, tokens=budget, costs=costs, dtype=dtype)


@pytest.mark.timeout(30)  # it is about a race that did not end
@pytest.mark.filterwarnings("ignore:overflow encountered in divide")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scores_may_be_infinite(dtype):
    """Of costs so small that a gain over them overflows; two such scores are a tie."""
    features = make_pool("random", 12, 12, 4, 5)
    costs = np.full(12, 1e-310)
    some = fl.select(features, tokens=5e-310, costs=costs, rule="gain_per_token", dtype=dtype)
    assert some.indices.tolist() == list(range(5))
    costs = features.lengths.double().numpy()
    costs[5] = 1e-310
    assert fl.select(features, tokens=9, costs=costs, rule="gain_per_token", dtype=dtype).indices[0] == 5
