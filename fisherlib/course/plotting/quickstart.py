"""Figures of notebook 00."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from fisherlib.course.plotting.house import GREY, colour, ellipse
from fisherlib.greedy import Selection


@runtime_checkable
class Difference(Protocol):
    """A mean, its interval and its verdict: an `Interval` of fisherlib, or a row of the study's verdicts."""

    mean: float
    low: float
    high: float
    verdict: str


def information_curves(pools: Mapping[str, Mapping[str, Selection]], title: str, *, reference: str = "uniform"):
    """Information beyond the reference's, against tokens spent: one panel per pool, one line per method.

    The lines are straight between two picks. Returns the figure.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(pools), 1, figsize=(6, 0.8 + 2.1 * len(pools)), sharex=True, sharey=True, squeeze=False)
    for axis, (pool, arms) in zip(axes[:, 0], pools.items(), strict=True):
        spent = np.linspace(0, max(arm.costs.sum() for arm in arms.values()), 60)
        known = {name: np.interp(spent, *_curve(arm)) for name, arm in arms.items()}
        ends = {}
        for name, line in known.items():
            axis.plot(spent, line - known[reference], color=colour(name), lw=2)
            ends[name] = line[-1] - known[reference][-1]
        axis.set_title(pool)
        axis.set_ylabel("nats more\nthan uniform")
        axis.set_xlim(0, spent[-1])
        _names_at_the_ends(axis, spent[-1], ends)
    axes[-1, 0].set_xlabel("response tokens spent")
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def _curve(arm: Selection) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([[0], arm.costs.cumsum()]), np.concatenate([[0], arm.gains.cumsum()])


def _names_at_the_ends(axis, x: float, ends: Mapping[str, float]) -> None:
    """Names beside the ends of lines, from bottom to top and never closer than a line of type."""
    low, high = axis.get_ylim()
    least, height = 0.13 * (high - low), -np.inf
    for name, value in sorted(ends.items(), key=lambda item: item[1]):
        height = max(value, height + least)
        axis.annotate(
            name, (x, height), (6, 0), textcoords="offset points", color=colour(name), va="center", annotation_clip=False
        )


def comparison(now: Mapping[str, Mapping[str, Difference]], study: Mapping[str, Mapping[str, Difference]], title: str):
    """Each method minus uniform: one panel per pool, and in each row this run (a dot) above the study's rows (a diamond).

    `now[pool][method]`, and `study[pool][method]` where the study has that method. A hollow mark is a tie. Returns the
    figure.
    """
    figure, rows = _pools(now, title, "dot: this run   " + ("diamond: the study   " if study else "") + "hollow: a tie")
    for axis, pool, at, method in rows:
        _interval(axis, at - 0.16, now[pool][method], colour(method), "o", 8)
        if method in study.get(pool, {}):
            _interval(axis, at + 0.2, study[pool][method], GREY, "D", 5)
    return figure


def draw_by_draw(
    gaps: Mapping[str, Mapping[str, Sequence[float]]], means: Mapping[str, Mapping[str, Difference]], title: str
):
    """Each method minus uniform, draw by draw: one panel per pool, and in each row the draws above their mean.

    `gaps[pool][method]`: one difference for each draw; `means[pool][method]`: their mean. A hollow mark is a tie. Returns
    the figure.
    """
    figure, rows = _pools(means, title, "ticks: single draws   dot: their mean   hollow: a tie")
    for axis, pool, at, method in rows:
        axis.plot(gaps[pool][method], [at - 0.22] * len(gaps[pool][method]), "|", color=GREY, ms=9, mew=1.5)
        _interval(axis, at + 0.12, means[pool][method], colour(method), "o", 8)
    return figure


def _pools(means: Mapping[str, Mapping[str, Difference]], title: str, key: str):
    """One panel per pool with a row for each method and a line at zero; the figure, and (axis, pool, row, method)."""
    import matplotlib.pyplot as plt

    height = 1.2 + sum(0.5 + 0.55 * len(methods) for methods in means.values())
    heights = [len(methods) + 0.4 for methods in means.values()]
    figure, axes = plt.subplots(len(means), 1, figsize=(6, height), sharex=True, squeeze=False, height_ratios=heights)
    rows = []
    for axis, (pool, methods) in zip(axes[:, 0], means.items(), strict=True):
        axis.axvline(0, color=colour("uniform"), lw=1.5)
        axis.set_yticks(range(len(methods)), methods)
        axis.set_ylim(len(methods) - 0.4, -0.6)
        axis.grid(axis="y", visible=False)
        axis.set_title(pool)
        rows += [(axis, pool, at, method) for at, method in enumerate(methods)]
    axes[-1, 0].set_xlabel("held-out loss minus uniform's, nats per token\n(left of the line is better)")
    axes[0, 0].annotate(
        key, (0, 1), (0, 24), xycoords="axes fraction", textcoords="offset points", fontsize=10, color="#555"
    )
    figure.suptitle(title, x=0.01, ha="left")
    return figure, rows


def _interval(axis, y: float, value: Difference, shade: str, marker: str, size: float | int) -> None:
    inside = "white" if value.verdict == "tie" else shade
    axis.plot([value.low, value.high], [y, y], color=shade, lw=2, solid_capstyle="round")
    axis.plot(value.mean, y, marker, color=shade, mfc=inside, ms=size, mew=1.5)


def uncertainty_ellipses(
    matrices: Mapping[str, np.ndarray],
    title: str,
    arrows: Mapping[str, tuple[np.ndarray, Sequence[str]]] | None = None,
):
    """The ellipse {theta : theta^T V theta <= 1} of each 2 x 2 information matrix, two panels a row. Returns the figure.

    Its area is pi / sqrt(det V): more information, a smaller ellipse. That of the first matrix is dashed in all panels.
    `arrows[name] = (x, panels)` draws the feature x: dark in the panels named, where it is one of the picks, else pale.
    """
    import matplotlib.pyplot as plt

    columns = min(len(matrices), 2)
    lines = -(-len(matrices) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(2.6 * columns, 2.9 * lines), sharex=True, sharey=True, squeeze=False
    )
    first = next(iter(matrices.values()))
    for axis, (name, V) in zip(axes.flat, matrices.items(), strict=False):
        outline = _root(first) @ np.stack([np.cos(_TURN), np.sin(_TURN)])
        axis.plot(*outline, color=GREY, lw=1, ls="--")
        ellipse(axis, _root(V), colour("FisherSFT"))
        for label, (x, panels) in (arrows or {}).items():
            shade = "#222222" if name in panels else "#AAAAAA"
            axis.annotate(
                "", x, (0, 0), arrowprops={"arrowstyle": "-|>", "color": shade, "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
            )
            axis.annotate(label, x, _beyond(x), textcoords="offset points", color=shade, ha="center", va="center")
        axis.set_title(f"{name}: area {np.pi / np.sqrt(np.linalg.det(V)):.2f}", loc="center", fontsize=11)
        axis.set_aspect("equal")
        if arrows:
            reach = 1.2 * max(1.0, *(float(np.abs(x).max()) for x, _ in arrows.values()))
            axis.set(xlim=(-reach, reach), ylim=(-reach, reach))
    for axis in axes[-1]:
        axis.set_xlabel(r"$\theta_1$")
    for axis in axes[:, 0]:
        axis.set_ylabel(r"$\theta_2$")
    for axis in axes.flat[len(matrices) :]:
        axis.set_axis_off()
    figure.suptitle(title, x=0.01, ha="left")
    return figure


_TURN = np.linspace(0, 2 * np.pi, 200)


def _root(V: np.ndarray) -> np.ndarray:
    return np.linalg.inv(np.linalg.cholesky(V)).T


def _beyond(x: np.ndarray) -> tuple[float, float]:
    """Ten points beyond the tip of an arrow."""
    u, v = 10 * np.asarray(x) / np.linalg.norm(x)
    return float(u), float(v)
