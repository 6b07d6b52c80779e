"""Figures of notebook 01."""

from collections.abc import Mapping, Sequence

import numpy as np

from fisherlib.course.plotting.house import colour, ellipse


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
        ellipse(axis, 0.5 * vectors * np.sqrt(values.clip(0)), shade, centre=p @ corners)
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
        ellipse(axis, np.linalg.inv(np.linalg.cholesky(X.T @ X)).T, colour("FisherSFT"))
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
