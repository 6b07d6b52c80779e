"""Which device a selection runs on, and how much memory it may take there."""

import psutil
import torch


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
