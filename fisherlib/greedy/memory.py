"""Which device a selection runs on, and how much memory it may take there."""

import psutil
import torch

from fisherlib._device import free_bytes, is_accelerator, resolve


def free_memory(device: torch.device) -> int:
    """Bytes that may be used without asking: four fifths of what a GPU has free, half of what a computer has."""
    if is_accelerator(device):
        return int(0.8 * free_bytes(device))
    return psutil.virtual_memory().available // 2


def pick_device(device: str | torch.device) -> torch.device:
    if str(device).startswith("mps"):
        raise ValueError("expected device 'cpu' or 'cuda', got 'mps': it has no float64, which the selection needs")
    return resolve(device)
