"""Figures of notebook 01."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fisherlib.course.plotting.house import COLOURS, GREY, colour, ellipse

_NAMES = {"log det V_w": r"$\log\det V_w$", "log det V": r"$\log\det V$"}
# How the lines of two figures are told apart, also without their colours. No figure of this notebook has other methods.
_LOOKS = {"log det V": "o-", "log det V_w": "s--", "lower (11)": "^:"}
_SHADES = {"log det V_w": COLOURS["longest"], "lower (11)": COLOURS["uniform"]}


def _shade(name: str) -> str:
    return _SHADES.get(name) or colour(name)


def simplex(probabilities: Mapping[str, np.ndarray], title: str):
    """Each probability vector of three classes as a point of the triangle, with the ellipse of its softmax covariance.

    The ellipse has a third of the standard deviation of a one-hot draw in every direction. The same vectors with their
    classes exchanged are pale, so that the fall towards all three corners is seen. Returns the figure.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patheffects import withStroke

    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])
    figure, axis = plt.subplots(figsize=(5.2, 4.6))
    axis.plot(*corners[[0, 1, 2, 0]].T, color="#444", lw=1)
    for k, (x, y, align) in enumerate([(0, -0.13, "center"), (1, -0.13, "center"), (0.5, 0.92, "center")], start=1):
        axis.text(x, y, f"class {k}", ha=align, color="#444")
    for turn in (1, 2, 0):
        for name, p in probabilities.items():
            p = np.roll(p, turn)
            values, vectors = np.linalg.eigh(corners.T @ (np.diag(p) - np.outer(p, p)) @ corners)
            shade = colour("FisherSFT") if turn == 0 else "#BBBBBB"
            ellipse(axis, vectors * np.sqrt(values.clip(0)) / 3, shade, centre=p @ corners)
            axis.plot(*(p @ corners), "o", color=shade, ms=5)
            if turn == 0:
                beside: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "va": "center", "zorder": 3}
                axis.annotate(
                    name, p @ corners, (-7, 3), path_effects=[withStroke(linewidth=3, foreground="white")], **beside
                )
    axis.set_aspect("equal")
    axis.set(xlim=(-0.3, 1.3), ylim=(-0.2, 1.0))
    axis.set_axis_off()
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def designs(points: np.ndarray, chosen: Mapping[str, Sequence[int]], title: str):
    """One column per design: above, the candidate points [n, 2] with the chosen ones filled; below, the ellipse they leave.

    The points are features and the ellipse holds parameters, so each row has axes of its own. Returns the figure.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(chosen), figsize=(2.3 * len(chosen), 5.2), sharex="row", sharey="row", squeeze=False)
    reach = 1.25 * np.abs(points).max()
    longest = 0.0
    for above, below, (name, picks) in zip(axes[0], axes[1], chosen.items(), strict=True):
        X = points[list(picks)]
        above.plot(*points.T, "o", color="#444", mfc="white", ms=7)
        above.plot(*X.T, "o", color=colour("uniform"), ms=8)
        for k, point in enumerate(points):
            above.annotate(str(k), point, (0, 7), textcoords="offset points", ha="center", fontsize=10, color="#444")
        above.set_title(name, loc="center", fontsize=11)
        above.set(xlabel=r"$x_1$", xlim=(-reach, reach), ylim=(-reach, reach))
        root = np.linalg.inv(np.linalg.cholesky(X.T @ X)).T
        ellipse(below, root, colour("FisherSFT"))
        longest = max(longest, float(np.linalg.norm(root, 2)))
        below.set_xlabel(r"$\theta_1$")
    axes[1, 0].set(xlim=(-1.1 * longest, 1.1 * longest), ylim=(-1.1 * longest, 1.1 * longest))
    for axis in axes.flat:
        axis.set_aspect("equal")
    axes[0, 0].set_ylabel("features\n$x_2$")
    axes[1, 0].set_ylabel("parameters\n$\\theta_2$")
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def bounds(scales: Sequence[float], off: Mapping[str, np.ndarray], title: str):
    """How far bounds are from the exact value, per eigenvalue: zero is exact, upper bounds lie above, lower ones below.

    The vertical axis is linear between -1 and 1 and logarithmic beyond; the `scales` of the scores are evenly spaced,
    whatever their values. Returns the figure.
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 3.8))
    at = np.arange(len(scales))
    axis.plot(at, 0 * at, color="#222222", lw=1.5)
    axis.annotate("exact", (at[-1], 0), (6, 0), textcoords="offset points", va="center")
    for name, values in off.items():
        shade, label = _shade(name), _NAMES.get(name, name)
        axis.plot(at, values, _LOOKS.get(name, "o-"), color=shade)
        axis.annotate(label, (at[-1], values[-1]), (6, 0), textcoords="offset points", va="center", color=shade)
    axis.set_yscale("symlog", linthresh=1)
    axis.set_yticks([-100, -10, -1, 0, 1, 10], ["−100", "−10", "−1", "0", "1", "10"])
    axis.set_xticks(at, [f"{value:g}" for value in scales])
    axis.set(xlabel="scores multiplied by (1: the model as it is)", ylabel="bound minus exact,\nnats per eigenvalue")
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def line_panels(x: Sequence[float], panels: Mapping[str, Mapping[str, np.ndarray]], title: str, xlabel: str, ylabel: str):
    """One panel per key, one line per series: the mean of an array [repetitions, len(x)], with a band from min to max.

    The points are evenly spaced along the axis, whatever their values; names stand at the ends of lines. Returns the figure.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        len(panels), 1, figsize=(6, 0.9 + 2.2 * len(panels)), sharex=True, sharey=True, squeeze=False
    )
    at = np.arange(len(x))
    for axis, (name, series) in zip(axes[:, 0], panels.items(), strict=True):
        for label, values in series.items():
            values = np.atleast_2d(values)
            axis.fill_between(at, values.min(0), values.max(0), color=_shade(label), alpha=0.15, lw=0)
            axis.plot(at, values.mean(0), _LOOKS.get(label, "o-"), color=_shade(label), ms=5)
            end, shown = (at[-1], values.mean(0)[-1]), _NAMES.get(label, label)
            axis.annotate(shown, end, (6, 0), textcoords="offset points", va="center", color=_shade(label))
        axis.set_xticks(at, [f"{value:g}" for value in x])
        axis.set_title(name)
        axis.set_ylabel(ylabel)
    axes[-1, 0].set_xlabel(xlabel)
    axes[0, 0].annotate(
        "band: from the lowest to the highest draw", (0.02, 0.06), xycoords="axes fraction", fontsize=10, color=GREY
    )
    figure.suptitle(title, x=0.01, ha="left")
    return figure
