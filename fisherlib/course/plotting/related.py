"""Figures of notebook 07."""

from collections.abc import Mapping, Sequence

import pandas as pd

from fisherlib.course.plotting.house import GREY, colour

_MOST = 0.6  # where the scale of overlaps ends
_WIDTH = 5.6  # inches: to be read on a phone


def overlap(shares: pd.DataFrame, title: str):
    """How much the picks of any two methods overlap, each pair once; methods that choose alike stand together.

    `shares`: symmetric, from 0 to 1, with ones on the diagonal; index and columns are names. Rows are ordered by average
    linkage of 1 - share (our choice); columns are numbered like them. Numbers are percent, those below 10 are left out.
    Returns the figure. Raises `ValueError` for fewer than two methods, or a table that is not of this form.
    """
    import matplotlib.pyplot as plt
    import numpy as np
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    values, n = shares.to_numpy(dtype=float), len(shares)
    if n < 2 or values.shape != (n, n) or not np.array_equal(values, values.T) or not (np.diag(values) == 1).all():
        raise ValueError(f"expected a symmetric table of at least two methods with ones on its diagonal, got\n{shares}")
    order = leaves_list(linkage(squareform(1 - values), "average", optimal_ordering=True))
    ordered = values[np.ix_(order, order)]
    below = np.tril(np.ones((n, n), dtype=bool), -1)  # each pair once, and nobody with itself
    figure, axis = plt.subplots(figsize=(_WIDTH, 0.29 * n + 1.2))
    axis.imshow(np.where(below, ordered, np.nan), cmap="Blues", vmin=0, vmax=_MOST, aspect="auto")
    for row, column in zip(*np.nonzero(below & (ordered >= 0.095)), strict=True):
        share = ordered[row, column]
        ink = "white" if share > 0.6 * _MOST else "black"
        axis.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=10, color=ink)
    names = [f"{name}  {place}" for place, name in enumerate(shares.index[order], 1)]
    axis.set_yticks(range(n), names, fontsize=10)
    for label, name in zip(axis.get_yticklabels(), shares.index[order], strict=True):
        label.set_color(_ink(name))
    axis.set_xticks(range(n - 1), [str(place) for place in range(1, n)], fontsize=10)
    axis.set(xlim=(-0.5, n - 1.5), ylim=(n - 0.5, -0.5), xlabel="the method of this number; in percent")
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def payoff(panels: Mapping[str, pd.DataFrame], title: str, order: Sequence[str]):
    """Held-out NLL minus uniform's on several pools: a panel each, a row per method; those in `order` come first.

    `panels[pool]`: columns `mean`, `low`, `high`, `verdict`; the index are names. A hollow dot is a tie; a method
    that has no rows on a pool is "not run" there. All panels have one scale. Returns the figure.
    """
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys([*order, *(name for table in panels.values() for name in table.index)]))
    figure, axes = plt.subplots(
        1, len(panels), figsize=(_WIDTH, 0.27 * len(names) + 1.4), sharex=True, sharey=True, squeeze=False
    )
    for axis, (pool, table) in zip(axes[0], panels.items(), strict=True):
        axis.axvline(0, color="#444444", lw=1)
        for name, found in table.iterrows():
            row, shade = names.index(name), colour(str(name))
            inside = "white" if found["verdict"] == "tie" else shade
            axis.plot([found["low"], found["high"]], [row, row], color=shade, solid_capstyle="round")
            axis.plot(found["mean"], row, "o", color=shade, mfc=inside, ms=6, mew=1.5)
        for name in set(names) - set(table.index):
            axis.text(0, names.index(name), " not run", fontsize=10, color=GREY, va="center")
        axis.set_title(pool, loc="center")
        axis.locator_params(axis="x", nbins=3)
    axes[0][0].set_yticks(range(len(names)), names, fontsize=10)
    for label, name in zip(axes[0][0].get_yticklabels(), names, strict=True):
        label.set_color(_ink(name))
    axes[0][0].set_ylim(len(names) - 0.4, -0.6)
    figure.supxlabel("held-out NLL minus uniform's: left is better; hollow: a tie", fontsize=10)
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def _ink(name: str) -> str:
    """The colour of one of the methods that a reader follows; black for the others."""
    shade = colour(name)
    return "black" if shade == GREY else shade
