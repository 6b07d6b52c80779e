"""The figure of dots and intervals behind five names: nothing is cut, small or wide, and a verdict needs no colour."""

from itertools import pairwise

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

import fisherlib as fl

matplotlib.use("Agg")
NAN = float("nan")
DOMAINS = ("dialogue", "python", "documentation", "html", "javascript")
LONG = "deduplicated, half uniform, half FisherSFT"


@pytest.fixture(autouse=True)
def house_style():
    with matplotlib.rc_context():
        fl.plotting.style()
        yield
    matplotlib.pyplot.close("all")


def forest(**panels):
    return fl.plotting.forest(panels, "A title that states a finding, " * 5, "held-out NLL minus uniform's")


def versus(ratios):
    rows = [(name, 50, value, value / 1.1, value * 1.1, verdict) for name, value, verdict in ratios]
    return pd.DataFrame(rows, columns=["method", "n", "value", "low", "high", "verdict"])


def what_moved():
    nothing = {"gap": 0.1, "gap_low": -0.1, "gap_high": 0.3, "moved": 0.0, "low": 0.0, "high": 0.0, "verdict": "tie"}
    rows = [nothing, nothing | {"moved": -0.2, "low": -0.3, "high": -0.1, "verdict": "better"}, nothing | {"moved": 0.1}]
    return pd.DataFrame(rows, index=["nothing", "without memorised and extreme examples", "6 epochs"])


def share(*values):
    return fl.judging.Share(*values, count=9)


FIGURES = {
    "comparison": lambda: fl.plotting.comparison(
        {
            "information, nats\n(more is better)": {"FisherSFT": (2391.2, 2391.2, 2391.2), "uniform": (1811.0,) * 3},
            "NLL minus uniform's\n(left is better)": {"FisherSFT": (-0.2, -0.3, -0.1), "uniform": (0.0, 0.0, 0.0)},
        },
        "a title",
    ),
    "forest": lambda: forest(
        **{name: {LONG: (-0.1, -0.2, 0.1, False), name: (0.2, 0.1, 0.3, True)} for name in DOMAINS}
    ),
    "wins": lambda: fl.plotting.wins(
        {
            "a judge (heard)": {"recipe": share(0.6, 0.4, 0.8), "longest": fl.judging.Share(NAN, NAN, NAN, count=0)},
            "another (not heard)": {"recipe": share(1.0, 1.0, 1.0)},
        },
        "a title",
    ),
    "ratios": lambda: fl.plotting.ratios(
        {m: {"as before": versus([("FisherSFT", 0.5, "better"), ("density", 1.0, "tie")])} for m in ("max", "mean")},
        "a title",
    ),
    "moved": lambda: fl.plotting.moved(what_moved(), "a title"),
}  # fmt: skip


def dots_of(axis):
    """(value, filled) of each dot, from top to bottom."""
    found = [line for line in axis.lines if line.get_marker() not in ("None", None, "") and len(line.get_xdata())]
    found = [(float(line.get_ydata()[0]), float(line.get_xdata()[0]), line.get_mfc() != "white") for line in found]
    return [(value, filled) for _, value, filled in sorted(found)]


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_cut_small_or_wider_than_a_page(name):
    figure = FIGURES[name]()
    figure.canvas.draw()
    width, height = figure.get_size_inches()
    box = figure.get_tightbbox()
    assert width <= 7.2 and box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 9
    assert all(left.get_window_extent().x1 < right.get_window_extent().x0 for left, right in pairwise(figure.axes))
    heads = [axis.title.get_window_extent() for axis in figure.axes]
    assert all(left.x1 < right.x0 for left, right in pairwise(heads))


def test_a_tie_is_hollow_in_each_of_them():
    axes = {name: make().axes for name, make in FIGURES.items()}
    assert dots_of(axes["comparison"][1]) == [(-0.2, True), (0.0, False)]
    assert dots_of(axes["forest"][0]) == [(-0.1, False), (0.2, True)]
    assert dots_of(axes["wins"][0]) == [(0.6, False)] and dots_of(axes["wins"][1]) == [(1.0, True)]
    assert dots_of(axes["ratios"][0]) == [(0.5, True), (1.0, False)]
    assert dots_of(axes["moved"][1]) == [(-0.2, True), (0.1, False)]
    for name, make in FIGURES.items():
        assert "hollow: a tie" in " ".join(text.get_text() for text in make().findobj(Text)), name


def test_numbers_that_are_not_there_are_words():
    words = {name: [text.get_text() for axis in make().axes for text in axis.texts] for name, make in FIGURES.items()}
    assert words["comparison"] == ["2,391", "1,811"]  # no interval, no line: the number itself
    assert words["wins"] == ["not judged", "not judged"]
    assert words["forest"].count("not run") == 4 * 5


def test_one_scale_where_no_panel_is_lost_in_it():
    same = forest(a={"x": (0.1, 0.0, 0.2, True)}, b={"x": (0.1, 0.0, 0.1, True)})
    assert np.array_equal(same.axes[0].get_xlim(), same.axes[1].get_xlim())
    apart = forest(a={"x": (0.1, 0.0, 0.2, True)}, b={"x": (0.01, 0.0, 0.02, True)})
    assert apart.axes[1].get_xlim()[1] < 0.05 and "scales differ" in apart._supxlabel.get_text()
    assert "scales differ" not in same._supxlabel.get_text()
