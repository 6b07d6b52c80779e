"""Blocks of token features, padded and on the device, wherever the features are: in memory or memory-mapped from a disk."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fisherlib.token_features import Indices, TokenFeatures

_LENGTH_STEP = 8  # of padded lengths: bfloat16 kernels are compiled anew for each shape
_RELEASE_BYTES = 2**28  # of a memory-mapped file that may stay resident


class Blocks:
    """Gathers the features of some examples as one padded tensor. `weighting="trace"` scales each token's vector."""

    def __init__(self, features: TokenFeatures, weighting: str, device: str):
        self.features = features
        self.device = pick_device(device)
        self.lengths = features.lengths.numpy()
        self.begins = features.offsets.numpy()[:-1]
        self.root_weights = features.trace_weights.double().clamp(min=0).sqrt() if weighting == "trace" else None
        self.elements = 2**26 if self.device.type == "cuda" else 2**21  # of one part
        self._values = features.values
        self._in_bfloat16: torch.Tensor | None = None  # a copy that saves half the reading
        self._read = 0
        longest = int(self.lengths.max(initial=1))
        self.widest = longest if longest <= 1 else -(-longest // _LENGTH_STEP) * _LENGTH_STEP
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            if self._values.nbytes < 0.8 * free:
                self._values = self._values.to(self.device)

    def parts(self, indices: Indices) -> list[np.ndarray]:
        """Positions in `indices`, cut into batches of similar length, so that padding is small, and of bounded memory."""
        lengths = self.lengths[indices]
        order = np.argsort(lengths, kind="stable")
        room = self.elements // self.features.dim
        if lengths.sum() <= room and len(order) * max(lengths.max(initial=1), 1) <= room:
            return [order] if len(order) else []
        parts, begin = [], 0
        for end in range(1, len(order) + 1):
            width = max(int(lengths[order[min(end, len(order) - 1)]]), 1)  # of the next one, the longest so far
            if end == len(order) or (end + 1 - begin) * width > room:
                parts.append(order[begin:end])
                begin = end
        return parts

    def padded(self, indices: Indices, dtype: torch.dtype) -> Float[Tensor, "B T d"]:
        """The features of some examples, padded with rows of zeros, which add nothing to any gain."""
        lengths, begins = self.lengths[indices], self.begins[indices]
        B, T = len(lengths), max(int(lengths.max(initial=1)), 1)
        if B > 1 and T > 1:
            T = -(-T // _LENGTH_STEP) * _LENGTH_STEP
        if len(self._values) == 0:
            return torch.zeros(B, T, self.features.dim, dtype=dtype, device=self.device)
        rows = begins[:, None] + np.minimum(
            np.arange(T), np.maximum(lengths[:, None] - 1, 0)
        )  # past the end: the last again
        rows = torch.from_numpy(np.minimum(rows, len(self._values) - 1).ravel())
        values = self._values
        if dtype == torch.bfloat16 and values.dtype != dtype and not self.features.maps:
            values = self._in_bfloat16 = values.to(dtype) if self._in_bfloat16 is None else self._in_bfloat16
        X = values.index_select(0, rows.to(values.device)).to(self.device, dtype)
        if self.root_weights is not None:
            X *= self.root_weights[rows].to(self.device, dtype)[:, None]
        beyond = np.flatnonzero(np.arange(T) >= lengths[:, None])
        X.index_fill_(0, torch.from_numpy(beyond).to(self.device), 0)
        self._read += X.numel() * self.features.values.itemsize
        if self._read > _RELEASE_BYTES:
            self.features.release()
            self._read = 0
        return X.view(B, T, -1)


def pick_device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if torch.device(device).type == "mps":
        raise ValueError("expected device 'cpu' or 'cuda', got 'mps': it has no float64, which the selection needs")
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"expected device 'cpu', got {device!r}: no CUDA device is visible here")
    return torch.device(device)
