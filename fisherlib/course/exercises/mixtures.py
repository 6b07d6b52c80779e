"""Checkers of the exercises of notebook 08."""

import numpy as np

from fisherlib.course.notebook import attempt
from fisherlib.mixtures import unimax

SIZES, BUDGET = (2, 6, 12, 40), 40  # tokens of four sources, each once
SHORT, LARGE = (10, 20, 30), 150  # sources that are too small for a budget


def water_level(my_weights) -> None:
    """UniMax's weights of four sources by hand. Raises `AssertionError` that says what is off."""
    if my_weights is not ...:
        w = np.asarray(my_weights, dtype=float)
        if w.shape != (len(SIZES),):
            raise AssertionError(f"expected {len(SIZES)} weights, got {w.shape}")
        over = [n for n, share in zip(SIZES, w, strict=True) if share * BUDGET > n + 1e-6]
        if over:
            raise AssertionError(f"the sources of {over} tokens would be used more than once")
        if abs(w.sum() - 1) > 1e-6:
            raise AssertionError(f"the weights sum to {w.sum():g}, not to 1: what a small source cannot use, others get")
    attempt("four weights by hand", my_weights, unimax(list(SIZES), tokens=BUDGET, epochs=1).weights, atol=1e-3)


def fewest_epochs(my_epochs) -> None:
    """The smallest number of epochs with which three small sources can fill a budget."""
    attempt("the fewest epochs", my_epochs, LARGE / sum(SHORT), atol=1e-6)


def my_gap(gap) -> None:
    """Frank and Wolfe's gap of a maximum without caps, on drawn slopes. Raises `AssertionError` that shows both."""
    if gap is not ...:
        rng = np.random.default_rng(0)
        for _ in range(5):
            w, slope = rng.dirichlet(np.ones(4)), rng.normal(size=4)
            mine, expected = float(gap(w, slope)), float(slope.max() - slope @ w)
            if abs(mine - expected) > 1e-9:
                raise AssertionError(
                    f"for w = {w.round(2)} and slopes {slope.round(2)}: expected {expected:.4f}, got {mine:.4f}"
                )
    attempt("my certificate", gap if gap is ... else True, True)
