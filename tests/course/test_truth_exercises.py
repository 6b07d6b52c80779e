"""The checkers of notebook 04: what is open says so, a right answer passes, a wrong one is told what is wrong with it."""

import numpy as np
import pytest
import torch

import fisherlib as fl
from fisherlib import synthetic
from fisherlib.course.exercises import truth

X = torch.tensor(np.random.default_rng(0).standard_normal((8, 2)))


def experiment(make_problem, methods, sizes, runs, labels_of_all=False):
    rows = []
    for run in range(runs):
        problem = make_problem(run)
        for name, method in methods.items():
            for n in sizes:
                picks = method(None, problem.features, examples=n, seed=run).indices
                bought = problem.features if labels_of_all else problem.features.subset(picks)
                errors = synthetic.prediction_errors(synthetic.fit_mle(bought, classes=len(problem.Theta)), problem)
                rows.append((name, n, run, errors.max(), errors.mean()))
    return rows


def pool_of(length):
    def pool(*, sentences, dimensions, seed):
        size = np.zeros((sentences, dimensions))
        size[:, :2], outliers = 1.0, sentences // 10
        size[:outliers] = length * (np.arange(dimensions) >= 2)
        drawn = size[:, None] * np.random.default_rng([seed, 3]).standard_normal((sentences, 10, dimensions))
        return fl.TokenFeatures.from_list(list(drawn))

    return pool


def test_what_is_open_says_so(capsys):
    truth.experiment(...)
    truth.three_times(..., X, 20)
    truth.catch_up(..., 2.0)
    truth.losing_pool(...)
    assert capsys.readouterr().out.count("○ not answered yet") == 4


def test_an_experiment_is_compared_row_by_row(capsys):
    truth.experiment(experiment)
    assert "✓ your experiment and the library's" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="your experiment and the library's: expected a difference"):
        truth.experiment(lambda *given: experiment(*given, labels_of_all=True))
    with pytest.raises(AssertionError, match="expected 8 rows"):
        truth.experiment(lambda *given: experiment(*given)[:-1])
    with pytest.raises(AssertionError, match=r"expected rows that begin with \('FisherSFT', 10, 0\)"):
        truth.experiment(lambda *given: experiment(*given)[::-1])


def test_numbers_follow_the_formulas():
    leverage = float(X[5] @ (X.T @ X).inverse() @ X[5])
    truth.three_times(20 * 19 * leverage / 3, X, 20)
    truth.catch_up(4.0, 2.0)
    for wrong in (lambda: truth.three_times(20 * 19 * leverage / 9, X, 20), lambda: truth.catch_up(2.0, 2.0)):
        with pytest.raises(AssertionError):
            wrong()


def test_a_pool_has_to_lose_the_mean_and_keep_the_maximum(capsys):
    truth.losing_pool(pool_of(1.0), runs=6)
    assert "✓" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="FisherSFT's largest error is .* times uniform's .* 'worse'"):
        truth.losing_pool(pool_of(2.0), runs=6)
    with pytest.raises(AssertionError, match="FisherSFT's mean error is .* times uniform's"):
        truth.losing_pool(synthetic.isotropic, runs=3)
