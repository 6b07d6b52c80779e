"""Figures of notebook 05b."""

from collections.abc import Mapping

import pandas as pd
from jaxtyping import Float
from numpy import ndarray

from fisherlib.course.plotting.house import colour

_SHADES = {"better": "#117733", "worse": "#CC0033", "tie": "#666666"}


def moved(table: pd.DataFrame, title: str):
    """Two panels, one row for each change: the gap to uniform with the change, and by how much the change moved it.

    `table`: as from `fl.study.why.what_moved`, whose first row is the change of nothing. Filled where the verdict is
    not a tie. Returns the figure.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8.2, 0.26 * len(table) + 1.3), sharey=True)
    panels = (("gap to uniform", ("gap", "gap_low", "gap_high")), ("moved by the change", ("moved", "low", "high")))
    for axis, (name, columns) in zip(axes, panels, strict=True):
        axis.axvline(0, color="#444", lw=1)
        for row, (_, values) in enumerate(table.iterrows()):
            mean, low, high = (float(values[column]) for column in columns)
            if row == 0 and name != panels[0][0]:
                continue  # nothing moves nothing
            shade = (
                colour("FisherSFT")
                if row == 0
                else {"better": "#117733", "worse": "#CC0033"}.get(values["verdict"], "#666666")
            )
            axis.plot([low, high], [row, row], color=shade, lw=2, alpha=0.5, solid_capstyle="round")
            axis.plot(mean, row, "o", color=shade, mfc="white" if values["verdict"] == "tie" else shade, ms=7, mew=1.6)
        axis.set_title(name, fontsize=10, loc="center")
        axis.margins(x=0.08)
        axis.locator_params(axis="x", nbins=5)
    names = ["FisherSFT as it is", *table.index[1:]]
    axes[0].set_yticks(range(len(table)), names)
    axes[0].set_ylim(len(table) - 0.4, -0.6)
    figure.supxlabel("held-out NLL per token (below zero is better)", fontsize=10)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def properties(panels: Mapping[str, Mapping[str, Float[ndarray, " n"]]], title: str):
    """One panel for each property, one box for each group: the middle half of its examples. Returns the figure."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(3.0 * len(panels) + 0.8, 2.6), sharey=True, squeeze=False)
    for axis, (name, groups) in zip(axes[0], panels.items(), strict=True):
        boxes = axis.boxplot(
            list(groups.values()), orientation="horizontal", widths=0.6, showfliers=False, patch_artist=True
        )
        for box, line, group in zip(boxes["boxes"], boxes["medians"], groups, strict=True):
            box.set(facecolor=colour(group) if group != "pool" else "#DDDDDD", alpha=0.6)
            line.set(color="black", lw=1.5)
        axis.set_xlabel(name)
        axis.set_yticks(range(1, len(groups) + 1), groups)
    axes[0][0].set_ylim(len(groups) + 0.6, 0.4)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure
