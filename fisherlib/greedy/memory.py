"""Which device a selection runs on, and what it will take there: every array that grows with the pool has its line here."""

from dataclasses import dataclass

import psutil
import torch

from fisherlib._device import free_bytes, is_accelerator, resolve
from fisherlib.features import TokenFeatures

LENGTH_STEP = 8  # of padded lengths: bfloat16 kernels are compiled anew for each shape
_TEMPORARY = 32  # bytes that a calculation holds at its height for each number in a part
_RESIDENT = 2**28  # bytes of a memory-mapped file that may stay in memory: the system's own cache keeps the rest
_CACHE = 2**28  # bytes at most, on a CPU, for blocks of a mapped file that were asked for again
_PART_ON_ACCELERATOR, _PART_ON_CPU = 2**26, 2**21  # numbers at most: on a CPU, what its caches hold


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes at most of each thing that a selection holds beside features that are in memory, and what that leaves room for.

    `matrices` [d, d]: V, its root, the low-precision root. `examples`: bounds and the like [N]. `parts`: the calculations on
    one part of the pool. `narrow`: a bfloat16 copy of the features. `cache`: blocks of features that are elsewhere, kept on
    the device. `pool`: the features themselves, moved to an accelerator, and `weights`: those of their tokens. `widest`: the
    longest example, padded; `part_numbers`, `cache_rows`: how many of each fit; `resident`: bytes of a mapped file that are
    not given back yet.
    """

    matrices: int
    examples: int
    parts: int
    narrow: int
    cache: int
    pool: int
    weights: int
    widest: int
    part_numbers: int
    cache_rows: int
    resident: int

    @property
    def total(self) -> int:
        return self.matrices + self.examples + self.parts + self.narrow + self.cache + self.pool + self.weights


def plan_memory(
    features: TokenFeatures, weighting: str, device: str | torch.device, memory: int | None = None
) -> MemoryPlan:
    """What a selection from these features takes. `memory`: bytes to work with, by default `free_memory` of the device.

    Builds and reads nothing. Raises `ValueError` if the memory is too little.
    """
    device, values = pick_device(device), features.values
    n, d, longest = len(features), features.dim, int(features.lengths.numpy().max(initial=1))
    widest = longest if longest == 1 else -(-longest // LENGTH_STEP) * LENGTH_STEP
    matrices, examples, example = 100 * d**2, 128 * n, _TEMPORARY * widest * d
    there, on_accelerator = values.device == device, is_accelerator(device)
    weights = 8 * len(values) if on_accelerator and weighting == "trace" else 0
    left = free_memory(device) if memory is None else memory
    least = matrices + examples + 4 * example + there * weights
    if left < least:
        raise ValueError(
            f"expected at least {least / 1e9:.2g} GB for {n:,} examples of width {d}, of up to {longest:,} tokens, "
            f"got {left / 1e9:.2g} GB: raise memory=, drop the longest examples or reduce the width (fl.compress)"
        )
    left -= least
    fits = on_accelerator and not there and values.nbytes + weights <= left - least
    pool, weights = values.nbytes * fits, weights * (fits or there)
    left -= pool + fits * weights
    near = bool(pool) or (there and (on_accelerator or not features.maps))
    row = d * values.itemsize
    cache_rows = 0 if near else min(left // 4, values.nbytes, left if on_accelerator else _CACHE) // row
    narrow = values.numel() * 2
    copies = near and values.dtype != torch.bfloat16 and weighting == "none" and narrow < left // 2
    most = _PART_ON_ACCELERATOR if on_accelerator else _PART_ON_CPU
    part_numbers = max(min(left // 4 // _TEMPORARY, most), widest * d)
    return MemoryPlan(
        matrices=matrices,
        examples=examples,
        parts=part_numbers * _TEMPORARY + 3 * example,
        narrow=narrow if copies else 0,
        cache=cache_rows * row,
        pool=pool,
        weights=weights,
        widest=widest,
        part_numbers=part_numbers,
        cache_rows=cache_rows,
        resident=min(left // 4, _RESIDENT),
    )


def free_memory(device: torch.device) -> int:
    """Bytes that may be used without asking: four fifths of what a GPU has free, half of what a computer has."""
    if is_accelerator(device):
        return int(0.8 * free_bytes(device))
    return psutil.virtual_memory().available // 2


def pick_device(device: str | torch.device) -> torch.device:
    """`resolve`, but for devices that have no float64. Raises `ValueError` for these and for what is no device."""
    if str(device).startswith("mps"):
        raise ValueError("expected device 'cpu' or 'cuda', got 'mps': it has no float64, which the selection needs")
    return resolve(device)
