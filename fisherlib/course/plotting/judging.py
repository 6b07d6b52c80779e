"""Figures of notebook 06."""

from collections.abc import Mapping

from fisherlib.course.plotting.intervals import Mark, differs, dots_and_intervals, shade


def dots(
    panels: Mapping[str, Mapping[str, tuple[float, float, float]]],
    marks: Mapping[str, float],
    title: str,
    *,
    shares: bool = False,
):
    """One panel per key, one row per name: `(value, low, high)`; `marks` has the value that says nothing, by panel.

    A hollow dot's interval holds that value. A name that a panel lacks is "not asked" there, and one whose value is NaN "not
    judged". `shares`: all values are, so that all axes go from 0 to 1. Returns the figure.
    """
    drawn = {
        panel: {
            name: [Mark(*value, panel not in marks or differs(*value[1:], marks[panel]), shade(name))]
            for name, value in values.items()
        }
        for panel, values in panels.items()
    }
    return dots_and_intervals(drawn, title, nulls=marks, absent="not asked", xlim=(-0.05, 1.05) if shares else None)
