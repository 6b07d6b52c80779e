"""Figures of notebook 02."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fisherlib.course.plotting.house import GREY, colour, ellipse

_INK, _PALE = "#333333", "#E6E6E6"
_WIDE = 6.2  # inches: less than a page, so that a phone, which shows all of it, shows larger type


def histogram(values: np.ndarray, mark: tuple[str, float], title: str, xlabel: str, ylabel: str):
    """How often each value occurs, and an arrow at one of them with its name. Returns the figure."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(_WIDE, 2.8))
    axis.hist(values, bins=30, color=GREY, alpha=0.6)
    name, x = mark
    arrow = {"arrowstyle": "-|>", "color": colour("FisherSFT"), "lw": 2}
    style: dict[str, Any] = {"color": colour("FisherSFT"), "ha": "right", "weight": "bold", "arrowprops": arrow}
    axis.annotate(name, (x, 1.1), (x, 0.7 * axis.get_ylim()[1]), **style)
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel)
    return figure


def misses(ratios: np.ndarray, promised: float, title: str):
    """A dot for each pool in which greedy misses the optimum, at greedy / optimum, and the promise. Returns the figure."""
    import matplotlib.pyplot as plt

    ratios = np.sort(ratios)
    figure, axis = plt.subplots(figsize=(_WIDE, 2.3))
    low = np.floor(20 * promised - 1) / 20
    place = np.round(300 * ratios)  # dots as near as this would hide each other: the next one stands higher
    height = np.array([(place[:k] == place[k]).sum() for k in range(len(place))]) + 1.0
    axis.plot(ratios, height, "o", color=colour("FisherSFT"), mec="white", ms=8)
    axis.axvspan(low, promised, color=_PALE)
    axis.axvline(promised, color=_INK)
    top = 1.45 * max(height.max(initial=1), 3)  # names stand above all dots
    axis.text(promised + 0.004, 0.95 * top, f"promised: {promised:.0%}", va="top", color=_INK)
    axis.text(0.997, 0.95 * top, "optimum", va="top", ha="right", color=_INK)
    axis.axvline(1, color=_INK)
    axis.set(title=title, xlabel="greedy / optimum", xlim=(low, 1.005), ylim=(0, top), yticks=[])
    axis.grid(axis="y", visible=False)
    axis.spines["left"].set_visible(False)
    return figure


def evaluation_raster(panels: Mapping[str, np.ndarray], title: str):
    """One panel per method, each [picks, examples]: 0 skipped, 1 gain evaluated, 2 picked, 3 picked before.

    Returns the figure.
    """
    import matplotlib.pyplot as plt
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    states = {"skipped": "#CFCFCF", "evaluated": colour("FisherSFT"), "picked": "#F0A030", "picked before": "#FFFFFF"}
    figure, axes = plt.subplots(len(panels), 1, figsize=(_WIDE, 1.9 * len(panels) + 0.8), sharex=True, squeeze=False)
    for axis, (name, looked) in zip(axes[:, 0], panels.items(), strict=True):
        down, across = np.array(looked.shape) + 0.5
        shades = ListedColormap(list(states.values()))
        axis.imshow(looked, shades, aspect="auto", interpolation="none", vmin=0, vmax=3, extent=(0.5, across, down, 0.5))
        axis.vlines(np.arange(1.5, across), 0.5, down, color="white", lw=0.5)
        axis.hlines(np.arange(1.5, down), 0.5, across, color="white", lw=0.5)
        axis.grid(False)
        axis.set_title(name, fontsize=11)
        axis.set_ylabel("pick")
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[-1, 0].set_xlabel("example, the largest first gain on the left")
    key = [Patch(facecolor=shade, edgecolor=GREY, label=name) for name, shade in states.items()]
    figure.legend(handles=key, loc="outside lower center", ncols=len(key))
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def gain_fields(points: np.ndarray, matrices: Sequence[np.ndarray], picks: Sequence[int], title: str):
    """The gain log(1 + x^T V^-1 x) over the plane, for the V [2, 2] after 0, 1, 2, 3 of the picks. Returns the figure."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(matrices) // 2, figsize=(_WIDE, 5.6), sharex=True, sharey=True)
    line = np.linspace(-1.15, 1.15, 60) * np.abs(points).max()
    grid = np.stack(np.meshgrid(line, line), axis=-1)
    fields = [np.log1p(np.einsum("...i,ij,...j", grid, np.linalg.inv(V), grid)) for V in matrices]
    for k, (axis, field) in enumerate(zip(axes.flat, fields, strict=True)):
        shown = axis.contourf(*np.moveaxis(grid, -1, 0), field, np.linspace(0, fields[0].max(), 15), cmap="Blues")
        rest = np.setdiff1d(np.arange(len(points)), picks[:k])
        axis.plot(*points[rest].T, "o", color="#BBBBBB", mec="black", mew=1.2, ms=7)
        axis.plot(*points[picks[:k]].T, "X", color=colour("uniform"), mec="black", ms=12)
        axis.set_title(f"after {k} pick{'s' * (k != 1)}", fontsize=11, loc="center")
        axis.set_aspect("equal")
        axis.grid(False)
    for axis in axes[-1]:
        axis.set_xlabel(r"feature $x_1$")
    for axis in axes[:, 0]:
        axis.set_ylabel(r"feature $x_2$")
    figure.colorbar(shown, ax=axes, label="gain (nats)", shrink=0.7, format="%.1f")
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def length_scatter(lengths: np.ndarray, gains: np.ndarray, title: str):
    """The gain of each example against its number of tokens. Returns the figure."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(_WIDE, 3.0))
    axis.plot(lengths, gains, "o", color=colour("FisherSFT"), alpha=0.6, ms=7)
    axis.set(title=title, xlabel="response tokens", ylabel="first gain (nats)", xlim=(0, None), ylim=(0, None))
    return figure


def prior_sweep(priors: np.ndarray, kept: Mapping[str, Sequence[float]], scale: float, title: str):
    """The share of picks that stay when sigma0^2 changes, a line per rule, and the scale of the features.

    Returns the figure.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import PercentFormatter

    figure, axis = plt.subplots(figsize=(_WIDE, 3.2))
    for (name, values), shade, mark in zip(kept.items(), (GREY, colour("FisherSFT")), "so", strict=True):
        axis.semilogx(priors, values, f"{mark}-", color=shade)
        axis.annotate(
            name,
            (priors[0], values[0]),
            (0, 8 if shade == GREY else -10),
            textcoords="offset points",
            va="bottom" if shade == GREY else "top",
            color=shade,
            weight="bold",
        )
    axis.axvline(scale, color=_INK, ls="--", lw=1.5)
    note = "mean eigenvalue\nof the budget's\ntokens"
    axis.annotate(note, (scale, 0.03), (-6, 0), textcoords="offset points", ha="right", color=_INK)
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.set(title=title, xlabel=r"$\sigma_0^2$", ylabel=r"picks as at $\sigma_0^2=1$", ylim=(0, 1.15))
    axis.set_yticks(np.linspace(0, 1, 5))
    return figure


def copies(gains: Sequence[float], law: np.ndarray, other: float, title: str):
    """The gain of the first, second, ... copy of an example, the law from the second on, and of another text instead.

    Returns the figure.
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(_WIDE, 3.4))
    number = np.arange(1, len(gains) + 1)
    beside: dict[str, Any] = {"textcoords": "offset points", "va": "center", "weight": "bold"}
    axis.plot(number[1:], law, "-", color=_INK)
    axis.annotate("limit: min(T, d) log(m / (m − 1))", (3, law[1]), (0, 20), color=_INK, textcoords="offset points")
    axis.plot(number, gains, "o", color=colour("FisherSFT"), ms=9)
    axis.annotate("first copy", (1, gains[0]), (0, -16), color=colour("FisherSFT"), **beside)
    axis.annotate("further copies", (number[-1], gains[-1]), (0, 14), ha="right", color=colour("FisherSFT"), **beside)
    axis.plot(2, other, "s", color=colour("uniform"), ms=9)
    axis.annotate("another text instead", (2, other), (10, 0), color=colour("uniform"), **beside)
    axis.set(title=title, xlabel="m, the number of this copy", ylabel="gain (nats)", xticks=number, ylim=(0, None))
    return figure


def missed_optimum(vectors: Mapping[str, np.ndarray], sets: Mapping[str, Sequence[str]], title: str):
    """Why greedy misses: the vectors as arrows, and for each set of them what stays unknown, over the prior (dashed).

    A panel per set: its vectors in blue, the others grey, and the ellipse {theta : theta^T V theta <= 1} of
    V = I + sum x x^T with its area. Returns the figure.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(sets), figsize=(_WIDE, 4.0), sharex=True, sharey=True)
    for axis, (name, chosen) in zip(axes, sets.items(), strict=True):
        V = np.eye(2) + sum(np.outer(vectors[x], vectors[x]) for x in chosen)
        angle = np.linspace(0, 2 * np.pi, 200)
        axis.plot(np.cos(angle), np.sin(angle), "--", color=GREY, lw=1.5)
        ellipse(axis, np.linalg.inv(np.linalg.cholesky(V)).T, colour("uniform"))
        for x, (a, b) in vectors.items():
            shade = colour("FisherSFT") if x in chosen else "#AAAAAA"
            axis.annotate("", (a, b), (0, 0), arrowprops={"arrowstyle": "-|>", "color": shade, "lw": 2.5})
            axis.annotate(x, (a, b), (5, 3), textcoords="offset points", color=shade, weight="bold", fontsize=13)
        axis.set_title(f"{name}\narea {np.pi / np.sqrt(np.linalg.det(V)):.2f}", fontsize=11, loc="center")
        axis.set(xlim=(-1.3, 2.6), ylim=(-1.3, 2.6), xlabel=r"$\theta_1$", aspect="equal")
    axes[0].set_ylabel(r"$\theta_2$")
    figure.suptitle(title, x=0.01, ha="left")
    return figure
