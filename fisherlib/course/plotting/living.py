"""Pictures that live: a film where nothing runs, and a drawing that a hand moves where scripts do. No kernel, no network."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fisherlib.course.plotting.house import COLOURS, GREY, PAGE, bundle, in_few_colours, shown_size

Numbers = Sequence[Any] | np.ndarray | torch.Tensor
_LIMIT = 120_000  # bytes of a bundle: the film is in it twice
_DPIS = (144, 96)  # the sharper one if it is light enough; a still picture has 192
_SHADES = 32
_FIRST, _OTHERS = 3000, 900  # milliseconds: the finished picture can be read, then the film runs

# What the scripts of all living pictures use. `put` adds an element, of SVG inside a drawing; `axes` draws a frame that
# stands still and gives the maps from numbers to pixels; `slider` and `button` are plain inputs, so the keyboard works too.
# Colours and sizes are set here, since a page may be dark, and a telephone shows 480 units on 340 pixels.
_SHARED = """
const box = document.currentScript.parentElement, [blue, brown, green, purple, grey] = colours;
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
const set = (at, values) => Object.entries(values).forEach(([name, value]) => at.setAttribute(name, value));
const put = (parent, tag, values = {}, text = "") => {
  const drawn = tag === "svg" || parent instanceof SVGElement;
  const made = drawn ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  set(made, values);
  made.textContent = text;
  return parent.appendChild(made);
};
const canvas = (width, height) => put(box, "svg", {viewBox: `0 0 ${width} ${height}`, width, role: "group",
  "aria-label": alt, style: "display:block;max-width:100%;font:16px sans-serif"});
const line = (svg, values) => put(svg, "polyline", {fill: "none", "stroke-width": 2, ...values});
const points = pairs => pairs.map(pair => pair.join()).join(" ");
const number = value => String(+value.toFixed(2)).replace("-", "\\u2212");
const ticks = (low, high) => {
  const rough = (high - low) / 4, ten = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find(m => m * ten >= rough) * ten, first = Math.ceil(low / step - 1e-9);
  return [...Array(Math.floor(high / step + 1e-9) - first + 1).keys()].map(k => (first + k) * step);
};
const axes = (svg, [left, top, right, bottom], [x0, x1, xname], [y0, y1, yname]) => {
  const x = v => left + (v - x0) / (x1 - x0) * (right - left), y = v => bottom - (v - y0) / (y1 - y0) * (bottom - top);
  ticks(x0, x1).forEach(v => (line(svg, {points: `${x(v)},${top} ${x(v)},${bottom}`, stroke: "#e6e6e6"}),
    put(svg, "text", {x: x(v), y: bottom + 18, "text-anchor": "middle", "font-size": 14}, number(v))));
  ticks(y0, y1).forEach(v => (line(svg, {points: `${left},${y(v)} ${right},${y(v)}`, stroke: "#e6e6e6"}),
    put(svg, "text", {x: left - 6, y: y(v) + 5, "text-anchor": "end", "font-size": 14}, number(v))));
  line(svg, {points: `${left},${top} ${left},${bottom} ${right},${bottom}`, stroke: "#444"});
  put(svg, "text", {x: (left + right) / 2, y: bottom + 38, "text-anchor": "middle"}, xname);
  put(svg, "text", {x: left, y: top - 8}, yname);
  return {x, y};
};
const clipped = (svg, [left, top, right, bottom]) => {
  const name = "clip" + Math.random().toString(36).slice(2), inside = put(svg, "clipPath", {id: name});
  put(inside, "rect", {x: left, y: top, width: right - left, height: bottom - top});
  return put(svg, "g", {"clip-path": `url(#${name})`});
};
const words = () => put(box, "p", {"aria-live": "polite", style: "margin:.3em 0"});
const slider = (name, count, at, act) => {
  const label = put(box, "label", {style: "display:block;margin:.3em 0"}, name + " ");
  const input = put(label, "input", {type: "range", min: 0, max: count - 1, step: 1, style: "width:60%"});
  input.value = at;
  input.oninput = () => act(+input.value);
  return input;
};
const button = (name, act) => {
  const made = put(box, "button", {style: "font:inherit;margin:.3em .5em .3em 0;padding:.2em .8em"}, name);
  made.onclick = act;
  return made;
};
box.textContent = "";
box.onkeydown = event => event.stopPropagation();  // no command of a notebook's page
box.style.cssText = "background:white;color:black;font:16px sans-serif;max-width:560px";
"""


@dataclass(frozen=True)
class Living:
    """What a notebook displays: the drawing where scripts run, otherwise the film, otherwise the sentence."""

    html: str
    png: bytes
    size: dict[str, int]
    alt: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict[str, str], dict[str, dict]]:
        shown = bundle(self.png, self.size, self.alt)
        shown["text/html"] = f"<div>{shown['text/html']}{self.html}</div>"
        return shown, {"image/png": self.size}


def living(frames: Sequence, script: str, data: Mapping[str, Any], alt: str) -> Living:
    """A picture for the last line of a cell, from matplotlib figures of one size, which are closed.

    The first of the `frames` is the finished picture, which is also what is printed; the film begins after it. `script`
    draws into `box` with the helpers above and finds `data` (numbers, strings, lists, arrays) and `alt`, the sentence. It
    should keep the film's axes, and ask `still` before it moves anything by itself.

    Raises `ValueError` for frames that differ in size or are wider than a page, and for a bundle above 120 KB at 96 dpi.
    """
    import matplotlib.pyplot as plt

    sizes = {tuple(frame.get_size_inches()) for frame in frames}
    if len(sizes) != 1 or next(iter(sizes))[0] > PAGE:
        raise ValueError(f"expected frames of one size, at most {PAGE} inches wide, got {sorted(sizes)}")
    made = None
    for dpi in _DPIS:
        images = [_drawn(frame, dpi) for frame in frames]
        made = Living(_page(script, data, alt), _film(images), shown_size(images[0], dpi), alt)
        weight = sum(map(len, made._repr_mimebundle_()[0].values()))
        if weight <= _LIMIT:
            break
    else:
        raise ValueError(f"expected a picture of at most {_LIMIT:,} bytes, got {weight:,}: fewer frames, or less data")
    for frame in frames:
        plt.close(frame)
    return made


def _page(script: str, data: Mapping[str, Any], alt: str) -> str:
    """One script in a scope of its own, so that two pictures on a page do not meet."""
    things = data, alt, [*COLOURS.values(), GREY]
    texts = (json.dumps(thing, default=_plain).replace("</", "<\\/") for thing in things)
    begin = "<script>(() => {{\nconst data = {}, alt = {}, colours = {};".format(*texts)
    return f"{begin}{_SHARED}{script.rstrip()}\n}})();</script>"


def _plain(value):
    if isinstance(value, np.generic | np.ndarray | torch.Tensor):
        return value.tolist()
    raise TypeError(f"expected numbers, strings, lists or dicts to draw, got {type(value).__name__}")


def _drawn(frame, dpi: int):
    """A figure as an image of its full size."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    frame.set_dpi(dpi)
    canvas = FigureCanvasAgg(frame)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _film(images: Sequence) -> bytes:
    """An animated PNG in one palette; of every frame but the first only what has changed, the rest is transparent."""
    from PIL import Image, PngImagePlugin

    w, h = images[0].size
    strip = Image.new("RGB", (w, h * len(images)))
    for k, image in enumerate(images):
        strip.paste(image, (0, k * h))
    film = in_few_colours(strip, _SHADES)
    seen = np.asarray(film).reshape(len(images), h, w)
    changed = np.where(seen[1:] == seen[:-1], np.uint8(_SHADES), seen[1:])
    frames = [Image.fromarray(frame) for frame in (seen[0], *changed)]
    for frame in frames:
        frame.putpalette((film.getpalette() + [255] * 3 * _SHADES)[: 3 * _SHADES + 3])
    buffer = io.BytesIO()
    times, over = [_FIRST] + [_OTHERS] * len(changed), PngImagePlugin.Blend.OP_OVER
    first, *rest = frames
    options = {"append_images": rest, "duration": times, "loop": 0, "blend": over, "transparency": _SHADES}
    first.save(buffer, format="png", save_all=True, optimize=True, **options)
    return buffer.getvalue()
