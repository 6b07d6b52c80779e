"""Which device, and whether it is one beside the computer's own. Private helpers that every wing may use."""

import inspect
from collections.abc import Callable

import numpy as np
import torch


def is_accelerator(device: str | torch.device) -> bool:
    """Whether it is a device with memory of its own, whatever its name: every one but "cpu" and "mps"."""
    return torch.device(device).type not in ("cpu", "mps")


def resolve(device: str | torch.device) -> torch.device:
    """The device of this name, in the one spelling that its tensors have: "cuda" is the current one, cuda:0 for instance.

    "auto": CUDA where there is one, else the CPU. Any other backend that is registered with PyTorch goes by its name.
    Raises `ValueError` for a name that nobody registered, and for a device that is not there.
    """
    if isinstance(device, str) and device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        named = torch.device(device)
        backend = torch.get_device_module(named)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"expected the name of a device, like 'cpu', 'cuda' or 'cuda:0', got {device!r}: change device="
        ) from error
    if named.type == "cpu":
        return torch.device("cpu")
    if not backend.is_available():
        raise ValueError(f"expected a device that is visible here, got {str(device)!r}: use device='cpu'")
    index = backend.current_device() if named.index is None else named.index
    if index >= (count := backend.device_count()):
        raise ValueError(f"expected {named.type}:0 to {named.type}:{count - 1}, got {str(device)!r}: change device=")
    return torch.device(named.type, index)


def free_bytes(device: torch.device) -> int:
    """What an accelerator has free. Raises `ValueError` if its backend does not say."""
    backend = torch.get_device_module(device)
    if not hasattr(backend, "mem_get_info"):
        raise ValueError(f"expected memory= (gigabytes to work with), since {device} does not say what is free: give it")
    free = backend.mem_get_info(device)[0]
    if hasattr(backend, "memory_reserved"):  # what PyTorch has taken and keeps for the next tensors is free too
        free += backend.memory_reserved(device) - backend.memory_allocated(device)
    return free


def fetch(tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Begin to copy a tensor to the CPU. Returns what waits for the copy and gives it; CUDA goes on meanwhile."""
    if tensor.device.type != "cuda":
        there = tensor.cpu()
        return lambda: there
    here = page_locked(*tensor.shape, dtype=tensor.dtype, device=tensor.device).copy_(tensor, non_blocking=True)
    copied = torch.cuda.current_stream(tensor.device).record_event()

    def arrived() -> torch.Tensor:
        copied.synchronize()
        return here

    return arrived


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device has units for bfloat16, without which it is the slower; one that does not say has none."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    says = getattr(torch.get_device_module(device), "is_bf16_supported", None)
    if says is None:
        return False
    return says(**({"including_emulation": False} if "including_emulation" in inspect.signature(says).parameters else {}))


def send(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A small array, copied to a device without waiting for what is queued there; on the CPU it is no copy."""
    return torch.from_numpy(array).to(device, non_blocking=True)  # ordinary memory is staged before this returns


def page_locked(*shape: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """An empty tensor on the CPU, from which CUDA copies while the CPU goes on; PyTorch reuses it only after the copy."""
    return torch.empty(*shape, dtype=dtype, pin_memory=device.type == "cuda")
