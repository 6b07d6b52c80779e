"""Figures of notebook 00."""

from collections.abc import Mapping

import numpy as np

from fisherlib.course.plotting.house import colour, ellipse
from fisherlib.course.plotting.intervals import Mark, differs, dots_and_intervals, shade
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

    `panels[yardstick][method] = (value, low, high)`. A yardstick whose intervals touch zero has a line there, and a dot is
    hollow if its interval holds zero; of one without intervals the dots have their numbers beside them. Returns the figure.
    """
    nulls = {
        yardstick: 0.0
        for yardstick, values in panels.items()
        if min(low for _, low, _ in values.values()) <= 0 <= max(high for *_, high in values.values())
    }
    marks = {
        yardstick: {
            method: [Mark(*value, yardstick not in nulls or differs(*value[1:], 0.0), shade(method))]
            for method, value in values.items()
        }
        for yardstick, values in panels.items()
    }
    return dots_and_intervals(marks, title, nulls=nulls)


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
