"""The house style: one look, one colour per method, files that change only when the figure does."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fisherlib.course.study.methods import METHODS

PAGE = 7.2  # inches, the width of a figure
MARKERS = "os^Dv<>PX*"

# The same method has the same colour in every notebook: that of its row in the table of methods. The first are Okabe and
# Ito's, the others as far from these and from each other as they can be in normal vision and in three kinds of colour
# blindness. So many in one figure need markers too.
COLOURS = {method.title: method.colour for method in METHODS if method.colour} | {
    "FisherSFT, plain gain": "#003A5D",
    "FisherSFT, pilot-weighted": "#009E73",
    "log det V": "#0072B2",  # FisherSFT's objective
    "log det V_w": "#56B4E9",  # and its trace-weighted form
}
_PRECISIONS = {"float64": "#000000", "float32": "#009E73", "bfloat16": "#D55E00"}
_SPARE = ("#009E73", "#442244", "#000000")


def colour(method: str) -> str:
    """The colour of a method; an unknown one gets a spare colour that depends only on its name."""
    known = COLOURS | _PRECISIONS
    return known.get(method) or known.get(method.replace(" ", "-")) or _SPARE[sum(map(ord, method)) % len(_SPARE)]


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
