"""The checkers and lines of notebook 10: what is open says so, a wrong answer is told what is wrong with it."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from fisherlib.course.exercises import objectives
from fisherlib.course.plotting import curve_panels, style

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def house_style():
    with matplotlib.rc_context():
        style()
        yield


def orpo(row, log_p):
    good, bad = (one.mean() for one in log_p)
    odds = [one - torch.log1p(-one.exp()) for one in (good, bad)]
    return -good - 0.1 * torch.nn.functional.logsigmoid(odds[0] - odds[1])


def test_what_is_open_says_so(capsys):
    for checker in (objectives.runaway, objectives.speed, objectives.odds_ratio):
        checker(...)
    assert capsys.readouterr().out.count("○ not answered yet") == 3


def test_mate_runs_away_and_a_flipped_sign_is_named(capsys):
    objectives.runaway([-5.0, -50.0, -500.0])
    assert "✓" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="the other sign"):
        objectives.runaway([5.0, 50.0, 500.0])
    with pytest.raises(AssertionError):
        objectives.runaway([-10.0, -100.0, -1000.0])


@pytest.mark.parametrize("beta", [10 / 9, 10 / 11])
def test_both_roots_are_as_fast(beta, capsys):
    objectives.speed(beta)
    assert "✓" in capsys.readouterr().out


@pytest.mark.parametrize("beta", [1, 2, 0.5, 100 / 99])
def test_another_beta_is_not(beta):
    with pytest.raises(AssertionError):
        objectives.speed(beta)


def test_orpo_is_known_and_near_misses_are_not(capsys):
    objectives.odds_ratio(orpo)
    assert "✓" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="stay in torch"):
        objectives.odds_ratio(lambda row, log_p: float(orpo(row, log_p).detach()))
    with pytest.raises(AssertionError, match="means, then the odds"):
        objectives.odds_ratio(lambda row, log_p: orpo(row, [one.sum().reshape(1) for one in log_p]))
    with pytest.raises(AssertionError, match="means, then the odds"):
        objectives.odds_ratio(lambda row, log_p: float("nan") * log_p[0].mean())


def test_lines_are_means_with_a_band_and_each_name_stands_once_in_the_legend():
    panels = {
        "left": {
            "SPIN": (np.arange(3), np.array([[0.0, 1.0, 2.0], [0.0, 3.0, 4.0]])),
            "SFT": (np.arange(3), [0.0, -1.0, -2.0]),
        },
        "right": {"SPIN": (np.arange(3), [0.0, 0.5, 0.5])},
    }
    figure = curve_panels(panels, "a title", "round", ["nats", ""], zero=True, whole=True)
    figure.canvas.draw()
    left, right = figure.axes
    spin = next(line for line in left.lines if line.get_label() == "SPIN")
    assert spin.get_ydata().tolist() == [0, 2, 3] and len(left.collections) == 1 and not right.collections
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["SPIN", "SFT"]
    again = next(line for line in right.lines if line.get_label() == "SPIN")
    assert (again.get_color(), again.get_linestyle()) == (spin.get_color(), spin.get_linestyle())
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert width <= 7.2 and box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
    plt.close(figure)
