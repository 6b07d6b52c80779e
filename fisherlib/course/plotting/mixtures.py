"""Figures of notebook 08."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fisherlib.course.plotting.house import COLOURS, GREY

_WIDTH = 6.2  # inches: to be read on a phone
_LOOKS = {  # of the sources and mixtures that a reader follows
    "shuffled words": "#8A1F66",
    "dialogue": COLOURS["uniform"],
    "documentation": COLOURS["recipe"],
    "FisherSFT": COLOURS["FisherSFT"],
    "proportional": COLOURS["uniform"],
}


def heat(tables: Mapping[str, pd.DataFrame], title: str):
    """Utilities from 0 to 1, a panel for each way to get them: sources down, tasks across. Returns the figure."""
    import matplotlib.pyplot as plt

    first = next(iter(tables.values()))
    figure, axes = plt.subplots(1, len(tables), figsize=(_WIDTH, 0.36 * len(first) + 1.6), sharey=True, squeeze=False)
    for axis, (name, table) in zip(axes[0], tables.items(), strict=True):
        values = table.to_numpy(dtype=float)
        axis.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            ink = "white" if value > 0.6 else "black"
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=10, color=ink)
        axis.set_xticks(range(table.shape[1]), table.columns, rotation=40, ha="right", rotation_mode="anchor")
        axis.set_title(name, loc="center", fontsize=11)
        axis.grid(False)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    axes[0][0].set_yticks(range(len(first)), first.index)
    figure.supxlabel("task", fontsize=10)
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def curves(
    x: Sequence[float | int], lines: Mapping[str, Sequence[float | int]], title: str, xlabel: str, ylabel: str, *, log=True
):
    """One line for each name, named at its end; those that a reader follows have a colour. Returns the figure."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(_WIDTH, 3.2))
    at = np.asarray(x, dtype=float)
    every = np.array([*lines.values()], dtype=float)
    ends = _apart({name: float(values[-1]) for name, values in lines.items()}, np.ptp(every) / 14)
    for name, values in lines.items():
        shade = _LOOKS.get(name, GREY)
        axis.plot(at, values, "o-", color=shade, lw=2 if name in _LOOKS else 1.2)
        axis.annotate(name, (at[-1], ends[name]), (8, 0), textcoords="offset points", va="center", color=shade, fontsize=10)
    if log:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.set(xlabel=xlabel, ylabel=ylabel)
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def _apart(ends: Mapping[str, float], step: float) -> dict[str, float]:
    """Heights of names at the ends of lines, at least a step from each other."""
    placed: dict[str, float] = {}
    for name in sorted(ends, key=lambda name: ends[name]):
        placed[name] = max(ends[name], max(placed.values(), default=-np.inf) + step)
    return placed


def agreement(first: pd.DataFrame, seconds: Mapping[str, pd.DataFrame], titles: Mapping[str, str], title: str):
    """Utilities of one way against those of others, a dot for each source and task; the poison's dots are filled.

    Returns the figure.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(seconds), figsize=(_WIDTH, 3.3), sharex=True, squeeze=False)
    for axis, (name, table) in zip(axes[0], seconds.items(), strict=True):
        for source in first.index:
            shade = _LOOKS.get(source, GREY)
            inside = shade if source == "shuffled words" else "white"
            axis.plot(first.loc[source], table.loc[source], "o", color=shade, mfc=inside, ms=6)
        axis.set_title(titles[name], loc="center", fontsize=11)
        axis.set(xlabel="utility by ablation", ylabel=f"utility, {name}")
    axes[0][0].plot([], [], "o", color=_LOOKS["shuffled words"], label="shuffled words")
    figure.legend(loc="outside lower center", fontsize=10)
    figure.suptitle(title, x=0.01, ha="left")
    return figure
