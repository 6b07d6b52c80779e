"""Figures of notebook 10b."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fisherlib.course.plotting.house import PAGE, colour
from fisherlib.course.plotting.intervals import Mark, dots_and_intervals


def hinges(scale: float, distances: Sequence[int], title: str):
    """The loss of one pair against how far the better answer is ahead, one line for each distance of their ranks."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(PAGE * 0.75, 3.0))
    most = scale * np.log(2 * max(distances))
    ahead = np.linspace(-most, 1.6 * most, 200)
    for distance, shade in zip(distances, ("#222222", "#666666", "#999999"), strict=True):
        margin = scale * np.log(2 * distance)
        axis.plot(ahead, np.maximum(margin - ahead, 0), color=shade, lw=2, label=f"{distance} apart")
        axis.plot(margin, 0, "o", color=shade, ms=7, clip_on=False)
    axis.axvline(0, color="#444444", lw=1)
    axis.set(xlabel="score of the better answer minus that of the other", ylabel="loss of the pair", ylim=(0, None))
    axis.legend(title="ranks")
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def taught(found: pd.DataFrame, words: dict[str, str], title: str):
    """One panel for each metric: a dot with its interval for each contrast of `taught.answers`; hollow is a tie."""
    panels: dict[str, dict[str, list[Mark]]] = {}
    for row in found.itertuples():
        name = f"{row.arm} minus {row.reference}".replace("teacher's lines and ", "")
        mark = Mark(row.mean, row.low, row.high, row.verdict != "tie", colour("recipe"))
        panels.setdefault(words[row.metric], {})[name] = [mark]
    return dots_and_intervals(panels, title, nulls=dict.fromkeys(panels, 0.0), absent="not asked", across=2)
