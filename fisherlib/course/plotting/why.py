"""Figures of notebook 05b."""

from collections.abc import Mapping

import pandas as pd
from jaxtyping import Float
from numpy import ndarray

from fisherlib.course.plotting.fine_tuning import written
from fisherlib.course.plotting.house import GREY, colour
from fisherlib.course.plotting.intervals import TITLE, shade, wrapped

_VERDICTS = {"better": "#117733", "worse": "#CC0033"}
_COLUMN = 5.6  # inches: panels below each other, to be read on a phone
_ROW = 0.25  # inches
Judged = tuple[float, float, float, bool]  # value, low, high, and whether it is sure


# The changes of `fl.study.why.what_moved` by the suspect that each of them tests.
SUSPECTS = {
    "known or noise": ("without memorised examples", "without memorised and extreme examples"),
    "rare words": ("FisherSFT among common targets", "uniform among rare targets"),
    "useless directions": ("prior times 1,000", "prior times 100,000", "target-aware prior", "I-optimal"),
    "certain predictions": ("FisherSFT, trace-weighted",),
    "special features": ("features after layer 10", "features after layer 20"),
    "which examples": ("uniform where FisherSFT looks",),
    "where it looks": ("FisherSFT inside clusters",),
    "all of it": ("half uniform, half FisherSFT",),
    "the training": (
        "1,000 tokens",
        "4,000 tokens",
        "8,000 tokens",
        "1 epoch",
        "6 epochs",
        "learning rate times 3",
        "6 epochs, learning rate times 3",
    ),
}


TRAINING = "the training"  # the one suspect that is no change of what is chosen


def _by_suspect(table: pd.DataFrame) -> dict[str, list[str]]:
    """The changes in the table by suspect; what no suspect explains comes last."""
    found = {suspect: [name for name in names if name in table.index] for suspect, names in SUSPECTS.items()}
    named = {name for names in found.values() for name in names}
    found["others"] = [name for name in table.index[1:] if name not in named]
    return {suspect: names for suspect, names in found.items() if names}


def _strongest(table: pd.DataFrame) -> dict[str, str]:
    """For each suspect the change that moved the gap most."""
    size = table["moved"].astype(float).abs()
    return {suspect: size[names].idxmax() for suspect, names in _by_suspect(table).items()}


def suspects_table(table: pd.DataFrame, *, every: bool = False) -> str:
    """Markdown: for each suspect the change that moved the gap most (with `every` all of them), the verdict second.

    `table`: as from `fl.study.why.what_moved`.
    """
    words = {"better": "**narrower**", "worse": "**wider**", "tie": "tie"}
    lines = ["| suspect: change | verdict | moved the gap by | gap left |", "|---" * 4 + "|"]
    listed = _by_suspect(table) if every else {suspect: [name] for suspect, name in _strongest(table).items()}
    for suspect, names in listed.items():
        for name in names:
            row = table.loc[name]
            by = written(row[["moved", "low", "high"]].set_axis(["mean", "low", "high"]))
            by += ", floored" if row["floored"] else ""
            lines.append(f"| *{suspect}*: {name} | {words[row['verdict']]} | {by} | {row['gap']:+.3f} |")
    return "\n".join(lines)


def moved(table: pd.DataFrame, title: str):
    """By how much each change moved the gap to uniform, in two panels: what is chosen, and how it is trained.

    `table`: as from `fl.study.why.what_moved`, whose first row is the change of nothing. The first panel has for each
    suspect (`SUSPECTS`) the change that moved the gap most, the second all changes of the training, on a scale of its own.
    Filled where the verdict is not a tie. The dashed line is where the gap would be gone. Returns the figure.
    """
    import matplotlib.pyplot as plt

    chosen = {f"{suspect}:\n{name}": name for suspect, name in _strongest(table).items() if suspect != TRAINING}
    trained = {name: name for name in _by_suspect(table).get(TRAINING, ())}
    panels = {"what is chosen": chosen, "how it is trained": trained}
    panels = {head: rows for head, rows in panels.items() if rows}
    heights = [sum(0.4 if "\n" in label else 0.26 for label in rows) + 0.15 for rows in panels.values()]
    size = (_COLUMN, sum(heights) + 0.75 * len(panels) + 0.8)
    figure, axes = plt.subplots(len(panels), 1, figsize=size, squeeze=False, height_ratios=heights)
    gone = -float(table["gap"].iloc[0])
    for axis, (head, rows) in zip(axes.flat, panels.items(), strict=True):
        axis.axvline(0, color="#444", lw=1)
        axis.axvline(gone, color=colour("FisherSFT"), lw=1.2, ls="--")
        for y, name in enumerate(rows.values()):
            row = table.loc[name]
            tone = _VERDICTS.get(row["verdict"], GREY)
            _dot(axis, y, (row["moved"], row["low"], row["high"], row["verdict"] != "tie"), tone, "o")
        axis.set_yticks(range(len(rows)), rows, fontsize=10)
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.set_title(head, fontsize=11)
        axis.tick_params(axis="y", length=0)
        axis.locator_params(axis="x", nbins=5)
        axis.xaxis.set_major_formatter(lambda x, _: f"{x:+g}".replace("-", "\N{MINUS SIGN}") if abs(x) > 1e-12 else "0")
    figure.supxlabel("moved the gap by, nats (dashed: the gap is gone; hollow: a tie)", fontsize=10)
    figure.suptitle(wrapped(title, _COLUMN, TITLE), x=0.01, ha="left")
    return figure


def _dot(axis, y: float | int, found: Judged, tone: str, marker: str) -> None:
    """A dot with its interval, hollow where it is a tie."""
    value, low, high, sure = found
    axis.plot([low, high], [y, y], color=tone, lw=1.8, alpha=0.8, solid_capstyle="butt")
    axis.plot(value, y, marker, color=tone, mfc=tone if sure else "white", ms=6, mew=1.5)


def confirmation(
    panels: Mapping[str, Mapping[str, Mapping[str, Judged]]], margins: Mapping[str, float], title: str, xlabel: str
):
    """Panels below each other on one scale; in each row the arms, hollow where it is a tie. Returns the figure.

    `panels[head][row][arm] = (difference, low, high, sure)`. `margins`: of some rows, for the first arm: a grey band, beyond
    which a difference is excluded.
    """
    import matplotlib.pyplot as plt

    counts = [len(rows) for rows in panels.values()]
    size = (_COLUMN, 2 * _ROW * sum(counts) + 0.45 * len(panels) + 1.1)
    figure, axes = plt.subplots(len(panels), 1, figsize=size, sharex=True, squeeze=False, height_ratios=counts)
    arms = list(dict.fromkeys(arm for rows in panels.values() for row in rows.values() for arm in row))
    for axis, (head, rows) in zip(axes.flat, panels.items(), strict=True):
        axis.axvline(0, color="#444", lw=1)
        for y, (name, found) in enumerate(rows.items()):
            if name in margins:
                axis.barh(y, 2 * margins[name], left=-margins[name], height=0.8, color="#E0E0E0", zorder=0)
            for arm, numbers in found.items():
                k = arms.index(arm)
                _dot(axis, y + 0.4 * (k - (len(arms) - 1) / 2), numbers, shade(arm), "os^"[k])
        axis.set_yticks(range(len(rows)), rows, fontsize=10)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_title(head, fontsize=11)
    for k, arm in enumerate(arms):
        axes[0][0].plot([], [], "os^"[k] + "-", color=shade(arm), ms=6, lw=1.8, label=arm)
    notes = f"{xlabel}   |   hollow: a tie\ngrey: what lies beyond is excluded for {arms[0]}"
    figure.legend(loc="outside lower center", ncols=3, title=notes, title_fontsize=10)
    figure.suptitle(wrapped(title, _COLUMN, TITLE), x=0.01, ha="left")
    return figure


def properties(panels: Mapping[str, Mapping[str, Float[ndarray, " n"]]], title: str):
    """One panel for each property, below each other, one box for each group: the middle half of its examples.

    The line in a box is the median, and the whiskers leave out one example of twenty at each end. Returns the figure.
    """
    import matplotlib.pyplot as plt

    count = max(len(groups) for groups in panels.values())
    size = (_COLUMN, len(panels) * (0.3 * count + 0.65) + 0.5)
    figure, axes = plt.subplots(len(panels), 1, figsize=size, squeeze=False)
    for axis, (name, groups) in zip(axes.flat, panels.items(), strict=True):
        style = {"orientation": "horizontal", "widths": 0.6, "showfliers": False, "patch_artist": True, "whis": (5, 95)}
        boxes = axis.boxplot(list(groups.values()), **style)
        for box, line, group in zip(boxes["boxes"], boxes["medians"], groups, strict=True):
            box.set(facecolor=colour(group) if group != "pool" else "#DDDDDD", alpha=0.6)
            line.set(color="black", lw=1.5)
        axis.set_title(name, fontsize=11)
        axis.set_yticks(range(1, len(groups) + 1), groups)
        axis.set_ylim(len(groups) + 0.6, 0.4)
        axis.grid(axis="y", visible=False)
    figure.suptitle(wrapped(title, _COLUMN, TITLE), x=0.01, ha="left")
    return figure
