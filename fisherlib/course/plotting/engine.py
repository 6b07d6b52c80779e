"""Figures of notebook 03."""

from collections.abc import Collection, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from fisherlib.course.plotting.house import GREY, colour, plain_ticks

_INK, _PALE = "#333333", "#E6E6E6"
_WIDE = 6.4  # inches: less than a page, so that a phone, which shows all of it, shows larger type


def batch_sizes(sizes: Sequence[int], curves: Mapping[str, Sequence[float]], title: str):
    """Seconds per gain (drawn in microseconds) against the number of gains computed at once. Returns the figure."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import ScalarFormatter

    figure, axis = plt.subplots(figsize=(_WIDE, 3.2))
    top = 1.05e6 * max(map(max, curves.values()))
    ends: list[float] = []
    for name, values in sorted(curves.items(), key=lambda item: item[1][-1]):
        axis.plot(sizes, 1e6 * np.asarray(values), "o-", color=colour(name))
        ends.append(max(1e6 * values[-1], ends[-1] + 0.08 * top if ends else 0))  # the names must not touch
        axis.annotate(name, (sizes[-1], ends[-1]), (8, 0), textcoords="offset points", va="center", color=colour(name))
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.set_xticks(sizes)
    axis.set(title=title, xlabel="B, gains computed at once", ylabel="µs per gain", ylim=(0, top))
    return figure


def error_estimates(clouds: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], title: str):
    """True errors against their margins, a panel for each precision. Returns the figure.

    `clouds[precision][stage]`: the margins and the errors of a stage of the selection, whose name stands below its cloud.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        len(clouds), 1, figsize=(_WIDE, 0.8 + 2.5 * len(clouds)), sharex=True, sharey=True, squeeze=False
    )
    every = np.concatenate([pair for stages in clouds.values() for pair in stages.values()], axis=1)
    every = every[:, (np.isfinite(every[0])) & (every[1] > 0)]  # what a logarithm can show
    ends, low = np.array([every[0].min() / 4, every[0].max() * 4]), every[1].min() / 200
    for axis, (precision, stages) in zip(axes[:, 0], clouds.items(), strict=True):
        foot = min(np.quantile(y, 0.02) for _, y in stages.values())
        last = np.zeros(len(stages))  # the margin at which each row of names ends
        for stage, (x, y) in sorted(stages.items(), key=lambda item: np.median(item[1][0])):
            axis.loglog(x, y, ".", color=colour(precision), ms=5, alpha=0.35, rasterized=True)
            row = int(np.argmax(np.median(x) > 20 * last))  # as near as this, names would touch: the next stands lower
            last[row] = np.median(x)
            down: dict[str, Any] = {"xytext": (0, -4 - 13 * row), "textcoords": "offset points", "ha": "center"}
            axis.annotate(stage, (last[row], foot), va="top", color=_INK, fontsize=10, **down)
        axis.plot(ends, ends, color=_INK, lw=1.5)
        axis.fill_between(ends, ends, 3 * ends[1], color=_PALE, zorder=0)
        axis.text(1.3 * ends[0], ends[1], "an error above its margin", va="top", color=_INK)
        axis.set_title(precision, color=colour(precision), weight="bold")
        axis.set(ylabel="true error (nats)", xlim=ends, ylim=(low, 3 * ends[1]))
    axes[-1, 0].set_xlabel("margin (nats)")
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def roofline(peaks: Mapping[str, float], bandwidth: float, points: Mapping[str, tuple[float, float, str]], title: str):
    """Roofs of the machine with a dotted line at the corner of each, and steps below them with their names.

    `peaks`: GFLOP/s of each precision; `bandwidth`: GB/s; `points`: (FLOP per byte, GFLOP/s, precision) of each step. A name
    stands in the first free place beside its dot. Returns the figure.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import Bbox

    figure, axis = plt.subplots(figsize=(_WIDE, 5.0))
    reach, rates = np.array([(x, rate) for x, rate, _ in points.values()]).T
    corners = np.array(list(peaks.values())) / bandwidth
    line = np.geomspace(min(*reach, corners.min()) / 10, 4 * max(*reach, corners.max()), 200)
    low, high = min(rates.min(), bandwidth * line[0]) / 1.5, 4 * max(peaks.values())
    apart, end = (high / low) ** 0.09, 0.0  # names of roofs must not touch
    for (name, peak), corner in sorted(zip(peaks.items(), corners, strict=True), key=lambda pair: pair[1]):
        axis.loglog(line, np.minimum(peak, bandwidth * line), color=colour(name))
        axis.plot([corner, corner], [low, peak], ":", color=colour(name), lw=1.5)
        end = max(peak, apart * end)
        axis.text(1.1 * line[-1], end, f"{name}\n{peak:,.0f} GFLOP/s", color=colour(name), va="center", fontsize=10)
    axis.axvspan(line[0], corners.min(), color=_PALE, alpha=0.6, lw=0)
    axis.text(1.1 * line[0], high / 1.3, "memory-bound", va="top", color=_INK, weight="bold")
    axis.text(1.15 * corners.max(), high / 1.3, "compute-bound", ha="left", va="top", color=_INK, weight="bold")
    slope = axis.text(1.6 * line[0], 1.2 * bandwidth * line[0], f"{bandwidth:,.0f} GB/s", fontsize=10, color=_INK, va="top")
    axis.set(title=title, xlabel="FLOP per byte", ylabel="GFLOP/s", ylim=(low, high), xlim=(line[0], line[-1]))
    for x, rate, precision in points.values():
        axis.plot(x, rate, "o", color=colour(precision), mec="white", ms=10)
    figure.canvas.draw()
    figure.set_layout_engine("none")  # the places of names are of this layout
    spots = axis.transData.transform(np.transpose([reach, rates]))
    boxes = [slope.get_window_extent()] + [Bbox.from_bounds(x - 8, y - 8, 16, 16) for x, y in spots]
    flat = axis.transData.transform(np.transpose([corners, list(peaks.values())]))
    boxes += [Bbox.from_extents(x, y - 1, 1e9, y + 1) for x, y in flat]
    frame, white = axis.get_window_extent(), [withStroke(linewidth=3, foreground="white")]
    for name, (x, rate, precision) in points.items():
        beside: dict[str, Any] = {"xytext": (0, 0), "textcoords": "offset points", "path_effects": white}
        label = axis.annotate(name, (x, rate), color=colour(precision), fontsize=10, va="center", **beside)
        for up, (across, side) in product((0, -9, 9, -18, 18, -30, 30), ((9, "left"), (-9, "right"), (0, "center"))):
            label.set(position=(across, up), ha=side)
            box = label.get_window_extent().padded(3)
            if not box.count_overlaps(boxes) and frame.x0 < box.x0 and box.x1 < frame.x1:
                break
        boxes.append(label.get_window_extent().padded(6))  # letters are wider in the file than here
    return figure


def race_times(seconds: Mapping[str, float], gains: Mapping[str, int], ours: str, extrapolated: Collection[str], title: str):
    """A dot for the seconds of each method, with how many gains it computed; hollow where they are extrapolated.

    Returns the figure.
    """
    import matplotlib.pyplot as plt

    names = sorted(seconds, key=lambda name: -seconds[name])
    figure, axis = plt.subplots(figsize=(_WIDE, 0.5 * len(names) + 1.0))
    for row, name in enumerate(names):
        shade = colour("FisherSFT") if name == ours else GREY
        axis.plot(seconds[name], row, "o", color=shade, mfc="white" if name in extrapolated else shade, mew=2, ms=10)
        left = seconds[name] > 12 * min(seconds.values())
        axis.annotate(
            f"{seconds[name]:,.1f} s, {gains[name]:,} gains",
            (seconds[name], row),
            (-10 if left else 10, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            color=shade if name == ours else _INK,
            fontsize=10,
        )
    axis.axvline(seconds[ours], color=colour("FisherSFT"), lw=1, ls="--", zorder=0)
    axis.set_yticks(range(len(names)), names)
    axis.set_xscale("log")
    plain_ticks(axis.xaxis, steps=(1,))
    values = list(seconds.values())
    axis.set(title=title, xlabel="seconds" + ("; hollow: extrapolated" if extrapolated else ""))
    axis.set(xlim=(min(values) / 2, max(max(values) * 2, 40 * min(values))), ylim=(-0.6, len(names) - 0.4))
    return figure
