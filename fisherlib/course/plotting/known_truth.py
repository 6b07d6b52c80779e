"""Figures of notebook 04."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from fisherlib.course.plotting.house import MARKERS, colour, plain_ticks
from fisherlib.course.plotting.intervals import Mark, dots_and_intervals

VERDICTS = {"better": "#0072B2", "tie": "#F2F2F2", "worse": "#E69F00"}
_LIGHT = 75  # dots per inch of the large figures: a notebook holds them as pixels, and should stay small


def predicted_and_measured(groups: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str, xlabel: str, ylabel: str):
    """Each sentence as a point, `groups[name] = (predicted, measured)`, and the diagonal. Returns the figure."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 3.4))
    for (name, (predicted, measured)), shade in zip(groups.items(), ("#D55E00", "#0072B2"), strict=False):
        axis.loglog(predicted, measured, "o", ms=4, alpha=0.5, mew=0, color=shade, label=name)
    ends = [min(p.min() for p, _ in groups.values()), max(p.max() for p, _ in groups.values())]
    axis.plot(ends, ends, color="#444", lw=1, label="measured = predicted")
    axis.legend()
    axis.set(xlabel=xlabel, ylabel=ylabel)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    plain_ticks(axis.xaxis)
    plain_ticks(axis.yaxis)
    return figure


def error_curves(panels: Mapping[str, pd.DataFrame], title: str, xlabel: str, *, columns: int = 2):
    """Error against the size of the selection, a panel for each table of `fl.synthetic.intervals`. Returns the figure.

    Tables of `fl.synthetic.versus` are drawn with a line at 1, uniform, in place of the slope of theory.
    Bands are the 95 % intervals of FisherSFT and uniform; the other methods are thin lines, to keep the figure readable.
    """
    import matplotlib.pyplot as plt

    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(7.4, 2.7 * rows + 0.5), dpi=_LIGHT, sharex=True, squeeze=False)
    for axis, (name, table) in zip(axes.flat, panels.items(), strict=True):
        for k, (method, line) in enumerate(table.groupby("method", sort=False)):
            main = method in ("FisherSFT", "uniform")
            if main:
                axis.fill_between(line["n"], line["low"], line["high"], color=colour(method), alpha=0.2, lw=0)
            style = {"lw": 2.2, "ms": 5, "zorder": 3} if main else {"lw": 1, "ms": 4, "alpha": 0.85}
            axis.plot(line["n"], line["value"], marker=MARKERS[k % 10], color=colour(method), label=method, **style)
        sizes, top = np.sort(table["n"].unique()), table["value"].max()
        rate = 1.25 * top * np.sqrt(sizes[0] / sizes)
        if "verdict" in table:
            axis.axhline(1, color=colour("uniform"), lw=2.2, label="uniform")
        else:
            axis.plot(sizes, rate, ":", color="#444", lw=1.5, label=r"slope $-\frac{1}{2}$")
        axis.set(xscale="log", yscale="log")
        axis.set_title(name, fontsize=10, loc="center")
        axis.set_xticks(sizes, [f"{n:g}" for n in sizes])
        axis.minorticks_off()
        plain_ticks(axis.yaxis, (1, 2, 5) if "verdict" not in table else (7, 8, 9, 10, 11, 12, 13, 15, 20))
    for axis in axes[-1]:
        axis.set_xlabel(xlabel)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def ratios(panels: Mapping[str, Mapping[str, pd.DataFrame]], title: str, *, xlabel: str = "error / uniform's error"):
    """`panels[metric][row]` is a table of `fl.synthetic.versus`, one line per method: a dot and its 95 % interval.

    Left of the line at 1 the method is better than uniform; hollow: a tie. Returns the figure.
    """
    marks = {
        metric: {
            row: [
                Mark(of.value, of.low, of.high, of.verdict != "tie", colour(of.method), of.method)
                for of in table.itertuples()
            ]
            for row, table in tables.items()
        }
        for metric, tables in panels.items()
    }
    return dots_and_intervals(marks, title, nulls=dict.fromkeys(panels, 1.0), xlabel=xlabel, log=True)


def verdict_map(
    panels: Mapping[tuple[str, str], pd.DataFrame],
    title: str,
    xlabel: str,
    ylabel: str,
):
    """A grid of heat maps, `panels[row, column]` with the columns `x`, `y`, `value` and `verdict`. Returns the figure.

    Colour says what may be concluded (better, tie, worse), the number is the ratio that was measured.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    down, across = (list(dict.fromkeys(key[k] for key in panels)) for k in (0, 1))
    figure, axes = plt.subplots(
        len(down), len(across), figsize=(7.4, 1.9 * len(down) + 1.0), dpi=_LIGHT, sharex=True, sharey=True, squeeze=False
    )
    for (row, column), table in panels.items():
        axis = axes[down.index(row)][across.index(column)]
        xs, ys = np.sort(table["x"].unique()), np.sort(table["y"].unique())
        for cell in table.itertuples():
            i, j = np.searchsorted(xs, cell.x), np.searchsorted(ys, cell.y)
            axis.add_patch(plt.Rectangle((i - 0.5, j - 0.5), 1, 1, fc=VERDICTS[cell.verdict], ec="white", lw=1.5))
            dark = cell.verdict == "better"
            axis.text(i, j, f"{cell.value:.2f}", ha="center", va="center", fontsize=8, color="white" if dark else "#222")
        axis.set(xlim=(-0.5, len(xs) - 0.5), ylim=(-0.5, len(ys) - 0.5))
        axis.set_xticks(range(len(xs)), [f"{x:g}" for x in xs])
        axis.set_yticks(range(len(ys)), [f"{y:.0%}" for y in ys])
        axis.grid(False)
        axis.tick_params(length=0)
        if row == down[0]:
            axis.set_title(column, fontsize=10, loc="center")
        if column == across[0]:
            axis.set_ylabel(f"{row}\n{ylabel}")
        if row == down[-1]:
            axis.set_xlabel(xlabel)
    handles = [Patch(fc=shade, ec="#999", lw=0.5, label=name) for name, shade in VERDICTS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure
