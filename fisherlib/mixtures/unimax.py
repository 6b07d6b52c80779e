"""UniMax: as flat a mixture as the epoch caps allow. No utilities, no model."""

from fisherlib._door import checked
from fisherlib.mixtures.mixture import Mixture, Sizes, caps_of, named, water_filling


@checked
def unimax(sizes: Sizes, *, tokens: int, epochs: float | int = 4) -> Mixture:
    """Equal shares of `tokens`, but no source more often than `epochs` times; what it cannot use goes to the others.

    >>> fl.mixtures.unimax([1, 2, 4, 30, 100], tokens=40).weights.round(4)
    array([0.1   , 0.2   , 0.2333, 0.2333, 0.2333])

    `sizes`: the tokens of each source, by name or in a list. The strongest baseline of UtiliMax's paper; it minimises the
    sum of squared weights, which is the mixture's `objective`. Closed form, O(K log K). Source: arXiv 2304.09151.
    Raises `ValueError` for sizes that are not positive, and for caps that leave part of the budget to nobody.
    """
    names, held = named(sizes)
    caps = caps_of(held, tokens, epochs)
    weights = water_filling(caps)
    return Mixture(names, weights, caps, tokens, float(epochs), float(weights @ weights), 0.0)
