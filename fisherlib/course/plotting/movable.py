"""Points that a hand chooses and drags, the ellipse that they leave, and what each other point would add."""

from collections.abc import Sequence

import numpy as np

from fisherlib.course.plotting.house import COLOURS, ellipse
from fisherlib.course.plotting.living import Living, Numbers, living

_ACROSS, _UP = 2.6, 2.1  # how far the axes go; they stand still, so that an ellipse that shrinks looks smaller
_NAMES = {"across": "feature x₁ of a point, parameter θ₁ of the ellipse", "up": "x₂ of a point, θ₂ of the ellipse"}

# The formulas of notebooks 01 and 02: V = V0 + X^T X, the ellipse u^T V u = 1 as L^-T times the unit circle, its area
# pi / sqrt(det V), and the gain log(1 + x^T V^-1 x) of each point that is not chosen.
_SCRIPT = """
const rows = data.points, on = rows.map((_, k) => data.chosen.includes(k));
const svg = canvas(480, 424), {x, y} = axes(svg, [30, 24, 470, 379], [-2.6, 2.6, data.across], [-2.1, 2.1, data.up]);
const shape = put(svg, "polygon", {fill: blue, "fill-opacity": .2, stroke: blue, "stroke-width": 2});
const dots = rows.map((_, k) => put(svg, "g", {tabindex: 0, role: "checkbox", "aria-label": `point ${k}`,
  style: "cursor:grab;touch-action:none"}));
dots.forEach(g => (put(g, "circle", {r: 20, fill: "transparent"}), put(g, "circle", {r: 13, class: "next", fill: "none",
  stroke: blue, "stroke-width": 3}), put(g, "circle", {r: 7, class: "dot", stroke: "#444"}),
  put(g, "text", {y: -8})));
const labels = dots.map(g => [["name", "black"], ["gain", blue]].map(([name, fill]) =>
  put(g.lastChild, "tspan", {class: name, fill})));
const said = words(), best = words();
const V = list => list.reduce(([a, b, c], [p, q]) => [a + p * p, b + p * q, c + q * q], [data.prior, 0, data.prior]);
const det = ([a, b, c]) => a * c - b * b, area = d => Math.PI / Math.sqrt(d);
const gain = ([a, b, c], [p, q]) => Math.log1p((c * p * p - 2 * b * p * q + a * q * q) / (a * c - b * b));
const least = size => Math.max(...[...Array(1 << rows.length).keys()]
  .map(set => rows.filter((_, k) => set >> k & 1)).filter(list => list.length === size).map(list => det(V(list))));
const draw = () => {
  const M = V(rows.filter((_, k) => on[k])), [a, b, c] = M, d = det(M), n = on.filter(Boolean).length, known = d > 1e-9;
  const l = Math.sqrt(a), m = b / l, r = Math.sqrt(c - m * m), gains = rows.map((row, k) => on[k] ? -1 : gain(M, row));
  const next = known && n < rows.length ? gains.indexOf(Math.max(...gains)) : -1;
  set(shape, {points: points(!known ? [] : [...Array(180).keys()].map(i => i * Math.PI / 90)
    .map(t => [x((Math.cos(t) - m * Math.sin(t) / r) / l), y(Math.sin(t) / r)]))});
  dots.forEach((g, k) => {
    const [, ring, dot, label] = g.children, left = rows[k][0] > 1.5;
    set(g, {transform: `translate(${x(rows[k][0])} ${y(rows[k][1])})`, "aria-checked": on[k]});
    set(dot, {fill: on[k] ? brown : "white"});
    set(ring, {visibility: k === next ? "visible" : "hidden"});
    set(label, {x: left ? -14 : 14, "text-anchor": left ? "end" : "start"});
    labels[k][0].textContent = k;
    labels[k][1].textContent = known && !on[k] ? ` +${gains[k].toFixed(2)}` : "";
  });
  said.textContent = `${n} chosen: ` + (known ? `log det ${Math.log(d).toFixed(2)}, area ${area(d).toFixed(2)}` +
    (next < 0 ? "" : `; greedy would take point ${next}: it adds ${gains[next].toFixed(2)}`)
    : "one direction is unknown, the ellipse is infinitely long");
  best.textContent = known && n ? `the smallest area that ${n} of these points can leave: ${area(least(n)).toFixed(2)}` : "";
};
const clip = (v, most) => Math.max(-most, Math.min(most, v));
const to = (k, p, q) => { rows[k] = [clip(p, 2.6), clip(q, 2.1)]; draw(); };
dots.forEach((g, k) => {
  let from = null, moved = false;
  const flip = () => { on[k] = !on[k]; draw(); };
  g.onpointerdown = e => { from = [e.clientX, e.clientY]; moved = false; g.setPointerCapture(e.pointerId); };
  g.onpointermove = e => {
    moved ||= from && Math.hypot(e.clientX - from[0], e.clientY - from[1]) > 3;
    if (!from || !moved) return;
    const p = new DOMPoint(e.clientX, e.clientY).matrixTransform(svg.getScreenCTM().inverse());
    to(k, (p.x - x(0)) / (x(1) - x(0)), (p.y - y(0)) / (y(1) - y(0)));
  };
  g.onpointerup = () => { if (from && !moved) flip(); from = null; };
  g.onpointercancel = () => { from = null; };
  g.onkeydown = e => {
    const step = {ArrowLeft: [-.1, 0], ArrowRight: [.1, 0], ArrowUp: [0, .1], ArrowDown: [0, -.1]}[e.key];
    if (step) to(k, rows[k][0] + step[0], rows[k][1] + step[1]);
    else if (e.key === " " || e.key === "Enter") flip();
    else return;
    e.preventDefault();
  };
});
draw();
"""


def movable(points: np.ndarray, chosen: Numbers, prior: float = 0.0) -> Living:
    """Points [n, 2], those `chosen` filled, and the ellipse of V = prior I + X^T X: touch one to choose it, drag to move it.

    Beside each other point stands its gain log(1 + x^T V^-1 x); greedy's next pick has a ring. Below stand log det V, the
    area, and the smallest area that as many of these points can leave. n is at most 10, since all their sets are tried at
    every move. The film picks in the order of `chosen`. Raises `ValueError` for more points, points outside of 2.6 by 2.1,
    or a choice that leaves no ellipse.
    """
    chosen, n = [int(k) for k in chosen], len(points)
    if n > 10 or np.linalg.det(_information(points[chosen], prior)) < 1e-9:
        raise ValueError(
            f"expected at most 10 points, and a choice of them that spans the plane, got {n} points and {chosen}"
        )
    if (np.abs(points) > (_ACROSS, _UP)).any():
        raise ValueError(f"expected points within {_ACROSS} to each side and {_UP} up and down, got {points.tolist()}")
    steps = [chosen[:k] for k in range(len(chosen)) if np.linalg.det(_information(points[chosen[:k]], prior)) > 1e-9]
    frames = [_frame(points, picks, prior) for picks in (chosen, *steps, chosen)]
    area = np.pi / np.sqrt(np.linalg.det(_information(points[chosen], prior)))
    alt = f"{n} points, {', '.join(map(str, chosen))} of them chosen, and the ellipse of area {area:.2f} that these leave"
    return living(frames, _SCRIPT, {"points": points, "chosen": chosen, "prior": prior, **_NAMES}, alt)


def _information(X: np.ndarray, prior: float) -> np.ndarray:
    return prior * np.eye(2) + X.T @ X


def _frame(points: np.ndarray, picks: Sequence[int], prior: float):
    """One picture of the film: the same axes, labels and marks as the drawing."""
    import matplotlib.pyplot as plt

    blue, brown = COLOURS["FisherSFT"], COLOURS["uniform"]
    V = _information(points[picks], prior)
    rest = np.setdiff1d(np.arange(len(points)), picks)
    gains = np.log1p(np.einsum("ni,ij,nj->n", points, np.linalg.inv(V), points))
    figure, axis = plt.subplots(figsize=(5.0, 4.4))
    ellipse(axis, np.linalg.inv(np.linalg.cholesky(V)).T, blue)
    axis.plot(*points.T, "o", color="#444", mfc="white", ms=9)
    axis.plot(*points[picks].T, "o", color=brown, ms=9)
    if len(rest):
        axis.plot(*points[rest[gains[rest].argmax()]], "o", color=blue, mfc="none", ms=19, mew=2)
    for k, point in enumerate(points):
        label, left = f"{k} +{gains[k]:.2f}" if k in rest else str(k), point[0] > 1.5
        side, ha = (-9, "right") if left else (9, "left")
        axis.annotate(label, point, xytext=(side, 5), textcoords="offset points", ha=ha, fontsize=11)
    area = np.pi / np.sqrt(np.linalg.det(V))
    axis.set(xlim=(-_ACROSS, _ACROSS), ylim=(-_UP, _UP), aspect="equal", xlabel=_NAMES["across"], ylabel=_NAMES["up"])
    axis.set_title(f"{len(picks)} chosen: log det {np.linalg.slogdet(V)[1]:.2f}, area {area:.2f}")
    return figure
