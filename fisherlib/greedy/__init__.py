"""Stages 3 and 4, the information matrix and the ordered list: everything behind `fl.select`."""

from fisherlib.greedy.budget import Budget
from fisherlib.greedy.certificate import certify
from fisherlib.greedy.checks import check_budget
from fisherlib.greedy.forecast import Forecast, forecast, grown
from fisherlib.greedy.groups import Labels, plain_labels, share_of
from fisherlib.greedy.nested import nested
from fisherlib.greedy.price import quota_price, quota_prices
from fisherlib.greedy.race import Race
from fisherlib.greedy.reasons import CODES, Reasons, explain
from fisherlib.greedy.score import score_selection
from fisherlib.greedy.seen import with_seen
from fisherlib.greedy.select import select
from fisherlib.greedy.selection import Selection

__all__ = [
    "CODES",
    "Budget",
    "Forecast",
    "Labels",
    "Race",
    "Reasons",
    "Selection",
    "certify",
    "check_budget",
    "explain",
    "forecast",
    "grown",
    "nested",
    "plain_labels",
    "quota_price",
    "quota_prices",
    "score_selection",
    "select",
    "share_of",
    "with_seen",
]
