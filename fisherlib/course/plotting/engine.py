"""Figures of notebook 03."""

from collections.abc import Collection, Mapping, Sequence
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
    """True errors against their estimates. Returns the figure.

    `clouds[precision][stage]`: the estimates and the errors of a stage of the selection, whose name is written at its cloud
    in the first precision.
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(_WIDE, 4.4))
    every: list[float] = []
    low = np.inf
    for number, (precision, stages) in enumerate(clouds.items()):
        place = []
        for stage, (x, y) in stages.items():
            seen = np.isfinite(x) & (y > 0)  # what a logarithm can show
            axis.loglog(x[seen], y[seen], ".", color=colour(precision), ms=5, alpha=0.35, rasterized=True)
            place.append((np.median(x[seen]), y[seen].min(), stage))
            every, low = [*every, x[seen].min(), x[seen].max()], min(low, y[seen].min())
        axis.text(0.98, 0.12 - 0.08 * number, precision, color=colour(precision), weight="bold", ha="right",
                  transform=axis.transAxes)  # fmt: skip
        for row, (x, y, stage) in enumerate(sorted(place) if number == 0 else []):
            down: dict[str, Any] = {"xytext": (0, -4 - 13 * (row % 3)), "textcoords": "offset points", "va": "top"}
            axis.annotate(stage, (x, y), ha="center", color=_INK, fontsize=10, **down)
    ends = np.array([min(every) / 4, max(every) * 4])
    axis.plot(ends, ends, color=_INK, lw=1.5)
    axis.fill_between(ends, ends, 3 * ends[1], color=_PALE, zorder=0)
    axis.text(1.3 * ends[0], ends[1], "an error above its estimate", va="top", color=_INK)
    axis.set(title=title, xlabel="estimate (nats)", ylabel="true error (nats)", xlim=ends, ylim=(low / 12, 3 * ends[1]))
    return figure


def roofline(peaks: Mapping[str, float], bandwidth: float, points: Mapping[str, tuple[float, float, str]], title: str):
    """Roofs of the machine and steps below them, each with its name. Returns the figure.

    `peaks`: GFLOP/s of each precision; `bandwidth`: GB/s; `points`: (FLOP per byte, GFLOP/s, precision) of each step.
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(_WIDE, 5.0))
    reach = [x for x, _, _ in points.values()]
    corners = np.array(list(peaks.values())) / bandwidth
    line = np.geomspace(min(*reach, corners.min()) / 4, 6 * max(*reach, corners.max()), 200)
    high = 6 * max(peaks.values())
    heights: list[float] = []
    for name, peak in sorted(peaks.items(), key=lambda item: item[1]):
        axis.loglog(line, np.minimum(peak, bandwidth * line), color=colour(name))
        heights.append(max(peak * 1.06, heights[-1] * 1.5 if heights else 0))  # names as near as this would touch
        axis.text(line[-1], heights[-1], f"{name}, {peak:,.0f} GFLOP/s", color=colour(name), ha="right", fontsize=10)
    first, last = corners.min(), corners.max()
    axis.axvspan(line[0], first, color=_PALE, alpha=0.6, lw=0)
    axis.text(1.1 * line[0], high / 1.3, "memory-bound", va="top", color=_INK, weight="bold")
    axis.text(last * 1.15, high / 1.3, "compute-bound", ha="left", va="top", color=_INK, weight="bold")
    axis.text(1.2 * line[0], 1.5 * bandwidth * line[0], f"{bandwidth:,.0f} GB/s", fontsize=10, color=_INK, rotation=35)
    places = np.log10([(x, rate) for x, rate, _ in points.values()])
    for (name, (x, rate, precision)), place in zip(points.items(), places, strict=True):
        axis.plot(x, rate, "o", color=colour(precision), mec="white", ms=10)
        right = x < 2 * np.sqrt(line[0] * line[-1])
        off = place - places
        beside = (np.abs(off) < (1.0, 0.12)).all(1) & (off != 0).any(1)  # names that would touch: one up, one down
        where: dict[str, Any] = {"xytext": (9 if right else -9, 0), "ha": "left" if right else "right", "va": "center"}
        if beside.any():
            up = np.sign(off[beside].sum(0) @ (1e-3, 1))
            where = {"xytext": (0, 14 * up), "ha": "center", "va": "center"}
        elif rate > 0.95 * peaks.get(precision, np.inf):  # on its roof
            where = {"xytext": (0, -14), "ha": "center", "va": "center"}
        axis.annotate(name, (x, rate), textcoords="offset points", color=_INK, fontsize=10, **where)
    lowest = min(rate for _, rate, _ in points.values())
    axis.set(title=title, xlabel="FLOP per byte", ylabel="GFLOP/s", ylim=(lowest / 3, high), xlim=(line[0], line[-1]))
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
