"""Where the truth is known: are the pools, the fit and the errors what they claim to be?"""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

import fisherlib as fl
from fisherlib import fisher
from fisherlib.course import synthetic
from fisherlib.course.synthetic.fit import loss_and_gradient

few = settings(max_examples=25, deadline=None)


def small_problem(seed=0, classes=5, scale=1.0, **sizes):
    pool = synthetic.isotropic(**{"sentences": 30, "tokens": 4, "dimensions": 3, **sizes}, seed=seed)
    return synthetic.Problem.draw(pool, classes=classes, scale=scale, seed=seed)


def fisher_sft(rows, features, *, seed=0, **budget):
    return fl.select(features, **budget, device="cpu")


# --- the fit ---------------------------------------------------------------------------------------------------------


def newton(features, classes, ridge):
    """The same optimum by another road: exact Hessians of `fl.fisher`, autograd's gradient, halved steps."""
    X, y = features.values, features.labels
    Theta = torch.zeros(classes, features.dim, dtype=torch.float64)

    def loss(flat):
        head = flat.reshape(Theta.shape)
        return torch.nn.functional.cross_entropy(X @ head.T, y, reduction="sum") + ridge / 2 * flat.square().sum()

    flat = Theta.flatten()
    for _ in range(60):
        gradient = torch.autograd.functional.jacobian(loss, flat)
        P = torch.softmax(X @ flat.reshape(Theta.shape).T, 1)
        H = fisher.hessian(X, P) + ridge * torch.eye(len(flat), dtype=torch.float64)
        step, length = torch.linalg.solve(H, gradient), 1.0
        while loss(flat - length * step) > loss(flat) + 1e-9 and length > 1e-6:
            length /= 2
        flat = flat - length * step
    return flat.reshape(Theta.shape)


@few
@given(
    seed=st.integers(0, 10_000),
    classes=st.integers(2, 6),
    scale=st.sampled_from([0.0, 1.0, 6.0]),
    ridge=st.sampled_from([1e-3, 1e-1, 10.0]),
    sentences=st.integers(1, 20),
)
def test_the_fit_is_newton_s_and_stationary(seed, classes, scale, ridge, sentences):
    problem = small_problem(seed, classes, scale, sentences=sentences)
    Theta = synthetic.fit_mle(problem.features, classes=classes, ridge=ridge, tolerance=1e-7)
    X, y = problem.features.values.numpy(), problem.features.labels.numpy()
    _, gradient = loss_and_gradient(Theta.numpy(), X, y, np.ones(len(y)), ridge)
    assert np.abs(gradient).max() < 1e-5
    torch.testing.assert_close(Theta, newton(problem.features, classes, ridge), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(Theta.mean(0), torch.zeros(3).double(), rtol=0, atol=1e-7)


def test_the_gradient_is_autograd_s():
    problem = small_problem(3)
    X, y, Theta = problem.features.values, problem.features.labels, torch.randn(5, 3, dtype=torch.float64)
    w = torch.rand(len(y), dtype=torch.float64)

    def loss(head):
        return w @ torch.nn.functional.cross_entropy(X @ head.T, y, reduction="none") + 0.35 * head.square().sum()

    value, gradient = loss_and_gradient(Theta.numpy(), X.numpy(), y.numpy(), w.numpy(), 0.7)
    assert value == pytest.approx(float(loss(Theta)), rel=1e-12)
    np.testing.assert_allclose(gradient, torch.autograd.functional.jacobian(loss, Theta), rtol=0, atol=1e-10)


def test_the_fit_is_scikit_learn_s_in_hard_cases():
    """Rare directions that few picks show, and a certain model: hundreds of steps, and the ridge decides."""
    from sklearn.linear_model import LogisticRegression

    for pool, scale in ((synthetic.rare_directions, 1.0), (synthetic.saturated_half, 3.0)):
        problem = synthetic.Problem.draw(pool(sentences=60, seed=1), scale=scale, seed=1)
        picked = problem.features.subset(range(25))
        X, y = picked.values.numpy(), picked.labels.numpy()
        every = np.concatenate([X, np.zeros((20, 10))]), np.concatenate([y, np.arange(20)])  # it has to see every class
        weights = np.concatenate([np.ones(len(y)), np.zeros(20)])
        peer = LogisticRegression(C=1e3, fit_intercept=False, solver="newton-cholesky", tol=1e-9, max_iter=1000)
        theirs = torch.from_numpy(peer.fit(*every, sample_weight=weights).coef_)
        ours = synthetic.fit_mle(picked, classes=20)
        assert (ours - theirs).norm() < 1e-3 * theirs.norm()
        errors = synthetic.prediction_errors(ours, problem), synthetic.prediction_errors(theirs, problem)
        np.testing.assert_allclose(*errors, rtol=1e-3)


def test_a_weight_of_two_is_a_token_twice():
    problem = small_problem(2)
    w = np.random.default_rng(0).integers(0, 3, len(problem.features.labels))
    rows = np.repeat(np.arange(len(w)), w)
    copied = fl.TokenFeatures(
        problem.features.values[rows], torch.tensor([0, len(rows)]), labels=problem.features.labels[rows]
    )
    one = synthetic.fit_mle(problem.features, classes=5, weights=w.astype(float), tolerance=1e-7)
    other = synthetic.fit_mle(copied, classes=5, tolerance=1e-7)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_large_head_is_fitted_too():
    problem = small_problem(0, classes=200, sentences=40, tokens=10, dimensions=20)
    with threadpool_limits(1):  # a second thread is a burden where others want the core
        Theta = synthetic.fit_mle(problem.features, classes=200)
    X, y = problem.features.values.numpy(), problem.features.labels.numpy()
    _, gradient = loss_and_gradient(Theta.numpy(), X, y, np.ones(len(y)), 1e-3)
    assert Theta.shape == (200, 20) and np.abs(gradient).max() < 1e-4


def test_without_data_the_ridge_alone_decides():
    problem = small_problem()
    assert float(synthetic.fit_mle(problem.features.subset([]), classes=5).abs().max()) == 0


def test_more_labels_less_error_at_the_rate_one_over_root_n():
    def error(sentences, seed):
        problem = small_problem(seed, sentences=sentences, tokens=10)
        Theta = synthetic.fit_mle(problem.features, classes=5)
        return synthetic.prediction_errors(Theta, problem).mean()

    little, much = (np.mean([error(n, seed) for seed in range(8)]) for n in (40, 640))
    assert little / much == pytest.approx(4, rel=0.25)  # 16 times the labels


# --- errors and problems ---------------------------------------------------------------------------------------------


@few
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.0, 0.5, 3.0]))
def test_a_shift_of_all_classes_changes_nothing(seed, scale):
    problem = small_problem(seed, scale=scale)
    rng = np.random.default_rng(seed)
    guess, shift = torch.from_numpy(rng.standard_normal((5, 3))), torch.from_numpy(rng.standard_normal(3))
    for estimate in (guess, problem.Theta):
        errors = [synthetic.prediction_errors(Theta, problem) for Theta in (estimate, estimate + shift)]
        np.testing.assert_allclose(*errors, rtol=0, atol=1e-12)
        assert synthetic.mean_kl(estimate, problem) == pytest.approx(synthetic.mean_kl(estimate + shift, problem), abs=1e-12)
    assert synthetic.mean_kl(guess, problem) > 0
    assert synthetic.mean_kl(problem.Theta, problem) == 0 == synthetic.prediction_errors(problem.Theta, problem).max()


def test_the_error_by_hand():
    features = fl.TokenFeatures.from_list([torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(0, 2)])
    problem = synthetic.Problem.draw(features, classes=2, scale=0.0, seed=0)
    Theta = torch.tensor([[3.0, 4.0], [-3.0, -4.0]], dtype=torch.float64)
    expected = np.sqrt(2) * np.array([3.0, 8.0])
    assert synthetic.prediction_errors(Theta, problem) == pytest.approx([expected.mean(), 0])
    assert synthetic.prediction_errors(Theta, problem, over="sum") == pytest.approx([expected.sum(), 0])
    half = torch.tensor(0.5, dtype=torch.float64)
    by_hand = np.mean([float((half * (half / p).log()).sum()) for p in torch.softmax(problem.features.values @ Theta.T, 1)])
    assert synthetic.mean_kl(Theta, problem) == pytest.approx(by_hand, rel=1e-12)


def test_labels_are_drawn_from_the_truth():
    problem = synthetic.Problem.draw(
        fl.TokenFeatures.from_list([torch.tensor([[1.0, -0.5]]).repeat(20_000, 1)]), classes=4, seed=3
    )
    p = torch.softmax(problem.features.values[0] @ problem.Theta.T, 0)
    share = torch.bincount(problem.features.labels, minlength=4) / 20_000
    assert (share - p).abs().max() < 5 * 0.5 / np.sqrt(20_000)
    assert float(problem.features.trace_weights[0]) == pytest.approx(float(1 - p.square().sum()))
    torch.testing.assert_close(problem.Theta.mean(0), torch.zeros(2).double(), rtol=0, atol=1e-12)


def test_seeds_repeat_a_problem_and_separate_pool_and_truth():
    one, two, other = small_problem(4), small_problem(4), small_problem(5)
    for name in ("values", "labels"):
        assert torch.equal(getattr(one.features, name), getattr(two.features, name))
        assert not torch.equal(getattr(one.features, name), getattr(other.features, name))
    assert torch.equal(one.Theta, two.Theta) and not torch.equal(one.Theta, other.Theta)
    drawn = small_problem(4, classes=50, sentences=50, tokens=1)
    flat = drawn.features.values.flatten(), drawn.Theta.flatten()
    assert abs(np.corrcoef(np.stack(flat))[0, 1]) < 0.4  # the head does not repeat the numbers of its pool


def test_trace_weights_of_a_uniform_and_of_a_certain_head():
    features = small_problem().features
    uniform = synthetic.with_trace_weights(features, torch.zeros(5, 3, dtype=torch.float64))
    assert uniform.trace_weights.numpy() == pytest.approx(1 - 1 / 5)
    certain = small_problem(scale=1e6).features
    assert float(certain.trace_weights.median()) < 1e-6


# --- pools -----------------------------------------------------------------------------------------------------------


def spread(features, rows):
    return features.subset(rows).values.square().mean(0).sqrt().numpy()


def test_the_pools_have_the_spread_they_promise():
    assert spread(synthetic.isotropic(tokens=100), range(600)) == pytest.approx(0.1**0.5, rel=0.02)
    rare = synthetic.rare_directions(tokens=100)
    assert spread(rare, range(60)) == pytest.approx(0.8, rel=0.05)
    assert spread(rare, range(60, 600)) == pytest.approx([1.0] * 3 + [0.15] * 7, rel=0.02)
    half = synthetic.saturated_half(tokens=100)
    assert spread(half, range(200)) == pytest.approx(1.0, rel=0.03)
    assert spread(half, range(200, 400)) == pytest.approx(0.35, rel=0.03)
    assert spread(synthetic.rare_directions(rare=0.0), range(60))[-1] < 0.2
    outliers = synthetic.long_outliers(tokens=100)
    assert spread(outliers, range(60)) == pytest.approx([0.0] * 3 + [2.0] * 7, rel=0.05)
    assert spread(outliers, range(60, 600)) == pytest.approx([1.0] * 3 + [0.0] * 7, rel=0.02)


@few
@given(seed=st.integers(0, 1000), share=st.sampled_from([0.0, 0.3, 0.8]))
def test_redundant_pools_keep_their_size_and_hold_near_copies(seed, share):
    pool = synthetic.isotropic(sentences=40, tokens=3, dimensions=8, seed=seed)
    spoilt = synthetic.redundant(pool, share, originals=4, noise=1e-3, seed=seed)
    assert len(spoilt) == 40 and spoilt.lengths.tolist() == pool.lengths.tolist()
    flat = spoilt.values.reshape(40, -1)
    distance = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist") + 9 * torch.eye(40)
    assert int((distance.min(1).values < 0.1).sum()) == (0 if share == 0 else round(share * 40) + 4)
    exact = synthetic.redundant(pool, share, originals=4, noise=0.0, seed=seed)
    assert {tuple(row) for row in exact.values.tolist()} <= {tuple(row) for row in pool.values.tolist()}
    kept = (exact.values == pool.values).all(1).reshape(40, -1).all(1)
    assert int(kept.sum()) == 40 - round(share * 40)  # in their place
    assert len({tuple(block.flatten().tolist()) for block in exact.values.reshape(40, -1)}) == 40 - round(share * 40)


def test_perturbed_features_are_as_far_off_as_asked():
    pool = synthetic.isotropic()
    gap = synthetic.perturbed(pool, 0.5, seed=1).values - pool.values
    assert float(gap.square().mean() / pool.values.square().mean()) == pytest.approx(0.25, rel=0.05)
    assert torch.equal(synthetic.perturbed(pool, 0.0).values, pool.values)


def test_word_vectors_are_principal_components_of_the_tokens_used():
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(30, 6, generator=generator)
    sentences = [[1, 2, 2, 5], [7], [3, 1, 9, 11, 20, 21]]
    features = synthetic.word_vectors(table, sentences, dimensions=3)
    assert features.lengths.tolist() == [4, 1, 6] and features.dim == 3
    assert torch.equal(features[0][1], features[0][2]) and torch.equal(features[0][0], features[2][1])  # the same word
    covariance = np.cov(features.values.numpy().T)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-10 and np.trace(covariance) == pytest.approx(1)
    assert float(features.values.mean(0).abs().max()) < 1e-12


# --- the experiment --------------------------------------------------------------------------------------------------


def test_a_row_of_the_curves_is_one_fit():
    methods = {"FisherSFT": fisher_sft, "uniform": fl.selectors.uniform}
    curves = synthetic.error_curves(small_problem, methods, [5, 10], runs=2, seed=3, nested=["FisherSFT"])
    assert len(curves) == 8 and list(curves.columns) == ["method", "n", "run", "tokens", "max", "mean", "kl"]
    problem = small_problem(30_001)
    for name in methods:
        chosen = methods[name](None, problem.features, examples=5, seed=30_001)
        Theta = synthetic.fit_mle(problem.features.subset(chosen.indices), classes=5)
        errors = synthetic.prediction_errors(Theta, problem)
        row = curves[(curves.method == name) & (curves.n == 5) & (curves.run == 1)].iloc[0]
        assert row["max"] == pytest.approx(errors.max(), rel=1e-9) and row["mean"] == pytest.approx(errors.mean(), rel=1e-9)
        assert row.kl == pytest.approx(synthetic.mean_kl(Theta, problem)) and row.tokens == 20
    again = synthetic.error_curves(small_problem, methods, [5, 10], runs=2, seed=3)
    pd.testing.assert_frame_equal(curves, again)  # seeds repeat, and greedy's prefixes are greedy's picks


def test_a_weighted_sample_is_fitted_with_its_weights():
    def method(rows, features, *, examples, seed=0, weights):
        chosen = fl.selectors.uniform(rows, features, examples=examples, seed=seed)
        return replace(chosen, weights=weights(examples))

    def errors(weights):
        methods = {"uniform": partial(method, weights=weights)}
        return synthetic.error_curves(small_problem, methods, [10], runs=1)["mean"][0]

    plain = synthetic.error_curves(small_problem, {"uniform": fl.selectors.uniform}, [10], runs=1)["mean"][0]
    assert errors(lambda n: np.full(n, 7.0)) == pytest.approx(plain, rel=1e-6)  # only their ratios count
    assert errors(lambda n: np.arange(1.0, n + 1)) != pytest.approx(plain, rel=1e-3)


def test_token_budgets_are_kept():
    def ragged(seed):
        rng = np.random.default_rng(seed)
        pool = fl.TokenFeatures.from_list([torch.from_numpy(rng.standard_normal((t, 3))) for t in rng.integers(1, 9, 30)])
        return synthetic.Problem.draw(pool, classes=4, seed=seed)

    curves = synthetic.error_curves(ragged, {"uniform": fl.selectors.uniform}, [20, 60], runs=3, unit="tokens")
    assert (curves.tokens <= curves.n).all() and (curves.tokens > curves.n - 9).all()


def test_the_methods_of_the_lesson_are_the_selectors_with_their_settings():
    problem = small_problem(2)
    x, budget = problem.features, {"examples": 6, "seed": 2}
    noisy = synthetic.perturbed(x, 1.0, seed=2)
    expected = {
        "plain": (synthetic.fisher_sft(), fl.select(x, examples=6, dtype="float64")),
        "noisy": (
            synthetic.fisher_sft("trace", noise=1.0),
            fl.select(noisy, examples=6, weighting="trace", dtype="float64"),
        ),
        "placebo": (synthetic.placebo, fl.selectors.uniform(None, x, examples=6, seed=1_000_002)),
        "clustered": (synthetic.clustered, fl.selectors.clustered(None, x, losses=np.ones(len(x)), **budget)),
    }
    for name, (method, by_library) in expected.items():
        assert method(None, x, **budget).indices.tolist() == by_library.indices.tolist(), name
    pilot = fl.selectors.uniform(None, x, examples=3, seed=2).indices.tolist()
    picks = synthetic.pilot_weighted(5, pilot=3)(None, x, **budget).indices.tolist()
    assert picks[:3] == pilot and len(picks) == 6
    matched = synthetic.length_matched(synthetic.fisher_sft())(None, x, **budget)
    assert sorted(matched.costs) == sorted(expected["plain"][1].costs)
    assert len(synthetic.rivals()) == 5 and set(synthetic.in_tokens(synthetic.rivals())) > {"longest", "FisherSFT"}


def test_relabelled_errors_are_an_average_over_labels():
    problem, picks = small_problem(1), np.arange(12)
    many = synthetic.relabelled_errors(problem, picks, times=3, seed=4)
    assert many.shape == (len(problem.features),) and (many > 0).all()
    assert np.array_equal(many, synthetic.relabelled_errors(problem, picks, times=3, seed=4))
    assert not np.array_equal(many, synthetic.relabelled_errors(problem, picks, times=3, seed=5))


def test_a_map_crosses_its_grid_and_its_tally_counts_every_cell():
    def make(seed, scale, sentences=20):
        pool = synthetic.isotropic(sentences=sentences, tokens=4, dimensions=3, seed=seed)
        return synthetic.Problem.draw(pool, classes=5, scale=scale, seed=seed)

    two = {"FisherSFT": synthetic.fisher_sft(), "uniform": fl.selectors.uniform}
    cells = synthetic.crossed(make, two, [4, 8], {"scale": [0.5, 2.0], "sentences": [20, 30]}, runs=2)
    assert len(cells) == 2 * 2 * 2 * 3  # grid, sizes, metrics
    alone = synthetic.versus(synthetic.error_curves(partial(make, scale=2.0, sentences=30), two, [4, 8], runs=2), "mean")
    part = cells.query("scale == 2 and sentences == 30 and metric == 'mean error'")
    assert part["value"].tolist() == alone["value"].tolist()
    counts = synthetic.tally(cells, ["metric", "scale"])
    assert list(counts.columns) == ["better", "tie", "worse"] and counts.loc["metric"].to_numpy().sum() == len(cells)
    made = pd.DataFrame({"scale": [0.5, 0.5, 2.0], "verdict": ["better", "tie", "tie"]})
    assert synthetic.in_words(synthetic.tally(made, ["scale"])) == "by scale, 0.5 1 / 1 / 0, 2 0 / 1 / 0"


def test_tables_for_the_figures_are_those_of_versus():
    found = {name: made_up(ratio).assign(mean=lambda t: t["max"]) for name, ratio in (("a", 1.5), ("b", 0.5))}
    tables = synthetic.by_metric(found, {"max": "max error"}, sort=True)
    assert list(tables["max error"]) == ["b", "a"]
    pd.testing.assert_frame_equal(tables["max error"]["a"], synthetic.versus(found["a"]))
    pd.testing.assert_frame_equal(synthetic.by_pool(found)["b, max error"], synthetic.versus(found["b"]))


def made_up(ratio, runs=6, noise=0.0):
    rng = np.random.default_rng(0)
    hard = rng.uniform(1, 9, runs)
    rows = [("uniform", n, r, 1, hard[r] * n**-0.5) for n in (4, 16, 64) for r in range(runs)]
    rows += [
        ("other", n, r, 1, ratio * hard[r] * n**-0.5 * np.exp(noise * rng.standard_normal()))
        for n in (4, 16, 64)
        for r in range(runs)
    ]
    return pd.DataFrame(rows, columns=["method", "n", "run", "tokens", "max"])


def test_verdicts_slopes_and_intervals_of_made_up_curves():
    for ratio, verdict in ((0.5, "better"), (2.0, "worse")):
        table = synthetic.versus(made_up(ratio, noise=0.05))
        assert set(table.verdict) == {verdict} and table.value.to_numpy() == pytest.approx(ratio, rel=0.1)
        assert ((table.low < table.value) & (table.value < table.high)).all()
    assert "tie" in set(synthetic.versus(made_up(1.0, noise=0.5)).verdict)
    slopes = synthetic.slopes(made_up(1.0))
    assert slopes.value.to_numpy() == pytest.approx(-0.5) and list(slopes.method) == ["uniform", "other"]
    table = synthetic.intervals(made_up(1.0))
    values = made_up(1.0).query("method == 'uniform' and n == 4")["max"]
    from scipy.stats import t

    low, high = t.interval(0.95, 5, values.mean(), values.std() / 6**0.5)
    assert table.iloc[0][["value", "low", "high"]].tolist() == pytest.approx([values.mean(), low, high])
    assert synthetic.intervals(made_up(1.0, runs=1)).high.iloc[0] == np.inf  # one run says nothing about the next


def test_an_interval_covers_in_about_95_percent_of_the_cases():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"method": "m", "n": np.repeat(np.arange(2000), 10), "max": rng.standard_normal(20_000)})
    table = synthetic.intervals(frame)
    assert ((table.low < 0) & (table.high > 0)).mean() == pytest.approx(0.95, abs=0.02)


FINE = small_problem()
BAD = [
    (lambda: synthetic.isotropic(sentences=0), "expected at least one sentence, token and dimension, got 0, 10, 10"),
    (lambda: synthetic.rare_directions(rare=1.5), "expected rare to be a share between 0 and 1, got 1.5"),
    (lambda: synthetic.redundant(FINE.features, -0.1), "expected share to be a share between 0 and 1"),
    (lambda: synthetic.redundant(FINE.features, 0.9), "expected 1 to 3 originals, the sentences that stay, got 5"),
    (lambda: synthetic.word_vectors(torch.randn(4, 2), [[0, 1]], dimensions=3), "expected 1 to 2 dimensions"),
    (lambda: synthetic.Problem.draw(FINE.features, classes=1), "expected at least 2 classes, got 1"),
    (lambda: synthetic.Problem.draw(FINE.features, scale=-1.0), "expected a finite logit scale >= 0, got -1.0"),
    (lambda: synthetic.prediction_errors(FINE.Theta, FINE, over="max"), "expected over to be one of"),
    (lambda: synthetic.fit_mle(synthetic.isotropic(), classes=3), "expected features with labels, got none"),
    (lambda: synthetic.fit_mle(FINE.features, classes=2), "expected labels from 0 to 1, got 0 to 4"),
    (lambda: synthetic.fit_mle(FINE.features, classes=5, ridge=0.0), "expected a ridge > 0, got 0.0"),
    (lambda: synthetic.fit_mle(FINE.features, classes=5, weights=np.ones(3)), "weight of at least 0 for each of 120 tokens"),
    (lambda: synthetic.error_curves(small_problem, {}, [5], runs=0), "expected at least 1 run, got 0"),
    (lambda: synthetic.error_curves(small_problem, {}, [5], unit="words"), "expected unit to be one of"),
    (lambda: synthetic.error_curves(small_problem, {}, [5], nested=["x"]), "expected nested to name methods out of"),
    (lambda: synthetic.versus(made_up(1.0), baseline="longest"), "expected a baseline out of"),
    (lambda: synthetic.slopes(made_up(1.0).query("n == 4")), "expected at least two sizes for a slope, got \\[4\\]"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_input_says_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "got" in str(error.value)


def test_a_fit_that_does_not_arrive_says_so():
    with pytest.raises(RuntimeError, match="expected a gradient of at most 1e-05, got .* after 1 steps: raise steps"):
        synthetic.fit_mle(FINE.features, classes=5, steps=1)
