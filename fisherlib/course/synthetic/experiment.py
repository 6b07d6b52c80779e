"""The experiment: prediction error against the size of the selection, over many problems; and what may be concluded."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from fisherlib.course.synthetic.fit import fit_mle
from fisherlib.course.synthetic.methods import Method, fisher_sft
from fisherlib.course.synthetic.problem import Problem, mean_kl, prediction_errors
from fisherlib.evaluation import Interval, student
from fisherlib.selectors import uniform

_SMALL = 2000  # parameters of the head


def error_curves(
    make_problem: Callable[[int], Problem],
    methods: Mapping[str, Method],
    sizes: Sequence[int],
    *,
    runs: int = 20,
    seed: int = 0,
    unit: str = "examples",
    nested: Collection[str] = (),
    ridge: float = 1e-3,
) -> pd.DataFrame:
    """Select, fit and compare with the truth: one row (`method`, `n`, `run`, `tokens`, `max`, `mean`, `kl`) for each fit.

    Each run draws a new problem, `make_problem(s)` with a new seed s, which all methods share: compare them pairwise. A
    method is called with the same s, as `method(None, features, examples=n, seed=s)`, or with `tokens=n` for
    `unit="tokens"`; `tokens` in a row is what it took. For a method named in `nested` the smaller selections are the
    prefixes of its largest, and it is called once in a run. A weighted sample is fitted with its weights. `max` and `mean`
    are over the sentences of the whole pool, the chosen ones included. Raises `ValueError` for no runs, an unknown unit,
    or a `nested` method that is not there.
    Source: paper (max and mean error over 20 runs); new problems in each run and the KL are our choice.
    """
    if runs < 1:
        raise ValueError(f"expected at least 1 run, got {runs}")
    if unit not in ("examples", "tokens"):
        raise ValueError(f"expected unit to be one of ('examples', 'tokens'), got {unit!r}")
    if missing := set(nested) - set(methods):
        raise ValueError(f"expected nested to name methods out of {list(methods)}, got {sorted(missing)}")
    rows = []
    for run in range(runs):
        of_run = seed * 10_000 + run
        problem = make_problem(of_run)
        # Matrices this small are quicker without a second thread: threads would mostly wait for each other.
        with threadpool_limits(1 if problem.Theta.numel() <= _SMALL else None):
            for name, method in methods.items():
                choose = partial(method, None, problem.features, seed=of_run)
                largest = choose(**{unit: max(sizes)}) if name in nested else None
                for n in sizes:
                    chosen = choose(**{unit: n}) if largest is None else largest.prefix(**{unit: n})
                    rows.append((name, n, run, *_measure(problem, chosen, ridge)))
    return pd.DataFrame(rows, columns=["method", "n", "run", "tokens", "max", "mean", "kl"])


def _measure(problem, chosen, ridge):
    picked = problem.features.subset(chosen.indices)
    weights = None
    if chosen.weights is not None:
        weights = np.repeat(chosen.weights, picked.lengths.numpy())
        weights = weights / weights.mean()  # so that the ridge weighs the same for every method
    Theta = fit_mle(picked, classes=len(problem.Theta), weights=weights, ridge=ridge)
    errors = prediction_errors(Theta, problem)
    return len(picked.values), errors.max(), errors.mean(), mean_kl(Theta, problem)


class Ratio(Interval):
    """An error over another: below 1 the first is better."""

    null, form = 1.0, ".2f"


def intervals(curves: pd.DataFrame, metric: str = "max") -> pd.DataFrame:
    """Mean over the runs and its 95 % interval (Student's t): rows (`method`, `n`, `value`, `low`, `high`)."""
    return _table({key: student(group[metric].to_numpy()) for key, group in curves.groupby(["method", "n"], sort=False)})


def versus(curves: pd.DataFrame, metric: str = "max", *, baseline: str = "uniform") -> pd.DataFrame:
    """A method's error divided by the baseline's in the same run: below 1 the method is better.

    Rows (`method`, `n`, `value`, `low`, `high`, `verdict`): the geometric mean over the runs, its 95 % interval (Student's
    t of the log ratios), and "better", "worse", or "tie" where the interval holds 1. Runs are paired, since a hard problem
    is hard for everyone. Raises `ValueError` if the baseline is not there. Source: our choice.
    """
    if baseline not in set(curves["method"]):
        raise ValueError(f"expected a baseline out of {sorted(set(curves['method']))}, got {baseline!r}")
    reference = curves[curves["method"] == baseline].set_index(["n", "run"])[metric]
    rest = curves[curves["method"] != baseline]
    known = reference.reindex(pd.MultiIndex.from_frame(rest[["n", "run"]])).to_numpy()
    rest = rest.assign(log_ratio=np.log(rest[metric].to_numpy() / known))
    found = {}
    for key, group in rest.groupby(["method", "n"], sort=False):
        logs = student(group["log_ratio"].to_numpy())
        found[key] = Ratio(*np.exp([logs.mean, logs.low, logs.high]))
    return _table(found).assign(verdict=[ratio.verdict for ratio in found.values()])


def by_metric(found: Mapping[str, pd.DataFrame], metrics: Mapping[str, str] | None = None, *, sort: bool = False):
    """`versus` of several experiments, a table for each metric and row, `tables["max error"][row]`: for `plotting.ratios`.

    `found[row]` is a result of `error_curves`; `metrics` maps its columns to names, those of max and mean error by default.
    `sort`: rows by the ratio of their first method in the first metric.
    """
    metrics = metrics or {"max": "max error", "mean": "mean error"}
    tables = {name: {row: versus(curves, m) for row, curves in found.items()} for m, name in metrics.items()}
    first = next(iter(tables.values()))
    order = sorted(found, key=lambda row: first[row]["value"].iloc[0]) if sort else list(found)
    return {name: {row: rows[row] for row in order} for name, rows in tables.items()}


def verdicts(curves: pd.DataFrame, **coordinates: float | int | str) -> pd.DataFrame:
    """`versus` for all three metrics, in one table with a column `metric` and one for each coordinate: cells of a map."""
    names = {"max": "max error", "mean": "mean error", "kl": "mean KL"}
    return pd.concat(versus(curves, m).assign(metric=name, **coordinates) for m, name in names.items())


def one_at_a_time(
    make_problem: Callable[..., Problem], changes: Mapping[str, Mapping], n: int, **options
) -> dict[str, pd.DataFrame]:
    """`error_curves` of size n for FisherSFT, its trace-weighted form and uniform, for each change of `make_problem`.

    A change holds arguments of `make_problem`; its `noise` goes to FisherSFT, which then sees `perturbed` features.
    """
    found = {}
    for name, change in changes.items():
        noise = change.get("noise", 0.0)
        methods: dict[str, Method] = {
            "FisherSFT": fisher_sft(noise=noise),
            "uniform": uniform,
            "FisherSFT, trace-weighted": fisher_sft("trace", noise=noise),
        }
        make = partial(make_problem, **{key: value for key, value in change.items() if key != "noise"})
        found[name] = error_curves(make, methods, [n], **options)
    return found


def crossed(
    make_problem: Callable[..., Problem],
    methods: Mapping[str, Method],
    sizes: Sequence[int],
    grid: Mapping[str, Sequence[float | int]],
    **options,
) -> pd.DataFrame:
    """`verdicts` of one experiment for each combination of the values in `grid`, which are arguments of `make_problem`.

    All methods have to be nested; `options` go to `error_curves`.
    """
    cells = []
    for values in product(*grid.values()):
        at = dict(zip(grid, values, strict=True))
        curves = error_curves(partial(make_problem, **at), methods, sizes, nested=list(methods), **options)
        cells.append(verdicts(curves, **at))
    return pd.concat(cells, ignore_index=True)


def by_pool(pools: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """`versus` for max and mean error of each pool's experiment: for `fl.plotting.error_curves`."""
    return {f"{pool}, {m} error": versus(curves, m) for m in ("max", "mean") for pool, curves in pools.items()}


def by_method(curves: pd.DataFrame, metric: str = "max", unit: str = "tokens") -> dict[str, dict]:
    """`versus` with a row for each method, the best on top, and a table for each size: for `plotting.ratios`."""
    tables = versus(curves, metric).sort_values(["n", "value"])
    return {f"{metric} error, {n:,} {unit}": dict(list(t.groupby("method", sort=False))) for n, t in tables.groupby("n")}


def tally(cells: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """How many verdicts are better, tie and worse: a row for each value of each column in `by`, zeros included."""
    kinds = ["better", "tie", "worse"]
    counted = {column: pd.crosstab(cells[column], cells["verdict"]) for column in by}
    return pd.concat(counted, names=["by", "level"]).reindex(columns=kinds, fill_value=0).rename_axis(columns=None)


def in_words(counts: pd.DataFrame) -> str:
    """The counts of `tally` as a sentence: for each column its values with better / tie / worse."""
    parts = []
    for by, levels in counts.groupby(level=0, sort=False):
        each = [
            f"{level if isinstance(level, str) else f'{level:g}'} {row.better} / {row.tie} / {row.worse}"
            for (_, level), row in levels.iterrows()
        ]
        parts.append(f"by {by}, {', '.join(each)}")
    return "; ".join(parts)


def slopes(curves: pd.DataFrame, metric: str = "max") -> pd.DataFrame:
    """The slope of log error over log n: rows (`method`, `value`, `low`, `high`), the mean over runs of each run's slope.

    -0.5 is the rate 1 / sqrt(n). The interval is Student's t, 95 %. Raises `ValueError` for fewer than two sizes.
    """
    if curves["n"].nunique() < 2:
        raise ValueError(f"expected at least two sizes for a slope, got {sorted(set(curves['n']))}")
    found = {}
    for method, group in curves.groupby("method", sort=False):
        grid = np.log(group.pivot(index="n", columns="run", values=metric))
        found[method,] = student(np.polyfit(np.log(grid.index), grid.to_numpy(), 1)[0])
    return _table(found)


def slope_table(pools: Mapping[str, pd.DataFrame], methods: Sequence[str]) -> pd.DataFrame:
    """`slopes` of max and mean error over all sizes and over the larger half: rows (pool, error, sizes, method)."""
    found = {}
    for pool, curves in pools.items():
        sizes = sorted(set(curves["n"]))
        middle = sizes[(len(sizes) - 1) // 2]
        for metric in ("max", "mean"):
            for name, least in {"all n": 0, f"n from {middle}": middle}.items():
                table = slopes(curves[curves["n"] >= least], metric).set_index("method")
                found[pool, metric, name] = table.loc[list(methods)]
    return pd.concat(found, names=["pool", "error", "sizes"])


def _table(found: Mapping[tuple, Interval]) -> pd.DataFrame:
    """One row for each interval; its key is the method, and the size if there is one."""
    keys = ["method", "n"][: len(next(iter(found)))]
    rows = [(*key, one.value, one.low, one.high) for key, one in found.items()]
    return pd.DataFrame(rows, columns=[*keys, "value", "low", "high"])
