"""What every figure shares: colours, files, words; and the dots and intervals behind five names: nothing cut or small."""

import base64
import io
import re
from html import escape
from itertools import combinations, pairwise

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

import fisherlib as fl
from fisherlib.evaluation import Interval

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
    rows = [nothing, nothing | {"moved": -0.2, "low": -0.25, "high": -0.1, "verdict": "better"}, nothing | {"moved": 0.1}]
    return pd.DataFrame(rows, index=["nothing", "without memorised and extreme examples", "6 epochs"])


def share(*values):
    return fl.judging.Share(*values, count=9)


BESIDE_CHANCE = {
    "with copies": {"MinHash + uniform": Interval(-0.2, -0.3, -0.1), "FisherSFT": Interval(-0.1, -0.3, 0.1)},
    "clean": {"MinHash + uniform": Interval(0.0, 0.0, 0.0), "FisherSFT": Interval(0.1, 0.05, 0.15)},
}
WAY = np.array([[2.0, 2.6, 2.4], [4.0, 2.1, 1.8]])  # losses on A and on B
FIGURES = {
    "comparison": lambda: fl.plotting.comparison(
        BESIDE_CHANCE, {"clean": {"FisherSFT": Interval(0.01, -0.01, 0.03)}}, "a title"
    ),
    "draw_by_draw": lambda: fl.plotting.draw_by_draw(
        {pool: {arm: [-0.3, d.mean, 0.2] for arm, d in found.items()} for pool, found in BESIDE_CHANCE.items()},
        BESIDE_CHANCE,
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
    "forgetting_plane": lambda: fl.plotting.forgetting_plane(
        {f"{shift} shift": {"re-warm, re-decay": WAY, "constant, lowest rate": WAY + 0.1, "infinite": WAY - 0.1,
                            "A and B from scratch": WAY[:, -1:]} for shift in ("weak", "strong")},
        ["constant, lowest rate", "re-warm, re-decay", "A and B from scratch"], "A title that states a finding, " * 3
    ),
    "replay_shares": lambda: fl.plotting.replay_shares(
        {shift: pd.DataFrame({"A": [3.0, 2.0], "B": [1.5, 1.7]}, [0.0, 0.5]) for shift in ("weak", "strong")},
        {"weak": (2.0, 1.8), "strong": (2.1, 1.9)}, "a title"
    ),
    "rates": lambda: fl.plotting.rates({"re-warm, re-decay": [0, 3e-3, 2e-3] * 2, "constant": [3e-4] * 6}, "a title", 3),
    "payoff": lambda: fl.plotting.payoff(
        {pool: pd.DataFrame({arm: vars(d) | {"verdict": d.verdict} for arm, d in found.items()}).T
         for pool, found in reversed(BESIDE_CHANCE.items())}, "a title", ["MinHash + uniform", "FisherSFT"]
    ),
}  # fmt: skip


def dots_of(axis):
    """(value, filled) of each dot, from top to bottom."""
    found = [line for line in axis.lines if line.get_marker() not in ("None", None, "") and len(line.get_xdata())]
    found = [(float(line.get_ydata()[0]), float(line.get_xdata()[0]), line.get_mfc() != "white") for line in found]
    return [(value, filled) for _, value, filled in sorted(found)]


def apart(one, other):
    """Whether two boxes do not touch, side by side or one above the other."""
    return one.x1 < other.x0 or other.x1 < one.x0 or one.y1 < other.y0 or other.y1 < one.y0


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_cut_small_or_wider_than_a_page(name):
    figure = FIGURES[name]()
    figure.canvas.draw()
    width, height = figure.get_size_inches()
    box = figure.get_tightbbox()
    assert width <= 7.2 and box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 9
    assert all(apart(one.get_window_extent(), next_.get_window_extent()) for one, next_ in pairwise(figure.axes))
    heads = [axis.title.get_window_extent() for axis in figure.axes]
    assert all(apart(one, next_) for one, next_ in pairwise(heads))


def test_a_tie_is_hollow_in_each_of_them():
    axes = {name: make().axes for name, make in FIGURES.items()}
    assert dots_of(axes["comparison"][0]) == [(-0.2, True), (-0.1, False)]
    assert dots_of(axes["comparison"][1]) == [(0.0, False), (0.1, True), (0.01, False)]
    means = [dots_of(axis)[1::2] for axis in axes["draw_by_draw"]]  # below the ticks of each row
    assert means == [[(-0.2, True), (-0.1, False)], [(0.0, False), (0.1, True)]]
    assert dots_of(axes["forest"][0]) == [(-0.1, False), (0.2, True)]
    assert dots_of(axes["wins"][0]) == [(0.6, False)] and dots_of(axes["wins"][1]) == [(1.0, True)]
    assert dots_of(axes["ratios"][0]) == [(0.5, True), (1.0, False)]
    assert dots_of(axes["moved"][0]) == [(-0.2, True)] and dots_of(axes["moved"][1]) == [(0.1, False)]
    assert [dots_of(axis) for axis in axes["payoff"]] == [[(0.0, False), (0.1, True)], [(-0.2, True), (-0.1, False)]]
    for name, make in FIGURES.items():
        if name in ("forgetting_plane", "replay_shares", "rates"):
            continue  # means without a verdict
        assert "hollow: a tie" in " ".join(text.get_text() for text in make().findobj(Text)), name


@pytest.mark.parametrize("near", [False, True])
def test_names_in_the_roofline_touch_neither_dots_nor_each_other(near):
    """Also where three steps and three roofs are nearly as high; each roof has a dotted line at its corner."""
    peaks = {"float64": 26.0, "float32": 29.0 if near else 54.0, "bfloat16": 24.0 if near else 13.0}
    points = {f"64 in {name}": (100.0 * 2**k, 24.0 if near else 0.9 * peaks[name], name) for k, name in enumerate(peaks)}
    points |= {
        "one gain": (5.4, 21.0, "float64"),
        "root's update": (4.4, 19.0, "float64"),
        "definition": (9.6, 15.0, "float64"),
    }
    figure = fl.plotting.roofline(peaks, 6.0, points, "a title")
    figure.canvas.draw()
    (axis,) = figure.axes
    assert sorted(line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == ":") == sorted(
        peak / 6 for peak in peaks.values()
    )
    boxes = [text.get_window_extent() for text in axis.texts if text.get_text() in points]
    assert len(boxes) == len(points) and all(apart(one, other) for one, other in combinations(boxes, 2))
    dots = axis.transData.transform([(x, rate) for x, rate, _ in points.values()])
    assert not any(box.contains(x, y) for box in boxes for x, y in dots)
    whole, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert whole.x0 >= 0 and whole.y0 >= 0 and whole.x1 <= width and whole.y1 <= height


def test_numbers_that_are_not_there_are_words():
    words = {name: [text.get_text() for axis in make().axes for text in axis.texts] for name, make in FIGURES.items()}
    assert words["wins"] == ["not judged", "not judged"]
    assert words["forest"].count("not run") == 4 * 5


def test_one_scale_where_no_panel_is_lost_in_it():
    same = forest(a={"x": (0.1, 0.0, 0.2, True)}, b={"x": (0.1, 0.0, 0.1, True)})
    assert np.array_equal(same.axes[0].get_xlim(), same.axes[1].get_xlim())
    apart = forest(a={"x": (0.1, 0.0, 0.2, True)}, b={"x": (0.01, 0.0, 0.02, True)})
    assert apart.axes[1].get_xlim()[1] < 0.05 and "scales differ" in apart._supxlabel.get_text()
    assert "scales differ" not in same._supxlabel.get_text()


MEANINGS = {**fl.plotting.COLOURS, "everybody else": fl.plotting.GREY}


def linear(shade):
    """The light of a colour #RRGGBB: three numbers from 0 to 1 (sRGB, IEC 61966-2-1)."""
    v = np.array([int(shade[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def contrast_with_white(shade):
    """WCAG's ratio."""
    return 1.05 / (linear(shade) @ [0.2126, 0.7152, 0.0722] + 0.05)


def lab(light):
    """CIELAB under D65."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ light
    t = xyz / [0.9505, 1.0, 1.089]
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# Machado, Oliveira and Fernandes 2009, severity 1: who lacks the cones for green, and who lacks those for red.
DEFICIENT = {
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}


def test_five_colours_are_told_apart_and_seen_on_white():
    assert len(set(MEANINGS.values())) == 5
    shades = {*MEANINGS.values(), *map(fl.plotting.colour, ("float64", "float32", "bfloat16", "log det V"))}
    assert min(map(contrast_with_white, shades)) >= 3
    apart = {}
    for name, seen in (DEFICIENT | {"normal": np.eye(3)}).items():
        for (a, one), (b, two) in combinations(MEANINGS.items(), 2):
            found = [lab((np.array(seen) @ linear(shade)).clip(0, 1)) for shade in (one, two)]
            apart[name, a, b] = np.linalg.norm(found[0] - found[1])
    least = {"deuteranopia": 25, "protanopia": 20, "normal": 40}  # grey stands back: it is named, and never alone
    for (name, a, b), distance in apart.items():
        assert distance >= (10 if "everybody else" in (a, b) else least[name]), (name, a, b)


def test_a_method_without_a_colour_of_its_own_is_grey():
    assert {fl.plotting.colour(name) for name in ("density", "all the data", "nobody")} == {fl.plotting.GREY}
    assert fl.plotting.colour("log det V") == fl.plotting.colour("FisherSFT") == "#0072B2"


def two_panels():
    figure, axes = matplotlib.pyplot.subplots(1, 2, figsize=(5, 2.5))
    for axis, name in zip(axes, ("left", "right"), strict=True):
        axis.plot([0, 1], [0, 1], color=fl.plotting.colour("FisherSFT"))
        axis.set(title=name, xlabel="picks", ylabel="nats & more")
    figure.suptitle("Greedy wins < always")
    return figure


def test_a_saved_figure_is_said_in_words_and_the_same_each_time(tmp_path):
    for name in ("a.svg", "b.svg"):
        fl.plotting.save(two_panels(), tmp_path / "new" / name)
    assert not matplotlib.pyplot.get_fignums()  # closed: no notebook shows it twice
    text = (tmp_path / "new" / "a.svg").read_text()
    assert text == (tmp_path / "new" / "b.svg").read_text()
    assert re.search('<svg [^>]*role="img">\n <title>Greedy wins &lt; always</title>', text)
    assert "<desc>Greedy wins &lt; always. Panels: left, right. Horizontal: picks. Vertical: nats &amp; more.</desc>" in text
    assert "<dc:date>" not in text
    fl.plotting.save(two_panels(), tmp_path / "c.svg", alt='Two lines. Both "rise".')
    assert "<desc>Two lines. Both &quot;rise&quot;.</desc>" in (tmp_path / "c.svg").read_text()


def test_a_label_outside_of_the_figure_is_in_the_picture_and_counts_for_its_width(tmp_path):
    def labelled(length):
        figure, axis = matplotlib.pyplot.subplots(figsize=(5, 2), layout="none")
        axis.text(1.2, 0.5, "x" * length, transform=axis.transAxes, clip_on=False)
        return figure

    fl.plotting.save(labelled(6), tmp_path / "a.svg")
    assert float(re.search('width="([0-9.]+)pt"', (tmp_path / "a.svg").read_text())[1]) > 5 * 72
    with pytest.raises(ValueError, match="expected a picture at most 7.2 inches wide, got .* with its labels: stack panels"):
        fl.plotting.save(labelled(40), tmp_path / "b.svg")
    assert not (tmp_path / "b.svg").exists()


def test_a_notebook_gets_one_output_that_is_sharp_light_and_the_size_of_the_figure(tmp_path, monkeypatch):
    from IPython import display

    shown = []
    monkeypatch.setattr(fl.plotting.house, "in_notebook", lambda: True)
    monkeypatch.setattr(display, "display", lambda *values, **named: shown.append((values, named)))
    fl.plotting.save(two_panels(), tmp_path / "a.svg")
    (((bundle,), named),) = shown
    png = base64.b64decode(bundle["image/png"])
    image = Image.open(io.BytesIO(png))
    size = named["metadata"]["image/png"]
    assert image.width == pytest.approx(2 * size["width"], abs=1) and size["width"] == pytest.approx(5 * 96, rel=0.03)
    assert image.mode == "P" and len(image.convert("RGB").getcolors(65)) <= 64 and len(png) < 30_000
    border = np.asarray(image.convert("RGB"))
    assert all((edge == 255).all() for edge in (border[0], border[-1], border[:, 0], border[:, -1]))
    assert {"#0072B2"} <= {"#{:02X}{:02X}{:02X}".format(*shade) for _, shade in image.convert("RGB").getcolors(65)}
    alt = bundle["text/plain"]
    assert bundle["text/html"].startswith(f'<img alt="{escape(alt)}" width="{size["width"]}" ')
    assert bundle["text/html"].endswith(f'src="data:image/png;base64,{bundle["image/png"]}">')


def test_the_table_of_verdicts_names_each_arm_once_below_the_notebook_that_tells_of_it():
    arms, ends = ["ifd", "fisher_per_token", "prior_1e3"], {"mean": -0.1, "low": -0.2, "high": 0.0, "verdict": "better"}
    results = {"clean": pd.DataFrame([ends] * 3, index=arms)}
    uniform = pd.DataFrame({"pool": ["clean", "redundant"], "nll": [4.0, 5.0]})
    lines = fl.plotting.verdict_table(results, uniform).splitlines()
    said = [line.strip("| ").split(" | ")[0] for line in lines[2:]]
    heads = [f"*notebook {number}*" for number in ("05", "05b", "07")]
    assert said == ["**clean**: uniform", heads[0], "FisherSFT", heads[1], "prior times 1,000", heads[2], "IFD"]
    assert "has 4.000" in lines[2] and lines[4] == "| FisherSFT | **better** | -0.100 [-0.200, +0.000] |"
    followed = fl.plotting.verdict_table(results, uniform, ["dedup_uniform", "fisher_per_token"]).splitlines()
    assert followed[3:] == ["| MinHash + uniform | not run | – |", lines[4]]
