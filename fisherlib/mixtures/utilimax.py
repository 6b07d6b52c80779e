"""UtiliMax: the mixture whose utility for each task comes nearest to the best that there is."""

import numpy as np
from jaxtyping import Float

from fisherlib._door import checked
from fisherlib.mixtures.mixture import Mixture, Sizes, caps_of, lowest, named


@checked
def utilimax(
    utilities: Float[np.ndarray, "K T"], sizes: Sizes, *, tokens: int, risk: float | int, epochs: float | int = 4
) -> Mixture:
    """The weights w that minimise || U^T w - 1 || + risk ||w||^2, with sum 1 and no source more often than `epochs` times.

    >>> utilities = np.array([[1.0, 0.0], [0.0, 1.0], [0.1, 0.1]])
    >>> fl.mixtures.utilimax(utilities, [50, 50, 900], tokens=100, risk=0).weights.round(3) + 0.0
    array([0.5, 0.5, 0. ])

    `utilities` [K, T], in [0, 1]: what source k is worth for task t, 1 for the best there is. So the first term is the
    distance to a mixture that would be the best for all tasks. The second one spreads the weights, as a portfolio is spread
    because utilities are uncertain. Its weight is unknown to us for the paper; a public version has K, where the mixture is
    hardly more than UniMax. So it has no default. Equal utilities give UniMax at every risk
    above 0; at 0 all weights that the caps allow are then equally good, and of these it is UniMax that is returned.
    SLSQP (SciPy) with the gradient in closed form: milliseconds. Source: arXiv 2501.11747.
    Raises `ValueError` for utilities outside [0, 1] or not one row for each source, a negative risk, sizes that are not
    positive, and caps that leave part of the budget to nobody.
    """
    names, held = named(sizes)
    U = np.asarray(utilities, dtype=float)
    if (
        U.ndim != 2
        or U.shape[0] != len(held)
        or not U.shape[1]
        or not (np.isfinite(U).all() and U.min() >= 0 and U.max() <= 1)
    ):
        raise ValueError(
            f"expected utilities [{len(held)}, tasks] between 0 and 1, got {U.shape}, "
            f"{U.min(initial=9):g} to {U.max(initial=-9):g}"
        )
    if not 0 <= risk < np.inf:
        raise ValueError(f"expected a risk of at least 0, got {risk}")
    caps = caps_of(held, tokens, epochs)

    def value_and_slope(w):
        miss = U.T @ w - 1
        distance = np.linalg.norm(miss)
        slope = U @ miss / distance if distance > 0 else np.zeros(len(w))
        return distance + risk * w @ w, slope + 2 * risk * w

    weights, value, gap = lowest(value_and_slope, caps)
    return Mixture(names, weights, caps, tokens, float(epochs), value, gap)
