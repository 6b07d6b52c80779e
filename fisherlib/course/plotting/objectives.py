"""Figures of notebook 10."""

from collections.abc import Mapping, Sequence

import numpy as np

from fisherlib.course.plotting.house import COLOURS, GREY, PAGE

_SHADES = [COLOURS["FisherSFT"], COLOURS["uniform"], COLOURS["recipe"], COLOURS["longest"]]
_LINES = ["-", "--", "-.", ":"]
Lines = Mapping[str, tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]]


def curve_panels(
    panels: Mapping[str, Lines],
    title: str,
    xlabel: str,
    ylabels: Sequence[str],
    *,
    zero: bool = False,
    whole: bool = False,
):
    """Panels side by side with lines; the first four names have a colour and a kind of line, in all panels alike.

    `panels[panel][name]`: x [n], and y [n], or [repetitions, n]: the mean, with a band from the lowest to the highest.
    `zero`: a line at 0. `whole`: x has whole numbers only. Returns the figure.
    """
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    figure, axes = plt.subplots(1, len(panels), figsize=(PAGE, 3.4), squeeze=False)
    for axis, (panel, lines), ylabel in zip(axes[0], panels.items(), ylabels, strict=True):
        if zero:
            axis.axhline(0, color="#444", lw=1)
        for name, (x, y) in lines.items():
            k, values = names.index(name), np.atleast_2d(y)
            shade = _SHADES[k] if k < len(_SHADES) else GREY
            marker = "os^D"[k % 4] if len(x) <= 12 else ""
            if len(values) > 1:
                axis.fill_between(x, values.min(0), values.max(0), color=shade, alpha=0.15, lw=0)
            axis.plot(x, values.mean(0), _LINES[k % 4] + marker, color=shade, label=name)
        if whole:
            axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set(xlabel=xlabel, ylabel=ylabel)
        axis.set_title(panel, loc="center")
    handles = {label: line for axis in axes[0] for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
    figure.suptitle(title, x=0.01, ha="left")
    return figure
