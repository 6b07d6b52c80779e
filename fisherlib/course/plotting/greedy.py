"""Figures of notebook 02."""

from collections.abc import Mapping, Sequence

import numpy as np

from fisherlib.course.plotting.house import colour


def histogram(values: np.ndarray, marks: Mapping[str, float], title: str, xlabel: str):
    """How often each value occurs, with named vertical marks. Returns the figure."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 2.8))
    axis.hist(
        values, bins=40, range=(min(values.min(), *marks.values()), values.max()), color=colour("FisherSFT"), alpha=0.6
    )
    for (name, x), shade in zip(marks.items(), ("#444", colour("uniform"), colour("longest")), strict=False):
        axis.axvline(x, color=shade, lw=2.5, label=name)
    axis.legend(loc="upper center")
    axis.set(title=title, xlabel=xlabel, ylabel="how many")
    return figure


def evaluation_raster(panels: Mapping[str, np.ndarray], title: str):
    """One panel per method, each [picks, examples]: 0 not looked at, 1 gain evaluated, 2 picked. Returns the figure."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import ListedColormap

    figure, axes = plt.subplots(len(panels), 1, figsize=(6.4, 1.75 * len(panels) + 0.4), sharex=True, squeeze=False)
    shades = ListedColormap(["#F2F2F2", colour("FisherSFT"), colour("uniform")])
    for axis, (name, looked) in zip(axes[:, 0], panels.items(), strict=True):
        down, across = np.array(looked.shape) + 0.5
        axis.imshow(looked, shades, aspect="auto", interpolation="none", vmin=0, vmax=2, extent=(0.5, across, down, 0.5))
        axis.vlines(np.arange(1.5, across), 0.5, down, color="white", lw=0.5)
        axis.hlines(np.arange(1.5, down), 0.5, across, color="white", lw=0.5)
        axis.grid(False)
        axis.set_title(name, fontsize=10)
        axis.set_ylabel("pick")
    axes[-1, 0].set_xlabel("example, the largest first gain on the left")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def upper_bounds(sizes: np.ndarray, reached: np.ndarray, bounds: Mapping[str, np.ndarray], title: str):
    """What greedy reached with each number of picks, and upper bounds on what any set could reach. Returns the figure."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 3.4))
    axis.fill_between(sizes, reached, np.min(list(bounds.values()), axis=0), color="#E6E6E6", label="the optimum is in here")
    for (name, values), shade in zip(bounds.items(), (colour("uniform"), colour("longest")), strict=False):
        axis.plot(sizes, values, "--", color=shade, lw=1.8, label=name)
    axis.plot(sizes, reached, "o-", color=colour("FisherSFT"), lw=2, ms=4, label="greedy")
    axis.set(title=title, xlabel="examples picked", ylabel="information (nats)", ylim=(0, 1.6 * reached.max()))
    axis.legend(loc="lower right")
    return figure


def gain_fields(points: np.ndarray, matrices: Sequence[np.ndarray], picks: Sequence[int], title: str):
    """The gain log(1 + x^T V^-1 x) over the plane, for the V [2, 2] after 0, 1, 2, 3 of the picks. Returns the figure."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(matrices) // 2, figsize=(6.8, 5.6), sharex=True, sharey=True)
    line = np.linspace(-1.15, 1.15, 60) * np.abs(points).max()
    grid = np.stack(np.meshgrid(line, line), axis=-1)
    fields = [np.log1p(np.einsum("...i,ij,...j", grid, np.linalg.inv(V), grid)) for V in matrices]
    for k, (axis, field) in enumerate(zip(axes.flat, fields, strict=True)):
        shown = axis.contourf(*np.moveaxis(grid, -1, 0), field, np.linspace(0, fields[0].max(), 15), cmap="Blues")
        rest = np.setdiff1d(np.arange(len(points)), picks[:k])
        axis.plot(*points[rest].T, "o", color="white", mec="#222", ms=6)
        axis.plot(*points[picks[:k]].T, "X", color=colour("uniform"), mec="#222", ms=10)
        axis.set_title(f"after {k} pick{'s' * (k != 1)}", fontsize=10, loc="center")
        axis.set_aspect("equal")
    figure.colorbar(shown, ax=axes, label="gain (nats)", shrink=0.7, format="%.1f")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def length_scatter(lengths: np.ndarray, gains: np.ndarray, title: str):
    """The gain of each example against its number of tokens. Returns the figure."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 2.8))
    axis.plot(lengths, gains, "o", color=colour("FisherSFT"), alpha=0.6)
    axis.set(title=title, xlabel="response tokens", ylabel="first gain (nats)", xlim=(0, None), ylim=(0, None))
    return figure


def copies(gains: Sequence[float], law: np.ndarray, others: Mapping[str, float], title: str):
    """The gain of the first, second, ... copy of an example, the law from the second on, and rivals of the second copy."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 3.2))
    axis.semilogy(np.arange(2, len(gains) + 1), law, "-", color="#444", label=r"min(T, d) log(m / (m − 1))")
    axis.semilogy(
        np.arange(1, len(gains) + 1), gains, "o", color=colour("FisherSFT"), ms=8, label="copy of the same example"
    )
    for (name, gain), marker in zip(others.items(), ("D", "s"), strict=False):
        axis.semilogy(2, gain, marker, color=colour("uniform"), mec="#222", ms=8, label=name)
    axis.set(title=title, xlabel="m, the number of this copy", ylabel="gain (nats)", xticks=np.arange(1, len(gains) + 1))
    axis.legend()
    return figure
