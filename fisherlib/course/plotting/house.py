"""The house style: one look, five colours with a meaning, and files that change only when the figure does."""

import base64
import io
import re
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

PAGE = 7.2  # inches, the width of a figure
GREY = "#777777"
MARKERS = "os^Dv<>PX*"

# A reader follows four methods from figure to figure; everybody else is grey. Each has at least 3:1 against white, and they
# stay apart for who sees no red or no green (tests/course/test_plotting.py).
COLOURS = {
    "FisherSFT": "#0072B2",
    "uniform": "#B45F06",
    "recipe": "#009E73",
    "longest": "#8A1F66",
}
_OTHERS = {"log det V": COLOURS["FisherSFT"], "float64": "#000000", "float32": "#009E73", "bfloat16": "#D55E00"}

_DPI, _ON_SCREEN = 192, 96  # pixels of the picture in an inch, and of a page: shown at its size in inches, and sharp
_SHADES = 64  # enough for lines, dots and soft edges; a picture is a third as heavy as with all colours
_PAD = 0.04  # inches of white around a picture: that of the layout, so that a full page stays one


def colour(name: str) -> str:
    """The colour of one of the four methods, of "log det V" (what FisherSFT maximises), or of a precision; else grey."""
    return (COLOURS | _OTHERS).get(name, GREY)


def style() -> None:
    """Apply the house style to matplotlib."""
    import matplotlib as mpl

    mpl.rcParams.update(
        {
            "figure.dpi": _ON_SCREEN,  # of a figure that is shown without `save`
            "savefig.dpi": _DPI,
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "axes.titlesize": 12,
            "axes.titlelocation": "left",
            "figure.titlesize": 12,
            "xtick.labelsize": 10,
            "ytick.labelsize": 10,
            "legend.fontsize": 10,
            "lines.linewidth": 2,
            "lines.markersize": 5,
            "axes.linewidth": 0.8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#E6E6E6",
            "axes.axisbelow": True,
            "legend.frameon": False,
        }
    )


def save(figure, path: str | Path, alt: str | None = None) -> None:
    """Write the figure as an SVG, show it where a notebook runs, and close it.

    The SVG holds the sentence `alt` for readers who cannot see it; by default that is made of titles and names of axes. It
    has no date: an unchanged figure is an unchanged file. A notebook gets one output: an `<img alt>`, the same PNG on its
    own, and the sentence. Raises `ValueError` for a picture that is wider than a page, labels counted.
    """
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    alt = alt or said_by(figure)
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "fisherlib"}):  # the same figure gives the same file
        figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight", pad_inches=_PAD)
    width = float(buffer.getvalue().partition('width="')[2].partition("pt")[0]) / 72
    if width > PAGE + 2 * _PAD:
        raise ValueError(
            f"expected a picture at most {PAGE} inches wide, got {width:.2f} with its labels: stack panels two by two"
        )
    head, _, rest = buffer.getvalue().partition(">\n <metadata>")
    named = f"<title>{escape(alt.partition('. ')[0])}</title>\n <desc>{escape(alt)}</desc>"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(f'{head} role="img">\n {named}\n <metadata>{rest}', encoding="utf-8")
    if in_notebook():
        from IPython.display import display

        png, size = picture(pixels(figure))
        display(bundle(png, size, alt), metadata={"image/png": size}, raw=True)
    plt.close(figure)


def said_by(figure) -> str:
    """The sentence that a figure says of itself: its title, its panels, the names of its axes."""
    axes = [axis for axis in figure.axes if axis.axison]
    heads = [axis.get_title(loc) for axis in figure.axes for loc in ("left", "center", "right")]
    title = figure.get_suptitle()
    if not title and heads:
        title = next(filter(None, heads), "")
    panels = [head for head in dict.fromkeys(heads) if head and head != title]
    across = [axis.get_xlabel() for axis in axes] + [figure.get_supxlabel()]
    up = [axis.get_ylabel() for axis in axes] + [figure.get_supylabel()]
    parts = [title] + [
        f"{name}: {', '.join(dict.fromkeys(filter(None, values)))}"
        for name, values in (("Panels", panels), ("Horizontal", across), ("Vertical", up))
        if any(values)
    ]
    plain = [" ".join(re.sub(r"[${}\\]", "", part).split()).rstrip(".") for part in parts if part]  # no marks of TeX
    return ". ".join(plain) + "."


def in_notebook() -> bool:
    """Whether a kernel runs this, and a picture can be shown."""
    python = sys.modules.get("IPython")
    return python is not None and hasattr(python.get_ipython(), "kernel")


def pixels(figure, dpi: int = _DPI):
    """A figure as an image in full colour, with the white around it cut away."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", pad_inches=_PAD)
    return Image.open(buffer).convert("RGB")


def picture(image, dpi: int = _DPI) -> tuple[bytes, dict[str, int]]:
    """An image as a light PNG, and the width and height at which a page should show it."""
    buffer = io.BytesIO()
    in_few_colours(image, _SHADES).save(buffer, format="png", optimize=True, dpi=(dpi, dpi))
    return buffer.getvalue(), shown_size(image, dpi)


def in_few_colours(image, shades: int):
    """An image with a palette: white, black, the colours of the house, and the most useful others."""
    from PIL import Image

    kept = [[int(of[k : k + 2], 16) for k in (1, 3, 5)] for of in ("#FFFFFF", "#000000", *COLOURS.values(), GREY)]
    others = np.array(image.quantize(shades - len(kept), dither=0).getpalette()).reshape(-1, 3)
    apart = np.abs(others[:, None] - kept).max(2).min(1) > 8  # a near-white would be taken for white
    palette = Image.new("P", (1, 1))
    palette.putpalette([level for of in [*kept, *others[apart].tolist()][:shades] for level in of])
    return image.quantize(palette=palette, dither=0)


def shown_size(image, dpi: int) -> dict[str, int]:
    """The size on a page of an image with so many pixels in an inch."""
    return {name: round(value * _ON_SCREEN / dpi) for name, value in zip(("width", "height"), image.size, strict=True)}


def image_tag(png: bytes, size: dict[str, int], alt: str) -> str:
    """An `<img>` that carries its picture, as wide as the page allows."""
    data = base64.b64encode(png).decode()
    return f'<img alt="{escape(alt)}" width="{size["width"]}" style="max-width:100%" src="data:image/png;base64,{data}">'


def bundle(png: bytes, size: dict[str, int], alt: str) -> dict[str, str]:
    """What a notebook displays: with alternative text, as a picture alone, or as a sentence, whatever the page can show."""
    return {
        "text/html": image_tag(png, size, alt),
        "image/png": base64.b64encode(png).decode(),
        "text/plain": alt,
    }


def ellipse(axis, root: np.ndarray, shade: str, centre=(0.0, 0.0)) -> None:
    """The image of the unit circle under `root` [2, 2]: the ellipse of the covariance root root^T."""
    angle = np.linspace(0, 2 * np.pi, 200)
    x, y = np.asarray(centre)[:, None] + root @ np.stack([np.cos(angle), np.sin(angle)])
    axis.fill(x, y, color=shade, alpha=0.2)
    axis.plot(x, y, color=shade, lw=1.5)


def plain_ticks(axis, steps: Sequence[int] = (1, 2, 5)) -> None:
    """Ticks of a logarithmic axis at 1, 2, 5, 10, ... written as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
