"""What was trained on already: it counts as known, and costs nothing of the budget. (Extension.)"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fisherlib._door import checked
from fisherlib.features import TokenFeatures
from fisherlib.greedy.checks import check_weighting
from fisherlib.greedy.information import prior_matrix

_NUMBERS = 2**22  # that are read at a time


@checked
def with_seen(
    seen: TokenFeatures,
    prior: float | int | Float[Tensor, "d d"] | Float[np.ndarray, "d d"] = 1.0,
    weighting: str = "none",
) -> Float[Tensor, "d d"]:
    """The prior after these examples: V0 + sum_i X_i^T X_i [d, d], in float64 on the CPU.

    What `select(start=seen)` begins with; give it as `prior` to `certify`, `score_selection` and `reasons` of such a
    selection. O(M d^2), a few megabytes at a time wherever the features are. Raises `ValueError` for features that are not
    finite, an unknown weighting, and a prior of another width.

    >>> seen = fl.TokenFeatures.from_list([np.array([[3.0, 0.0]])])
    >>> fl.greedy.with_seen(seen).tolist()
    [[10.0, 0.0], [0.0, 1.0]]
    """
    seen.check_whole()
    check_weighting(seen, weighting)
    V = prior_matrix(prior, seen.dim).clone()
    step = max(_NUMBERS // seen.dim, 1)
    for begin in range(0, len(seen.values), step):
        X = seen.values[begin : begin + step].to("cpu", torch.float64)
        if weighting == "trace":
            X = X * seen.column("trace_weights")[begin : begin + step].to("cpu", torch.float64).sqrt()[:, None]
        V.addmm_(X.T, X)
        seen.release()
    if not torch.isfinite(V).all():
        raise ValueError("expected finite features as start, got NaN or infinity: extract the features again")
    return V
