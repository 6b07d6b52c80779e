"""One style, one colour per method, and the figures, a file for each notebook. Needs matplotlib (`notebooks` extra)."""

from fisherlib.plotting.fine_tuning import coverage, forest, gaps, tokens_to_match
from fisherlib.plotting.greedy import copies, evaluation_raster, gain_fields, histogram, length_scatter, upper_bounds
from fisherlib.plotting.house import COLOURS, colour, save, style
from fisherlib.plotting.quickstart import comparison, information_curves, uncertainty_ellipses
from fisherlib.plotting.theory import designs, line_panels, simplex

__all__ = [
    "COLOURS",
    "colour",
    "comparison",
    "copies",
    "coverage",
    "designs",
    "evaluation_raster",
    "forest",
    "gain_fields",
    "gaps",
    "histogram",
    "information_curves",
    "length_scatter",
    "line_panels",
    "save",
    "simplex",
    "style",
    "tokens_to_match",
    "uncertainty_ellipses",
    "upper_bounds",
]
