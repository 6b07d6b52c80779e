"""Figures of notebook 05."""

from collections.abc import Mapping, Sequence

import numpy as np

from fisherlib.course.plotting.house import colour
from fisherlib.course.plotting.intervals import Mark, dots_and_intervals, shade

Interval = tuple[float, float, float]  # value, low, high


def forest(panels: Mapping[str, Mapping[str, tuple[float, float, float, bool]]], title: str, xlabel: str):
    """One panel per key, one row per method: `(difference, low, high, sure)`, zero marked; hollow where not sure.

    All panels have one scale if they can. A method that a panel does not have is "not run" there. Returns the figure.
    """
    marks = {
        name: {method: [Mark(*found, shade(method))] for method, found in values.items()} for name, values in panels.items()
    }
    nulls = dict.fromkeys(panels, 0.0)
    return dots_and_intervals(marks, title, nulls=nulls, xlabel=xlabel, absent="not run", one_scale=True)


def gaps(panels: Mapping[str, Mapping[str, Mapping[int, Interval]]], title: str, ylabel: str):
    """One panel per key: a method's difference from uniform at each budget, with its interval. Returns the figure."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(3.1 * len(panels) + 0.9, 3.3), squeeze=False)
    for axis, (name, methods) in zip(axes[0], panels.items(), strict=True):
        axis.axhline(0, color="#444", lw=1)
        for row, (method, at) in enumerate(methods.items()):
            budgets = sorted(at)
            mean, low, high = np.array([at[budget] for budget in budgets]).T
            shifted = np.array(budgets) * 1.06 ** (row - (len(methods) - 1) / 2)  # side by side, not on top of each other
            axis.vlines(shifted, low, high, color=colour(method), lw=2, alpha=0.4)
            axis.plot(shifted, mean, "o-", color=colour(method), lw=1.4, ms=4, label=method)
        _budget_axis(axis, budgets, name)
    axes[0][0].set_ylabel(ylabel)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def tokens_to_match(panels: Mapping[str, tuple[Mapping[int, float], int, Mapping[str, float]]], title: str):
    """One panel per pool, `(uniform's curve {tokens: NLL}, budget, {method: NLL})`: how far right uniform is at each level.

    Each method is a point at the budget; a line leads from it to uniform's curve at the same NLL. Returns the figure.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(3.2 * len(panels) + 0.6, 3.4), squeeze=False)
    for axis, (name, (curve, budget, values)) in zip(axes[0], panels.items(), strict=True):
        budgets = sorted(curve)
        levels = np.minimum.accumulate([curve[b] for b in budgets])
        axis.plot(budgets, [curve[b] for b in budgets], "o-", color=colour("uniform"), lw=2, ms=4, label="uniform")
        for method, value in values.items():
            reached = np.exp(np.interp(-value, -levels, np.log(budgets)))
            axis.plot([budget, reached], [value, value], color=colour(method), lw=1.2)
            axis.plot(budget, value, "D", color=colour(method), ms=5, label=method)
        _budget_axis(axis, budgets, name)
    axes[0][0].set_ylabel("held-out NLL")
    shown = {label: handle for axis in axes[0] for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=5, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def _budget_axis(axis, budgets: Sequence[int], name: str) -> None:
    axis.set_xscale("log")
    axis.set_xticks(budgets, [f"{budget:,}" for budget in budgets], fontsize=8)
    axis.minorticks_off()
    axis.set_title(name, fontsize=10, loc="center")
    axis.set_xlabel("response tokens")


def coverage(seeds: Sequence[int], covers: Mapping[str, Sequence[float]], title: str):
    """How often each kind of interval covers the truth, against the number of seeds; 95 % marked. Returns the figure."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5.6, 2.9))
    axis.axhline(0.95, color="#444", lw=1, ls="--")
    for (name, shares), like in zip(covers.items(), ("FisherSFT", "uniform"), strict=False):
        axis.plot(seeds, shares, "o-", color=colour(like), lw=2, label=name)
    axis.set(title=title, xlabel="seeds", ylabel="share of intervals that cover", xticks=list(seeds))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.legend()
    return figure
