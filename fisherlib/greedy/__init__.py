"""Stages 3 and 4, the information matrix and the ordered list: everything behind `fl.select`."""

from fisherlib.greedy.budget import Budget
from fisherlib.greedy.certificate import certify
from fisherlib.greedy.checks import check_budget
from fisherlib.greedy.forecast import Forecast, forecast
from fisherlib.greedy.race import Race
from fisherlib.greedy.score import score_selection
from fisherlib.greedy.select import select
from fisherlib.greedy.selection import Selection

__all__ = [
    "Budget",
    "Forecast",
    "Race",
    "Selection",
    "certify",
    "check_budget",
    "forecast",
    "score_selection",
    "select",
]
