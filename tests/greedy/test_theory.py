"""What is proved about the objective and its greedy maximisation (notebook 02) holds of this code, on random problems.

The library's own `Information` and `select` are tested, not a copy of the formulas.
"""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fisherlib as fl
from fisherlib.greedy.information import Information

seeds = st.integers(0, 10**6)
priors = st.sampled_from([1e-3, 0.1, 1.0, 30.0])
SETS = torch.tensor(list(itertools.product([0.0, 1.0], repeat=9)), dtype=torch.float64)


def draw(seed, n=9, d=4, longest=4, spread=1.0):
    rng = np.random.default_rng(seed)
    lengths, sizes = rng.integers(1, longest + 1, n), np.exp(spread * rng.normal(size=n))
    return [torch.tensor(s * rng.normal(size=(t, d))) for t, s in zip(lengths, sizes, strict=True)]


def features_of(blocks):
    return fl.TokenFeatures.from_list(blocks)


def knowing(blocks, chosen, prior):
    """The library's state once `chosen` are known."""
    state = Information(features_of(blocks), prior, "none", "cpu")
    for i in chosen:
        state.add(i)
    return state


def gain(state, i):
    return float(state.exact([i])[0])


def values_of(sets, blocks, prior):
    """f of many sets, each a row of zeros and ones, by brute force."""
    grams = torch.stack([X.T @ X for X in blocks])
    V0 = prior * torch.eye(blocks[0].shape[1], dtype=torch.float64)
    return (torch.logdet(V0 + torch.einsum("si,ijk->sjk", sets, grams)) - torch.logdet(V0)).numpy()


# --- the objective ---------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(seed=seeds, prior=priors, spread=st.sampled_from([0.0, 2.0]), data=st.data())
def test_gains_are_not_negative_and_only_shrink(seed, prior, spread, data):
    blocks = draw(seed, n=6, d=3, spread=spread)
    order = data.draw(st.permutations(range(6)))
    a, b = sorted(data.draw(st.tuples(st.integers(0, 5), st.integers(0, 5))))
    less, more = (gain(knowing(blocks, order[:k], prior), order[5]) for k in (a, b))
    assert less >= more - 1e-9 * max(less, 1) and more >= 0
    direct = values_of(torch.eye(6, dtype=torch.float64)[[*order[:a], order[5]]].sum(0)[None], blocks, prior)
    before = values_of(torch.eye(6, dtype=torch.float64)[order[:a]].sum(0)[None], blocks, prior)
    assert less == pytest.approx(float(direct[0] - before[0]), abs=1e-7)  # determinants over 16 decades


@settings(max_examples=60, deadline=None)
@given(seed=seeds, prior=priors)
def test_what_one_example_takes_from_another_is_mutual(seed, prior):
    blocks = draw(seed, n=2, d=5, longest=7)
    lost = [gain(knowing(blocks, [], prior), i) - gain(knowing(blocks, [1 - i], prior), i) for i in (0, 1)]
    assert lost[0] == pytest.approx(lost[1], abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, prior=priors)
def test_a_one_token_pick_takes_the_squared_projection(seed, prior):
    """x_i^T V^-1 x_i falls by (x_i^T V^-1 x_j)^2 / (1 + x_j^T V^-1 x_j)."""
    blocks = draw(seed, n=4, d=3, longest=1)
    before, after = (knowing(blocks, chosen, prior) for chosen in ([2], [2, 0]))
    leverage = before.leverages()
    inverse = before.root @ before.root.T
    cross = torch.stack([(x @ inverse @ blocks[0].T)[0, 0] for x in blocks]).numpy()
    assert np.allclose(leverage - after.leverages(), cross**2 / (1 + leverage[0]), atol=1e-9 * leverage.max())


@settings(max_examples=60, deadline=None)
@given(seed=seeds, prior=priors, size=st.integers(1, 9))
def test_the_leverages_of_the_chosen_share_less_than_d(seed, prior, size):
    state = knowing(draw(seed, spread=0.5), range(size), prior)
    total = state.leverages()[:size].sum()
    assert total == pytest.approx(4 - prior * float(torch.trace(state.V.inverse())), abs=1e-8)
    assert total < 4


# --- guarantees ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_pick_closes_its_share_of_the_gap_and_greedy_is_nearly_optimal():
    """OPT - f(S_k+1) <= (1 - 1/n)(OPT - f(S_k)) in 300 brute-forced pools, and so f(S_n) >= (1 - (1 - 1/n)^n) OPT."""
    threes = SETS[SETS.sum(1) == 3]
    ratios = []
    for seed in range(300):
        prior = float(10 ** -np.random.default_rng(seed).uniform(0, 2))
        blocks = draw(seed, spread=0.5)
        best = values_of(threes, blocks, prior).max()
        gap = best - np.concatenate([[0], fl.select(features_of(blocks), examples=3, prior=prior).gains.cumsum()])
        assert (gap[1:] <= (1 - 1 / 3) * gap[:-1] + 1e-9 * best).all()
        ratios.append(1 - gap[-1] / best)
    assert 1 - (1 - 1 / 3) ** 3 <= min(ratios) < 1 - 1e-3 and max(ratios) <= 1 + 1e-9  # not always optimal: a real test
    assert min(ratios) > 0.9 and np.mean(ratios) > 0.99


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(seed=seeds, prior=priors)
def test_curvature_sharpens_the_guarantee(seed, prior):
    """f(greedy) >= (1 - e^-c)/c OPT with c = 1 - min gain(x | rest) / gain(x | empty)."""
    blocks = draw(seed, spread=0.5)
    empty = knowing(blocks, [], prior)
    c = 1 - min(gain(knowing(blocks, set(range(9)) - {i}, prior), i) / gain(empty, i) for i in range(9))
    guarantee = (1 - np.exp(-c)) / c
    best = values_of(SETS[SETS.sum(1) == 3], blocks, prior).max()
    assert 1 - 1 / np.e <= guarantee <= 1
    assert fl.select(features_of(blocks), examples=3, prior=prior).objective >= guarantee * best - 1e-9 * best


def test_with_no_overlap_curvature_is_zero_and_greedy_optimal():
    blocks = [s * torch.eye(9, dtype=torch.float64)[i : i + 1] for i, s in enumerate([3, 1, 4, 1.5, 9, 2.6, 5, 3.5, 8])]
    full = knowing(blocks, range(1, 9), 1.0)
    assert gain(full, 0) == pytest.approx(gain(knowing(blocks, [], 1.0), 0), abs=1e-12)
    chosen = fl.select(features_of(blocks), examples=3)
    assert chosen.indices.tolist() == [4, 8, 6]
    assert chosen.objective == pytest.approx(values_of(SETS[SETS.sum(1) == 3], blocks, 1.0).max(), abs=1e-9)
    assert chosen.certificate == pytest.approx((np.log(82 * 65 * 26)) / chosen.upper_bound)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(seed=seeds, prior=priors, share=st.floats(0.2, 0.8))
def test_the_better_of_the_two_rules_keeps_the_knapsack_guarantee(seed, prior, share):
    blocks = draw(seed)
    features = features_of(blocks)
    tokens = max(int(share * int(features.lengths.sum())), 4)
    affordable = SETS[SETS @ features.lengths.double() <= tokens]
    best = values_of(affordable, blocks, prior).max()
    found = [fl.select(features, tokens=tokens, prior=prior, rule=rule).objective for rule in ("gain", "gain_per_token")]
    assert (1 - 1 / np.e) / 2 * best <= max(found) <= best * (1 + 1e-9)


def test_gain_per_token_alone_can_be_arbitrarily_bad():
    axes = torch.eye(41, dtype=torch.float64)
    features = features_of([2.0 * axes[:1], 1.9 * axes[1:]])
    bargain, whole = (fl.select(features, tokens=40, rule=rule) for rule in ("gain_per_token", "gain"))
    assert (bargain.indices.tolist(), whole.indices.tolist()) == ([0], [1])
    assert bargain.objective < 0.03 * whole.objective


@settings(max_examples=60, deadline=None)
@given(seed=seeds, prior=priors, n=st.integers(1, 8))
def test_the_certificate_is_the_smaller_of_two_bounds(seed, prior, n):
    blocks = draw(seed)
    selection = fl.select(features_of(blocks), examples=n, prior=prior, dtype="float64")
    picks = selection.indices.tolist()
    state = knowing(blocks, picks, prior)
    left = sorted((gain(state, i) for i in range(9) if i not in picks), reverse=True)
    by_gains = selection.objective + sum(left[:n])
    by_concavity = fl.fisher.certificate(prior * torch.eye(4, dtype=torch.float64), blocks, picks)
    assert selection.upper_bound == pytest.approx(min(by_gains, by_concavity), rel=1e-6)
    assert values_of(SETS[SETS.sum(1) <= n], blocks, prior).max() <= min(by_gains, by_concavity) * (1 + 1e-9)


# --- laziness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4, 32, 300])
def test_lazy_is_naive_with_first_index_ties_and_never_evaluates_more(batch_size):
    """One-hot pools, full of exact ties: the order is the lowest index of the rarest direction, pick after pick."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        kinds = rng.integers(0, 4, 16).tolist()
        blocks = [torch.eye(4, dtype=torch.float64)[k : k + 1] for k in kinds]
        n, counts, expected = 8, [0] * 4, []
        for _ in range(n):
            rest = [i for i in range(16) if i not in expected]
            expected.append(min(rest, key=lambda i: (counts[kinds[i]], i)))
            counts[kinds[expected[-1]]] += 1
        selection = fl.select(features_of(blocks), examples=n, batch_size=batch_size, dtype="float64")
        assert selection.indices.tolist() == expected
        assert selection.evaluations - (16 - n) <= n * 16 - n * (n - 1) // 2  # the certificate looks once at what is left


def test_smaller_batches_evaluate_less():
    features = features_of(draw(0, n=200, d=10, longest=12))
    counts = [fl.select(features, examples=30, batch_size=b, dtype="float64").evaluations for b in (1, 32, 200)]
    assert counts[0] < counts[1] < counts[2] and counts[0] < 0.5 * (200 * 30 - 30 * 29 // 2)


# --- length, prior, duplicates ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seed=seeds, T=st.integers(1, 9), d=st.integers(1, 9), prior=st.sampled_from([1e-9, 1e-3, 1.0, 100.0]))
def test_no_copy_gains_more_than_the_law_allows(seed, T, d, prior):
    X = torch.tensor(np.random.default_rng(seed).normal(size=(T, d)))
    gains = fl.select(features_of([X] * 6), examples=6, prior=prior, dtype="float64").gains
    k = np.arange(2, 7)
    assert (gains[1:] <= min(T, d) * np.log(k / (k - 1)) + 1e-8).all()
    eigenvalues = np.linalg.svd(X.numpy(), compute_uv=False) ** 2 / prior
    exact = np.log((1 + k[:, None] * eigenvalues) / (1 + (k[:, None] - 1) * eigenvalues)).sum(1)
    assert np.allclose(gains[1:], exact, atol=1e-7)


def test_the_law_in_numbers():
    X = torch.randn(12, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gains = fl.select(features_of([X] * 3), examples=3, prior=1e-9, dtype="float64").gains
    assert gains[1:] == pytest.approx([8.317766, 4.865581], abs=2e-6)


@pytest.mark.parametrize(("T", "d"), [(3, 8), (8, 8), (12, 5)])
def test_with_a_vanishing_prior_the_first_gain_counts_directions(T, d):
    """r log(1/sigma0^2) + log pdet(X X^T), with r = min(T, d)."""
    X = torch.randn(T, d, generator=torch.Generator().manual_seed(T), dtype=torch.float64)
    for prior in (1e-9, 1e-11):
        expected = min(T, d) * np.log(1 / prior) + 2 * np.log(np.linalg.svd(X.numpy(), compute_uv=False)).sum()
        assert gain(knowing([X], [], prior), 0) == pytest.approx(expected, abs=1e-3)


def test_until_the_space_is_full_the_longest_are_picked_whatever_they_say():
    """Sizes that differ by a factor of 100 against the lengths: with a small enough prior, length wins all the same."""
    rng = np.random.default_rng(0)
    lengths = rng.permutation(np.arange(1, 13))
    blocks = [torch.tensor(rng.normal(size=(t, 90)) * 100.0 ** (-t / 12)) for t in lengths]
    by_length = np.argsort(-lengths)
    few = fl.select(features_of(blocks), examples=6, prior=1e-12).indices
    assert few.tolist() == by_length[:6].tolist()
    large = fl.select(features_of(blocks), examples=6, prior=1e3).indices
    assert large.tolist() != by_length[:6].tolist()


def test_the_length_bias_and_what_three_remedies_do_to_it():
    rng = np.random.default_rng(1)
    lengths = rng.integers(3, 26, 150)
    blocks = [torch.tensor(rng.normal(size=(t, 64))) for t in lengths]
    first = [gain(knowing(blocks, [], 1.0), i) for i in range(40)]
    assert np.corrcoef(first, lengths[:40])[0, 1] > 0.99
    pools = {
        "as they are": (blocks, "gain"),
        "per token": (blocks, "gain_per_token"),
        "normalised": ([X / len(X) ** 0.5 for X in blocks], "gain"),
        "mean": ([X.mean(0, keepdim=True) for X in blocks], "gain"),
    }
    mean = {
        name: lengths[fl.select(features_of(pool), examples=20, rule=rule).indices].mean()
        for name, (pool, rule) in pools.items()
    }
    assert mean["as they are"] > 22  # of at most 25; the pool's mean is 14
    assert max(mean["per token"], mean["mean"]) < lengths.mean()  # both turn to the short ones
    assert mean["mean"] < mean["normalised"] < mean["as they are"]


def test_a_prior_far_below_the_features_hardly_matters_and_neither_does_whitening():
    """Picks as sets: log det is affine invariant as sigma0 -> 0; with a prior that is felt neither invariance holds."""
    blocks = [X * torch.logspace(-2, 1, 24) for X in draw(4, n=60, d=24, longest=6, spread=0.0)]  # an uneven space
    mixed = torch.randn(24, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    other = [X @ mixed for X in blocks]

    def picks(pool, prior):
        return set(fl.select(features_of(pool), examples=15, prior=prior).indices.tolist())

    assert picks(blocks, 1e-6) == picks(blocks, 1e-9) == picks(other, 1e-9)
    assert picks(blocks, 1e-9) != picks(blocks, 100.0) != picks(other, 100.0)
