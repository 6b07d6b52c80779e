"""Blocks of token features, padded and on the device, wherever the features are: there, in memory or mapped from a disk."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fisherlib._device import is_accelerator
from fisherlib.features import Indices, TokenFeatures
from fisherlib.greedy.memory import free_memory, pick_device

_LENGTH_STEP, _ROWS_STEP = 8, 128  # of padded lengths and of rows: bfloat16 kernels are compiled anew for each shape
_RESIDENT = 2**28  # bytes of a memory-mapped file that may stay in memory: the system's own cache keeps the rest
_PAGE = 2**21  # bytes that a system may map around each block that is read: its pages are up to this large
_CACHE = 2**28  # bytes at most, on a CPU, for blocks of a mapped file that were asked for again
_TEMPORARY = 32  # bytes that a calculation holds at its height for each number in a part


class Blocks:
    """Gathers the features of some examples as one padded tensor. `weighting="trace"` scales each token's vector."""

    def __init__(self, features: TokenFeatures, weighting: str, device: str | torch.device, memory: int | None = None):
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
        left -= least
        on_gpu = is_accelerator(self.device)
        if on_gpu and self._values.nbytes <= left - least:
            self._values = self._values.to(self.device)
            left -= self._values.nbytes
        near = self._values.device == self.device and (on_gpu or not features.maps)
        row = d * self._values.itemsize
        cached = 0 if near else min(left // 4, self._values.nbytes, left if on_gpu else _CACHE) // row
        self._cache = torch.empty(cached, d, dtype=self._values.dtype, device=self.device)
        self._cached_at, self._asked, self._cache_end = np.full(n, -1), np.zeros(n, dtype=bool), 0
        is_narrow = self._values.dtype == torch.bfloat16
        self.copies = near and not is_narrow and weighting == "none" and self._values.numel() * 2 < left // 2
        most = 2**26 if on_gpu else 2**21  # on a CPU, what its caches hold
        self.elements = max(min(left // 4 // _TEMPORARY, most), self.widest * d)  # of one part
        self.gram_elements = min(left // 32, 2**22)  # of Gram matrices that are remembered, in float64
        self.resident = min(left // 4, _RESIDENT)
        copied = self._values.numel() * 2 if self.copies else 0
        parts = (self.elements - self.widest * d) * _TEMPORARY  # beyond one example's, which `least` has
        self.planned = least + parts + self.gram_elements * 8 + copied + cached * row  # bytes, at most

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
        lengths = self.lengths[indices]
        B, T, m = len(lengths), max(int(lengths.max(initial=1)), 1), int(lengths.sum())
        many = B > 1 and T > 1
        T = -(-T // _LENGTH_STEP) * _LENGTH_STEP if many else T
        total = -(-(m + 1) // _ROWS_STEP) * _ROWS_STEP if many else m + 1
        starts = lengths.cumsum() - lengths
        place = np.where(np.arange(T) < lengths[:, None], starts[:, None] + np.arange(T), m)
        place = torch.from_numpy(place).to(self.device)
        if m == 0:
            return torch.zeros(total, self.features.dim, dtype=dtype, device=self.device), place
        values, begins = self._source(np.asarray(indices, dtype=np.int64), m, dtype)
        rows = _rows(begins, lengths, total).to(values.device)
        X = values.index_select(0, rows).to(self.device)
        if self.root_weights is not None:  # before any rounding: one that a whole row shares would not average out
            own_rows, wide = _rows(self.begins[indices], lengths, total), torch.promote_types(dtype, torch.float32)
            X = X.to(wide) * self.root_weights[own_rows].to(self.device, wide)[:, None]
        X = X.to(dtype)
        X[m:] = 0
        return X, place

    def _source(
        self, indices: Int[np.ndarray, " B"], tokens: int, dtype: torch.dtype
    ) -> tuple[Float[Tensor, "_ d"], Int[np.ndarray, " B"]]:
        """A tensor that holds the blocks of these examples, and where each begins in it.

        Features that are not on the device are cached there, from the second time that an example is asked for: laziness
        asks for few, again and again, and a pass over all of them must not sweep these out.
        """
        if not len(self._cache):
            values = self._values
            if dtype == torch.bfloat16 and self.copies:
                values = self._in_bfloat16 = values.to(dtype) if self._in_bfloat16 is None else self._in_bfloat16
            return values, self.begins[indices]
        again = bool(self._asked[indices].all())
        self._asked[indices] = True
        if not again or tokens > len(self._cache):
            self._count(indices, tokens)
            return self._values, self.begins[indices]
        new = indices[self._cached_at[indices] < 0]
        if self._cache_end + self.lengths[new].sum() > len(self._cache):  # full: forget all, the useful ones soon return
            self._cached_at[:], self._cache_end, new = -1, 0, indices
        lengths = self.lengths[new]
        size, end = int(lengths.sum()), self._cache_end
        if size:
            rows = _rows(self.begins[new], lengths, size).to(self._values.device)
            self._cache[end : end + size] = self._values.index_select(0, rows)
            self._count(new, size)
        self._cached_at[new] = end + lengths.cumsum() - lengths
        self._cache_end += size
        return self._cache, self._cached_at[indices]

    def _count(self, indices: Int[np.ndarray, " B"], tokens: int) -> None:
        """Give the pages of a mapped file back once enough of it may be in memory."""
        runs = 1 + int((np.diff(np.sort(indices)) > 1).sum())  # neighbours share their pages
        self._read += tokens * self.features.dim * self.features.values.itemsize + runs * _PAGE
        if self._read > self.resident:
            self.features.release()
            self._read = 0


def _rows(begins: Int[np.ndarray, " B"], lengths: Int[np.ndarray, " B"], total: int) -> Int[Tensor, " total"]:
    """Row numbers of blocks that begin there, one after the other; the rest of `total` are 0."""
    rows, m = np.zeros(total, dtype=np.int64), int(lengths.sum())
    rows[:m] = np.repeat(begins - (lengths.cumsum() - lengths), lengths) + np.arange(m)
    return torch.from_numpy(rows)


def pad(X: Float[Tensor, "m d"], place: Int[Tensor, "B T"]) -> Float[Tensor, "B T d"]:
    return X.index_select(0, place.flatten()).view(*place.shape, X.shape[1])
