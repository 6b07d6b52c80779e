"""AdaICL, SPaRFT and ISA: what each promises, against brute force, by hand and on cases whose answer is known."""

import importlib
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.spatial.distance import cdist, pdist
from sklearn.mixture import GaussianMixture

import fisherlib as fl
from fisherlib.selectors import adaicl, fit_plateau, isa, isa_entropies, sparft, sparft_clusters
from fisherlib.selectors._pooled import principal
from fisherlib.selectors.adaicl import cover, ego_nets
from fisherlib.selectors.isa import mixture
from fisherlib.selectors.sparft import farthest_first
from fisherlib.training.curriculum import ClusterOrder, ThompsonCurriculum

adaicl_module = importlib.import_module("fisherlib.selectors.adaicl")
isa_module = importlib.import_module("fisherlib.selectors.isa")  # the package's attribute is the function
some = settings(max_examples=15, deadline=None)


def points(X, nll=None, tokens=1):
    """`tokens` equal tokens per example."""
    blocks = [torch.as_tensor(np.tile(x, (tokens, 1))) for x in np.asarray(X, dtype=float)]
    nll = np.ones(len(blocks)) if nll is None else nll
    return fl.TokenFeatures.from_list(blocks, nll=torch.as_tensor(np.repeat(nll, tokens)))


def graph(seed, h=8, share=0.25):
    nets = np.random.default_rng(seed).random((h, h)) < share
    np.fill_diagonal(nets, False)
    return nets


# --- AdaICL ----------------------------------------------------------------------------------------------------------


@some
@given(seed=st.integers(0, 10_000), k=st.integers(1, 5))
def test_ego_nets_are_those_of_the_definition(seed, k):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(14, 3))
    hard = rng.permutation(14)[:8]
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    votes = {}
    for i in range(14):
        order = np.argsort(-(unit @ unit[i]), kind="stable")
        votes[i] = {int(j) for j in order if j != i} and [int(j) for j in order if j != i][:k]
    nets = ego_nets(X, hard, k).toarray()
    for a, i in enumerate(hard):
        first = {int(j) for j in hard if i in votes[int(j)]}
        second = {int(j) for j in hard if set(votes[int(j)]) & first}
        members = (first | second) - {int(i)}  # nobody covers itself
        assert {int(j) for b, j in enumerate(hard) if nets[a, b]} == members
    assert set(np.unique(nets)) <= {0.0, 1.0}


@some
@given(seed=st.integers(0, 10_000))
def test_coverage_is_monotone_and_submodular(seed):
    nets, rng = graph(seed), np.random.default_rng([seed, 1])

    def covered(S):
        return int(nets[sorted(S)].any(axis=0).sum())

    large = set(rng.permutation(8)[: rng.integers(1, 8)].tolist())
    small = set(rng.permutation(sorted(large))[: rng.integers(0, len(large) + 1)].tolist())
    for i in set(range(8)) - large:
        gain, later = covered(small | {i}) - covered(small), covered(large | {i}) - covered(large)
        assert covered(small) <= covered(large) and gain >= later >= 0


@some
@given(seed=st.integers(0, 10_000), budget=st.integers(1, 4))
def test_greedy_covers_its_share_of_the_optimum(seed, budget):
    nets = graph(seed)
    picks = cover(csr_array(nets.astype(float)), np.ones(8), budget)
    best = max(nets[list(S)].any(axis=0).sum() for S in itertools.combinations(range(8), budget))
    reached = nets[picks].any(axis=0).sum()
    assert reached >= (1 - (1 - 1 / budget) ** budget) * best >= (1 - 1 / np.e) * best
    if budget == 1 and best:
        assert reached == best


def test_greedy_falls_short_of_the_optimum_where_it_must():
    nets = np.zeros((7, 7))
    nets[0, [1, 2, 4, 5]] = 1  # the largest first, and then there is no pair that covers all
    nets[1, [2, 3, 4]] = nets[2, [1, 5, 6]] = 1
    assert nets[cover(csr_array(nets), np.ones(7), 2)].any(axis=0).sum() == 5
    assert nets[[1, 2]].any(axis=0).sum() == 6


def two_groups(seed=0):
    """Twelve hard examples in two tight groups, which three picks cover, and twelve easy ones."""
    rng = np.random.default_rng(seed)
    X = np.repeat(np.eye(3)[:2], 6, axis=0) + 1e-3 * rng.normal(size=(12, 3))
    return np.concatenate([X, rng.normal(size=(12, 3)) - [0, 0, 5]]), np.concatenate([np.arange(20, 8, -1.0), np.ones(12)])


def test_adaicl_fills_the_budget_when_all_is_covered():
    X, nll = two_groups()
    features = points(X, nll)
    nets = ego_nets(X - X.mean(axis=0), np.arange(12), 5)
    assert (nets.toarray() == np.kron(np.eye(2), 1 - np.eye(6))).all()
    # One of each group, then another one to cover these two; the authors' code would end before the ninth.
    first = cover(nets, np.ones(12), 4)
    assert first.tolist() == [0, 6, 1, 7] and nets.toarray()[first].any(axis=0).all()
    for n in range(1, 25):
        for discounted in (False, True):
            chosen = adaicl(None, features, examples=n, neighbours=5, discounted=discounted)
            assert len(chosen) == n and (n > 12 or chosen.indices.max() < 12)  # hard ones first
    chosen = adaicl(None, features, examples=12, neighbours=5).indices
    assert all(sorted(chosen[i : i + 2] // 6) == [0, 1] for i in range(0, 12, 2))  # evenly, again and again
    assert adaicl(None, features, examples=24, neighbours=5).indices[12:].tolist() == list(range(12, 24))


def test_discounting_is_by_powers_of_ten():
    nets = np.zeros((14, 14))
    nets[0, :10] = 1
    nets[1, [0, 1, 10]] = 1  # two that are covered, and one more: 0.2 + 1
    nets[2, [11]] = 1
    nets[3, range(1, 9)] = 1  # eight that are covered: 0.8
    assert cover(csr_array(nets), np.ones(14), 4, discounted=True).tolist() == [0, 1, 2, 3]
    assert cover(csr_array(nets), np.ones(14), 3).tolist() == [0, 1, 2]
    assert cover(csr_array(nets), np.ones(14), 9).tolist() == [0, 1, 2, 3]  # in the second round; then nobody covers any


def test_nothing_that_is_passed_in_is_changed():
    X, nll = two_groups()
    features = points(X, nll)
    before = [t.clone() for t in (features.values, features.nll, features.offsets)]
    nets, hard = ego_nets(X, hard := np.arange(12), 5), hard
    kept, costs = nets.copy(), np.ones(12)
    cover(nets, costs, 8)
    adaicl(None, features, examples=20)
    assert (nets != kept).nnz == 0 and hard.tolist() == list(range(12)) and costs.tolist() == [1.0] * 12
    for old, new in zip(before, (features.values, features.nll, features.offsets), strict=True):
        assert torch.equal(old, new)


def test_under_a_budget_of_tokens_the_best_that_fits_is_taken():
    nets = np.zeros((5, 5))
    nets[0, 1:] = 1
    nets[1, 2:] = nets[2, 3] = 1
    assert cover(csr_array(nets), np.array([9.0, 4.0, 2.0, 2.0, 2.0]), 6).tolist() == [1, 2]


def test_adaicl_sees_the_hard_half():
    X, nll = two_groups()
    order = np.random.default_rng(0).permutation(24)
    chosen = adaicl(None, points(X[order], nll[order]), examples=12).indices
    assert sorted(order[chosen]) == list(range(12))
    with pytest.raises(ValueError, match="expected features with nll, got none"):
        adaicl(None, fl.TokenFeatures.from_list([torch.ones(1, 2)]), examples=1)
    with pytest.raises(ValueError, match="at least 1 of neighbours, got 0"):
        adaicl(None, points(X), examples=1, neighbours=0)
    with pytest.raises(ValueError, match="above 0 and at most 1, got 0"):
        adaicl(None, points(X), examples=1, hard=0)
    with pytest.raises(ValueError, match="a finite nll, got NaN or infinity in example 2"):
        adaicl(None, points(X, np.where(np.arange(24) == 2, np.nan, nll)), examples=1)


def test_a_share_that_is_a_whole_number_of_examples_is_that_number(monkeypatch):
    seen = []
    monkeypatch.setattr(adaicl_module, "ego_nets", lambda X, hard, k: seen.append(len(hard)) or ego_nets(X, hard, k))
    for hard in (0.57, 0.29, 1.0, 0.001):  # 0.57 * 100 and 0.29 * 100 are below 57 and 29 as floats
        adaicl(None, points(np.random.default_rng(0).normal(size=(100, 2)), np.arange(100.0)), examples=3, hard=hard)
    assert seen == [57, 29, 100, 1]


# --- SPaRFT: the reduction -------------------------------------------------------------------------------------------


@some
@given(seed=st.integers(0, 10_000), n=st.integers(1, 4))
def test_farthest_first_is_within_twice_the_best_radius_and_half_the_best_distance(seed, n):
    Z = np.random.default_rng(seed).normal(size=(9, 2))
    order, D = farthest_first(Z), cdist(Z, Z)
    assert sorted(order) == list(range(9)) and order[0] == cdist(Z, Z.mean(axis=0)[None]).argmin()
    subsets = [list(S) for S in itertools.combinations(range(9), n)]
    best = min(D[S].min(axis=0).max() for S in subsets)
    assert best <= D[order[:n]].min(axis=0).max() <= 2 * best
    if n > 1:
        apart = max(pdist(Z[S]).min() for S in subsets)
        assert apart / 2 <= pdist(Z[order[:n]]).min() <= apart


def test_farthest_first_takes_copies_last_and_each_once():
    Z = np.array([[0.0], [0.0], [5.0], [5.0], [1.0]])
    assert farthest_first(Z).tolist() == [4, 2, 0, 1, 3]
    assert farthest_first(np.zeros((3, 2))).tolist() == [0, 1, 2]


@some
@given(seed=st.integers(0, 10_000))
def test_each_cluster_gives_the_same_number_and_its_farthest_first(seed):
    rng = np.random.default_rng(seed)
    features = points(rng.normal(size=(40, 4)), rng.exponential(size=40))
    labels = sparft_clusters(features, n_clusters=4, seed=seed)
    X, nll = features.values.numpy(), features.nll.numpy()
    Z = np.column_stack([principal(X - X.mean(axis=0), 32), (nll - nll.mean()) / nll.std()])
    chosen = sparft(None, features, examples=14, n_clusters=4, seed=seed).indices
    counts = np.bincount(labels[chosen], minlength=4)
    sizes = np.bincount(labels, minlength=4)
    assert all(c == s or c >= counts.max() - 1 for c, s in zip(counts, sizes, strict=True))
    for cluster in range(4):
        members = np.flatnonzero(labels == cluster)
        inside = chosen[labels[chosen] == cluster]
        expected = members[farthest_first(Z[members])][: len(inside)]
        assert inside.tolist() == expected.tolist() or len(members) == 2  # two are as far from their mean


def test_clusters_are_of_meaning_and_of_difficulty():
    X = np.repeat(np.array([[10.0, 0.0], [-10.0, 0.0]]), 10, axis=0)
    X += 0.01 * np.random.default_rng(0).normal(size=X.shape)
    nll = np.tile([1.0, 3.0], 10)

    def splits(labels, truth):
        return len(set(zip(labels.tolist(), truth.tolist(), strict=True))) == len(set(truth.tolist()))

    meaning, hardness = np.arange(20) // 10, np.arange(20) % 2
    assert splits(sparft_clusters(points(X, nll), n_clusters=4), 2 * meaning + hardness)
    assert splits(sparft_clusters(points(X, nll), n_clusters=2, difficulty=0), meaning)
    assert splits(sparft_clusters(points(X, nll), n_clusters=2, difficulty=5), hardness)
    assert splits(sparft_clusters(points(1e-6 * X, 1e3 * nll), n_clusters=4), 2 * meaning + hardness)  # no units
    ragged = fl.TokenFeatures.from_list([torch.ones(2, 2), torch.ones(0, 2), torch.zeros(1, 2)], nll=torch.ones(3))
    assert sparft_clusters(ragged)[1] == -1 and (sparft_clusters(ragged)[[0, 2]] >= 0).all()
    for option in ("n_clusters", "dimensions"):
        with pytest.raises(ValueError, match=f"expected {option} of at least 1, got 0"):
            sparft_clusters(points(X), **{option: 0})
    with pytest.raises(ValueError, match="expected difficulty of at least 0, got -1"):
        sparft(None, points(X), examples=1, difficulty=-1)


def test_principal_coordinates_keep_distances_up_to_one_factor():
    X = np.random.default_rng(0).normal(size=(12, 5)) @ np.diag([9, 5, 1, 1, 0.1])
    Z = principal(X - X.mean(axis=0), 99)
    ratio = pdist(X) / pdist(Z)
    assert Z.var(axis=0).sum() == pytest.approx(1) and ratio.max() == pytest.approx(ratio.min())
    assert principal(np.ones((4, 3)), 2).tolist() == [[0.0]] * 4


# --- SPaRFT: the curriculum ------------------------------------------------------------------------------------------


def play(curriculum, reward, steps):
    for step in range(steps):
        arm = curriculum.next()
        curriculum.update(arm, reward(arm, step))
    assert curriculum.counts.sum() == len(curriculum.chosen) == steps
    assert np.bincount(curriculum.chosen, minlength=len(curriculum.counts)).tolist() == curriculum.counts.tolist()
    return np.array(curriculum.chosen)


def test_the_draws_are_those_of_the_definition():
    curriculum = ThompsonCurriculum(3, scale=2.0, seed=7)
    for arm, reward in ((0, 1.0), (0, 0.5), (2, 0.25)):
        curriculum.update(arm, reward)
    assert curriculum.means.tolist() == [0.75, 0, 0.25] and curriculum.counts.tolist() == [2, 0, 1]
    rng = np.random.default_rng(7)
    for _ in range(20):
        mu = rng.normal([-0.75, 0, -0.25], [2 / 3**0.5, 2.0, 2 / 2**0.5])
        assert curriculum.next() == mu.argmax()


@pytest.mark.parametrize("seed", range(3))
def test_the_hardest_of_stationary_arms_is_chosen_nearly_always(seed):
    rng, rates = np.random.default_rng(seed), np.array([0.8, 0.35, 0.6])
    chosen = play(ThompsonCurriculum(3, seed=seed), lambda arm, _: float(rng.random() < rates[arm]), 3000)
    shares = [(part == 1).mean() for part in np.split(chosen, 3)]
    assert shares[0] < shares[2] and shares[2] > 0.95


@pytest.mark.parametrize("seed", range(3))
def test_trap_a_cluster_that_nothing_can_be_learned_from_is_chosen_for_ever(seed):
    """The others get better with practice; this one stays at 0, and gets every step in the end."""
    practice = np.zeros(4)

    def reward(arm, _):
        practice[arm] += 1
        return 0.0 if arm == 3 else 1 - np.exp(-practice[arm] / 10)

    chosen = play(ThompsonCurriculum(4, scale=0.2, seed=seed), reward, 1500)
    assert (chosen[-300:] == 3).mean() > 0.97
    practice[:] = 0
    healthy = play(ThompsonCurriculum(3, scale=0.2, seed=seed), reward, 1500)  # without it nobody is left behind
    assert np.bincount(healthy[-300:], minlength=3).min() > 60


def test_what_the_curriculum_refuses():
    with pytest.raises(ValueError, match="at least one arm"):
        ThompsonCurriculum(0)
    with pytest.raises(ValueError, match="a positive scale"):
        ThompsonCurriculum(2, scale=0)
    with pytest.raises(ValueError, match="an arm from 0 to 1, got 2"):
        ThompsonCurriculum(2).update(2, 0.5)
    with pytest.raises(ValueError, match="from 0 to 1, got nan: scale it"):
        ThompsonCurriculum(2).update(1, float("nan"))
    with pytest.raises(ValueError, match="got none in 3 rows"):
        ClusterOrder([-1, -1, -1])
    with pytest.raises(ValueError, match="at least one example per step"):
        ClusterOrder([0, 1], examples_per_step=0)
    with pytest.raises(ValueError, match="call next first"):
        ClusterOrder([0, 1]).update(np.ones(1))
    order = ClusterOrder([0, 1])
    order.next()
    order.update(np.ones(1))
    with pytest.raises(ValueError, match="call next first"):
        order.update(np.ones(1))
    assert order.curriculum.counts.sum() == 1


def test_a_cluster_gives_each_of_its_rows_before_any_comes_again():
    order = ClusterOrder([4, 9, 4, -1, 9, 4, 4, 4], examples_per_step=2, seed=3)
    assert order.clusters.tolist() == [4, 9] and len(order.curriculum.counts) == 2
    given_out = {0: [], 1: []}
    for _ in range(200):
        rows = order.next()
        arm = order._arm
        assert len(set(rows)) == 2
        given_out[arm] += rows
        order.update(np.array([0.0, 1.0]))
    for arm, members in ((0, [0, 2, 5, 6, 7]), (1, [1, 4])):
        counts = np.bincount(given_out[arm], minlength=8)
        assert sorted(np.flatnonzero(counts)) == members and np.ptp(counts[members]) <= 1
    assert order.curriculum.means.tolist() == [0.5, 0.5]
    assert len(ClusterOrder([0, 0, 0], examples_per_step=5).next()) == 3


def test_solved_rows_are_those_above_the_threshold():
    order = ClusterOrder([0, 0, 0, 0], examples_per_step=4, solved=0.5)
    order.next()
    order.update(np.array([0.5, 0.6, 1.0, 0.0]))
    assert order.curriculum.rewards == [0.5]


def token_rows(*lengths):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(1, 97, (n,), generator=generator).tolist() for n in lengths]


def test_fine_tuning_in_an_order_trains_and_rewards_before_each_step(tiny):
    rows = token_rows(9, 5, 7, 8, 6, 9)
    before = {name: p.clone() for name, p in tiny.state_dict().items()}
    order = ClusterOrder([0, 0, 0, 1, 1, 1], examples_per_step=2, seed=1)
    asked, ask = [], order.next
    order.next = lambda: asked.append(ask()) or asked[-1]
    tuned = fl.fine_tune(tiny, None, rows, order=order, epochs=2, steps_per_epoch=3, learning_rate=1e-2, precision="float32")
    assert len(tuned.losses) == order.curriculum.counts.sum() == len(asked) == 6
    assert tuned.response_tokens == sum(len(rows[i]) - 1 for step in asked for i in step)
    assert tuned.all_tokens == sum(len(rows[i]) for step in asked for i in step)
    assert all(torch.equal(before[name], p) for name, p in tiny.state_dict().items())
    with torch.no_grad():  # the first reward, of the model as it was
        right = []
        for i in asked[0]:
            ids = torch.tensor([rows[i]])
            right.append(float((tiny(ids).logits[0, :-1].argmax(-1) == ids[0, 1:]).double().mean()))
    assert order.curriculum.rewards[0] == pytest.approx(np.mean(right), abs=1e-12)
    loss = fl.held_out_nll(tiny, None, [rows[i] for i in asked[0]], precision="float32").nll
    assert tuned.losses[0] == pytest.approx(loss, abs=1e-3)


def test_practice_brings_reward(tiny):
    rows = token_rows(12, 12)
    order = ClusterOrder([0, 0], solved=0.9, seed=0)
    tuned = fl.fine_tune(tiny, None, rows, order=order, steps_per_epoch=60, learning_rate=3e-2, precision="float32")
    rewards = order.curriculum.rewards
    assert rewards[0] == 0 and rewards[-1] == 1 and tuned.losses[-1] < 0.2 * tuned.losses[0]


def test_orders_that_cannot_be_followed_are_refused(tiny):
    class Of:
        def __init__(self, rows):
            self.rows = rows

        def next(self):
            return self.rows

        def update(self, accuracy):
            raise AssertionError("there was no step")

    rows = token_rows(4, 1, 5)
    with pytest.raises(ValueError, match="steps_per_epoch of at least 1 beside an order, got None"):
        fl.fine_tune(tiny, None, rows, order=Of([0]))
    for bad in ([], [3], [-1], [1]):  # the second row has no response token
        with pytest.raises(ValueError, match="some of the 3 rows, with response tokens"):
            fl.fine_tune(tiny, None, rows, order=Of(bad), steps_per_epoch=1, precision="float32")


# --- ISA -------------------------------------------------------------------------------------------------------------


def entropies_of(X, **options):
    return isa_entropies(points(X), **options)


@some
@given(seed=st.integers(0, 10_000))
def test_entropies_are_those_of_a_mixture_and_within_their_bounds(seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(40, 3)) * rng.exponential(size=3)
    H = entropies_of(X, dimensions=2, seed=seed)
    Z = principal(X - X.mean(axis=0), 2)
    r = mixture(Z, seed).predict_proba(Z)
    assert np.allclose(r.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert np.allclose(H, [-sum(p * np.log(p) for p in row if p > 0) for row in r], rtol=0, atol=1e-12)
    assert H.min() >= 0 and H.max() <= np.log(2)


@some
@given(seed=st.integers(0, 10_000))
def test_em_climbs_to_a_fixed_point(seed):
    rng = np.random.default_rng(seed)
    Z = np.concatenate([rng.normal(size=(40, 2)), rng.normal(size=(30, 2)) + 2])
    fitted = mixture(Z, seed)
    climb = np.diff(fitted.lower_bounds_)
    assert (climb > -1e-6).all()  # the ridge of 1e-6 on the covariances makes EM not quite EM
    # One more step of EM, by hand: from the posteriors come the same weights, means and covariances.
    r = fitted.predict_proba(Z)
    for k in range(2):
        w = r[:, k] / r[:, k].sum()
        mean = w @ Z
        covariance = ((Z - mean).T * w) @ (Z - mean)
        assert r[:, k].mean() == pytest.approx(fitted.weights_[k], abs=5e-3)
        assert np.allclose(mean, fitted.means_[k], rtol=0, atol=2e-2)
        assert np.allclose(covariance, fitted.covariances_[k], rtol=0, atol=4e-2)


def test_far_blobs_are_certain_and_the_point_between_them_is_not():
    known = GaussianMixture(2)
    known.weights_, known.means_ = np.array([0.5, 0.5]), np.array([[-9.0, 0.0], [9.0, 0.0]])
    known.precisions_cholesky_ = np.array([np.eye(2)] * 2)
    r = known.predict_proba(np.array([[0.0, 3.0], [0.0, -70.0]]))
    assert np.allclose(r, 0.5, rtol=0, atol=1e-12)  # as far from both means: log 2
    blob, far = np.random.default_rng(0).normal(size=(150, 2)), np.array([4.0, 0.0])
    X = np.concatenate([blob + far, -blob - far, [[0.0, 0.0]]])
    H = entropies_of(X, dimensions=2)
    assert np.median(H) < 1e-6 and H[300] == pytest.approx(np.log(2), abs=0.01) and H.argmax() == 300
    # An outlier is no such point: one component widens to make it its own.
    X[300] = [40.0, 40.0]
    assert entropies_of(X, dimensions=2)[300] < 1e-6


@pytest.mark.usefixtures("as_a_user")  # hundreds of calls that are alike: other tests check their annotations
def test_sampling_is_by_entropy(monkeypatch):
    features, H = points(np.eye(6)), np.log(2) * np.array([0.0, 0.1, 0.3, 0.5, 0.9, 1.0])
    monkeypatch.setattr(isa_module, "isa_entropies", lambda *_, **__: H)
    for direction, weights in (("high", H), ("low", np.log(2) - H)):
        counts = np.zeros(6)
        for seed in range(500):
            counts[isa(None, features, examples=1, seed=seed, entropy=direction).indices] += 1
        p = weights / weights.sum()
        assert np.abs(counts - 500 * p).max() < 5 * np.sqrt(500 * p.max())
        assert set(isa(None, features, examples=5, entropy=direction).indices) == set(np.flatnonzero(weights))


def test_what_isa_refuses():
    with pytest.raises(ValueError, match="'high' or 'low', got 'up'"):
        isa(None, points(np.eye(3)), examples=1, entropy="up")
    with pytest.raises(ValueError, match="at least 1 of dimensions, got 0"):
        isa_entropies(points(np.eye(3)), dimensions=0)


@some
@given(
    a=st.floats(-5, 5),
    b=st.floats(0.1, 5),
    rate=st.floats(0.3, 20),
    sign=st.sampled_from([-1, 1]),
    unit=st.sampled_from([1e-3, 1.0, 1e5]),
)
def test_a_noiseless_plateau_is_recovered(a, b, rate, sign, unit):
    n = unit * np.array([0.05, 0.1, 0.2, 0.4, 0.7, 1.0])
    b, c = sign * b, rate / unit
    fitted = fit_plateau(n, a - b * np.exp(-c * n))
    assert fitted.a == pytest.approx(a, abs=1e-5 * abs(b)) and fitted.b == pytest.approx(b, rel=1e-5)
    assert fitted.c == pytest.approx(c, rel=1e-5)
    assert np.allclose(fitted(n), a - b * np.exp(-c * n), rtol=0, atol=1e-7 * abs(b))
    assert fitted(0) == pytest.approx(a - b, abs=1e-4 * abs(b)) and fitted(1e9 * unit) == pytest.approx(fitted.a)


def test_a_noisy_plateau_has_the_least_squares():
    rng, n = np.random.default_rng(0), np.linspace(10, 400, 30)
    y = 2 - 1.5 * np.exp(-0.02 * n) + 0.02 * rng.normal(size=30)
    fitted = fit_plateau(n, y)

    def error(a, b, c):
        return ((a - b * np.exp(-c * n) - y) ** 2).sum()

    least = error(fitted.a, fitted.b, fitted.c)
    for step in itertools.product([-1e-3, 0, 1e-3], repeat=3):
        assert error(*(np.array([fitted.a, fitted.b, fitted.c]) * (1 + np.array(step)))) >= least
    assert fitted.a == pytest.approx(2, abs=0.05) and fitted.c == pytest.approx(0.02, rel=0.15)


def test_no_plateau_is_told_where_there_is_none():
    n = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    with pytest.raises(ValueError, match="at least 4 different sizes for a curve of 3 parameters, got 3"):
        fit_plateau([1, 2, 2, 3, 3], [1, 2, 2, 3, 3])
    with pytest.raises(ValueError, match="got a line: measure more"):
        fit_plateau(n, 2 * n)
    with pytest.raises(ValueError, match="got a line: measure more"):
        fit_plateau(n, n**2)
    with pytest.raises(ValueError, match="got 0.3 everywhere"):
        fit_plateau(n, np.full(5, 0.3))
    with pytest.raises(ValueError, match="one performance for each size"):
        fit_plateau(n, n[:4])
    with pytest.raises(ValueError, match="expected finite performances"):
        fit_plateau(n, np.where(n == 3, np.nan, n))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "n, y",
    [
        ([258, 271, 275, 335, 377], [0, 1, 1, 1, 1]),  # from the second size on nothing changes: any large c will do
        ([256, 286, 362, 388], [0.867, 1.022, 0.973, 0.909]),
        ([155, 210, 244, 271, 356, 366, 380, 389], [1, 0, 0, 1, 1, 1, 0, 0]),
    ],
)
def test_a_curve_that_runs_away_is_no_plateau(n, y):
    with pytest.raises(ValueError, match="expected a performance that bends within sizes .* a jump at the smallest"):
        fit_plateau(n, y)


def test_a_curve_that_cannot_be_fitted_is_no_plateau(monkeypatch):
    def gives_up(*args, **options):  # as scipy does for one noisy curve in thousands
        raise RuntimeError("Optimal parameters not found")

    monkeypatch.setattr(importlib.import_module("fisherlib.selectors.plateau"), "curve_fit", gives_up)
    n = np.array([50, 100, 200, 400])
    with pytest.raises(ValueError, match="expected a performance with a best curve, got none: measure it with less noise"):
        fit_plateau(n, 1 - np.exp(-n / 150))
