"""Each baseline does what its definition says."""

import importlib
import itertools

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import fisherlib as fl
from fisherlib import selectors
from fisherlib.selectors import (
    _pooled,
    ask_llm,
    ask_llm_scores,
    clustered,
    deduplicated,
    density,
    density_scores,
    farthest_point,
    i_optimal,
    in_clusters,
    length_matched,
    longest,
    near_duplicates,
    sentence_optimal,
    uniform,
)
from fisherlib.selectors._priority import priority_sample
from fisherlib.selectors.clustered import sensitivities
from fisherlib.selectors.length_matched import length_buckets

ask_llm_module = importlib.import_module("fisherlib.selectors.ask_llm")  # the package's attribute is the function
some = settings(max_examples=30, deadline=None)


def draw(seed, n=20, least=0, d=5):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(least, 7, n)
    lengths[0] = 3
    return fl.TokenFeatures.from_list(
        [torch.from_numpy(rng.normal(size=(t, d)) + 10) for t in lengths],
        nll=torch.from_numpy(rng.exponential(size=lengths.sum())),
    )


def points(X):
    """One token per example."""
    return fl.TokenFeatures.from_list([torch.as_tensor(x, dtype=torch.float64)[None] for x in X])


# --- pooling, length, uniform ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1, 23, 2**22])
def test_pooled_vectors_are_those_of_the_definition(at_once, monkeypatch):
    monkeypatch.setattr(_pooled, "_AT_ONCE", at_once)
    features = draw(0)
    full = [i for i in range(20) if len(features[i])]
    for how, pool in (("mean", lambda X: X.mean(0)), ("sum", lambda X: X.sum(0)), ("last", lambda X: X[-1])):
        ids, X, lengths = _pooled.pooled(features, how)
        assert ids.tolist() == full and lengths.tolist() == [len(features[i]) for i in full]
        assert np.allclose(X, [pool(features[i].numpy()) for i in full], rtol=0, atol=1e-13)
    half = fl.TokenFeatures(features.values.bfloat16(), features.offsets)
    assert np.allclose(_pooled.pooled(half)[1][0], half[full[0]].double().mean(0), rtol=0, atol=1e-13)
    with pytest.raises(ValueError, match="expected pooling to be one of"):
        _pooled.pooled(features, "max")


@pytest.mark.usefixtures("as_a_user")  # hundreds of calls that are alike: other tests check their annotations
def test_uniform_is_uniform_and_seeded():
    features = draw(2, n=6, least=1)
    counts = np.zeros(6)
    for seed in range(600):
        counts[uniform(None, features, examples=2, seed=seed).indices] += 1
    assert np.abs(counts - 200).max() < 55  # 4.8 standard deviations of a binomial(600, 1/3)


def test_longest_takes_the_longest_and_the_first_of_equals():
    features = fl.TokenFeatures.from_list([torch.ones(t, 2) for t in (2, 5, 3, 5, 1)])
    assert longest(None, features, examples=3).indices.tolist() == [1, 3, 2]
    assert longest(None, features, tokens=7).indices.tolist() == [1, 0]


@some
@given(seed=st.integers(0, 1000), ratio=st.sampled_from([1.001, 1.1, 1.5, 3.0]))
def test_length_matched_has_the_histogram_of_what_it_is_like(seed, ratio):
    rng = np.random.default_rng(seed)
    features = fl.TokenFeatures.from_list([torch.ones(int(t), 1) for t in rng.integers(0, 60, 40)])
    lengths = features.lengths.numpy()
    bucket = length_buckets(lengths, ratio)
    for b in range(1, bucket.max() + 1):
        inside = lengths[bucket == b]
        assert not len(inside) or inside.max() < max(inside.min() * ratio, inside.min() + 1)
    like = uniform(None, features, examples=12, seed=seed) if seed % 2 else longest(None, features, examples=12)
    chosen = length_matched(None, features, like=like, seed=seed, ratio=ratio)
    assert len(chosen) == 12
    for n in range(1, 13):  # every prefix too
        assert sorted(bucket[chosen.indices[:n]]) == sorted(bucket[like.indices[:n]])
    total = int(like.costs.sum())
    assert abs(chosen.costs.sum() - total) <= (ratio - 1) * max(chosen.costs.sum(), total)
    assert len(length_matched(None, features, like=like, examples=30, seed=seed)) == 30


@pytest.mark.usefixtures("as_a_user")  # hundreds of calls that are alike: other tests check their annotations
def test_length_matched_is_random_inside_a_bucket():
    features = fl.TokenFeatures.from_list([torch.ones(t, 2) for t in (9, 9, 9, 2, 2)])
    like = longest(None, features, examples=1)
    counts = np.zeros(5)
    for seed in range(300):
        counts[length_matched(None, features, like=like, seed=seed).indices] += 1
    assert counts[3:].sum() == 0 and np.abs(counts[:3] - 100).max() < 40
    with pytest.raises(ValueError, match="a selection from this pool of 3, got one from 5"):
        length_matched(None, features.subset([0, 1, 2]), like=like)
    with pytest.raises(ValueError, match="a ratio above 1"):
        length_matched(None, features, like=like, ratio=1.0)


# --- in clusters, and the recipe -------------------------------------------------------------------------------------


def neighbourhoods(seed=0, variants=0):
    """Eight neighbourhoods of ten examples of two tokens; only those of the first differ, so FisherSFT looks there.

    With `variants`, as many examples more, which are all of the second neighbourhood and nearly the same text.
    """
    centres, rng = 50 * np.eye(8, 16), np.random.default_rng(seed)
    blocks = [np.tile(centres[i % 8], (2, 1)) for i in range(80)] + [np.tile(centres[1], (2, 1))] * variants
    for i in range(0, 80, 8):
        blocks[i][:, 8:] += 3 * rng.normal(size=(2, 8))
    words = [" ".join(map(str, rng.integers(10**6, size=9))) for _ in range(81)]
    texts = words[:80] + [f"{words[80]} {i}" for i in range(variants)]
    return Dataset.from_list([{"text": text} for text in texts]), fl.TokenFeatures.from_list(
        [torch.tensor(b) for b in blocks]
    )


def fisher(rows, features, *, seed, **budget):
    return fl.select(features, rule="gain_per_token", **budget)


@pytest.mark.parametrize("budget", [{"tokens": 32}, {"examples": 16}])
def test_each_cluster_gets_what_it_is_told_to(budget):
    rows, features = neighbourhoods()
    evenly = in_clusters(rows, features, **budget).indices % 8
    assert np.bincount(evenly).tolist() == [2] * 8
    like = np.bincount(fisher(rows, features, seed=0, **budget).indices % 8, minlength=8)
    chosen = in_clusters(rows, features, like=fisher, **budget).indices
    assert np.bincount(chosen % 8, minlength=8).tolist() == like.tolist() and like[0] > 4
    inside = in_clusters(rows, features, then=fisher, **budget).indices
    best = fisher(None, features.subset(range(0, 80, 8)), seed=0, examples=2).indices * 8
    assert [i for i in inside if i % 8 == 0] == best.tolist()


def test_what_the_quotas_leave_over_is_spent_anywhere():
    rows, features = neighbourhoods()
    assert len(in_clusters(rows, features, examples=7)) == 7  # less than one for each
    assert in_clusters(rows, features, tokens=33).costs.sum() == 32
    assert sorted(in_clusters(rows, features, examples=80).indices) == list(range(80))


@pytest.mark.slow
def test_the_recipe_looks_where_information_is_and_past_copies():
    rows, features = neighbourhoods(variants=200)
    assert (uniform(rows, features, tokens=32).indices >= 80).sum() > 6
    kept = np.arange(81)  # one of the variants stands for all
    like = np.bincount(fisher(None, features.subset(kept), seed=0, tokens=32).indices % 8, minlength=8)
    counts = np.zeros(81)
    for seed in range(20):
        chosen = fl.recipe(rows, features, tokens=32, seed=seed, mix="fisher")
        assert chosen.indices.max() <= 80 and chosen.settings["method"] == "recipe" and chosen.pool_size == 280
        where = np.where(chosen.indices == 80, 1, chosen.indices % 8)
        assert np.abs(np.bincount(where, minlength=8) - like).max() <= 1
        counts[chosen.indices] += 1
    assert (counts[:80:8] > 0).all()  # inside a neighbourhood, anyone
    more = fl.recipe(rows, features, tokens=200, mix="fisher")
    assert set(range(81)) < set(more.indices) and more.costs.sum() == 200 and (more.indices[:81] <= 80).all()
    assert more.indices.tolist() != fl.recipe(rows, features, tokens=200, seed=1, mix="fisher").indices.tolist()
    with pytest.raises(ValueError, match="the 162 tokens that are left without near-duplicates, got 200"):
        deduplicated(rows, features, tokens=200, threshold=0.5)
    with pytest.raises(ValueError, match="text"):
        fl.recipe(None, features, tokens=32)


# --- density ---------------------------------------------------------------------------------------------------------


@some
@given(seed=st.integers(0, 1000))
def test_density_is_the_kernel_sum_wherever_the_example_stands(seed):
    features, moved = draw(seed), np.random.default_rng(seed).permutation(20)
    ids, X, _ = _pooled.pooled(features)
    h = np.median(pdist(X)) if len(X) > 1 else 1.0
    scores = density_scores(features)
    assert np.allclose(scores[ids], np.exp(-(cdist(X, X) ** 2) / (2 * h**2)).sum(1), rtol=1e-9)
    assert np.isnan(np.delete(scores, ids)).all()
    assert np.allclose(density_scores(features.subset(moved)), scores[moved], rtol=1e-9, equal_nan=True)
    assert np.allclose(density_scores(features, bandwidth=h), scores, rtol=1e-9, equal_nan=True)


@pytest.mark.usefixtures("as_a_user")  # hundreds of calls that are alike: other tests check their annotations
def test_copies_share_the_chance_of_one():
    apart = 50.0 * np.eye(5)
    features = points(np.concatenate([np.repeat(apart[:1], 6, axis=0), apart[1:]]))  # six copies of one, four singletons
    mass = 1 / density_scores(features, bandwidth=1.0)
    assert mass[:6].sum() == pytest.approx(mass[6], rel=1e-6)
    copies = [(density(None, features, examples=1, seed=s, bandwidth=1.0).indices < 6).sum() for s in range(400)]
    assert abs(sum(copies) - 80) < 40  # a fifth, five standard deviations; by the density itself it would be 9 in 10
    with pytest.raises(ValueError, match="a positive bandwidth, got 0"):
        density(None, features, examples=1, bandwidth=0.0)


@pytest.mark.usefixtures("as_a_user")  # hundreds of calls that are alike: other tests check their annotations
@pytest.mark.slow
def test_gumbel_order_is_that_of_drawing_by_weight_without_replacement():
    features = points([[0.0], [0.0], [0.0], [40.0], [90.0]])
    w = 1 / density_scores(features, bandwidth=1.0)
    expected = dict.fromkeys(itertools.permutations(range(5), 2), 0.0)
    for i, j in expected:
        expected[i, j] = w[i] / w.sum() * w[j] / (w.sum() - w[i])
    counts = dict.fromkeys(expected, 0)
    for seed in range(1500):
        counts[tuple(density(None, features, examples=2, seed=seed, bandwidth=1.0).indices.tolist())] += 1
    for pair, p in expected.items():
        assert abs(counts[pair] - 1500 * p) < 5 * (1500 * p * (1 - p)) ** 0.5 + 1


# --- clusters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("equal_costs", [True, False])
def test_priority_sampling_is_unbiased(equal_costs):
    rng = np.random.default_rng(0)
    p, values = rng.exponential(size=9) ** 2 + 0.01, rng.normal(size=(9, 3)) + 1
    costs = np.ones(9) if equal_costs else rng.integers(1, 6, 9).astype(float)
    budget = 4 if equal_costs else 11
    sums = []
    for _ in range(6000):
        picks, weights, order = priority_sample(p, costs, budget, rng)
        assert len(set(picks.tolist())) == len(picks) and costs[picks].sum() <= budget and len(order) == 9
        sums.append([*(weights @ values[picks]), weights.sum()])
    error = np.mean(sums, axis=0) - [*values.sum(0), 9]
    assert (np.abs(error) < 5 * np.std(sums, axis=0) / 6000**0.5).all()
    if equal_costs:  # and the threshold is the first priority that is not picked
        u = 1 - np.random.default_rng(7).random(9)
        picks, weights, order = priority_sample(p, costs, budget, np.random.default_rng(7))
        q = p / u
        assert order.tolist() == np.argsort(-q).tolist() and picks.tolist() == order[:4].tolist()
        assert np.allclose(weights, 1 / np.minimum(1, p[picks] / np.sort(q)[-5]))


@pytest.mark.usefixtures("as_a_user")  # hundreds of calls that are alike: other tests check their annotations
@pytest.mark.slow
@pytest.mark.parametrize("budget", [{"examples": 6}, {"tokens": 24}])
def test_clustered_weights_estimate_the_whole_pool(budget):
    features = draw(3, n=16)
    totals = features.lengths.numpy().astype(float)
    losses = np.random.default_rng(1).exponential(size=16)
    estimates = []
    for seed in range(400):  # one k-means of its own for each seed: unbiased given any clusters
        chosen = clustered(None, features, seed=seed, n_clusters=3, losses=losses, **budget)
        assert (chosen.weights >= 1).all() and len(chosen.weights) == len(chosen)
        estimates.append(chosen.weights @ totals[chosen.indices])
    assert abs(np.mean(estimates) - totals.sum()) < 5 * np.std(estimates) / 400**0.5
    whole = clustered(None, features, examples=16, n_clusters=3)
    assert (whole.weights == 1).all()


def test_clustered_prefers_what_is_far_or_has_a_loud_centre():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(40, 2)), rng.normal(size=(40, 2)) + 100])
    X[7] += 12  # far from its centre
    losses = np.repeat([0.1, 10.0], 40)
    chosen = [clustered(None, points(X), examples=8, n_clusters=2, losses=losses, scale=0.0, seed=s) for s in range(40)]
    assert np.mean([(c.indices >= 40).mean() for c in chosen]) > 0.9
    chosen = [clustered(None, points(X), examples=8, n_clusters=2, losses=losses * 0 + 0.1, seed=s) for s in range(40)]
    assert np.mean([7 in c.indices for c in chosen]) > 0.8


def test_sensitivities_balance_both_terms_and_are_positive():
    spread, loss = np.array([0.0, 1.0, 5.0]), np.array([2.0, 0.0, 1.0])
    assert np.allclose(sensitivities(spread, loss, 3.0), [2.0, 3.0, 16.0])
    p = sensitivities(spread, loss, None)
    assert (p - loss).mean() == pytest.approx(loss.mean())
    assert (sensitivities(np.zeros(3), np.array([0.0, 1.0, 0.0]), None) > 0).all()
    assert np.array_equal(sensitivities(np.zeros(3), np.zeros(3), None), np.ones(3))


def test_the_loss_at_a_centre_is_the_mean_nll_of_its_nearest_example():
    blocks = [torch.tensor(b) for b in ([[0.0], [2.0]], [[9.0]], [[-7.0], [-7.0]])]  # one cluster, example 0 in its centre
    features = fl.TokenFeatures.from_list(blocks, nll=torch.tensor([1.0, 4.0, 100.0, 7.0, 7.0]))
    by_nll = clustered(None, features, examples=1, n_clusters=1, seed=4)
    by_losses = clustered(None, features, examples=1, n_clusters=1, seed=4, losses=np.array([2.5, 1.0, 1.0]))
    assert np.array_equal(by_nll.weights, by_losses.weights) and np.array_equal(by_nll.indices, by_losses.indices)


REFUSED = [
    ({"losses": None}, "expected features with nll, got none"),
    ({"losses": np.ones(3)}, "a finite loss of at least 0 for each of 20"),
    ({"losses": -np.ones(20)}, "a finite loss of at least 0"),
    ({"z": 0}, "a positive z"),
    ({"scale": -1.0}, "a scale of at least 0"),
    ({"n_clusters": 0}, "n_clusters from 1 to .*, got 0"),
    ({"n_clusters": 21}, "n_clusters from 1 to .*, got 21"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_clustered_refuses(options, message):
    features = draw(0)
    bare = fl.TokenFeatures(features.values, features.offsets)
    with pytest.raises(ValueError, match=message):
        clustered(None, bare, examples=2, **{"losses": np.ones(20), **options})


def test_clusters_are_visited_in_turn():
    centres = 100.0 * np.eye(4)
    sizes = [9, 3, 6, 2]
    X = np.concatenate([np.random.default_rng(i).normal(size=(n, 4)) + centres[i] for i, n in enumerate(sizes)])
    cluster = np.repeat(range(4), sizes)
    seen = np.zeros(20)
    for seed in range(60):
        picks = selectors.uniform_in_clusters(None, points(X), examples=12, n_clusters=4, seed=seed).indices
        assert np.bincount(cluster[picks]).tolist() == [4, 3, 3, 2] or np.bincount(cluster[picks]).tolist() == [3, 3, 4, 2]
        assert sorted(cluster[picks[:4]]) == sorted(cluster[picks[4:8]]) == [0, 1, 2, 3]
        seen[picks] += 1
    assert (seen > 0).all()  # anyone inside a cluster may be chosen
    nearest = selectors.nearest_to_centre(None, points(X), examples=4).indices
    means = np.stack([X[cluster == i].mean(0) for i in (0, 2, 1, 3)])  # the largest cluster first
    assert nearest.tolist() == cdist(means, X).argmin(1).tolist()
    second = selectors.nearest_to_centre(None, points(X), examples=8, n_clusters=4).indices[4:]
    distances = cdist(means, X)
    assert second.tolist() == np.argsort(distances, axis=1)[:, 1].tolist()


# --- one vector per example ------------------------------------------------------------------------------------------


def test_sentence_optimal_is_the_greedy_on_pooled_vectors():
    features = draw(5, least=1)
    for how in ("mean", "sum", "last"):
        pooled = points(_pooled.pooled(features, how)[1])
        assert sentence_optimal(None, features, examples=6, pooling=how).indices.tolist() == (
            fl.select(pooled, examples=6).indices.tolist()
        )
        chosen = sentence_optimal(None, features, tokens=20, pooling=how, rule="gain_per_token", prior=0.1)
        costs = features.lengths.numpy().astype(float)
        expected = fl.select(pooled, tokens=20, costs=costs, rule="gain_per_token", prior=0.1)
        assert chosen.indices.tolist() == expected.indices.tolist()
    assert np.array_equal(chosen.costs, costs[chosen.indices])  # its costs are tokens, its gains those of all tokens


@some
@given(seed=st.integers(0, 1000), n=st.integers(1, 4), start=st.sampled_from(["centre", "random", 0]))
def test_farthest_point_is_within_twice_the_best_radius(seed, n, start):
    features = points(np.random.default_rng(seed).normal(size=(9, 2)))
    D = cdist(features.values, features.values)
    chosen = farthest_point(None, features, examples=n, start=start, seed=seed)
    best = min(D[list(S)].min(0).max() for S in itertools.combinations(range(9), n))
    assert D[chosen.indices].min(0).max() <= 2 * best + 1e-12
    for k in range(1, n):  # and each pick is the farthest one
        to_picks = D[chosen.indices[:k]].min(0)
        assert to_picks[chosen.indices[k]] == pytest.approx(to_picks.max())


def test_farthest_point_starts_where_it_is_told_and_skips_what_does_not_fit():
    line = [[0.0], [10.0], [4.0], [5.0], [-10.0]]
    assert farthest_point(None, points(line), examples=3).indices.tolist() == [0, 1, 4]
    assert farthest_point(None, points(line), examples=3, start=4).indices.tolist() == [4, 1, 0]
    assert farthest_point(None, points(line), examples=3, start=np.int64(4)).indices.tolist() == [4, 1, 0]
    lengths = (1, 5, 1, 1, 2)
    uneven = fl.TokenFeatures.from_list([torch.tensor([x] * t) for x, t in zip(line, lengths, strict=True)])
    # example 1 never fits; from 0 the farthest that does is 4, and then 3
    assert farthest_point(None, uneven, tokens=4, start=0).indices.tolist() == [0, 4, 3]
    for start in (1, 7, -1):
        with pytest.raises(ValueError, match="a start with tokens that fits the budget of 4, got example"):
            farthest_point(None, uneven, tokens=4, start=start)
    with pytest.raises(ValueError, match="'centre', 'random' or an index"):
        farthest_point(None, uneven, tokens=4, start="far")


# --- text ------------------------------------------------------------------------------------------------------------

VERSE = "Shall I compare thee to a summer's day? Thou art more lovely and more temperate."
OTHER = "No longer mourn for me when I am dead than you shall hear the surly sullen bell."


def rows_of(*texts):
    return Dataset.from_list([{"text": text} for text in texts])


def test_near_duplicates_are_found_and_the_first_of_each_stays():
    rows = rows_of(VERSE, OTHER, VERSE.replace("day", "night"), VERSE, OTHER + "!", "ab", "ab", "cd")
    assert near_duplicates(rows).tolist() == [0, 1, 0, 0, 1, 5, 5, 7]
    assert near_duplicates(rows, threshold=1.0).tolist() == [0, 1, 2, 0, 4, 5, 5, 7]
    features = fl.TokenFeatures.from_list([torch.randn(2, 3) for _ in range(8)])
    chosen = deduplicated(rows, features, examples=4)
    assert sorted(chosen.indices) == [0, 1, 5, 7] and chosen.pool_size == 8
    assert chosen.settings["method"] == "deduplicated, then uniform" and chosen.settings["removed"] == 4
    with pytest.raises(ValueError, match="at most the 4 examples that are left without near-duplicates, got 5"):
        deduplicated(rows, features, examples=5)
    with pytest.raises(ValueError, match="at most the 8 tokens that are left"):
        deduplicated(rows, features, tokens=9)
    with pytest.raises(ValueError, match="threshold above 0"):
        near_duplicates(rows, threshold=0.0)
    with pytest.raises(ValueError, match="shingles of at least 1"):
        near_duplicates(rows, shingle=0)
    with pytest.raises(ValueError, match="rows of the pool, whose text is read, got None"):
        deduplicated(None, features, examples=1)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), threshold=st.sampled_from([0.5, 0.8, 1.0]))
def test_every_member_of_a_group_resembles_its_first(seed, threshold):
    rng = np.random.default_rng(seed)
    words = np.array(VERSE.split())
    texts = [" ".join(np.where(rng.random(len(words)) < rng.choice([0, 0.1, 0.5]), "x", words)) for _ in range(12)]
    shingles = [{t[i : i + 5] for i in range(len(t) - 4)} for t in texts]
    groups = near_duplicates(rows_of(*texts), threshold, seed)
    for i, first in enumerate(groups):
        assert first <= i and groups[first] == first
        assert len(shingles[i] & shingles[first]) / len(shingles[i] | shingles[first]) >= threshold
        assert first == i or texts.index(texts[i]) != i or texts[first] != texts[i]
        assert groups[texts.index(texts[i])] == first  # exact copies are together


def test_near_duplicates_are_those_of_comparing_all_pairs():
    rng = np.random.default_rng(0)
    words = VERSE.split() + OTHER.split()
    texts = []
    for _ in range(300):
        copied = texts and rng.random() < 0.5
        said = texts[rng.integers(len(texts))].split() if copied else rng.choice(words, rng.integers(1, 60)).tolist()
        for place in rng.choice(len(said), rng.integers(1 + len(said) // 3), replace=False):
            said[place] = f"w{rng.integers(1000)}"
        texts.append(" ".join(said))
    shingles = [{t[k : k + 5] for k in range(max(len(t) - 4, 1))} for t in texts]
    for threshold in (0.5, 0.8):
        groups = np.arange(300)
        for i, own in enumerate(shingles):
            near = [j for j in range(i) if groups[j] == j and len(own & shingles[j]) >= threshold * len(own | shingles[j])]
            groups[i] = near[0] if near else i
        assert (near_duplicates(rows_of(*texts), threshold) != groups).sum() <= 1  # one in a thousand just at the threshold
        assert 50 < (groups == np.arange(300)).sum() < 290


def test_any_selector_follows_deduplication_fisher_sft_too():
    rows = rows_of(VERSE, VERSE, OTHER, "ab", "cd", VERSE)
    features = fl.TokenFeatures.from_list([torch.randn(n, 3) for n in (4, 4, 2, 1, 1, 4)], nll=torch.ones(16))
    kept = [0, 2, 3, 4]

    def fisher(rows, features, **call):
        return fl.select(features, rule="gain_per_token", **call)

    chosen = deduplicated(rows, features, tokens=6, then=fisher)
    inner = fl.select(features.subset(kept), tokens=6, rule="gain_per_token")
    assert chosen.indices.tolist() == [kept[i] for i in inner.indices] and chosen.objective == inner.objective
    assert chosen.settings["method"] == "deduplicated, then FisherSFT" and chosen.upper_bound is None
    assert chosen.to_dataset(rows)["text"] == inner.to_dataset(rows.select(kept))["text"]
    weighted = deduplicated(rows, features, examples=3, then=clustered, n_clusters=2)
    assert len(weighted.weights) == 3 and 1 not in weighted.indices


def test_all_three_shapes_of_rows_have_text():
    turns = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "cd"}]
    assert selectors._text.texts(Dataset.from_list([{"messages": turns}])) == ["ab\ncd"]
    assert selectors._text.texts(Dataset.from_list([{"prompt": "ab", "response": "cd"}])) == ["ab\ncd"]
    with pytest.raises(ValueError, match="row 0: expected the columns .*, got \\['ids'\\]"):
        near_duplicates(Dataset.from_list([{"ids": [1, 2]}]))


ALPHABET = [" yes", " Yes", "yes", "Yes", " no", " No", "no", "No", *map(chr, range(32, 120))]


def letters(words=ALPHABET):
    """A tokenizer of single characters, and of yes and no."""
    vocabulary = {word: i for i, word in enumerate(["<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(" ?[Yy]es| ?[Nn]o|."), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


ASK = {"question": "{document} good?", "precision": "float32"}


def test_ask_llm_scores_are_the_models_own_whatever_the_batch(tiny):
    tokenizer, texts = letters(), [VERSE[:n] for n in (1, 40, 7, 20, 33)]
    rows = rows_of(*texts)
    scores = ask_llm_scores(rows, tiny, tokenizer, **ASK)
    for text, score in zip(texts, scores, strict=True):
        ids = tokenizer(f"{text} good?")["input_ids"]
        with torch.no_grad():
            p = tiny(torch.tensor([ids])).logits[0, -1].softmax(0).double()
        yes, no = p[1:5].sum(), p[5:9].sum()  # the variants stand first in the vocabulary
        assert score == pytest.approx(float(yes / (yes + no)), abs=1e-6) and 0 < score < 1
    assert np.ptp(scores) > 1e-3
    for options in ({"tokens_per_batch": 1}, {"tokens_per_batch": 10**6}, {"padding_side": "left"}):
        assert np.allclose(ask_llm_scores(rows, tiny, tokenizer, **ASK, **options), scores, rtol=0, atol=1e-5)


def test_ask_llm_takes_the_top_and_the_first_of_equals(tiny):
    rows, features = rows_of("abc", "x", "abc", "hello", "x"), points(np.eye(5))
    scores = ask_llm_scores(rows, tiny, letters(), **ASK, tokens_per_batch=1)
    expected = sorted(range(5), key=lambda i: (-scores[i], i))
    again = ask_llm(rows, features, examples=5, model=tiny, tokenizer=letters(), **ASK, tokens_per_batch=1)
    assert again.indices.tolist() == expected
    assert ask_llm(None, features, examples=3, scores=scores).indices.tolist() == expected[:3]


def test_ask_llm_cuts_what_is_too_long_and_refuses_what_cannot_work(tiny):
    tokenizer, room = letters(), 64 - 1 - len(" good?")
    long = (VERSE * 5).replace("no", "on")  # one token a character
    whole, cut = (ask_llm_scores(rows_of(text), tiny, tokenizer, **ASK)[0] for text in (long, long[:room]))
    assert whole == cut != ask_llm_scores(rows_of(long[: room - 1]), tiny, tokenizer, **ASK)[0]
    with pytest.raises(ValueError, match="a context of more than .* tokens, the question alone, got 64"):
        ask_llm_scores(rows_of("a"), tiny, tokenizer, question="{document}" + "long " * 20)
    with pytest.raises(ValueError, match="expected {document} once"):
        ask_llm_scores(rows_of("a"), tiny, tokenizer, question="good?")
    with pytest.raises(ValueError, match="'yes' and 'no' to begin with different tokens"):
        ask_llm_scores(rows_of("a"), tiny, letters(ALPHABET[8:]), **ASK)
    with pytest.raises(ValueError, match="a model and its tokenizer to ask"):
        ask_llm(rows_of("a"), points([[1.0]]), examples=1)
    with pytest.raises(ValueError, match="a finite score for each of 1 examples, got 2"):
        ask_llm(rows_of("a"), points([[1.0]]), examples=1, scores=np.ones(2))


def test_ask_llm_leaves_the_model_as_it_was(tiny):
    tiny.train()
    ask_llm_scores(rows_of("a"), tiny, letters(), **ASK)
    assert tiny.training
    tiny.eval()


def test_what_begins_both_answers_is_left_out(tiny):
    tokenizer = letters([w for w in ALPHABET if w not in (" yes", " no")])  # both are the unknown token now
    score = ask_llm_scores(rows_of("abc"), tiny, tokenizer, **ASK)[0]
    with torch.no_grad():
        p = tiny(torch.tensor([tokenizer("abc good?")["input_ids"]])).logits[0, -1].softmax(0).double()
    assert score == pytest.approx(float(p[1:4].sum() / p[1:7].sum()), abs=1e-6)
    with pytest.raises(ValueError, match="no more options beside scores=, got .'question'.: they were"):
        ask_llm(None, points([[1.0]]), examples=1, scores=np.ones(1), question="x")


def test_a_chat_model_is_asked_in_a_users_turn(real, plays):
    model, tokenizer = real
    rows = plays.train.select(range(3))
    prompt = tokenizer.decode(ask_llm_module._prompt(rows[0]["response"], tokenizer, ask_llm_module.QUESTION, None))
    assert prompt.startswith("<|im_start|>") and prompt.endswith("<|im_start|>assistant\n") and rows[0]["response"] in prompt
    scores = ask_llm_scores(rows, model, tokenizer)
    assert ((scores > 0) & (scores < 1)).all() and len(set(scores)) == 3


def test_sentence_optimal_fills_a_budget_of_tokens_with_what_adds_nothing():
    features = fl.TokenFeatures.from_list([torch.zeros(3, 4)] * 20)
    chosen = fl.selectors.sentence_optimal(None, features, tokens=30)
    assert chosen.indices.tolist() == list(range(10)) and chosen.objective == 0


# --- I-optimal -------------------------------------------------------------------------------------------------------


def variance(features, picks, sigma, prior):
    """tr(V^-1 Sigma), from the definition."""
    V = prior * np.eye(features.dim)
    for i in picks:
        V += features[i].double().numpy().T @ features[i].double().numpy()
    return np.trace(np.linalg.solve(V, sigma))


@some
@given(seed=st.integers(0, 500), per_token=st.booleans(), prior=st.sampled_from([0.1, 1.0, 30.0]), own=st.booleans())
def test_i_optimal_is_the_greedy_of_its_definition(seed, per_token, prior, own):
    features, target = draw(seed, n=12), None if own else draw(seed + 1000, n=5)
    Z = (features if own else target).values.double().numpy()
    sigma, lengths, picks = Z.T @ Z / len(Z), features.lengths.numpy(), []
    left = budget = min(20, int(lengths.sum()))  # a few pools have fewer
    while fits := [i for i in range(12) if i not in picks and 0 < lengths[i] <= left]:
        now = variance(features, picks, sigma, prior)
        lower = [now - variance(features, [*picks, i], sigma, prior) for i in fits]
        lower = np.array(lower) / (lengths[fits] if per_token else 1)
        picks.append(fits[int(np.argmax(lower >= lower.max() * (1 - 1e-9)))])
        left -= lengths[picks[-1]]
    rule = "gain_per_token" if per_token else "gain"
    found = i_optimal(None, features, tokens=budget, target=target, rule=rule, prior=prior)
    assert found.indices.tolist() == picks


def test_i_optimal_looks_where_the_target_is():
    e = np.eye(4)
    pool = points([e[0], e[0], e[1], e[2], e[3]])
    assert i_optimal(None, pool, examples=1, target=points([e[2]])).indices.tolist() == [3]
    assert i_optimal(None, pool, examples=2, target=points([e[3], e[3], e[1]])).indices.tolist() == [4, 2]
    assert i_optimal(None, pool, examples=1).indices.tolist() == [0]  # its own most frequent direction
    for bad, message in ((points(np.eye(3)), "target with tokens of width 4"), (points(np.eye(4) * np.nan), "finite")):
        with pytest.raises(ValueError, match=message):
            i_optimal(None, pool, examples=1, target=bad)
    with pytest.raises(ValueError, match="expected a positive, finite prior"):
        i_optimal(None, pool, examples=1, prior=0.0)
    with pytest.raises(ValueError, match="expected rule to be one of"):
        i_optimal(None, pool, examples=1, rule="most")
