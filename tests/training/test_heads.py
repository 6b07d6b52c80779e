"""Heads on frozen features: each fit is at the optimum of its objective, and distances are those of their definition."""

import numpy as np
import pytest
import torch

import fisherlib as fl
from fisherlib.training import heads


def labelled(n=40, d=6, seed=0):
    rng = np.random.default_rng(seed)
    blocks = [torch.tensor(rng.normal(size=(int(t), d)), dtype=torch.float32) for t in rng.integers(2, 9, n)]
    return fl.TokenFeatures.from_list(blocks, labels=torch.tensor(rng.integers(0, 12, sum(map(len, blocks)))))


def test_the_head_from_scratch_is_that_of_fit_heads():
    """To the last digits where both stop at the same gradient, and near it where one goes on."""
    pool, test = labelled(), labelled(seed=1)
    picks = list(range(15))
    frame = heads.head_frame(pool, classes=8, dimensions=4)
    mine, held_out = frame.tokens(pool), frame.tokens(test)
    D = heads.fit_head(mine.of(picks), ridge=3.0, tolerance=1e-7)
    (theirs,) = fl.fit_heads(pool, [picks], classes=8, dimensions=4, ridge=3.0)
    assert heads.fit_head(mine.of(picks), ridge=3.0) == pytest.approx(theirs.classifier.coef_, abs=1e-12)
    assert 1e-12 < np.abs(D - theirs.classifier.coef_).max() < 5e-3
    assert heads.nll_sums(held_out, D) == pytest.approx(theirs.held_out(test).nll_sums, abs=2e-2)


def test_an_update_stays_at_the_pretrained_head_under_a_large_ridge_and_leaves_it_under_a_small_one():
    pool = labelled()
    pretrained = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
    tokens = heads.head_frame(pool, classes=8, dimensions=4).tokens(pool, pretrained)
    _, counts = np.unique(pool.labels, return_counts=True)
    kept = np.sort(np.argsort(-counts, kind="stable")[:8])
    logits = pool.values[torch.isin(pool.labels, torch.tensor(kept))] @ pretrained[kept].T
    assert tokens.base == pytest.approx(logits.numpy(), abs=1e-5)
    still, moved = (heads.fit_head(tokens, ridge=ridge, tolerance=1e-7) for ridge in (1e9, 1.0))
    assert np.abs(still).max() < 1e-6
    p = torch.softmax(torch.tensor(tokens.base + tokens.X @ moved.T), 1).numpy()
    gradient = (p - np.eye(8)[tokens.y]).T @ tokens.X + moved
    assert np.abs(gradient).max() < 1e-3
    assert heads.nll_sums(tokens, moved).sum() < heads.nll_sums(tokens, still).sum()


def test_the_distance_from_the_reference_is_that_of_the_definition():
    pool = labelled()
    tokens = heads.head_frame(pool, classes=8, dimensions=4).tokens(pool)
    reference = heads.fit_head(tokens, ridge=1.0)
    D = heads.fit_head(tokens.of(range(10)), ridge=1.0)
    assert heads.kl(tokens, reference, reference) == pytest.approx(0, abs=1e-12)
    assert heads.logit_errors(tokens, reference + 5.0 * np.ones(8)[:, None], reference) == pytest.approx((0, 0), abs=1e-9)
    expected = []
    for i in range(len(pool)):
        z = (tokens.X[tokens.owner == i] @ (D - reference).T).copy()
        if len(z):
            expected.append(np.linalg.norm(z - z.mean(1, keepdims=True), axis=1).mean())
    assert heads.logit_errors(tokens, D, reference) == pytest.approx((max(expected), np.mean(expected)))
    p, q = (torch.softmax(torch.tensor(tokens.X @ W.T), 1) for W in (reference, D))
    assert heads.kl(tokens, D, reference) == pytest.approx(float((p * (p / q).log()).sum(1).mean()))


def test_the_head_is_at_the_optimum_of_its_objective():
    features = labelled()
    chosen = list(range(15))
    (head,) = fl.fit_heads(features, [chosen], classes=8, dimensions=4, ridge=3.0)
    part = features.subset(chosen)
    known = np.isin(part.labels.numpy(), head.classes)
    X = (part.values.numpy()[known].astype(float) - head.frame.mean) @ head.frame.whitening
    X = np.column_stack([X, np.ones(len(X))])
    onehot = np.eye(8)[np.searchsorted(head.classes, part.labels.numpy()[known])]
    scores = X @ head.classifier.coef_.T
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    gradient = (p - onehot).T @ X + 3.0 * head.classifier.coef_
    assert np.abs(gradient).max() < 1e-2 * len(X)
    held_out = head.held_out(part)
    assert held_out.nll == pytest.approx(-np.log((p * onehot).sum(1)).mean(), abs=1e-8)
    assert held_out.tokens.sum() == known.sum() and len(held_out.tokens) == 15


def test_heads_know_every_class_whatever_their_selection_shows():
    features = labelled()
    fitted = fl.fit_heads(features, [[0, 1, 2], list(range(40))], classes=8, dimensions=4)
    assert all(np.isfinite(head.held_out(features).nll_sums).all() for head in fitted)
    assert fitted[1].held_out(features).nll < fitted[0].held_out(features).nll
    frequent = np.sort(np.argsort(-np.bincount(features.labels), kind="stable")[:8])
    assert np.array_equal(fitted[0].classes, frequent)


def test_few_tokens_of_many_classes_warn_of_nothing(recwarn):
    """Every class has a row of weight zero: more rows than a small selection has tokens, and no sign of a regression."""
    blocks = list(torch.randn(4, 10, 6, generator=torch.Generator().manual_seed(0)))
    features = fl.TokenFeatures.from_list(blocks, labels=torch.arange(40) % 20)
    fl.fit_heads(features, [[0]], classes=20, dimensions=4)  # 10 tokens
    assert not [str(warning.message) for warning in recwarn]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ridge": 0.0}, "a positive, finite ridge, got 0"),
        ({"ridge": np.nan}, "a positive, finite ridge"),
        ({"classes": 1}, "at least 2 classes and 1 dimension, got 1 and 64"),
        ({"dimensions": 0}, "at least 2 classes and 1 dimension, got 200 and 0"),
    ],
)
def test_numbers_that_are_refused(options, message):
    with pytest.raises(ValueError, match=f"expected {message}"):
        fl.fit_heads(labelled(), [[0, 1, 2]], **options)


def test_a_frame_refuses_what_it_cannot_whiten_and_leaves_out_axes_without_any_difference():
    pool = labelled()
    for change, message in (
        (lambda X: X * torch.nan, "finite features of at least two tokens"),
        (lambda X: X * 0 + 1, "features that differ, got the same of all tokens"),
    ):
        with pytest.raises(ValueError, match=f"expected {message}"):
            heads.head_frame(fl.TokenFeatures(change(pool.values), pool.offsets, labels=pool.labels))
    empty = fl.TokenFeatures(torch.zeros(0, 3), torch.tensor([0, 0]), labels=torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match="of at least two tokens"):
        heads.head_frame(empty)
    flat = fl.TokenFeatures(pool.values * torch.tensor([1.0, 1, 0, 0, 0, 0]), pool.offsets, labels=pool.labels)
    (head,) = fl.fit_heads(flat, [range(15)], classes=8)
    assert np.isfinite(head.frame.whitening).all() and head.frame.whitening.shape[1] == 2
    assert np.isfinite(head.held_out(flat).nll)


def test_heads_are_fitted_to_a_list_of_selections(as_a_user):
    pool = labelled()
    for alone in ([0, 1, 2], np.arange(3)):
        with pytest.raises(ValueError, match=r"expected a list of selections, .*: give \[selection.indices\]"):
            fl.fit_heads(pool, alone)
    with pytest.raises(ValueError, match="expected selections, a list, got a Selection: give its indices"):
        fl.fit_heads(pool, fl.select(pool, examples=3))
