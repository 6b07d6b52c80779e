"""Checkers of notebook 04: what a reader writes is compared with the library, or with the formula of the lesson."""

from functools import partial

from fisherlib.course import synthetic
from fisherlib.course.notebook import attempt
from fisherlib.course.synthetic.methods import Method
from fisherlib.greedy import select
from fisherlib.selectors import uniform


def _fisher_sft(rows, features, *, seed=0, **budget):
    return select(features, dtype="float64", **budget)


_TWO: dict[str, Method] = {"FisherSFT": _fisher_sft, "uniform": uniform}


def _problem(seed, pool=synthetic.isotropic, sentences=60):
    return synthetic.Problem.draw(pool(sentences=sentences, dimensions=10, seed=seed), classes=20, seed=seed)


def experiment(mine) -> None:
    """`mine(make_problem, methods, sizes, runs)` lists the errors of `fl.synthetic.error_curves`, in the same order."""
    claim = "your experiment and the library's"
    if mine is ...:
        return attempt(claim, ..., None)
    library = synthetic.error_curves(_problem, _TWO, [10, 20], runs=2)
    rows = mine(_problem, _TWO, [10, 20], 2)
    if len(rows) != len(library) or any(len(row) != 5 for row in rows):
        raise AssertionError(
            f"expected {len(library)} rows (method, n, run, max, mean), one for each fit, got {len(rows)}: "
            "is there one row for each run, method and size?"
        )
    names = list(library[["method", "n", "run"]].itertuples(index=False, name=None))
    if [tuple(row[:3]) for row in rows] != names:
        raise AssertionError(f"expected rows that begin with {names[0]}, {names[1]}, ..., got {tuple(rows[0][:3])}, ...")
    attempt(claim, [row[3:] for row in rows], library[["max", "mean"]].to_numpy(), atol=1e-9)


def three_times(mine, X, classes: int) -> None:
    """The expected squared error of `X[5]` by (5), if the sentences are used three times over."""
    leverage = float(X[5] @ (X.T @ X).inverse() @ X[5])
    attempt("the expected squared error", mine, classes * (classes - 1) * leverage / 3, atol=1e-6)


def catch_up(mine, ratio: float) -> None:
    """How many times as many sentences an error `ratio` times as large needs, at the rate 1 / sqrt(n)."""
    attempt("sentences that uniform needs at the rate", mine, ratio**2, atol=1e-6)


def losing_pool(mine, *, runs: int = 10) -> None:
    """On the pool `mine(sentences=, dimensions=, seed=)` FisherSFT has the larger mean error, not the larger maximum."""
    claim = "with 25 sentences FisherSFT loses the mean error and keeps the maximum"
    if mine is ...:
        return attempt(claim, ..., True)
    curves = synthetic.error_curves(partial(_problem, pool=mine, sentences=200), _TWO, [25], runs=runs)
    mean, largest = (synthetic.versus(curves, metric).iloc[0] for metric in ("mean", "max"))
    for name, found, fine in (("mean", mean, mean.verdict == "worse"), ("largest", largest, largest.verdict != "worse")):
        if not fine:
            raise AssertionError(
                f"{claim}: FisherSFT's {name} error is {found.value:.2f} times uniform's "
                f"[{found.low:.2f}, {found.high:.2f}], which is {found.verdict!r}"
            )
    attempt(claim, True, True)
