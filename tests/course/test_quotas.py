"""The arms of the experiment on quotas: every draw is in uniform's order, and a share is what it says."""

import numpy as np
import pytest
import torch
from datasets import Dataset

import fisherlib as fl
from fisherlib.course.study import quotas
from fisherlib.course.study.methods import QUOTAS
from fisherlib.course.study.pools import Sizes, draw_pool
from fisherlib.selectors import near_duplicates


def pool(n=90, copies=0, seed=0):
    """Examples of four kinds, far apart, with texts that are near-duplicates of the first ones for the last `copies`."""
    rng = np.random.default_rng(seed)
    kinds, lengths = rng.integers(0, 4, n), rng.integers(2, 9, n)
    blocks = [10 * np.eye(12)[k] + rng.normal(size=(t, 12)) for k, t in zip(kinds, lengths, strict=True)]
    features = fl.TokenFeatures.from_list([torch.tensor(b, dtype=torch.float32) for b in blocks])
    words = [" ".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 40)) for _ in range(n)]
    words[n - copies :] = words[:copies]
    rows = Dataset.from_list(
        [{"prompt": "p", "response": w, "domain": f"kind {k}"} for w, k in zip(words, kinds, strict=True)]
    )
    return rows, features


def permutation(seed, n=90):
    return np.random.default_rng(seed).permutation(n)


def test_without_copies_and_shares_it_is_uniform_itself():
    rows, features = pool()
    for seed in range(3):
        chosen = quotas.minhash(rows, features, seed=seed, tokens=100)
        assert chosen.indices.tolist() == fl.selectors.uniform(rows, features, tokens=100, seed=seed).indices.tolist()


def test_copies_come_last_and_what_is_left_keeps_uniforms_order():
    rows, features = pool(copies=30)
    firsts = near_duplicates(rows, threshold=0.5, seed=1)
    kept = np.flatnonzero(firsts == np.arange(90))
    assert len(kept) == 60
    left = int(features.lengths[kept].sum())
    chosen = quotas.minhash(rows, features, seed=1, tokens=left)
    order = permutation(1)
    assert chosen.indices.tolist() == order[np.isin(order, kept)].tolist()
    beyond = quotas.minhash(rows, features, seed=1, tokens=left + 20).indices
    assert beyond[:60].tolist() == chosen.indices.tolist() and not np.isin(beyond[60:], kept).any() and len(beyond) > 60


@pytest.mark.parametrize(
    "name", ["minhash_proportional", "minhash_equal", "minhash_root", "minhash_fisher", "minhash_permuted"]
)
def test_a_group_spends_its_share_in_uniforms_order(name, monkeypatch):
    rows, features = pool()
    told = {}
    arm = QUOTAS[name]

    def noted(rows, features, seed, tokens):
        told["groups"], told["shares"] = arm.keywords["shares"](rows, features, seed, tokens)
        return told["groups"], told["shares"]

    chosen = quotas.minhash(rows, features, seed=2, tokens=200, shares=noted)
    assert chosen.indices.tolist() == arm(rows, features, seed=2, tokens=200).indices.tolist()
    groups, shares, costs, order = told["groups"], told["shares"], features.lengths.numpy(), permutation(2)
    assert 190 < costs[chosen.indices].sum() <= 200
    seen = 0
    for group, quota in enumerate(np.floor(shares / shares.sum() * 200)):
        expected = []
        for i in order[groups[order] == group]:
            if costs[i] <= quota:
                expected.append(int(i))
                quota -= costs[i]
        assert chosen.indices[seen : seen + len(expected)].tolist() == expected
        seen += len(expected)
    assert seen > 0.8 * len(chosen)  # shares, and not what is left over, say who is chosen


def test_shares_are_what_they_are_called():
    rows, features = pool()
    groups, own = quotas.proportional(rows, features, 0, 200)
    lengths = features.lengths.numpy()
    assert own.tolist() == [lengths[groups == k].sum() for k in range(8)]
    assert set(quotas.proportional(rows, features, 0, 200, power=0.0)[1]) == {1.0}
    assert np.allclose(quotas.proportional(rows, features, 0, 200, power=0.5)[1] ** 2, own)
    _, fisher = quotas.fisher(rows, features, 0, 200)
    picks = fl.select(features, tokens=200, rule="gain_per_token").indices
    assert fisher.tolist() == [lengths[picks[groups[picks] == k]].sum() for k in range(8)]
    for seed in range(3):
        _, dealt = quotas.permuted(rows, features, seed, 200)
        _, kept = quotas.fisher(rows, features, seed, 200)
        assert sorted(dealt) == sorted(kept)


def test_dealt_shares_leave_no_cluster_its_own(monkeypatch):
    rows, features = pool(n=9)
    monkeypatch.setattr(quotas, "fisher", lambda *_: (np.zeros(9, dtype=int), np.arange(8.0)))
    for seed in range(50):
        assert (quotas.permuted(rows, features, seed, 1)[1] != np.arange(8)).all()


def test_the_oracle_spends_by_the_tests_mix():
    rows, features = pool(n=400)
    wanted = {"kind 0": 3.0, "kind 1": 1.0, "kind 2": 0.0, "kind 3": 1.0}
    chosen = quotas.minhash_oracle(rows, features, seed=0, tokens=500, wanted=wanted)
    domains, costs = np.array(rows["domain"]), features.lengths.numpy()
    spent = {d: costs[chosen.indices[domains[chosen.indices] == d]].sum() for d in wanted}
    assert abs(spent["kind 0"] - 300) < 10 and abs(spent["kind 1"] - 100) < 10 and spent["kind 2"] < 10


def test_the_pool_of_the_project_is_drawn_at_its_own_rate():
    sizes = Sizes(pool_examples=60, test_examples=30)
    replicate = draw_pool("project", 0, sizes)
    assert len(replicate.train) == 60 and len(replicate.test) == 30
    domains = set(replicate.train["domain"])
    assert {"code", "guide"} <= domains and "dialogue" not in domains
    assert not set(replicate.train["document"]) & set(replicate.test["document"])


def test_paraphrased_copies_share_no_text_that_minhash_sees():
    sizes = Sizes(pool_examples=100, test_examples=10, bases=5, variants=0.8)
    seen = {}
    for name in ("guide_redundant", "guide_paraphrased"):
        rows = draw_pool(name, 0, sizes).train
        base = np.array(rows["base"])
        groups = near_duplicates(rows, threshold=0.5)
        seen[name] = (groups[base >= 0] == np.flatnonzero(base >= 0)).mean()
        assert (base >= 0).sum() == 85 or (base >= 0).sum() == 80 + 5
    assert seen["guide_redundant"] < 0.2 < 0.7 < seen["guide_paraphrased"]
