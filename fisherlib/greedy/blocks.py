"""Blocks of token features, padded and on the device, wherever the features are: there, in memory or mapped from a disk."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fisherlib._device import is_accelerator, page_locked, send
from fisherlib.features import Indices, TokenFeatures
from fisherlib.greedy.memory import LENGTH_STEP, pick_device, plan_memory

_ROWS_STEP = 128  # of rows: bfloat16 kernels are compiled anew for each shape
_PAGE = 2**21  # bytes that a system may map around each block that is read: its pages are up to this large


class Blocks:
    """Gathers the features of some examples as one padded tensor. `weighting="trace"` scales each token's vector."""

    def __init__(self, features: TokenFeatures, weighting: str, device: str | torch.device, memory: int | None = None):
        """`memory`: bytes to work with, beside features that are in memory already. Raises `ValueError` if too few."""
        self.features, self.weighting = features, weighting
        self.device = pick_device(device)
        self.plan = plan_memory(features, weighting, self.device, memory)
        self.lengths = features.lengths.numpy()
        self._values = features.values.to(self.device) if self.plan.pool else features.values
        where = self.device if self.on_accelerator else torch.device("cpu")  # what looks up where an example's rows are
        self._lengths, self._begins = features.lengths.to(where), features.offsets[:-1].to(where)
        self._roots = (
            self._token_roots(slice(None)).to(self.device) if self.on_accelerator and weighting == "trace" else None
        )
        self._in_bfloat16: torch.Tensor | None = None  # a copy that saves half the reading
        self._cache = torch.empty(self.plan.cache_rows, features.dim, dtype=self._values.dtype, device=self.device)
        self._cached_at, self._asked = np.full(len(features), -1), np.zeros(len(features), dtype=bool)
        self._cache_end = self._read = 0

    def parts(self, indices: Indices) -> list[np.ndarray]:
        """Positions in `indices`, cut into batches of similar length, so that padding is small, and of bounded memory."""
        lengths = self.lengths[indices]
        order = np.argsort(lengths, kind="stable")
        room = self.plan.part_numbers // self.features.dim
        if lengths.sum() <= room and len(order) * max(lengths.max(initial=1), 1) <= room:
            return [order] if len(order) else []
        parts, begin = [], 0
        for end in range(1, len(order) + 1):
            width = max(int(lengths[order[min(end, len(order) - 1)]]), 1)  # of the next one, the longest so far
            if end == len(order) or (end + 1 - begin) * width > room:
                parts.append(order[begin:end])
                begin = end
        return parts

    @staticmethod
    def padded_length(lengths: Int[np.ndarray, " B"]) -> int:
        longest = max(int(lengths.max(initial=1)), 1)
        return -(-longest // LENGTH_STEP) * LENGTH_STEP if len(lengths) > 1 and longest > 1 else longest

    def padded(self, indices: Indices, dtype: torch.dtype) -> Float[Tensor, "B T d"]:
        """The features of some examples, padded with rows of zeros, which add nothing to any gain."""
        X, place = self.flat(indices, dtype)
        return pad(X, place)

    @property
    def on_accelerator(self) -> bool:
        """Whether an accelerator holds all features, if there are any, and so finds those of an example by itself."""
        return is_accelerator(self.device) and self._values.device == self.device and len(self._values) > 0

    def padded_there(self, at: Int[Tensor, " B"], longest: int, dtype: torch.dtype) -> Float[Tensor, "B T d"]:
        """`padded` for examples of at most this length whose numbers only the accelerator knows. Waits for nothing."""
        steps, lengths = torch.arange(longest, device=self.device), self._lengths[at][:, None]
        rows = torch.where(steps < lengths, self._begins[at][:, None] + steps, 0).flatten()
        X = self._weighted(self._values.index_select(0, rows), rows, dtype).view(len(at), longest, -1)
        return torch.where((steps < lengths)[..., None], X, 0)

    def flat(self, indices: Indices, dtype: torch.dtype) -> tuple[Float[Tensor, "m d"], Int[Tensor, "B T"]]:
        """The features one after the other, with rows of zeros at the end, and where each would be in `padded`.

        A product with the rows before they are padded wastes no work on padding: `pad(X @ A, place)`.
        """
        indices = np.asarray(indices, dtype=np.int64)
        sizes = self.lengths[indices]
        T, m = self.padded_length(sizes), int(sizes.sum())
        total = -(-(m + 1) // _ROWS_STEP) * _ROWS_STEP if len(sizes) > 1 and T > 1 else m + 1
        lengths, steps = send(sizes, self.device), torch.arange(T, device=self.device)
        place = torch.where(steps < lengths[:, None], (lengths.cumsum(0) - lengths)[:, None] + steps, m)
        if m == 0:
            return torch.zeros(total, self.features.dim, dtype=dtype, device=self.device), place
        values, begins, own = self._source(indices, m, dtype)
        there = values.device == self.device
        rows = _rows(begins, lengths if there else torch.from_numpy(sizes), m, total)
        if there:
            X = values.index_select(0, rows)
        elif values.device.type == "cpu":  # the device copies this block while the next one is gathered
            X = page_locked(total, self.features.dim, dtype=values.dtype, device=self.device)
            X = torch.index_select(values, 0, rows, out=X).to(self.device, non_blocking=True)
        else:
            X = values.index_select(0, rows.to(values.device)).to(self.device)
        if own is not begins:
            rows = _rows(own, torch.from_numpy(sizes), m, total)
        X = self._weighted(X, rows, dtype)
        X[m:] = 0
        return X, place

    def _weighted(self, X: Float[Tensor, "m d"], rows: Int[Tensor, " m"], dtype: torch.dtype) -> Float[Tensor, "m d"]:
        """Before any rounding: one that a whole row shares would not average out. `rows`: their numbers in the pool."""
        if self.weighting == "none":
            return X.to(dtype)
        roots, wide = (
            self._roots[rows] if self._roots is not None else self._token_roots(rows),
            torch.promote_types(dtype, torch.float32),
        )
        return (X.to(wide) * roots.to(self.device, wide)[:, None]).to(dtype)

    def _token_roots(self, rows: Int[Tensor, " m"] | slice) -> Float[Tensor, " m"]:
        column = self.features.column("trace_weights")
        return column[rows if isinstance(rows, slice) else rows.to(column.device)].double().clamp(min=0).sqrt()

    def _source(
        self, indices: Int[np.ndarray, " B"], tokens: int, dtype: torch.dtype
    ) -> tuple[Float[Tensor, "_ d"], Int[Tensor, " B"], Int[Tensor, " B"]]:
        """A tensor that holds the blocks of these examples, where each begins in it, and where in the pool.

        Features that are not on the device are cached there, from the second time that an example is asked for: laziness
        asks for few, again and again, and a pass over all of them must not sweep these out.
        """
        own = self._begins[send(indices, self._begins.device)]
        if not len(self._cache):
            values = self._values
            if dtype == torch.bfloat16 and self.plan.narrow:
                values = self._in_bfloat16 = values.to(dtype) if self._in_bfloat16 is None else self._in_bfloat16
            return values, own, own
        again = bool(self._asked[indices].all())
        self._asked[indices] = True
        if not again or tokens > len(self._cache):
            self._count(indices, tokens)
            return self._values, own, own
        new = indices[self._cached_at[indices] < 0]
        if self._cache_end + self.lengths[new].sum() > len(self._cache):  # full: forget all, the useful ones soon return
            self._cached_at[:], self._cache_end, new = -1, 0, indices
        lengths = self.lengths[new]
        size, end = int(lengths.sum()), self._cache_end
        if size:
            rows = _rows(self._begins[torch.from_numpy(new)], torch.from_numpy(lengths), size, size)
            self._cache[end : end + size] = self._values.index_select(0, rows.to(self._values.device))
            self._count(new, size)
        self._cached_at[new] = end + lengths.cumsum() - lengths
        self._cache_end += size
        return self._cache, send(self._cached_at[indices], self.device), own

    def _count(self, indices: Int[np.ndarray, " B"], tokens: int) -> None:
        """Give the pages of a mapped file back once enough of it may be in memory."""
        runs = 1 + int((np.diff(np.sort(indices)) > 1).sum())  # neighbours share their pages
        self._read += tokens * self.features.dim * self.features.values.itemsize + runs * _PAGE
        if self._read > self.plan.resident:
            self.features.release()
            self._read = 0


def _rows(begins: Int[Tensor, " B"], lengths: Int[Tensor, " B"], tokens: int, total: int) -> Int[Tensor, " total"]:
    """Row numbers of blocks that begin there, one after the other; the rest of `total` are 0."""
    shifts = torch.repeat_interleave(begins - (lengths.cumsum(0) - lengths), lengths, output_size=tokens)
    return torch.nn.functional.pad(shifts + torch.arange(tokens, device=begins.device), (0, total - tokens))


def pad(X: Float[Tensor, "m d"], place: Int[Tensor, "B T"]) -> Float[Tensor, "B T d"]:
    return X.index_select(0, place.flatten()).view(*place.shape, X.shape[1])
