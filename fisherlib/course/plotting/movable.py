"""A picture for the hand: points to choose and to drag, and the ellipse that they leave. Without a kernel or a network."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fisherlib.course.plotting.house import colour
from fisherlib.course.plotting.theory import designs

# The formulas of notebook 01: V = X^T X, the ellipse u^T V u = 1 as L^-T times the unit circle, area pi / sqrt(det V).
# The axes stand still, so that an ellipse that shrinks looks smaller. Where scripts run, the drawing replaces the image.
_SCRIPT = """
(() => {
  const {points, chosen, colours, alt} = DATA, W = 560, H = 420, S = 100;
  const box = document.currentScript.parentElement, on = points.map((_, k) => chosen.includes(k));
  box.innerHTML = `<svg viewBox="${-W / 2} ${-H / 2} ${W} ${H + 50}" width="${W}" role="group" aria-label="${alt}"
      style="max-width:100%;background:white;font:15px sans-serif">
    <path d="M${-W / 2} 0H${W / 2}M0 ${-H / 2}V${H / 2}" stroke="#ddd"/>
    <polygon fill="${colours[0]}" fill-opacity=".2" stroke="${colours[0]}"/>` +
    points.map((_, k) => `<g tabindex="0" role="checkbox" aria-label="point ${k}" style="cursor:grab;touch-action:none">
      <circle r="18" fill="transparent"/><circle class="dot" r="8" stroke="#444"/><text x="11" y="-9">${k}</text></g>`)
      .join("") + `<text class="said" x="${12 - W / 2}" y="${H / 2 + 16}" aria-live="polite"></text>
     <text class="best" x="${12 - W / 2}" y="${H / 2 + 38}" fill="#555"></text></svg>`;
  const find = name => box.querySelector(name), svg = find("svg"), dots = [...box.querySelectorAll("g")];
  const V = rows => rows.reduce(([a, b, c], [x, y]) => [a + x * x, b + x * y, c + y * y], [0, 0, 0]);
  const det = ([a, b, c]) => a * c - b * b, area = d => d > 1e-9 ? Math.PI / Math.sqrt(d) : Infinity;
  const best = size => Math.max(...[...Array(1 << points.length).keys()]
    .map(set => points.filter((_, k) => set >> k & 1)).filter(rows => rows.length === size).map(rows => det(V(rows))));
  const draw = () => {
    const rows = points.filter((_, k) => on[k]), [a, b, c] = V(rows), d = det([a, b, c]), n = rows.length;
    const l = Math.sqrt(a), m = b / l, r = Math.sqrt(c - m * m), known = d > 1e-9;
    const edge = known ? [...Array(180).keys()].map(i => i * Math.PI / 90)
      .map(t => [(Math.cos(t) - m * Math.sin(t) / r) / l, Math.sin(t) / r]) : [];
    find("polygon").setAttribute("points", edge.map(([u, v]) => `${S * u},${-S * v}`).join(" "));
    dots.forEach((g, k) => {
      g.setAttribute("transform", `translate(${S * points[k][0]} ${-S * points[k][1]})`);
      g.setAttribute("aria-checked", on[k]);
      g.querySelector(".dot").setAttribute("fill", on[k] ? colours[1] : "white");
    });
    find(".said").textContent = `${n} chosen: ` + (known
      ? `log det ${Math.log(d).toFixed(2)}, area ${area(d).toFixed(2)}`
      : "one direction is unknown, the ellipse is infinitely long");
    find(".best").textContent = n > 1 ? `the best ${n} of these points leave an area of ${area(best(n)).toFixed(2)}` : "";
  };
  const to = (k, x, y) => { points[k] = [Math.max(-2.6, Math.min(2.6, x)), Math.max(-2, Math.min(2, y))]; draw(); };
  dots.forEach((g, k) => {
    let from = null, moved = false;
    const flip = () => { on[k] = !on[k]; draw(); };
    g.onpointerdown = e => { from = [e.clientX, e.clientY]; moved = false; g.setPointerCapture(e.pointerId); };
    g.onpointermove = e => {
      moved ||= from && Math.hypot(e.clientX - from[0], e.clientY - from[1]) > 3;
      if (!from || !moved) return;
      const p = new DOMPoint(e.clientX, e.clientY).matrixTransform(svg.getScreenCTM().inverse());
      to(k, p.x / S, -p.y / S);
    };
    g.onpointerup = () => { if (from && !moved) flip(); from = null; };
    g.onpointercancel = () => { from = null; };
    g.onkeydown = e => {
      const step = {ArrowLeft: [-.1, 0], ArrowRight: [.1, 0], ArrowUp: [0, .1], ArrowDown: [0, -.1]}[e.key];
      if (step) to(k, points[k][0] + step[0], points[k][1] + step[1]);
      else if (e.key === " " || e.key === "Enter") flip();
      else return;
      e.preventDefault();
      e.stopPropagation();
    };
  });
  draw();
})();
"""


@dataclass(frozen=True)
class Movable:
    """What a notebook displays: a script where scripts run, otherwise the finished picture, otherwise the sentence."""

    html: str
    png: bytes
    alt: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.html, "image/png": base64.b64encode(self.png).decode(), "text/plain": self.alt}


def movable(points: np.ndarray, chosen: Sequence[int]) -> Movable:
    """The candidate points [n, 2], those `chosen` filled, and their ellipse: touch a point to choose it, drag it to move it.

    Below it stand the area of the ellipse and the smallest that as many of these points can leave. n is at most 10, since
    all their sets are tried at every move. Raises `ValueError` for more points, or none chosen that leave an ellipse.
    """
    import matplotlib.pyplot as plt

    X, n = points[list(chosen)], len(points)
    if n > 10 or np.linalg.matrix_rank(X) < 2:
        raise ValueError(
            f"expected at most 10 points, and a choice of them that spans the plane, got {n} points and {list(chosen)}"
        )
    area = np.pi / np.sqrt(np.linalg.det(X.T @ X))
    alt = f"{n} points, {', '.join(map(str, chosen))} of them chosen, and the ellipse of area {area:.2f} that these leave"
    figure = designs(points, {f"area {area:.2f}": chosen}, f"{len(X)} of {n} points")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    plt.close(figure)
    png = buffer.getvalue()
    data = {"points": points.tolist(), "chosen": [int(k) for k in chosen], "alt": alt}
    data["colours"] = [colour("FisherSFT"), colour("uniform")]
    image = f'<img alt="{alt}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
    html = f"<div>{image}<script>{_SCRIPT.replace('DATA', json.dumps(data), 1)}</script></div>"
    return Movable(html, png, alt)
