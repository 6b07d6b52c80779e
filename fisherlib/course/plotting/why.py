"""Figures of notebook 05b."""

from collections.abc import Mapping

import pandas as pd
from jaxtyping import Float
from numpy import ndarray

from fisherlib.course.plotting.house import colour
from fisherlib.course.plotting.intervals import GREY, Mark, dots_and_intervals, shade

_VERDICTS = {"better": "#117733", "worse": "#CC0033"}


def moved(table: pd.DataFrame, title: str):
    """Two panels, one row for each change: the gap to uniform with the change, and by how much the change moved it.

    `table`: as from `fl.study.why.what_moved`, whose first row is the change of nothing. What moved is filled where the
    verdict is not a tie; the gaps are no verdicts. Returns the figure.
    """
    gap, change = "gap to uniform", "moved by the change"
    panels: dict[str, dict[str, list[Mark]]] = {gap: {}, change: {}}
    for name, row in table.iterrows():
        if name == table.index[0]:  # nothing moves nothing
            panels[gap]["FisherSFT as it is"] = [Mark(row["gap"], row["gap_low"], row["gap_high"], None, shade("FisherSFT"))]
            continue
        tone = _VERDICTS.get(row["verdict"], GREY)
        panels[gap][name] = [Mark(row["gap"], row["gap_low"], row["gap_high"], None, tone)]
        panels[change][name] = [Mark(row["moved"], row["low"], row["high"], row["verdict"] != "tie", tone)]
    xlabel = "held-out NLL per token (left is better)"
    return dots_and_intervals(panels, title, nulls={gap: 0.0, change: 0.0}, xlabel=xlabel, one_scale=True)


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
