"""Figures of notebook 05, and its table."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from fisherlib.course.plotting.house import GREY, PAGE, colour
from fisherlib.course.plotting.intervals import TITLE, Mark, dots_and_intervals, shade, wrapped
from fisherlib.course.plotting.living import Living, living
from fisherlib.course.study.methods import METHODS
from fisherlib.course.study.methods import title as title_of

Interval = tuple[float, float, float]  # value, low, high
Judged = tuple[float, float, float, bool]  # the same, and whether it is sure
_COLUMN = 5.6  # inches: panels below each other, to be read on a phone
_MISSED = "#CC0033"
_STUDIES = 40  # drawn at a time


def forest(
    panels: Mapping[str, Mapping[str, Judged]], title: str, xlabel: str, *, across: int | None = None, width: float = PAGE
):
    """One panel per key, one row per method: `(difference, low, high, sure)`, zero marked; hollow where not sure.

    All panels have one scale if they can. A method that a panel does not have is "not run" there. `across`: panels beside
    each other, by default all. Returns the figure.
    """
    marks = {
        name: {method: [Mark(*found, shade(method))] for method, found in values.items()} for name, values in panels.items()
    }
    nulls = dict.fromkeys(panels, 0.0)
    return dots_and_intervals(
        marks, title, nulls=nulls, xlabel=xlabel, absent="not run", one_scale=True, across=across, width=width
    )


def forest_and_others(panels: Mapping[str, Mapping[str, Judged]], followed: Sequence[str], title: str, xlabel: str):
    """`forest`, one panel below the other: a row for each of the `followed`, and the dots of all others in a last row.

    Returns the figure.
    """
    marks = {
        name: {method: [Mark(*values[method], shade(method))] for method in followed if method in values}
        | {"all others": [Mark(v, v, v, sure) for method, (v, _, _, sure) in values.items() if method not in followed]}
        for name, values in panels.items()
    }
    nulls = dict.fromkeys(panels, 0.0)
    column: dict[str, Any] = {"across": 1, "width": _COLUMN}
    return dots_and_intervals(
        marks, title, nulls=nulls, xlabel=xlabel, absent="not run", one_scale=True, order=followed, **column
    )


def gaps(panels: Mapping[str, Mapping[str, Mapping[int, Interval | pd.Series]]], title: str, ylabel: str):
    """One panel per key, below each other: each method's difference from uniform at each budget, side by side.

    Returns the figure.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(panels), 1, figsize=(_COLUMN, 2.3 * len(panels) + 0.7), sharex=True, squeeze=False)
    box = {"fc": "white", "ec": "none", "pad": 1}  # a name may stand on the line at zero
    for axis, (name, methods) in zip(axes.flat, panels.items(), strict=True):
        axis.axhline(0, color="#444", lw=1)
        for k, (method, at) in enumerate(methods.items()):
            budgets = sorted(at)
            mean, low, high = np.array([at[budget] for budget in budgets]).T
            places = np.arange(len(budgets)) + 0.24 * (k - (len(methods) - 1) / 2)
            ends = [mean - low, high - mean]
            axis.errorbar(places, mean, ends, fmt="os^"[k], color=colour(method), capsize=4, lw=1.6, ms=6)
            axis.text(places[-1] + 0.12, mean[-1], method, color=colour(method), va="center", fontsize=10, bbox=box)
        axis.set_title(name, fontsize=11)
        axis.set_xticks(range(len(budgets)), [f"{budget:,}" for budget in budgets])
        axis.set_xlim(-0.5, len(budgets) - 0.1 + 0.1 * max(map(len, methods)))
        axis.grid(axis="x", visible=False)
    axes[-1][0].set_xlabel("response tokens")
    figure.supylabel(ylabel, fontsize=10)
    figure.suptitle(wrapped(title, _COLUMN, TITLE), x=0.01, ha="left")
    return figure


def tokens_to_match(needed: Mapping[str, Mapping[str, tuple[float, bool]]], budget: int, ends: tuple[int, int], title: str):
    """One panel per pool, a bar per method, from its `budget` to the tokens that uniform needs to be as good.

    `needed[pool][method] = (tokens, sure)`, pale where not sure. `ends`: the smallest and the largest budget at which
    uniform was run. 0 is "under" the first and infinity "over" the second: these bars end in an arrow. Returns the figure.
    """
    import matplotlib.pyplot as plt

    counts = [len(values) for values in needed.values()]
    size = (_COLUMN, 0.34 * sum(counts) + 0.5 * len(needed) + 0.9)
    figure, axes = plt.subplots(len(needed), 1, figsize=size, sharex=True, squeeze=False, height_ratios=counts)
    for axis, (pool, values) in zip(axes.flat, needed.items(), strict=True):
        axis.axvline(budget, color="#444", lw=1)
        for row, (method, (tokens, sure)) in enumerate(values.items()):
            reached, more = np.clip(tokens, *ends), tokens > budget
            drawn = {"color": colour(method), "alpha": 1 if sure else 0.4}
            axis.barh(row, reached - budget, left=budget, height=0.5, **drawn)
            words = f"{tokens:,.0f}"
            if reached != tokens:
                axis.plot(reached, row, ">" if more else "<", ms=11, mew=0, clip_on=False, **drawn)
                words = f"over {ends[1]:,}" if more else f"under {ends[0]:,}"
            side: dict[str, Any] = {
                "ha": "left" if more else "right",
                "va": "center",
                "fontsize": 10,
                "textcoords": "offset points",
            }
            axis.annotate(words, (reached, row), (9 if more else -9, 0), **side)
        axis.set_yticks(range(len(values)), values)
        axis.set_ylim(len(values) - 0.4, -0.6)
        axis.set_xlim(0, 1.35 * ends[1])
        axis.set_xticks([tick for tick in range(0, ends[1] + 1, budget // 2)])
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axis.set_title(pool, fontsize=11)
        axis.grid(axis="y", visible=False)
    axes[-1][0].set_xlabel(f"response tokens that uniform needs (line: {budget:,} were spent; pale: a tie)", fontsize=10)
    figure.suptitle(wrapped(title, _COLUMN, TITLE), x=0.01, ha="left")
    return figure


def coverage(seeds: Sequence[int], covers: Mapping[str, Sequence[float]], title: str):
    """How often each kind of interval covers the truth, against the number of seeds; 95 % marked. Returns the figure."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(_COLUMN, 3.0))
    axis.axhline(0.95, color="#444", lw=1, ls="--")
    for (name, shares), tone, mark, side in zip(covers.items(), ("#000000", GREY), "os", (1, -1), strict=False):
        axis.plot(seeds, shares, f"{mark}-", color=tone, lw=2)
        place: dict[str, Any] = {"ha": "right", "va": "bottom" if side > 0 else "top", "textcoords": "offset points"}
        axis.annotate(name, (seeds[-1], shares[-1]), (0, 8 * side), color=tone, **place)
    axis.set(title=title, xlabel="seeds", ylabel="intervals that hold the truth", xticks=list(seeds), ylim=(None, 1.02))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    return figure


_DANCE = """
const {ends, seen, seeds, t} = data, names = Object.keys(ends), count = ends[names[0]].length;
const svg = canvas(520, 460), tall = 150, gap = 60;
let studies = data.studies;
const plots = names.map((name, k) => {
  const top = 34 + k * (tall + gap);
  return {...axes(svg, [44, top, 508, top + tall], [0.5, count + 0.5, k ? "study" : ""], [-3, 3, ""]), top,
    group: put(svg, "g"), head: put(svg, "text", {x: 44, y: top - 10})};
});
plots.forEach(({x, y}) => line(svg, {points: `44,${y(0)} 508,${y(0)}`, stroke: "#444"}));
const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
const student = d => {
  const m = d.reduce((a, b) => a + b) / seeds;
  const half = t * Math.sqrt(d.reduce((a, b) => a + (b - m) ** 2, 0) / (seeds - 1) / seeds);
  return [m - half, m + half];
};
const bootstrap = d => {
  let means = [0];
  d.forEach(() => { means = means.flatMap(m => d.map(v => m + v / seeds)); });
  means.sort((a, b) => a - b);
  const at = q => { const p = q * (means.length - 1), i = Math.floor(p);
    return means[i] + (p - i) * ((means[i + 1] ?? means[i]) - means[i]); };
  return [at(0.025), at(0.975)];
};
const show = both => {
  plots.forEach(({x, y, group, head}, k) => {
    group.textContent = "";
    both[k].forEach(([low, high], i) => {
      const held = low <= 0 && 0 <= high;
      const at = v => y(Math.max(-3, Math.min(3, v)));
      line(group, {points: `${x(i + 1)},${at(low)} ${x(i + 1)},${at(high)}`, stroke: held ? "#777777" : "#CC0033",
        "stroke-width": held ? 3 : 6});
    });
    const [held, all] = [seen[k], studies].map(count => count.toLocaleString("en"));
    head.textContent = `${names[k]}: ${held} of ${all} hold the truth (${Math.round(100 * seen[k] / studies)} %)`;
  });
};
show(names.map(name => ends[name]));
button(`${count} new studies`, () => {
  const fresh = [...Array(count)].map(() => [...Array(seeds)].map(normal));
  const both = [fresh.map(student), fresh.map(bootstrap)];
  both.forEach((of, k) => { seen[k] += of.filter(([low, high]) => low <= 0 && 0 <= high).length; });
  studies += count;
  show(both);
});
"""


def seeds_dance(
    draws: Float[np.ndarray, "F n S"], intervals: Mapping[str, Callable[[Float[np.ndarray, " S"]], tuple[float, float]]]
) -> Living:
    """Intervals of S seeds, n studies at a time, F times; those that miss the truth, 0, are red, and a counter runs.

    Of each time forty studies are drawn, and all are counted. `draws`: standard normal. `intervals`: Student's first and the
    bootstrap second, by their names. A hand draws more.
    """
    import scipy

    found = {name: np.array([[make(d) for d in frame] for frame in draws]) for name, make in intervals.items()}
    hold = {name: (ends[..., 0] <= 0) & (ends[..., 1] >= 0) for name, ends in found.items()}
    frames = [_studies(found, hold, last) for last in [len(draws) - 1, *range(len(draws) - 1)]]
    said = "; ".join(f"{name}: {held.mean():.0%} of the intervals hold the truth" for name, held in hold.items())
    seeds = draws.shape[-1]
    data = {
        "ends": {name: ends[-1, :_STUDIES].round(3) for name, ends in found.items()},
        "seen": [int(held.sum()) for held in hold.values()],
        "studies": draws[..., 0].size,
        "seeds": seeds,
        "t": float(scipy.stats.t.ppf(0.975, seeds - 1)),
    }
    return living(frames, _DANCE, data, f"Many studies of {seeds} seeds each. {said}.")


def _studies(found: Mapping[str, np.ndarray], hold: Mapping[str, np.ndarray], last: int):
    """One frame: the studies of `last`, and the counts up to there."""
    import matplotlib.pyplot as plt

    size: dict[str, Any] = {
        "figsize": (_COLUMN, 4.2),
        "layout": "none",
    }  # every frame has the same places, and no time is spent on them
    figure, axes = plt.subplots(len(found), 1, sharex=True, sharey=True, **size)
    figure.subplots_adjust(left=0.08, right=0.985, top=0.93, bottom=0.12, hspace=0.28)
    for axis, (name, ends) in zip(axes, found.items(), strict=True):
        at, held, so_far = np.arange(1, ends.shape[1] + 1), hold[name][last], hold[name][: last + 1]
        at, held, (low, high) = at[:_STUDIES], held[:_STUDIES], ends[last, :_STUDIES].T
        axis.vlines(at[held], low[held], high[held], color=GREY, lw=2.5)
        axis.vlines(at[~held], low[~held], high[~held], color=_MISSED, lw=5)
        axis.axhline(0, color="#444", lw=1)
        axis.set_title(f"{name}: {so_far.sum():,} of {so_far.size:,} hold the truth ({so_far.mean():.0%})", fontsize=11)
        axis.set(ylim=(-3, 3), xlim=(0.3, len(at) + 0.7))
        axis.grid(axis="x", visible=False)
    axes[-1].set_xlabel("study")
    return figure


def called(method: str) -> str:
    """The name of an arm in notebooks 05 and 05b: MinHash, which README says too, is shorter than deduplicated."""
    return title_of(method).replace("deduplicated, then", "MinHash +").replace("deduplicated,", "MinHash,")


def judged(result: pd.DataFrame) -> dict[str, Judged]:
    """What `forest` draws, of a table of `fl.study.verdicts.verdicts`."""
    ends = result[["mean", "low", "high"]].astype(float)
    return {called(m): (*ends.loc[m], result.loc[m, "verdict"] != "tie") for m in result.index}


def verdict_table(results: Mapping[str, pd.DataFrame], uniform: pd.DataFrame, arms: Sequence[str] | None = None) -> str:
    """Markdown: a line for each arm of each pool, the verdict second.

    `results`: of `fl.study.verdicts.verdicts`, by pool; `uniform`: its rows, whose means stand above the differences.
    `arms`: which, "not run" where a pool lacks one; None: all that there are, below the notebook that tells what they do.
    """
    lines = ["| arm | verdict | NLL minus uniform's |", "|---" * 3 + "|"]
    for pool, result in results.items():
        lines.append(f"| **{pool}**: uniform | | has {uniform.loc[uniform['pool'] == pool, 'nll'].mean():.3f} |")
        groups = {"": arms} if arms is not None else _by_notebook(result.index)
        for head, names in groups.items():
            lines += [f"| *{head}* | | |"] if head else []
            for arm in names:
                row = result.loc[arm] if arm in result.index else None
                word = "not run" if row is None else row["verdict"]
                word = word if word in ("tie", "not run") else f"**{word}**"
                lines.append(f"| {called(arm)} | {word} | {'–' if row is None else written(row)} |")
    return "\n".join(lines)


def _by_notebook(arms: Iterable[str]) -> dict[str, list[str]]:
    """The arms by the notebook that tells what they do, in their order."""
    tables = {method.name: method.table for method in METHODS}
    notebooks = {"arms": "notebook 05", "related": "notebook 07", "neighbours": "notebook 07"}
    groups: dict[str, list[str]] = {"notebook 05": [], "notebook 05b": [], "notebook 07": []}
    for arm in arms:
        groups[notebooks.get(tables.get(arm, ""), "notebook 05b")].append(arm)
    return {head: names for head, names in groups.items() if names}


def written(row: pd.Series) -> str:
    """A difference with its interval."""
    return f"{row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
