"""The information that given picks gather, in their order."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fisherlib._door import checked
from fisherlib.features import Indices, TokenFeatures
from fisherlib.greedy.checks import check_weighting
from fisherlib.greedy.engine import replay
from fisherlib.greedy.information import Information, gram, log_det, lost
from fisherlib.greedy.selection import Selection, provenance_of

_NARROW = 64  # features no wider than this: the calls of a pick take longer than its arithmetic
_NUMBERS = 2**24  # in the information matrices of all picks, or in their features: 0.13 GB


@checked
def score_selection(
    features: TokenFeatures,
    indices: Indices,
    *,
    prior: float | int | Float[Tensor, "d d"] | Float[np.ndarray, "d d"] = 1.0,
    weighting: str = "none",
    device: str | torch.device = "auto",
    **fields,
) -> Selection:
    """A `Selection` of given examples, in their order, with the information that each added. Float64 throughout.

    `fields` fill `Selection` (for instance `settings`). Time O(n d^3), for narrow features in a few calls. Raises
    `ValueError` for indices that are no whole numbers, do not exist or repeat, for an unknown weighting, and for features or
    a prior that are not finite.
    """
    features.check_whole()
    indices = np.asarray(indices)
    if indices.ndim != 1:
        raise ValueError(f"expected a list of indices, got shape {indices.shape}: give one list")
    if indices.size and indices.dtype.kind not in "iu":
        raise ValueError(f"expected indices as whole numbers, got {indices.dtype}: use np.flatnonzero for a mask")
    if bad := [int(i) for i in indices if not 0 <= i < len(features)]:
        raise ValueError(f"expected indices from 0 to {len(features) - 1}, got {bad[0]}")
    check_weighting(features, weighting)
    state = Information(features, prior, weighting, device)
    indices = np.array(indices, dtype=np.int64)
    wide = max(features.dim, int(features.lengths[indices].max())) if indices.size else 0
    if features.dim <= _NARROW and 0 < indices.size * features.dim * wide <= _NUMBERS:
        gains = _all_at_once(state, indices)
    else:
        gains = np.array(replay(state, indices.tolist(), state.add))
    fields = {"provenance": provenance_of(features, indices.tolist()), **fields}
    fields = {"costs": features.lengths.numpy().astype(float)[indices], **fields}
    return Selection(indices=indices, gains=gains, pool_size=len(features), **fields)


def _all_at_once(state: Information, indices: np.ndarray) -> Float[np.ndarray, " n"]:
    """What `replay` finds, with a fresh factorisation before every pick, as one batch."""
    X = state.blocks.padded(indices, torch.float64)
    V = torch.cat([state.V[None], state.V + (X.mT @ X).cumsum(0)[:-1]])  # before each pick
    factor, failed = torch.linalg.cholesky_ex(V)
    gains, sound = log_det(gram(torch.linalg.solve_triangular(factor, X.mT, upper=False).mT))
    if not sound or failed.any() or lost(V, factor):
        state.refuse(indices)
    state.evaluations += len(indices)
    return gains.cpu().numpy()
