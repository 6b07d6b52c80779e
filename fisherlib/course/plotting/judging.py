"""Figures of notebook 06."""

from collections.abc import Mapping

from fisherlib.course.plotting.house import COLOURS, colour


def dots(
    panels: Mapping[str, Mapping[str, tuple[float, float, float]]],
    marks: Mapping[str, float],
    title: str,
    *,
    shares: bool = False,
):
    """One panel per key, one row per name: `(value, low, high)`; `marks` has the value that says nothing, by panel.

    A hollow dot's interval holds that value. A name that a panel lacks leaves its row empty there. `shares`: all values
    are, so that all axes go from 0 to 1. Returns the figure.
    """
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(name for values in panels.values() for name in values))
    size = (2.3 * len(panels) + 1.8, 0.3 * len(names) + 1.2)
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for axis, (panel, values) in zip(axes[0], panels.items(), strict=True):
        if panel in marks:
            axis.axvline(marks[panel], color="#444", lw=1)
        for row, name in enumerate(names):
            if name not in values or values[name][0] != values[name][0]:  # NaN: not judged
                continue
            value, low, high = values[name]
            shade = colour(name) if name in COLOURS else "#333333"
            sure = panel not in marks or not low <= marks[panel] <= high
            axis.plot([low, high], [row, row], color=shade, lw=2, alpha=0.6, solid_capstyle="round")
            axis.plot(value, row, "o", color=shade, mfc=shade if sure else "white", ms=7, mew=1.6)
        axis.set_title(panel, fontsize=10, loc="center")
        axis.margins(x=0.12)
        if shares:
            axis.set_xlim(-0.05, 1.05)
        axis.locator_params(axis="x", nbins=4)
    axes[0][0].set_yticks(range(len(names)), names)
    axes[0][0].set_ylim(len(names) - 0.4, -0.6)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure
