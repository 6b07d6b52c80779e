"""One page about a selection, for a colleague."""

from fisherlib.report.page import report

__all__ = ["report"]
