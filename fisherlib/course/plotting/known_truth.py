"""Figures of notebook 04."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from fisherlib.course.plotting.house import GREY, PAGE, colour, plain_ticks
from fisherlib.course.plotting.intervals import Mark, dots_and_intervals

VERDICTS = {"better": "#0072B2", "tie": "#ECECEC", "worse": "#E69F00"}
_NAMED = {"FisherSFT, trace-weighted": "trace-weighted", "uniform in clusters": "in clusters"}  # at the end of a line


def predicted_and_measured(predicted: np.ndarray, measured: np.ndarray, title: str):
    """Error by formula and by experiment, a point for each sentence; the first tenth are the rare sentences.

    These have the colour of uniform, whose choice the points judge, the others are grey. Returns the figure.
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5.4, 4.0))
    rare = len(predicted) // 10
    parts = {"rare sentences": slice(rare), "common sentences": slice(rare, None)}
    for (name, part), shade in zip(parts.items(), (colour("uniform"), GREY), strict=True):
        axis.loglog(predicted[part], measured[part], "o", ms=4, alpha=0.5, mew=0, color=shade)
        side = predicted[part].min() if name == "rare sentences" else predicted[part].max()
        at, where = (side, np.exp(np.log(measured[part]).mean())), -8 if name == "rare sentences" else 8
        text: dict[str, Any] = {
            "textcoords": "offset points",
            "color": shade,
            "va": "center",
            "ha": "right" if where < 0 else "left",
        }
        axis.annotate(name, at, (where, -2 * where), **text)
    ends = [predicted.min(), predicted.max()]
    axis.plot(ends, ends, color="black", lw=1)
    axis.annotate("exact", (ends[1], ends[1]), (4, -2), textcoords="offset points", va="center")
    axis.set(xlabel="error predicted by (5)", ylabel="measured error")
    figure.suptitle(title, x=0.01, ha="left")
    plain_ticks(axis.xaxis)
    plain_ticks(axis.yaxis)
    return figure


def error_curves(panels: Mapping[str, pd.DataFrame], title: str, xlabel: str, *, ylabel: str = "error / uniform's"):
    """Ratios to uniform against the size of the selection, a panel for each table of `fl.synthetic.versus`.

    Two panels in a row, with one vertical scale for all. FisherSFT has its colour and its 95 % interval, uniform is the line
    at 1, all others are grey. Names stand at the left ends of the lines, where these are furthest apart; grey ones only
    where there is room between them. Returns the figure.
    """
    import matplotlib.pyplot as plt

    down = -(-len(panels) // 2)
    figure, axes = plt.subplots(down, 2, figsize=(PAGE, 2.6 * down + 0.6), sharex=True, sharey=True, squeeze=False)
    for axis, (panel, table) in zip(axes.flat, panels.items(), strict=True):
        sizes = np.sort(table["n"].unique())
        axis.axhline(1, color=colour("uniform"))
        for method, line in table.groupby("method", sort=False):
            main = method == "FisherSFT"
            if main:
                axis.fill_between(line["n"], line["low"], line["high"], color=colour(method), alpha=0.2, lw=0)
            axis.plot(line["n"], line["value"], color=colour(method), lw=2.5 if main else 1, zorder=3 if main else 2)
        axis.set(xscale="log", yscale="log", xlim=(sizes[0] / 4.5, sizes[-1] * 1.05))
        axis.set_title(panel, fontsize=11, loc="center")
        axis.set_xticks(sizes, [f"{n:,g}" for n in sizes])
        axis.set_xticks([], minor=True)
    values = [1.0, *(value for table in panels.values() for value in table["value"])]
    low = min(values) / 1.25
    high = max(max(values) * 1.1, low**-0.6)  # room for names above the line at 1
    axes[0][0].set_ylim(low, high)
    ticks = [tick for tick in (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.4, 2, 3, 5) if low <= tick <= high]
    axes[0][0].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes[0][0].set_yticks([], minor=True)
    for axis, table in zip(axes.flat, panels.values(), strict=True):
        sizes = np.sort(table["n"].unique())
        ends = {"uniform": 1.0} | {m: line["value"].iloc[0] for m, line in table.groupby("method", sort=False)}
        if max(ends.values()) < 1.5 * min(ends.values()):  # too near each other for names
            ends = {method: ends[method] for method in ("uniform", "FisherSFT")}
        white = {"fc": "white", "ec": "none", "pad": 0.5}
        places = _apart(np.log(list(ends.values())) / np.log(high / low), 0.085)
        for (method, value), place in zip(ends.items(), places, strict=True):
            y = np.exp(place * np.log(high / low))
            axis.plot([sizes[0] / 1.13, sizes[0]], [y, value], color=colour(method), lw=0.6)
            text = {"ha": "right", "va": "center", "fontsize": 10, "color": colour(method)}
            axis.text(sizes[0] / 1.18, y, _NAMED.get(method, method), bbox=white, **text)
    for axis in axes[-1]:
        axis.set_xlabel(xlabel)
    figure.supylabel(ylabel, fontsize=11)
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def _apart(values: Float[np.ndarray, " L"], gap: float) -> Float[np.ndarray, " L"]:
    """The values moved apart until neighbours have this gap, as little as that needs: for labels in a column."""
    order = np.argsort(values, kind="stable")
    steps = gap * np.arange(len(values))
    level, blocks = values[order] - steps, []
    for one in level:  # isotonic regression: neighbours that would swap places share their mean
        blocks.append([one, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, count = blocks.pop()
            blocks[-1] = [(blocks[-1][0] * blocks[-1][1] + mean * count) / (blocks[-1][1] + count), blocks[-1][1] + count]
    placed = np.empty(len(values))
    placed[order] = np.concatenate([[mean] * count for mean, count in blocks]) + steps
    return placed


def ratios(panels: Mapping[str, Mapping[str, pd.DataFrame]], title: str, *, xlabel: str = "error / uniform's error"):
    """`panels[metric][row]` is a table of `fl.synthetic.versus`, one line per method: a dot and its 95 % interval.

    Left of the line at 1 the method is better than uniform; hollow: a tie. Returns the figure.
    """
    several = any(len(table) > 1 for tables in panels.values() for table in tables.values())
    marks = {
        metric: {
            row: [
                Mark(of.value, of.low, of.high, of.verdict != "tie", colour(of.method), of.method if several else "")
                for of in table.itertuples()
            ]
            for row, table in tables.items()
        }
        for metric, tables in panels.items()
    }
    return dots_and_intervals(marks, title, nulls=dict.fromkeys(panels, 1.0), xlabel=xlabel, log=True)


def verdict_map(cells: pd.DataFrame, title: str, x: str, y: str):
    """A heat map for each metric and size: `cells` has the columns `metric`, `n`, `value`, `verdict`, and those named.

    Colour says what may be concluded (better, tie, worse), the number is the ratio that was measured. Narrow enough for a
    phone to show it at full size. Returns the figure.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    down, across = list(dict.fromkeys(cells["metric"])), sorted(set(cells["n"]))
    xs, ys = np.sort(cells[x].unique()), np.sort(cells[y].unique())
    size = (5.4, 0.45 * len(ys) * len(down) + 1.6)
    figure, axes = plt.subplots(len(down), len(across), figsize=size, sharex=True, sharey=True, squeeze=False)
    for (row, column), table in cells.groupby(["metric", "n"]):
        axis = axes[down.index(row)][across.index(column)]
        for _, cell in table.iterrows():
            i, j = np.searchsorted(xs, cell[x]), np.searchsorted(ys, cell[y])
            axis.add_patch(plt.Rectangle((i - 0.5, j - 0.5), 1, 1, fc=VERDICTS[cell.verdict], ec="white", lw=1.5))
            number = f"{cell.value:.2f}".removeprefix("0") if cell.value < 0.995 else f"{cell.value:.1f}"
            shade = "white" if cell.verdict == "better" else "black"
            axis.text(i, j, number, ha="center", va="center", fontsize=10, color=shade)
        axis.set(xlim=(-0.5, len(xs) - 0.5), ylim=(-0.5, len(ys) - 0.5))
        axis.set_xticks(range(len(xs)), [f"{at:g}" for at in xs])
        axis.set_yticks(range(len(ys)), [f"{at:.0%}" for at in ys])
        axis.grid(False)
        axis.tick_params(length=0)
        if row == down[0]:
            axis.set_title(f"n = {column}", fontsize=11, loc="center")
        if column == across[0]:
            axis.set_ylabel(row)
    axes[-1][len(across) // 2].set_xlabel(x)
    figure.supylabel(y, fontsize=11)
    handles = [Patch(fc=shade, ec="#999", lw=0.5, label=name) for name, shade in VERDICTS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    figure.suptitle(title, x=0.01, ha="left")
    return figure
