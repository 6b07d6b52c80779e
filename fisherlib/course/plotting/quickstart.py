"""Figures of notebook 00."""

from collections.abc import Mapping

import numpy as np

from fisherlib.course.plotting.house import colour, ellipse
from fisherlib.greedy import Selection


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


def uncertainty_ellipses(matrices: Mapping[str, np.ndarray], title: str):
    """The confidence ellipse {theta : theta^T V theta <= 1} of each 2 x 2 information matrix. Returns the figure.

    Its area is pi / sqrt(det V): more information, a smaller ellipse.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(matrices), figsize=(2.3 * len(matrices), 2.7), sharex=True, sharey=True)
    for axis, (name, V) in zip(axes, matrices.items(), strict=True):
        ellipse(axis, np.linalg.inv(np.linalg.cholesky(V)).T, colour("FisherSFT"))
        axis.set_title(f"{name}\narea {np.pi / np.sqrt(np.linalg.det(V)):.2f}", fontsize=10, loc="center")
        axis.set_aspect("equal")
        axis.set_xlabel(r"$\theta_1$")
    axes[0].set_ylabel(r"$\theta_2$")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure
