"""The living picture of notebook 01: a temperature, and what it does to probabilities, bounds and ranks."""

from collections.abc import Mapping

import numpy as np
import torch

from fisherlib.course.plotting.house import COLOURS, GREY, ellipse
from fisherlib.course.plotting.living import Living, Numbers, living

_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])

_SCRIPT = """
const {scales, probabilities: P, bounds, agreement, names} = data, last = scales.length - 1, svg = canvas(480, 560);
const corner = [[150, 262], [390, 262], [270, 54]];
const at = p => [0, 1].map(i => corner.reduce((sum, c, k) => sum + p[k] * c[i], 0));
put(svg, "polygon", {points: points(corner), fill: "none", stroke: "#444"});
[["class 1", 130, 285], ["class 2", 400, 285], ["class 3", 270, 44]].forEach(([text, x, y]) =>
  put(svg, "text", {x, y, "text-anchor": "middle"}, text));
put(svg, "polyline", {points: points(P.map(at)), fill: "none", stroke: "#bbb"});
const shape = put(svg, "polygon", {class: "covariance", fill: blue, "fill-opacity": .2, stroke: blue, "stroke-width": 2});
const dot = put(svg, "circle", {r: 5, fill: blue}), trace = put(svg, "text", {x: 10, y: 90, class: "trace"});
const chart = (area, low, high, name, lines) => {
  const {x, y} = axes(svg, area, [0, scales[last], "scores multiplied by"], [low, high, name]), inside = clipped(svg, area);
  lines.forEach(([values, stroke, dash, text, down]) => {
    const ends = values.map((v, k) => [x(scales[k]), y(v)]), [, edge] = ends[last], falls = edge > area[3];
    line(inside, {stroke, "stroke-dasharray": dash, points: points(ends)});
    put(svg, "text", {x: falls ? area[0] + 26 : area[2] - 2, y: falls ? area[3] - 8 : edge + down, fill: stroke,
      "font-size": 15, "text-anchor": falls ? "start" : "end"}, text);
  });
  const now = line(inside, {stroke: "#444", "stroke-width": 1});
  const spots = lines.map(([, fill]) => put(inside, "circle", {r: 5, fill}));
  return k => {
    set(now, {points: `${x(scales[k])},${area[1]} ${x(scales[k])},${area[3]}`});
    spots.forEach((spot, i) => set(spot, {cx: x(scales[k]), cy: y(lines[i][0][k])}));
  };
};
const [lower, exact, upper] = bounds, span = Math.max(...upper) - Math.min(...exact) || 1;
const charts = [chart([44, 350, 230, 500], Math.min(...exact) - span, Math.max(...upper) + .2 * span, "nats per eigenvalue",
    [[lower, brown, "7 4", "lower (11)", 0], [upper, purple, "7 4", "upper (12)", -24], [exact, "#000", "", "exact", 20]]),
  chart([290, 350, 470, 500], Math.min(0, ...agreement), 1, "rank correlation", [[agreement, blue, "", names[0], -14]])];
const said = words(), ranks = words();
const draw = k => {
  const p = P[k], A = p.map((a, i) => p.map((b, j) => a * (i === j) - a * b));
  const [a, b, c] = [[0, 0], [0, 1], [1, 1]].map(([i, j]) => A.flatMap((row, r) => row.map((v, s) =>
    v * corner[r][i] * corner[s][j])).reduce((t, v) => t + v));
  const l = Math.sqrt(Math.max(a, 1e-12)), m = b / l, r = Math.sqrt(Math.max(c - m * m, 0)), [x0, y0] = at(p);
  set(shape, {points: points([...Array(120).keys()].map(i => i * Math.PI / 60)
    .map(t => [x0 + l * Math.cos(t) / 2, y0 + (m * Math.cos(t) + r * Math.sin(t)) / 2]))});
  set(dot, {cx: x0, cy: y0});
  trace.textContent = `tr A(p) = ${(A[0][0] + A[1][1] + A[2][2]).toFixed(2)}`;
  charts.forEach(chart => chart(k));
  said.textContent = `scores multiplied by ${number(scales[k])}, nats per eigenvalue: ` +
    `${number(lower[k])} (lower bound) \\u2264 ${number(exact[k])} (exact) \\u2264 ${number(upper[k])} (upper bound)`;
  ranks.textContent = `rank correlation of ${names[0]} with ${names[1]}: ${number(agreement[k])}`;
};
slider("scores multiplied by", scales.length, data.at, draw);
draw(data.at);
"""


def living_softmax(
    scales: Numbers,
    probabilities: np.ndarray | torch.Tensor,
    bounds: Mapping[str, Numbers],
    agreement: Numbers,
    at: float = 1.0,
    names: tuple[str, str] = ("log det V", "log pdet H"),
) -> Living:
    """A slider over the factor of the scores, `scales`: what becomes of one token's p, of the bounds, of the ranking.

    `probabilities` [scales, 3] is p in the triangle, with the ellipse of A(p) (half a standard deviation each way) and its
    trace. `bounds` has "lower", "exact" and "upper", and `agreement` the rank correlation of the two `names`: numbers for
    each scale. `at`: the scale shown first. Raises `ValueError` for other shapes, and for bounds that do not hold.
    """
    at_scale, P = np.asarray(scales, dtype=float), np.asarray(probabilities, dtype=float)
    lines = np.array([bounds[name] for name in ("lower", "exact", "upper")] + [agreement], dtype=float).round(4)
    if P.shape != (len(at_scale), 3) or lines.shape != (4, len(at_scale)) or (np.diff(at_scale) <= 0).any():
        raise ValueError(
            f"expected rising scales, and for each three probabilities, three bounds and an agreement, got {P.shape} "
            f"probabilities and {lines.shape[1:]} numbers for {len(at_scale)} scales"
        )
    if (np.diff(lines[:3], axis=0) < -1e-3).any():
        raise ValueError("expected lower <= exact <= upper at every scale, got one that is not")
    first = int(np.abs(at_scale - at).argmin())
    steps = np.unique(np.linspace(0, len(at_scale) - 1, 6).astype(int))
    frames = [_frame(at_scale, P, lines, names, k) for k in (first, *steps)]
    lower, exact, upper, ranks = lines[:, first]
    alt = (
        f"With scores multiplied by {at_scale[first]:g}, tr A(p) is {1 - (P[first] ** 2).sum():.2f}; per eigenvalue "
        f"{lower:.1f} <= {exact:.1f} <= {upper:.1f} nats; the rank correlation of {names[0]} with {names[1]} is {ranks:.2f}"
    )
    data = {"scales": at_scale, "probabilities": P.round(6), "bounds": lines[:3], "agreement": lines[3], "at": first}
    return living(frames, _SCRIPT, data | {"names": names}, alt)


def _frame(scales, P, lines, names, k):
    import matplotlib.pyplot as plt

    p, (lower, exact, upper, agreement) = P[k], lines
    figure, axes = plt.subplot_mosaic([["p", "p"], ["b", "r"]], figsize=(5.0, 5.4), height_ratios=[1.2, 1])
    axis = axes["p"]
    axis.plot(*_CORNERS[[0, 1, 2, 0]].T, color="#444", lw=1)
    for number, (x, y, align) in enumerate([(0, -0.09, "right"), (1, -0.09, "left"), (0.5, 0.9, "center")], start=1):
        axis.text(x, y, f"class {number}", ha=align)
    axis.plot(*(P @ _CORNERS).T, color="#BBBBBB", lw=1)
    values, vectors = np.linalg.eigh(_CORNERS.T @ (np.diag(p) - np.outer(p, p)) @ _CORNERS)
    ellipse(axis, 0.5 * vectors * np.sqrt(values.clip(0)), COLOURS["FisherSFT"], centre=p @ _CORNERS)
    axis.plot(*(p @ _CORNERS), "o", color=COLOURS["FisherSFT"])
    axis.text(-0.55, 0.72, f"tr A(p) = {1 - (p**2).sum():.2f}")
    axis.set(xlim=(-0.6, 1.6), ylim=(-0.12, 1.0), aspect="equal")
    axis.set_axis_off()
    span = upper.max() - exact.min() or 1.0
    axes["b"].set(ylim=(exact.min() - span, upper.max() + 0.2 * span))
    axes["b"].set_title("nats per eigenvalue", fontsize=11)
    axes["r"].set(ylim=(min(0, agreement.min()), 1))
    axes["r"].set_title("rank correlation", fontsize=11)
    for name, values, shade, dash, label, up in (
        ("b", lower, COLOURS["uniform"], "--", "lower (11)", 0),
        ("b", upper, COLOURS["longest"], "--", "upper (12)", 26),
        ("b", exact, "black", "-", "exact", -18),
        ("r", agreement, COLOURS["FisherSFT"], "-", names[0], 17),
    ):
        axes[name].plot(scales, values, dash, color=shade)
        axes[name].plot(scales[k], values[k], "o", color=shade)
        if values[-1] < axes[name].get_ylim()[0]:  # it leaves the panel: the name stands beside it, at the foot
            axes[name].annotate(label, (0, 0), (18, 5), xycoords="axes fraction", textcoords="offset points", color=shade)
        else:
            end = (scales[-1], values[-1])
            axes[name].annotate(label, end, (-2, up), textcoords="offset points", ha="right", va="center", color=shade)
    for name in "br":
        axes[name].axvline(scales[k], color=GREY, lw=1)
        axes[name].set(xlim=(0, scales[-1]), xlabel="scores multiplied by")
    figure.suptitle(f"Scores multiplied by {scales[k]:g}", x=0.02, ha="left")
    return figure
