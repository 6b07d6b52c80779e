"""The information mixture: FisherSFT relaxed from examples to sources. (Extension.)"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float

from fisherlib._door import checked
from fisherlib.features import TokenFeatures
from fisherlib.mixtures.mixture import Mixture, Sizes, caps_of, lowest, named


@checked
def information_mixture(
    features_by_source: Mapping | Sequence[TokenFeatures],
    sizes: Sizes | None = None,
    *,
    tokens: int,
    epochs: float | int = 4,
    prior: float | int | Float[np.ndarray, "d d"] = 1.0,
) -> Mixture:
    """The weights w that maximise log det(V0 + tokens * sum over sources of w_k M_k), M_k the mean of x x^T over its tokens.

    >>> plays = fl.TokenFeatures.from_list([np.array([[1.0, 0.0]])] * 8)
    >>> code = fl.TokenFeatures.from_list([np.array([[0.0, 1.0]])] * 2)
    >>> fl.mixtures.information_mixture({"plays": plays, "code": code}, tokens=6, epochs=1).weights.round(3)
    array([0.667, 0.333])

    `sizes`: the tokens of each source, by default those of its features, which may be of a sample. FisherSFT chooses
    examples; this chooses how much of each source, as if all its rows were alike and could be had in any part. Where they
    are alike, `fl.select` on all sources comes near it as the budget grows; where they are not, FisherSFT takes the best of
    each. It is concave, so `Mixture.gap` is a certificate. `objective` is in nats. It needs no labels, and asks for what is
    *new*, not for what is good: text of shuffled words is new too.
    `prior`: sigma0^2, or a matrix V0. O(d^3 + K d^2) an iteration of SLSQP, memory O(K d^2).
    Raises `ValueError` for sources of different widths, no sources, a prior that is not positive definite, sizes of other
    sources or not positive, and caps that leave part of the budget to nobody.
    """
    given = dict(features_by_source) if isinstance(features_by_source, Mapping) else dict(enumerate(features_by_source))
    names, held = named({name: len(x.values) for name, x in given.items()} if sizes is None else sizes)
    if tuple(given) != names or len({x.dim for x in given.values()}) > 1:
        widths = {name: x.dim for name, x in given.items()}
        raise ValueError(f"expected features of one width for the sources {list(names)}, got {widths}")
    caps = caps_of(held, tokens, epochs)
    M = torch.stack([_mean_square(x) for x in given.values()])
    d = M.shape[1]
    V0 = torch.as_tensor(np.asarray(prior, dtype=float)) if np.ndim(prior) else float(prior) * torch.eye(d).double()
    if V0.shape != (d, d) or int(torch.linalg.cholesky_ex(V0).info) != 0:
        raise ValueError(f"expected a positive definite prior [{d}, {d}] or a positive number, got {prior!r:.60}")

    def value_and_slope(w):
        root = torch.linalg.cholesky(V0 + tokens * torch.einsum("k,kij->ij", torch.from_numpy(w.clip(min=0)), M))
        inverse = torch.cholesky_inverse(root)
        slope = tokens * (M * inverse).sum((1, 2))
        return -2 * float(root.diagonal().log().sum()), -slope.numpy()

    weights, value, gap = lowest(value_and_slope, caps)
    return Mixture(names, weights, caps, tokens, float(epochs), -value, gap)


def _mean_square(features: TokenFeatures) -> torch.Tensor:
    """The mean of x x^T over all tokens, in float64."""
    total = torch.zeros(features.dim, features.dim, dtype=torch.float64)
    for part in features.values.split(65_536):
        x = part.double().cpu()
        total += x.T @ x
    return total / len(features.values)
