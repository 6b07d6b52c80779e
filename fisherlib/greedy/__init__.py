"""Stages 3 and 4, the information matrix and the ordered list: everything behind `fl.select`."""

from fisherlib.greedy.budget import Budget
from fisherlib.greedy.certificate import certify
from fisherlib.greedy.checks import check_budget
from fisherlib.greedy.forecast import Forecast, forecast
from fisherlib.greedy.groups import Labels, plain_labels, share_of
from fisherlib.greedy.price import quota_price
from fisherlib.greedy.race import Race
from fisherlib.greedy.score import score_selection
from fisherlib.greedy.seen import with_seen
from fisherlib.greedy.select import select
from fisherlib.greedy.selection import Selection

__all__ = [
    "Budget",
    "Forecast",
    "Labels",
    "Race",
    "Selection",
    "certify",
    "check_budget",
    "forecast",
    "plain_labels",
    "quota_price",
    "score_selection",
    "select",
    "share_of",
    "with_seen",
]
