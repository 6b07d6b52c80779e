"""Fewer numbers per token, at a price that can be measured. (Extension.)"""

import numpy as np
import torch

from fisherlib._door import checked
from fisherlib.features.token_features import TokenFeatures
from fisherlib.model import all_finite

_ROWS = 2**14  # projected at a time


@checked
def compress(features: TokenFeatures, dim: int, *, method: str = "pca", seed: int = 0) -> TokenFeatures:
    """Features of width `dim` < d, in memory (where the features are), in float32, with the per-token columns kept.

    >>> features = fl.TokenFeatures.from_list([torch.randn(3, 8), torch.randn(2, 8)])
    >>> fl.compress(features, 4).values.shape
    torch.Size([5, 4])

    `method`: "pca" keeps the directions of the largest second moment (not centred: V is not centred either); "random" is a
    Gaussian projection of variance 1 / dim, which keeps lengths and angles in expectation and needs no pass of its own.
    A gain of features in fewer dimensions is another gain: select with these, then ask `certify(features, selection)` what
    the picks are worth in full. Time O(M d^2 + d^3) for "pca", O(M d dim) for "random".
    Raises `ValueError` for a width that is not from 1 to d - 1, for an unknown method, and for features that are not finite.
    """
    features.check_whole()
    d = features.dim
    if not 1 <= dim < d:
        raise ValueError(f"expected a width from 1 to {d - 1:,}, less than that of the features, got {dim:,}")
    if method == "pca":
        moment = torch.zeros(d, d, dtype=torch.float64, device=features.values.device)
        for begin in range(0, len(features.values), _ROWS):
            X = features.values[begin : begin + _ROWS].double()
            moment.addmm_(X.T, X)
            features.release()
        if not torch.isfinite(moment).all():
            raise ValueError("expected finite features, got NaN or infinity: extract the features again")
        Q = torch.linalg.eigh(moment).eigenvectors[:, -dim:].flip(1)
    elif method == "random":
        Q = torch.from_numpy(np.random.default_rng(seed).normal(scale=dim**-0.5, size=(d, dim)))
    else:
        raise ValueError(f"expected method 'pca' or 'random', got {method!r}")
    Q = Q.to(features.values.device, torch.float32)
    values = torch.empty(len(features.values), dim, dtype=torch.float32, device=Q.device)
    for begin in range(0, len(values), _ROWS):
        values[begin : begin + _ROWS] = features.values[begin : begin + _ROWS].float() @ Q
        features.release()
    if not all_finite(values):
        raise ValueError("expected features that are finite, in float32 too, got others: extract again, or scale them down")
    columns = {name: getattr(features, name) for name in ("trace_weights", "nll", "labels")}
    info = {**features.info, "compressed": {"method": method, "from": d, "to": dim}}
    return TokenFeatures(values, features.offsets, **columns, info=info, provenance=features.provenance)
