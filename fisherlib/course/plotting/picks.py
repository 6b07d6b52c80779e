"""Living pictures of notebook 02: one lazy pick, the certificate that closes, what a pick takes from the others."""

from collections.abc import Mapping

import numpy as np
import torch

from fisherlib.course.plotting.house import COLOURS
from fisherlib.course.plotting.living import Living, Numbers, living

_BLUE, _BROWN, _PALE = COLOURS["FisherSFT"], COLOURS["uniform"], "#B9D6EA"
_FIRST = 8  # picks that a hand can follow

_LAZY = """
const gains = data.gains, N = gains[0].length, top = 1.05 * Math.max(...gains[0]);
const svg = canvas(480, 330), area = [44, 30, 470, 280];
const {x, y} = axes(svg, area, [-0.7, N - 0.3, "example"], [0, top, "gain (nats)"]);
const bars = gains[0].map((_, i) => put(svg, "rect", {x: x(i - 0.4), width: x(0.8) - x(0),
  style: still ? "" : "transition:y .5s,height .5s"}));
const said = words(), count = words();
let old, fresh, picked, looked, naive;
const round = () => picked.length, name = i => `example ${i}`;
const draw = () => {
  bars.forEach((bar, i) => {
    const won = picked.includes(i);
    set(bar, {y: y(old[i]), height: y(0) - y(old[i]), fill: won ? brown : fresh[i] ? blue : "#b9d6ea"});
  });
  count.textContent = `${looked} gains evaluated, ${naive} without laziness; picked: ${picked.join(", ") || "none"}`;
};
const step = () => {
  if (round() === gains.length) return true;
  const rest = old.map((g, i) => picked.includes(i) ? -1 : g), i = rest.indexOf(Math.max(...rest));
  if (fresh[i]) {
    picked.push(i);
    said.textContent = `pick ${round()}: ${name(i)} was checked and is still the tallest: it wins`;
    fresh = fresh.map(() => false);
    if (round() < gains.length) naive += N - round();
  } else {
    const now = gains[round()][i];
    said.textContent = `pick ${round() + 1}: ${name(i)} is the tallest, so it is checked: ` +
      `${number(old[i])} becomes ${number(now)}`;
    [old[i], fresh[i]] = [now, true];
    looked += 1;
  }
  draw();
  return fresh.every(f => !f);
};
const start = () => {
  [old, fresh, picked, looked, naive] = [[...gains[0]], gains[0].map(() => true), [], N, N];
  said.textContent = "pick 1: all gains have been evaluated once; the tallest will win";
  draw();
};
button("step", step);
button("to the next pick", () => { while (!step()); });
button("begin again", start);
put(box, "p", {style: "margin:.3em 0;color:#555"}, "pale: an old gain, which can only fall; blue: checked; brown: picked");
start();
"""


def living_lazy(gains: np.ndarray | torch.Tensor) -> Living:
    """One bar for each example, as tall as its last known gain; a button checks the tallest until one stays: it is picked.

    `gains` [picks, examples]: row k holds everybody's true gain once greedy's first k picks are known, as
    `log det(I + X_i V^-1 X_i^T)` gives it; the picks follow from it, the lowest index wins a tie. At most 8 rows and 40
    examples, best sorted by the first row. Raises `ValueError` for more, or for a gain that rises.
    """
    gains = np.asarray(gains, dtype=float).round(4)
    if gains.ndim != 2 or not (len(gains) <= _FIRST and gains.shape[1] <= 40):
        raise ValueError(f"expected gains [at most {_FIRST} picks, at most 40 examples], got {gains.shape}: take the first")
    picks: list[int] = []
    seen: list[tuple] = []  # what each step shows
    shown, fresh, looked = gains[0].copy(), np.ones(gains.shape[1], dtype=bool), gains.shape[1]
    while len(picks) < len(gains):
        rest = np.where(np.isin(np.arange(len(shown)), picks), -1.0, shown)
        i = int(rest.argmax())
        if fresh[i]:
            picks.append(i)
            said, fresh = f"pick {len(picks)}: example {i} stays the tallest and wins", np.zeros_like(fresh)
        else:
            now = gains[len(picks), i]
            if now > shown[i] + 1e-3:
                raise ValueError(f"expected gains that never rise, got {shown[i]:g}, then {now:g} for example {i}")
            said = f"pick {len(picks) + 1}: example {i} is checked, {shown[i]:.1f} becomes {now:.1f}"
            shown[i], fresh[i], looked = now, True, looked + 1
        seen.append((shown.copy(), fresh.copy(), list(picks), said))
    film = [seen[-1], *seen[:9]]
    alt = (
        f"Bars of the last known gains of {len(shown)} examples. {len(gains)} lazy picks, {', '.join(map(str, picks))}, "
        f"needed {looked} evaluations instead of {sum(len(shown) - k for k in range(len(gains)))}"
    )
    return living([_bars(*state, top=1.05 * gains[0].max()) for state in film], _LAZY, {"gains": gains}, alt)


def _bars(shown, fresh, picks, said, *, top: float):
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5.0, 3.4))
    shades = [_BROWN if i in picks else _BLUE if fresh[i] else _PALE for i in range(len(shown))]
    axis.bar(range(len(shown)), shown, color=shades)
    axis.set(ylim=(0, top), xlabel="example", ylabel="gain (nats)")
    axis.set_title(said, fontsize=11)
    axis.grid(axis="x", visible=False)
    return figure


_CERTIFICATE = """
const {sizes, reached, bounds, names} = data, last = sizes.length - 1;
const svg = canvas(480, 340), area = [52, 30, 470, 290], best = sizes.map((_, k) => Math.min(...bounds.map(b => b[k])));
const {x, y} = axes(svg, area, [0, sizes[last], "examples picked"], [0, 1.6 * reached[last], "information (nats)"]);
const inside = clipped(svg, area), along = (values, ks) => points(ks.map(k => [x(sizes[k]), y(values[k])]));
const all = sizes.map((_, k) => k), shades = [brown, purple];
put(inside, "polygon", {fill: "#e6e6e6", points: along(reached, all) + " " + along(best, [...all].reverse())});
bounds.forEach((values, k) => line(inside, {stroke: shades[k], "stroke-dasharray": "7 4", points: along(values, all)}));
[["greedy", blue], ...names.map((name, k) => [name, shades[k]])].forEach(([name, fill], k) =>
  put(svg, "text", {x: 464, y: 282 - 22 * k, "text-anchor": "end", fill}, name));
line(inside, {stroke: blue, points: along(reached, all)});
const at = line(inside, {stroke: "#444", "stroke-width": 5}), dot = put(inside, "circle", {r: 6, fill: blue});
const said = words();
const draw = k => {
  set(at, {points: `${x(sizes[k])},${y(reached[k])} ${x(sizes[k])},${y(best[k])}`});
  set(dot, {cx: x(sizes[k]), cy: y(reached[k])});
  said.textContent = `${sizes[k]} examples picked: ${number(reached[k])} nats; ` +
    bounds.map((values, b) => `${names[b]}: at most ${number(values[k])}`).join("; ") +
    `. So at least ${Math.floor(100 * reached[k] / best[k])} % of the best possible`;
};
slider("examples picked", sizes.length, data.at, draw);
put(box, "p", {style: "margin:.3em 0;color:#555"}, "dashed: what no set can exceed; the best possible is in the grey");
draw(data.at);
"""


def living_certificate(
    sizes: Numbers, reached: Numbers, bounds: Mapping[str, Numbers], at: int | np.integer | None = None
) -> Living:
    """The gap between what greedy reached and two upper bounds, for a number of picks that a slider chooses.

    `reached` and the two `bounds`, by name, belong to the increasing `sizes`, at most 60; `at`: the size shown first, by
    default a middle one. Raises `ValueError` for other shapes, or a bound below what was reached.
    """
    of, lines = np.asarray(sizes, dtype=int), np.array([reached, *bounds.values()], dtype=float).round(3)
    if lines.shape != (3, len(of)) or len(of) > 60 or (np.diff(of) <= 0).any():
        raise ValueError(
            f"expected at most 60 rising sizes, and as many numbers reached and in two bounds, got {lines.shape[1:]} "
            f"numbers in {len(lines)} rows for {len(of)} sizes"
        )
    if (lines[1:] < lines[0] - 1e-2).any():
        raise ValueError("expected bounds above what was reached, got one below: are they of the same sizes?")
    known = len(of) // 2 if at is None else int(np.searchsorted(of, at))
    share = np.floor(100 * lines[0] / lines[1:].min(0)).astype(int)
    steps = np.unique(np.linspace(0, len(of) - 1, 7).astype(int))
    frames = [_gap(of, lines, list(bounds), k, share[k]) for k in (known, *steps)]
    alt = (
        f"What greedy reached and two upper bounds. With {of[known]} picks at least {share[known]} % of the best "
        f"possible is certain, with {of[-1]} picks {share[-1]} %"
    )
    data = {"sizes": of, "reached": lines[0], "bounds": lines[1:], "names": list(bounds), "at": known}
    return living(frames, _CERTIFICATE, data, alt)


def _gap(sizes, lines, names, k, share):
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5.0, 3.7))
    axis.fill_between(sizes, lines[0], lines[1:].min(0), color="#E6E6E6")
    for values, name, shade in zip(lines[1:], names, (_BROWN, COLOURS["longest"]), strict=True):
        axis.plot(sizes, values, "--", color=shade, label=name)
    axis.plot(sizes, lines[0], color=_BLUE, label="greedy")
    axis.plot([sizes[k]] * 2, [lines[0, k], lines[1:, k].min()], color="#444", lw=5, solid_capstyle="butt")
    axis.plot(sizes[k], lines[0, k], "o", color=_BLUE, ms=8)
    axis.set(xlim=(0, sizes[-1]), ylim=(0, 1.6 * lines[0, -1]), xlabel="examples picked", ylabel="information (nats)")
    axis.set_title(f"{sizes[k]} examples picked: at least {share} % of the best", fontsize=12)
    axis.legend(loc="lower right")
    return figure


_GAINS = """
const rows = data.points, reach = data.reach, cells = 17, picks = [], svg = canvas(480, 506), area = [34, 24, 470, 460];
const frame = axes(svg, area, [-reach, reach, "feature x₁"], [-reach, reach, "feature x₂"]), {x, y} = frame;
const side = 2 * reach / cells;
const gain = ([a, b, c], [p, q]) => Math.log1p((c * p * p - 2 * b * p * q + a * q * q) / (a * c - b * b));
const V = list => list.map(k => rows[k]).reduce(([a, b, c], [p, q]) => [a + p * p, b + p * q, c + q * q],
  [data.prior, 0, data.prior]);
const first = rows.map(row => gain(V([]), row)), corner = gain(V([]), [reach, reach]);
const field = [...Array(cells * cells).keys()].map(k => [(k % cells + .5) * side - reach,
  (Math.floor(k / cells) + .5) * side - reach]);
const squares = field.map(([p, q]) => put(svg, "rect", {x: x(p - side / 2), y: y(q + side / 2), width: x(side) - x(0),
  height: y(0) - y(side), fill: blue, "shape-rendering": "crispEdges"}));
const dots = rows.map(([p, q], k) => put(svg, "g", {tabindex: 0, role: "checkbox", "aria-label": `point ${k}`,
  transform: `translate(${x(p)} ${y(q)})`, style: "cursor:pointer"}));
dots.forEach(g => (put(g, "circle", {r: 18, fill: "transparent"}), put(g, "circle", {r: 9, stroke: "#222"}),
  put(g, "circle", {fill: blue}), put(g, "title")));
const said = words(), now = words();
const draw = () => {
  const M = V(picks), left = rows.map(row => gain(M, row));
  squares.forEach((square, k) => set(square, {"fill-opacity": .75 * gain(M, field[k]) / corner}));
  dots.forEach((g, k) => {
    const picked = picks.includes(k);
    set(g, {"aria-checked": picked});
    set(g.children[1], {fill: picked ? brown : "white"});
    set(g.children[2], {r: picked ? 0 : 9 * Math.sqrt(left[k] / first[k])});
    g.children[3].textContent = picked ? "picked" : `${Math.round(100 * left[k] / first[k])} % is left`;
  });
  const rest = rows.map((_, k) => k).filter(k => !picks.includes(k)), before = V(picks.slice(0, -1));
  const lost = rest.map(k => Math.round(100 * (1 - left[k] / gain(before, rows[k]))));
  said.textContent = picks.length && rest.length ? `the last pick took between ${Math.min(...lost)} % and ` +
    `${Math.max(...lost)} % of what the others still had` : "touch a point to pick it: what is left of the other gains?";
  now.textContent = `picked: ${picks.length}; log det has grown by ${number(Math.log(M[0] * M[2] - M[1] ** 2) -
    2 * Math.log(data.prior))}`;
};
const flip = k => { picks.includes(k) ? picks.splice(picks.indexOf(k), 1) : picks.push(k); draw(); };
dots.forEach((g, k) => {
  g.onclick = () => flip(k);
  g.onkeydown = e => { if (" Enter".includes(e.key)) { flip(k); e.preventDefault(); } };
});
button("let all go", () => { picks.length = 0; draw(); });
put(box, "p", {style: "margin:.3em 0;color:#555"}, "brown: picked; how full a circle is: what is left of its first gain; " +
  "the darker the field, the more a point there would gain");
draw();
"""


def living_gains(points: np.ndarray | torch.Tensor, prior: float = 1.0, picks: Numbers = ()) -> Living:
    """Touch any of the points [n, 2]: what picking it takes from the gain log(1 + x^T V^-1 x) of all the others.

    V = prior I plus x x^T of each pick. How full a circle is shows what is left of its first gain; the darker the field,
    the more a point there would gain. `picks`: the film's, for instance greedy's first three. At most 30 points. Raises
    `ValueError` for more, or a prior that is not positive.
    """
    points, picks = np.asarray(points, dtype=float).round(4), [int(k) for k in picks]
    if points.ndim != 2 or points.shape[1] != 2 or len(points) > 30 or not prior > 0:
        raise ValueError(f"expected at most 30 points in the plane and a prior above 0, got {points.shape} and {prior}")
    reach = float(1.15 * np.abs(points).max())
    frames = [_field(points, prior, reach, picks[:k]) for k in (len(picks), *range(len(picks) + 1))]
    alt = f"{len(points)} points in the plane over a field of gains; {len(picks)} picks have flattened it along their lines"
    return living(frames, _GAINS, {"points": points, "prior": prior, "reach": reach}, alt)


def _gain(x: np.ndarray, V: np.ndarray):
    return np.log1p(np.einsum("...i,ij,...j", x, np.linalg.inv(V), x))


def _field(points, prior, reach, picks):
    import matplotlib.pyplot as plt

    V0 = prior * np.eye(2)
    V = V0 + points[picks].T @ points[picks]
    line = (np.arange(17) + 0.5) * 2 * reach / 17 - reach
    field = _gain(np.stack(np.meshgrid(line, line), axis=-1), V) / _gain(np.array([reach, reach]), V0)
    figure, axis = plt.subplots(figsize=(5.0, 5.2))
    shades = 1 - 0.75 * field[..., None] * (1 - np.array([0, 0x72, 0xB2]) / 255)  # blue on white, as the drawing has it
    axis.imshow(shades.clip(0, 1), origin="lower", extent=(-reach, reach, -reach, reach), interpolation="none")
    rest = np.setdiff1d(np.arange(len(points)), picks)
    axis.plot(*points[rest].T, "o", color="white", mec="#222", ms=13)
    left = _gain(points, V) / _gain(points, V0).clip(1e-12)
    axis.scatter(points[rest, 0], points[rest, 1], s=13**2 * left[rest], color=_BLUE, lw=0, zorder=3)
    axis.plot(*points[picks].T, "o", color=_BROWN, mec="#222", ms=13)
    axis.grid(visible=False)
    axis.set(xlabel="feature x₁", ylabel="feature x₂")
    axis.set_title(f"After {len(picks)} picks: the darker, the more there is to gain")
    return figure
