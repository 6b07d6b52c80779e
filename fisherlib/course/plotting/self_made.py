"""Figures of notebook 11: a self-made pool, what learning from it brings, and what choosing from it brings."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fisherlib.course.plotting.house import COLOURS, GREY, PAGE
from fisherlib.course.plotting.intervals import Mark, dots_and_intervals

_STRONG = COLOURS["FisherSFT"]


def seeds_and_means(panels: Mapping[str, pd.DataFrame], title: str, ylabels: Mapping[str, str]):
    """A panel for each table [seeds, settings]: a grey line for each seed, the mean in colour. Returns the figure."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, -(-len(panels) // 2), figsize=(PAGE, 5.6), squeeze=False)
    for axis, (head, table) in zip(axes.flat, panels.items(), strict=False):
        at = np.arange(table.shape[1])
        for _, of in table.iterrows():
            axis.plot(at, of, color=GREY, alpha=0.45, lw=1, marker="o", ms=3)
        axis.plot(at, table.mean(), color=_STRONG, marker="o", ms=7)
        for x, y in zip(at[table.notna().any()], table.mean().dropna(), strict=True):
            axis.annotate(f"{y:.2f}", (x, y), (0, 9), textcoords="offset points", ha="center", color=_STRONG, fontsize=11)
        axis.set_xticks(at, [str(name) for name in table], fontsize=11)
        axis.set_xlim(-0.4, len(at) - 0.6)
        axis.margins(y=0.15)
        axis.set_title(head, fontsize=11)
        axis.set_ylabel(ylabels[head], fontsize=11)
        axis.tick_params(labelsize=11)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def contrast_forest(panels: Mapping[str, pd.DataFrame], title: str, xlabel: str):
    """A panel for each table of `study.self_made_claims.contrasts`: dots with intervals, hollow for a tie."""
    shown = {
        head: {str(name): [_mark(str(name), row)] for name, row in table.iterrows() if np.isfinite(row["mean"])}
        for head, table in panels.items()
    }
    order = [str(name) for name in next(iter(panels.values())).index]
    return dots_and_intervals(shown, title, nulls=dict.fromkeys(panels, 0.0), xlabel=xlabel, absent="not run", order=order)


def _mark(name: str, row: pd.Series) -> Mark:
    """Of one seed a loss has no interval: a square, since nothing is decided."""
    if not np.isfinite(row["low"]):
        return Mark(row["mean"], row["mean"], row["mean"], None, _shade(name))
    return Mark(row["mean"], row["low"], row["high"], row["verdict"] != "tie", _shade(name))


def _shade(name: str) -> str:
    return next((shade for method, shade in COLOURS.items() if method in name and "MinHash" not in name), GREY)


def kept_of_sampled(counts: Sequence[tuple[str, float]], title: str):
    """Falling bars, from all solutions to those that are kept. Returns the figure."""
    import matplotlib.pyplot as plt

    names, values = zip(*counts, strict=True)
    figure, axis = plt.subplots(figsize=(PAGE, 0.55 * len(names) + 0.8))
    at = np.arange(len(names))[::-1]
    axis.barh(at, values, color=[GREY] * (len(names) - 1) + [_STRONG], height=0.6)
    for y, value in zip(at, values, strict=True):
        axis.annotate(f"{value:,.0f}", (value, y), (4, 0), textcoords="offset points", va="center", fontsize=11)
    axis.set_yticks(at, names, fontsize=11)
    axis.set_xlim(0, 1.12 * max(values))
    axis.set_xlabel("solutions")
    axis.grid(axis="y", visible=False)
    axis.set_title(title)
    return figure
