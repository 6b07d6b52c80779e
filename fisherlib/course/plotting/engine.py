"""Figures of notebook 03."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from fisherlib.course.plotting.house import colour


def batch_sizes(sizes: Sequence[int], curves: Mapping[str, Sequence[float]], title: str):
    """Seconds per gain (drawn in microseconds) against the number of gains computed at once. Returns the figure."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import ScalarFormatter

    figure, axis = plt.subplots(figsize=(6.4, 3.0))
    for (name, values), shade, mark in zip(curves.items(), (colour("uniform"), colour("FisherSFT")), "so", strict=False):
        axis.plot(sizes, 1e6 * np.asarray(values), f"{mark}-", color=shade, lw=2, label=name)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.set_xticks(sizes)
    axis.set(title=title, xlabel="B, gains computed at once", ylabel="µs per gain", ylim=(0, None))
    axis.legend(loc="lower right")
    return figure


def error_estimates(clouds: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str):
    """True errors against their estimates, for each precision `(estimates, errors)`. Returns the figure."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 3.8))
    shown = [(name, x, y, np.isfinite(x) & (y > 0)) for name, (x, y) in clouds.items()]  # what a logarithm can show
    for name, x, y, seen in shown:
        axis.loglog(x[seen], y[seen], ".", color=colour(name), ms=4, alpha=0.35, rasterized=True, label=name)
    ends = np.array([min(x[seen].min() for _, x, _, seen in shown) / 10, max(x[seen].max() for _, x, _, seen in shown) * 3])
    low = min(y[seen].min() for _, _, y, seen in shown) / 3
    axis.plot(ends, ends, color="#444", lw=1.5)
    axis.fill_between(ends, ends, ends[1], color="#E6E6E6")
    axis.text(1.5 * ends[0], ends[1] / 3, "error above its estimate", va="top", color="#444")
    axis.set(title=title, xlabel="estimate (nats)", ylabel="true error (nats)", xlim=ends, ylim=(low, ends[1]))
    for handle in filter(None, axis.legend(loc="lower right").legend_handles):
        handle.set(alpha=1, markersize=8)
    return figure


def roofline(peaks: Mapping[str, float], bandwidth: float, points: Mapping[str, tuple[float, float, str]], title: str):
    """Roofs of the machine and steps below them. Returns the figure.

    `peaks`: GFLOP/s of each precision; `bandwidth`: GB/s; `points`: (FLOP per byte, GFLOP/s, precision) of each step.
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.8, 4.8))
    reach = [x for x, _, _ in points.values()]
    line = np.geomspace(
        min(*reach, min(peaks.values()) / bandwidth) / 4, 8 * max(*reach, max(peaks.values()) / bandwidth), 200
    )
    for name, peak in peaks.items():
        axis.loglog(line, np.minimum(peak, bandwidth * line), color=colour(name), lw=2)
        axis.text(line[-1], 1.08 * peak, f"{name}: {peak:,.0f} GFLOP/s", color=colour(name), ha="right", fontsize=9)
    axis.text(1.5 * line[0], bandwidth * line[0], f"memory: {bandwidth:,.0f} GB/s", fontsize=9, color="#444")
    for number, (name, (x, rate, precision)) in enumerate(points.items(), 1):
        axis.plot(x, rate, "o", color=colour(precision), mec="white", ms=15, label=f"{number}  {name}")
        axis.text(x, rate, str(number), color="white", ha="center", va="center", fontsize=9, weight="bold")
    axis.set(title=title, xlabel="FLOP per byte", ylabel="GFLOP/s", ylim=(None, 2.5 * max(peaks.values())))
    figure.legend(loc="outside lower center", ncols=3, markerscale=0.5, fontsize=9)
    return figure


def race_bars(seconds: Mapping[str, float], gains: Mapping[str, int], ours: str, extrapolated: Collection[str], title: str):
    """Seconds of each method, their ratio to `ours`, and how many gains it computed. Returns the figure."""
    import matplotlib.pyplot as plt

    names, values = list(seconds), np.array(list(seconds.values()))
    figure, axis = plt.subplots(figsize=(7.4, 0.45 * len(names) + 1.1))
    shades = [colour("FisherSFT" if name == ours else "no fine-tuning") for name in names]
    bars = axis.barh(names, values, color=shades, height=0.7)
    for bar, name, value in zip(bars, names, values, strict=True):
        if name in extrapolated:
            bar.set(hatch="///", facecolor="white", edgecolor=colour("no fine-tuning"))
        ratio = "" if name == ours else f" = {value / seconds[ours]:,.1f} x"
        label = f"{value:,.2f} s{ratio}, {gains[name]:,} gains"
        axis.text(1.08 * value, bar.get_y() + bar.get_height() / 2, label, va="center", fontsize=9)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    low, high = values.min() / 3, values.max()
    axis.set(
        title=title, xscale="log", xlim=(low, high * (high / low) ** 0.75)
    )  # what the longest bar leaves is for its label
    axis.set_xlabel("seconds" + ("; hatched: extrapolated" if extrapolated else ""))
    return figure
