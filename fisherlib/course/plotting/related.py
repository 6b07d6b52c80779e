"""Figures of notebook 07."""

import pandas as pd


def overlap(shares: pd.DataFrame, title: str):
    """A heat map of how much the picks of any two methods overlap, with the tree that its order comes from.

    `shares`: symmetric, from 0 to 1, with ones on the diagonal; index and columns are names. Rows are ordered by average
    linkage of 1 - share, so that methods which choose alike stand together (our choice). Returns the figure. Raises
    `ValueError` for fewer than two methods, or a table that is not of this form.
    """
    import matplotlib.pyplot as plt
    import numpy as np
    from scipy.cluster.hierarchy import dendrogram, linkage
    from scipy.spatial.distance import squareform

    values, n = shares.to_numpy(dtype=float), len(shares)
    if n < 2 or values.shape != (n, n) or not np.array_equal(values, values.T) or not (np.diag(values) == 1).all():
        raise ValueError(f"expected a symmetric table of at least two methods with ones on its diagonal, got\n{shares}")
    tree = linkage(squareform(1 - values), "average", optimal_ordering=True)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(0.5 * n + 3.6, 0.36 * n + 2.0), sharey=True, width_ratios=(1.4, 0.7 * n)
    )
    with plt.rc_context({"lines.linewidth": 1}):
        drawn = dendrogram(tree, ax=left, orientation="left", no_labels=True, link_color_func=lambda _: "#444")
    left.set_axis_off()
    order, whole = drawn["leaves"], (0, 10 * n, 0, 10 * n)  # a dendrogram's leaves are at 5, 15, 25, ...
    ordered = values[np.ix_(order, order)]
    picture = right.imshow(ordered, cmap="Blues", vmin=0, vmax=1, origin="lower", aspect="auto", extent=whole)
    places = 10 * np.arange(n) + 5
    for (row, column), share in np.ndenumerate(ordered):
        shade = "white" if share > 0.6 else "black"
        right.text(places[column], places[row], f"{share:.2f}", ha="center", va="center", fontsize=7, color=shade)
    names = shares.index[order]
    right.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    right.set_yticks(places, names, fontsize=8)
    right.tick_params(length=0, labelleft=False, labelright=True)
    right.grid(False)
    right.spines[:].set_visible(False)
    figure.colorbar(picture, ax=right, label="Jaccard", shrink=0.7, pad=0.02)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure
