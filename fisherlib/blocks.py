"""Blocks of token features, padded and on the device, wherever the features are: in memory or memory-mapped from a disk."""

import numpy as np
import psutil
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fisherlib.token_features import Indices, TokenFeatures

_LENGTH_STEP, _ROWS_STEP = 8, 128  # of padded lengths and of rows: bfloat16 kernels are compiled anew for each shape
_RESIDENT = 2**28  # bytes of a memory-mapped file that may stay in memory: the system's own cache keeps the rest
_TEMPORARY = 32  # bytes that a calculation holds at its height for each number in a part


class Blocks:
    """Gathers the features of some examples as one padded tensor. `weighting="trace"` scales each token's vector."""

    def __init__(self, features: TokenFeatures, weighting: str, device: str, memory: int | None = None):
        """`memory`: bytes to work with, beside features that are in memory already. Raises `ValueError` if too few."""
        self.features = features
        self.device = pick_device(device)
        self.lengths = features.lengths.numpy()
        self.begins = features.offsets.numpy()[:-1]
        self.root_weights = features.trace_weights.double().clamp(min=0).sqrt() if weighting == "trace" else None
        self._values = features.values
        self._in_bfloat16: torch.Tensor | None = None  # a copy that saves half the reading
        self._read = 0
        longest = int(self.lengths.max(initial=1))
        self.widest = longest if longest <= 1 else -(-longest // _LENGTH_STEP) * _LENGTH_STEP
        d, n = features.dim, len(features)
        left = free_memory(self.device) if memory is None else memory
        least = 100 * d**2 + (4 * d + 64) * n + 4 * _TEMPORARY * self.widest * d  # matrices, per example, one example's part
        if left < least:
            raise ValueError(
                f"expected at least {least / 1e9:.2g} GB for {n:,} examples of width {d}, of up to {longest:,} tokens, "
                f"got {left / 1e9:.2g} GB: raise memory=, drop the longest examples or reduce the width (fl.compress)"
            )
        if self.device.type == "cuda" and 2 * self._values.nbytes < left:
            self._values = self._values.to(self.device)
            left -= self._values.nbytes
        self.copies = not features.maps and self._values.numel() * 2 < left // 2
        most = 2**26 if self.device.type == "cuda" else 2**21  # on a CPU, what its caches hold
        self.elements = max(min(left // 4 // _TEMPORARY, most), self.widest * d)  # of one part
        self.gram_elements = min(left // 32, 2**22)  # of Gram matrices that are remembered, in float64
        self.resident = min(left // 4, _RESIDENT)
        copied = self._values.numel() * 2 if self.copies else 0
        self.planned = least + self.elements * _TEMPORARY + self.gram_elements * 8 + copied  # bytes, at most

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
        X, place = self.flat(indices, dtype)
        return pad(X, place)

    def flat(self, indices: Indices, dtype: torch.dtype) -> tuple[Float[Tensor, "m d"], Int[Tensor, "B T"]]:
        """The features one after the other, with rows of zeros at the end, and where each would be in `padded`.

        A product with the rows before they are padded wastes no work on padding: `pad(X @ A, place)`.
        """
        lengths, begins = self.lengths[indices], self.begins[indices]
        B, T, m = len(lengths), max(int(lengths.max(initial=1)), 1), int(lengths.sum())
        many = B > 1 and T > 1
        T = -(-T // _LENGTH_STEP) * _LENGTH_STEP if many else T
        total = -(-(m + 1) // _ROWS_STEP) * _ROWS_STEP if many else m + 1
        starts = lengths.cumsum() - lengths
        place = np.where(np.arange(T) < lengths[:, None], starts[:, None] + np.arange(T), m)
        rows = np.zeros(total, dtype=np.int64)
        rows[:m] = np.repeat(begins - starts, lengths) + np.arange(m)
        place, rows = (torch.from_numpy(index).to(self.device) for index in (place, rows))
        if m == 0:
            return torch.zeros(total, self.features.dim, dtype=dtype, device=self.device), place
        values = self._values
        if dtype == torch.bfloat16 and values.dtype != dtype and self.copies:
            values = self._in_bfloat16 = values.to(dtype) if self._in_bfloat16 is None else self._in_bfloat16
        X = values.index_select(0, rows.to(values.device)).to(self.device, dtype)
        if self.root_weights is not None:
            X *= self.root_weights[rows.cpu()].to(self.device, dtype)[:, None]
        X[m:] = 0
        self._read += X.numel() * self.features.values.itemsize
        if self._read > self.resident:
            self.features.release()
            self._read = 0
        return X, place


def pad(X: Float[Tensor, "m d"], place: Int[Tensor, "B T"]) -> Float[Tensor, "B T d"]:
    return X.index_select(0, place.flatten()).view(*place.shape, X.shape[1])


def free_memory(device: torch.device) -> int:
    """Bytes that may be used without asking: four fifths of what a GPU has free, half of what a computer has."""
    if device.type == "cuda":
        return int(0.8 * torch.cuda.mem_get_info(device)[0])
    return psutil.virtual_memory().available // 2


def pick_device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if torch.device(device).type == "mps":
        raise ValueError("expected device 'cpu' or 'cuda', got 'mps': it has no float64, which the selection needs")
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"expected device 'cpu', got {device!r}: no CUDA device is visible here")
    return torch.device(device)
