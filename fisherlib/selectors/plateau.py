"""Performance against the amount of data: a curve that levels off, fitted. (ISA, Khera et al. 2024.)"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import OptimizeWarning, curve_fit

from fisherlib._door import checked


@dataclass(frozen=True)
class Plateau:
    """The curve a - b exp(-c n): it tends to a, of which it misses b at n = 0 and a factor of e less after each 1 / c."""

    a: float
    b: float
    c: float

    def __call__(self, n):
        return self.a - self.b * np.exp(-self.c * np.asarray(n, dtype=float))


@checked
def fit_plateau(sizes: Sequence[float | int] | np.ndarray, performance: Sequence[float | int] | np.ndarray) -> Plateau:
    """The least-squares `Plateau` of performance against the number of examples (or tokens), rising or falling.

    a and b are linear given c, so a grid of c gives the start, and `scipy.optimize.curve_fit` the end. Source: the curve is
    that of Khera et al., arXiv 2411.10545; how to fit it is our choice. Raises `ValueError` with fewer than four different
    sizes (three always fit), or values that are not finite, and for a performance that does not change, or that does not
    bend within the sizes, a line or a jump at the smallest, or that no curve fits best: no plateau can be told from those.
    """
    n, y = np.asarray(sizes, dtype=float), np.asarray(performance, dtype=float)
    if n.ndim != 1 or n.shape != y.shape:
        raise ValueError(f"expected one performance for each size, got arrays of shapes {n.shape} and {y.shape}")
    if not (np.isfinite(n).all() and np.isfinite(y).all() and (n >= 0).all()):
        raise ValueError("expected finite performances, and finite sizes of at least 0: leave out what was not measured")
    if (different := len(np.unique(n))) < 4:
        raise ValueError(f"expected at least 4 different sizes for a curve of 3 parameters, got {different}: measure more")
    if np.ptp(y) <= 1e-12 * np.abs(y).max():
        raise ValueError(f"expected a performance that changes with the size, got {y[0]:g} everywhere: measure less data")
    x, middle, scale = n / n.max(), y.mean(), np.ptp(y)
    y = (y - middle) / scale  # the fit knows no units

    def curve(x, a, b, log_c):
        return a - b * np.exp(-np.exp(log_c) * x)

    def linear(log_c):
        basis = np.column_stack([np.ones_like(x), -np.exp(-np.exp(log_c) * x)])
        ab = np.linalg.lstsq(basis, y, rcond=None)[0]
        return ((basis @ ab - y) ** 2).sum(), *ab, log_c

    line, jump = np.log(0.01), np.log(30 / x[x > 0].min())  # what the curve is within the sizes, at these log c and beyond
    *ab, log_c = min(linear(log_c) for log_c in np.linspace(line, jump, 200))[1:]
    if line < log_c < jump:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)  # of the covariance, which is not used
            try:
                a, b, log_c = curve_fit(curve, x, y, p0=[*ab, log_c], xtol=1e-14, ftol=1e-14, maxfev=10_000)[0]
            except RuntimeError as error:
                raise ValueError("expected a performance with a best curve, got none: measure it with less noise") from error
        if line < log_c < jump:
            return Plateau(float(a * scale + middle), float(b * scale), float(np.exp(log_c) / n.max()))
    got = "a line: measure more data" if log_c <= line else "a jump at the smallest: measure less data"
    raise ValueError(f"expected a performance that bends within sizes up to {n.max():g}, got {got}")
