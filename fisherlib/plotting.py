"""One style, one colour per method everywhere, a handful of figures. Needs the `notebooks` extra (matplotlib)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fisherlib.selection import Selection

# Okabe and Ito's palette, which colour-blind readers can tell apart; the same method has the same colour in every notebook.
COLOURS = {
    "FisherSFT": "#0072B2",
    "FisherSFT, trace-weighted": "#56B4E9",
    "uniform": "#E69F00",
    "longest": "#CC79A7",
    "no fine-tuning": "#7A7A7A",
    "log det V": "#0072B2",  # FisherSFT's objective
    "log det V_w": "#56B4E9",  # and its trace-weighted form
}
_SPARE = ("#009E73", "#D55E00", "#000000")


def colour(method: str) -> str:
    """The colour of a method; an unknown one gets a spare colour that depends only on its name."""
    return COLOURS.get(method) or _SPARE[sum(map(ord, method)) % len(_SPARE)]


def style() -> None:
    """Apply the house style to matplotlib."""
    import matplotlib as mpl

    mpl.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 110,
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#E6E6E6",
            "axes.axisbelow": True,
            "legend.frameon": False,
            "svg.hashsalt": "fisherlib",  # the same figure gives the same file
        }
    )


def save(figure, path: str | Path) -> None:
    """Write an SVG without a date, so that an unchanged figure is an unchanged file."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})


def information_curves(selections: Mapping[str, Selection], title: str):
    """Information gathered against tokens spent, one line per method. Returns the figure."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 3.6))
    ends = sorted(selections.items(), key=lambda item: -item[1].objective)
    height = np.inf
    for method, chosen in ends:
        spent = np.concatenate([[0], chosen.costs.cumsum()])
        known = np.concatenate([[0], chosen.gains.cumsum()])
        axes.plot(spent, known, color=colour(method), lw=2)
        height = min(known[-1], height - 0.07 * ends[0][1].objective)  # keep the labels apart
        axes.annotate(
            f"{method} ({len(chosen)} examples)",
            (max(chosen.costs.sum() for chosen in selections.values()), height),
            xytext=(8, 0),
            textcoords="offset points",
            color=colour(method),
            va="center",
            annotation_clip=False,
        )
    axes.set(title=title, xlabel="response tokens spent", ylabel="information (nats)", xlim=(0, None), ylim=(0, None))
    return figure


def comparison(panels: Mapping[str, Mapping[str, tuple[float, float, float]]], title: str):
    """One panel per yardstick, one row per method: a dot, and an interval where low and high differ from the value.

    `panels[yardstick][method] = (value, low, high)`. Returns the figure.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(3.0 * len(panels) + 1.2, 2.4), sharey=True, squeeze=False)
    methods = list(next(iter(panels.values())))
    for axis, (yardstick, values) in zip(axes[0], panels.items(), strict=True):
        for row, method in enumerate(methods):
            value, low, high = values[method]
            axis.plot([low, high], [row, row], color=colour(method), lw=2.5, alpha=0.6, solid_capstyle="round")
            axis.plot(value, row, "o", color=colour(method), ms=8)
        if min(v[1] for v in values.values()) <= 0 <= max(v[2] for v in values.values()):
            axis.axvline(0, color="#444", lw=1)
        axis.set_title(yardstick, fontsize=10, loc="center")
        axis.margins(x=0.12)
        axis.locator_params(axis="x", nbins=5)
    axes[0][0].set_yticks(range(len(methods)), methods)
    axes[0][0].invert_yaxis()
    axes[0][0].margins(y=0.2)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def _ellipse(axis, root: np.ndarray, shade: str, centre=(0.0, 0.0)) -> None:
    """The image of the unit circle under `root` [2, 2]: the ellipse of the covariance root root^T."""
    angle = np.linspace(0, 2 * np.pi, 200)
    x, y = np.asarray(centre)[:, None] + root @ np.stack([np.cos(angle), np.sin(angle)])
    axis.fill(x, y, color=shade, alpha=0.2)
    axis.plot(x, y, color=shade, lw=1.5)


def uncertainty_ellipses(matrices: Mapping[str, np.ndarray], title: str):
    """The confidence ellipse {theta : theta^T V theta <= 1} of each 2 x 2 information matrix. Returns the figure.

    Its area is pi / sqrt(det V): more information, a smaller ellipse.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(matrices), figsize=(2.3 * len(matrices), 2.7), sharex=True, sharey=True)
    for axis, (name, V) in zip(axes, matrices.items(), strict=True):
        _ellipse(axis, np.linalg.inv(np.linalg.cholesky(V)).T, colour("FisherSFT"))
        axis.set_title(f"{name}\narea {np.pi / np.sqrt(np.linalg.det(V)):.2f}", fontsize=10, loc="center")
        axis.set_aspect("equal")
        axis.set_xlabel(r"$\theta_1$")
    axes[0].set_ylabel(r"$\theta_2$")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def simplex(probabilities: Mapping[str, np.ndarray], title: str):
    """Each probability vector of three classes as a point of the triangle, with the ellipse of its softmax covariance.

    The ellipse has half the standard deviation of a one-hot draw in every direction. Returns the figure.
    """
    import matplotlib.pyplot as plt

    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])
    figure, axis = plt.subplots(figsize=(5.2, 3.9))
    axis.plot(*corners[[0, 1, 2, 0]].T, color="#444", lw=1)
    for k, (x, y, align) in enumerate([(0, -0.09, "right"), (1, -0.09, "left"), (0.5, 0.89, "center")], start=1):
        axis.text(x, y, f"class {k}", ha=align, color="#444")
    shades = plt.get_cmap("viridis")(np.linspace(0.75, 0, len(probabilities)))
    for (name, p), shade in zip(probabilities.items(), shades, strict=True):
        values, vectors = np.linalg.eigh(corners.T @ (np.diag(p) - np.outer(p, p)) @ corners)
        _ellipse(axis, 0.5 * vectors * np.sqrt(values.clip(0)), shade, centre=p @ corners)
        axis.plot(*(p @ corners), "o", color=shade, ms=5, label=name)
    axis.legend(loc="upper right", bbox_to_anchor=(1.32, 1.0))
    axis.set_aspect("equal")
    axis.set_axis_off()
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def designs(points: np.ndarray, chosen: Mapping[str, Sequence[int]], title: str):
    """One panel per design: the candidate points [n, 2], the chosen ones filled, and the confidence ellipse they leave."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(chosen), figsize=(2.8 * len(chosen), 3.2), sharex=True, sharey=True, squeeze=False)
    for axis, (name, picks) in zip(axes[0], chosen.items(), strict=True):
        X = points[list(picks)]
        _ellipse(axis, np.linalg.inv(np.linalg.cholesky(X.T @ X)).T, colour("FisherSFT"))
        axis.plot(*points.T, "o", color="#444", mfc="white", ms=6)
        axis.plot(*X.T, "o", color=colour("uniform"), ms=7)
        for k, point in enumerate(points):
            axis.annotate(str(k), point, xytext=(5, 4), textcoords="offset points", fontsize=8, color="#444")
        axis.set_title(name, fontsize=10, loc="center")
        axis.set_aspect("equal")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def line_panels(
    x: Sequence[float],
    panels: Mapping[str, Mapping[str, np.ndarray]],
    title: str,
    xlabel: str,
    ylabel: str,
    *,
    sharey: bool = True,
):
    """One panel per key, one line per series: the mean of an array [repetitions, len(x)], with a band from min to max.

    The points are evenly spaced along the axis, whatever their values. Returns the figure.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(3.7 * len(panels) + 0.8, 3.3), sharey=sharey, squeeze=False)
    at = np.arange(len(x))
    for axis, (name, series) in zip(axes[0], panels.items(), strict=True):
        for label, values in series.items():
            values = np.atleast_2d(values)
            axis.fill_between(at, values.min(0), values.max(0), color=colour(label), alpha=0.15, lw=0)
            axis.plot(at, values.mean(0), "o-", color=colour(label), lw=2, ms=4, label=label)
        axis.set_xticks(at, [f"{value:g}" for value in x])
        axis.set_title(name, fontsize=10, loc="center")
        axis.set_xlabel(xlabel)
        if axis is axes[0][0] or not sharey:
            axis.legend(fontsize=9)
    axes[0][0].set_ylabel(ylabel)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


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
