"""One style, one colour per method everywhere, a handful of figures. Needs the `notebooks` extra (matplotlib)."""

from collections.abc import Mapping
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


def uncertainty_ellipses(matrices: Mapping[str, np.ndarray], title: str):
    """The confidence ellipse {theta : theta^T V theta <= 1} of each 2 x 2 information matrix. Returns the figure.

    Its area is pi / sqrt(det V): more information, a smaller ellipse.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(matrices), figsize=(2.3 * len(matrices), 2.7), sharex=True, sharey=True)
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    for axis, (name, V) in zip(axes, matrices.items(), strict=True):
        x, y = np.linalg.solve(np.linalg.cholesky(V).T, circle)
        axis.fill(x, y, color=colour("FisherSFT"), alpha=0.25)
        axis.plot(x, y, color=colour("FisherSFT"), lw=1.5)
        axis.set_title(f"{name}\narea {np.pi / np.sqrt(np.linalg.det(V)):.2f}", fontsize=10, loc="center")
        axis.set_aspect("equal")
        axis.set_xlabel(r"$\theta_1$")
    axes[0].set_ylabel(r"$\theta_2$")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure
