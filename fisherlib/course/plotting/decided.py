"""Figures of notebook 12."""

from collections.abc import Mapping

import pandas as pd

from fisherlib.course.plotting.house import COLOURS, GREY
from fisherlib.course.plotting.intervals import Mark, dots_and_intervals
from fisherlib.evaluation import Interval

_FOLLOWED = {"mean": COLOURS["FisherSFT"], "median": COLOURS["recipe"], "mode": COLOURS["uniform"]}


def readings(table: pd.DataFrame, title: str):
    """RMSE and MAE of each reading of one distribution, as it is and through a line; the constant and the raters' noise.

    `table`: of `decided.rated`. Returns the figure.
    """
    panels = {
        metric: {
            name: [Mark(value, value, value, None, _FOLLOWED.get(str(name).removesuffix(", line"), GREY))]
            for name, value in table[metric].items()
        }
        for metric in ("RMSE", "MAE")
    }
    return dots_and_intervals(panels, title, nulls={}, xlabel="points of the scale from 1 to 9: left is better")


def differences(panels: Mapping[str, Mapping[str, Interval]], title: str, xlabel: str):
    """Differences with intervals, a panel for each kind; hollow where the interval holds zero. Returns the figure."""
    marks = {
        panel: {name: [Mark(i.mean, i.low, i.high, not i.low <= 0 <= i.high)] for name, i in rows.items()}
        for panel, rows in panels.items()
    }
    return dots_and_intervals(marks, title, nulls=dict.fromkeys(panels, 0.0), xlabel=xlabel)
