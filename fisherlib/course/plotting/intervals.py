"""One figure for numbers with intervals, rows of dots in one panel or several; notebooks call it by five names."""

import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from fisherlib.course.plotting.house import GREY, MARKERS, PAGE, colour, plain_ticks

_LABEL, _HEAD, TITLE = 10, 11, 12  # points
_LETTER = 0.0079  # inches of a letter, for each point of its size


class Mark(NamedTuple):
    """A dot with its interval: filled if it is `sure`, hollow if not; a small square (None) where nothing is decided."""

    value: float
    low: float
    high: float
    sure: bool | None
    shade: str = GREY
    name: str = ""  # whose it is, where a row has several: these get markers and a legend


Panel = Mapping[str, Sequence[Mark]]  # by the name of the row


shade = colour  # of the few methods that a reader follows from figure to figure; grey for all others


def differs(low: float, high: float, null: float) -> bool:
    """Whether an interval leaves out the value that says nothing."""
    return not low <= null <= high


def dots_and_intervals(
    panels: Mapping[str, Panel],
    title: str,
    *,
    nulls: Mapping[str, float],
    xlabel: str = "",
    absent: str = "",
    one_scale: bool = False,
    xlim: tuple[float, float] | None = None,
    log: bool = False,
    across: int | None = None,
    width: float = PAGE,
    order: Sequence[str] | None = None,
):
    """`panels[panel][row]` are the marks of one row. Returns the figure, `width` inches wide.

    `nulls`: the value that says nothing, where a panel has a line for it. A row that a panel lacks says `absent` there, a
    NaN "not judged". In a panel without line and interval the dots have their numbers beside them. `one_scale`, for numbers
    of one kind: all panels have it, unless one would need less than a third of it; then each has its own and the label says
    so. `log`: the scale is logarithmic, and ends at twice the outermost value, since a longer interval says no more.
    `across`: so many panels beside each other, the others below; by default all. `order`: of the rows, by default that in
    which they come.
    """
    import matplotlib.pyplot as plt

    across = min(across or len(panels), len(panels))
    down = -(-len(panels) // across)
    names = list(dict.fromkeys([*(order or ()), *(name for rows in panels.values() for name in rows)]))
    every = [mark for rows in panels.values() for marks in rows.values() for mark in marks]
    shades = {mark.name: mark.shade for mark in every}
    labels = [wrapped(name, min(max(width - 1.5 * across, 2.0), 3.0), _LABEL) for name in names]
    longest = max(len(line) for label in labels for line in label.split("\n"))
    each = (width - _LABEL * _LETTER * longest) / across
    heads = ["\n".join(wrapped(line, each, _HEAD) for line in panel.split("\n")) for panel in panels]
    title = wrapped(title, width, TITLE)

    row_height = max(0.27, 0.1 + 0.1 * len(shades), *(0.18 * _lines(label) for label in labels))
    height = down * (row_height * len(names) + 0.2 * max(map(_lines, heads)) + 0.3)
    height += 0.2 * _lines(title) + 0.35 + 0.25 * (len(shades) > 1)
    together = one_scale and _alike(panels, nulls)
    figure, axes = plt.subplots(down, across, figsize=(width, height), sharey=True, sharex=together, squeeze=False)
    for axis, (panel, rows), head in zip(axes.flat, panels.items(), heads, strict=False):
        _draw(axis, names, rows, list(shades), nulls.get(panel), absent)
        if log:
            values = [nulls[panel], *(mark.value for marks in rows.values() for mark in marks)]
            axis.set(xscale="log", xlim=(min(values) / 2, max(values) * 2))
            plain_ticks(axis.xaxis, (1, 2, 5) if max(values) / min(values) < 20 else (1,))
        else:
            axis.locator_params(axis="x", nbins=max(1, int(each / 0.6)), min_n_ticks=2)
            axis.xaxis.set_major_formatter(lambda x, _: f"{x:,g}".replace("-", "\N{MINUS SIGN}"))
        if xlim:
            axis.set_xlim(xlim)
        axis.set_title(head, fontsize=_HEAD, loc="center" if across > 1 else "left")
        axis.tick_params(labelsize=_LABEL)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    axes[0][0].set_yticks(range(len(names)), labels)
    axes[0][0].set_ylim(len(names) - 0.4, -0.6)

    notes = [xlabel, "scales differ" if one_scale and not together else ""]
    notes.append("hollow: a tie" if any(mark.sure is False for mark in every) else "")
    below = wrapped("   |   ".join(filter(None, notes)), width, _LABEL)
    if len(shades) > 1:
        for k, (method, of) in enumerate(shades.items()):
            axes[0][0].plot([], [], _marker(k) + "-", color=of, ms=6, lw=1.8, label=method)
        figure.legend(loc="outside lower center", ncols=3, fontsize=_LABEL, title=below, title_fontsize=_LABEL)
    else:
        figure.supxlabel(below, fontsize=_LABEL)
    figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE)
    return figure


def _draw(axis, names: Sequence[str], rows: Panel, methods: Sequence[str], null: float | None, absent: str) -> None:
    """One panel: names of rows from top to bottom, methods side by side in each."""
    numbers = null is None and all(mark.low == mark.value == mark.high for marks in rows.values() for mark in marks)
    axis.margins(x=0.35 if numbers else 0.1)
    if null is not None:
        axis.axvline(null, color="#444", lw=1)
    for at, name in enumerate(names):
        marks = [mark for mark in rows.get(name, ()) if mark.value == mark.value]
        for mark in marks:
            k = methods.index(mark.name)
            y = at + 0.7 * (k - (len(methods) - 1) / 2) / len(methods)
            marker, size = ("s", 4) if mark.sure is None else (_marker(k), 6)
            inside = "white" if mark.sure is False else mark.shade
            axis.plot([mark.low, mark.high], [y, y], color=mark.shade, lw=1.8, alpha=0.7, solid_capstyle="round")
            axis.plot(mark.value, y, marker, color=mark.shade, mfc=inside, ms=size, mew=1.5)
            if numbers:
                axis.annotate(
                    f"{mark.value:,.4g}", (mark.value, y), (7, 0), textcoords="offset points", va="center", fontsize=_LABEL
                )
        if not marks:  # in the middle of the panel, whatever its scale
            words = "not judged" if name in rows else absent
            middle = {"transform": axis.get_yaxis_transform(), "ha": "center", "va": "center"}
            axis.text(
                0.5, at, words, fontsize=_LABEL, color="#767676", bbox={"fc": "white", "ec": "none", "pad": 1}, **middle
            )


def _alike(panels: Mapping[str, Panel], nulls: Mapping[str, float]) -> bool:
    """Whether the intervals and the line of every panel span at least a third of what all span together."""
    ends = [
        [end for marks in rows.values() for mark in marks for end in (mark.low, mark.high)] + [nulls.get(panel, 0.0)]
        for panel, rows in panels.items()
    ]
    whole = max(map(max, ends)) - min(map(min, ends))
    return all(max(of) - min(of) >= whole / 3 for of in ends)


def _marker(k: int) -> str:
    return MARKERS[k % len(MARKERS)]


def wrapped(text: str, inches: float, points: int) -> str:
    """In lines of about equal length that are not longer than this, if its words are not."""
    letters = int(inches / (points * _LETTER))
    fill = partial(textwrap.fill, text, break_long_words=False, break_on_hyphens=False)
    lines = _lines(fill(letters))
    return next(filled for width in range(1, letters + 1) if _lines(filled := fill(width)) <= lines)


def _lines(text: str) -> int:
    return text.count("\n") + 1
