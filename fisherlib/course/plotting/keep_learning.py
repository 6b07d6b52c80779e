"""Figures of notebook 09: the forgetting plane, the shares of replay, and the learning rates."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from fisherlib.course.plotting.house import COLOURS, GREY, MARKERS
from fisherlib.course.plotting.intervals import TITLE, wrapped

_COLUMN = 5.6  # inches: to be read on a phone
_SHADES = list(COLOURS.values())  # at most four lines are followed
Way = Float[np.ndarray, "2 _"]  # losses on A and B, the first before B was learned


def forgetting_plane(panels: Mapping[str, Mapping[str, Way]], followed: Sequence[str], title: str):
    """Loss on A against loss on B while B is learned, a panel for each key below each other, a line for each arm.

    A line begins at its dot on the right, where nothing of B is learned, and ends at its large mark; low and left is good.
    `followed`: at most four arms with a colour, a mark and a name; all others are grey. Of one moment: the mark alone.
    Returns the figure. Raises `ValueError` for more than four arms to follow.
    """
    import matplotlib.pyplot as plt

    if len(followed) > len(_SHADES):
        raise ValueError(f"expected at most {len(_SHADES)} arms to follow, got {len(followed)}: the others are grey")
    figure, axes = plt.subplots(len(panels), 1, figsize=(_COLUMN, 3.0 * len(panels) + 1.1), squeeze=False)
    for axis, (head, ways) in zip(axes.flat, panels.items(), strict=True):
        for name in sorted(ways, key=lambda name: name in followed):  # the coloured ones on top
            old, new = ways[name]
            k = followed.index(name) if name in followed else None
            shade, width = (GREY, 0.8) if k is None else (_SHADES[k], 2.0)
            axis.plot(new, old, "-", color=shade, lw=width, alpha=0.5 if k is None else 1)
            if len(new) > 1:
                axis.plot(new[0], old[0], "o", color="black", ms=5)
            axis.plot(new[-1], old[-1], "o" if k is None else MARKERS[k], color=shade, ms=4 if k is None else 9)
        axis.set_ylabel("loss on A (old)")
        if len(panels) > 1:
            axis.set_title(head, fontsize=11)
        arrow = {"arrowstyle": "->"}
        axis.annotate("better", (0.36, 0.02), (0.45, 0.08), xycoords="axes fraction", fontsize=10, arrowprops=arrow)
    for k, name in enumerate(followed):
        axes[0][0].plot([], [], MARKERS[k] + "-", color=_SHADES[k], ms=7, label=name)
    axes[-1][0].set_xlabel("loss on B (new), nats per byte")
    figure.legend(loc="outside lower center", ncols=2, fontsize=10)
    figure.suptitle(wrapped(title, _COLUMN, TITLE), x=0.01, ha="left")
    return figure


def replay_shares(panels: Mapping[str, pd.DataFrame], scratch: Mapping[str, tuple[float, float]], title: str):
    """Final losses on A and on B for each share that is replayed, a panel for each key side by side.

    `panels[head]`: columns `A` and `B`, indexed by the share, as from `kept.best_shares`. `scratch[head]`: A and B of the
    model that learned both from scratch, dashed. Returns the figure.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(_COLUMN, 3.3), sharey=True, squeeze=False)
    for axis, (head, table) in zip(axes[0], panels.items(), strict=True):
        places = np.arange(len(table))
        for k, (side, words) in enumerate({"A": "A, the old", "B": "B, the new"}.items()):
            axis.plot(places, table[side], MARKERS[k] + "-", color=_SHADES[k], ms=6, label=words)
            if head in scratch:
                axis.axhline(scratch[head][k], color=_SHADES[k], lw=1.2, ls="--")
        axis.set_xticks(places, [f"{share:.0%}" for share in table.index])
        axis.set_title(head, fontsize=11)
    axes[0][0].set_ylabel("loss, nats per byte")
    handles, labels = axes[0][0].get_legend_handles_labels()
    below = "share of the bytes that is replayed   |   dashed: both from scratch"
    figure.legend(handles, labels, loc="outside lower center", ncols=2, title=below, title_fontsize=10)
    figure.suptitle(wrapped(title, _COLUMN, TITLE), x=0.01, ha="left")
    return figure


def rates(schedules: Mapping[str, Sequence[float | int]], title: str, switch: int | None = None):
    """Learning rates by step, a line for each of at most four schedules; `switch`: where the second text begins.

    Returns the figure. Raises `ValueError` for more than four.
    """
    import matplotlib.pyplot as plt

    if len(schedules) > len(_SHADES):
        raise ValueError(f"expected at most {len(_SHADES)} schedules, got {len(schedules)}: make two figures")
    figure, axis = plt.subplots(figsize=(_COLUMN, 2.9))
    for k, (name, values) in enumerate(schedules.items()):
        steps = np.arange(1, len(values) + 1)
        marked = max(len(values) // 6, 1)
        axis.plot(steps, values, MARKERS[k] + "-", color=_SHADES[k], markevery=(k, marked), ms=5, label=name)
    if switch is not None:
        axis.axvline(switch + 0.5, color="#444", lw=1, ls=":")
        axis.text(switch + 0.5, axis.get_ylim()[1], " B begins", va="bottom", fontsize=10)
    axis.set(xlabel="step", ylabel="learning rate")
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    figure.legend(loc="outside lower center", ncols=2, fontsize=10)
    figure.suptitle(wrapped(title, _COLUMN, TITLE), x=0.01, ha="left")
    return figure
