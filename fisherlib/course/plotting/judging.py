"""Figures of notebook 06."""

from collections.abc import Mapping

from fisherlib.course.plotting.house import colour
from fisherlib.evaluation.statistics import Interval

_WIDTH = 5.6  # inches: to be read on a phone


def wins(panels: Mapping[str, Mapping[str, Interval]], title: str):
    """One panel per judge, one row per arm: the share of prompts at which it wins against uniform, with its interval.

    A hollow dot is a tie; an arm of which a judge said nothing is "not judged". Returns the figure.
    """
    import matplotlib.pyplot as plt

    arms = list(dict.fromkeys(arm for rates in panels.values() for arm in rates))
    size = (_WIDTH, len(panels) * (0.45 + 0.3 * len(arms)) + 0.8)
    figure, axes = plt.subplots(len(panels), 1, figsize=size, sharex=True, sharey=True, squeeze=False)
    for axis, (judge, rates) in zip(axes.flat, panels.items(), strict=True):
        axis.axvline(0.5, color="#444444", lw=1)
        for row, arm in enumerate(arms):
            share = rates.get(arm)
            if share is None or share.verdict == "not judged":
                axis.text(0.5, row, "not judged", ha="center", va="center", backgroundcolor="white")
                continue
            shade = colour(arm)
            axis.plot([share.low, share.high], [row, row], color=shade, solid_capstyle="round")
            inside = "white" if share.verdict == "tie" else shade
            axis.plot(share.value, row, "o", color=shade, mfc=inside, ms=8, mew=1.6)
        axis.set_title(judge)
    axes[0][0].set(xlim=(-0.03, 1.03), xticks=(0, 0.5, 1), xticklabels=("0", "½", "1"))
    axes[0][0].set(yticks=range(len(arms)), yticklabels=arms, ylim=(len(arms) - 0.5, -0.5))
    figure.supxlabel("share of prompts won against uniform: right is better; hollow: a tie", fontsize=10)
    figure.suptitle(title, x=0.01, ha="left")
    return figure
