"""A pretend accelerator: a device `pretend:0` whose numbers lie on the CPU, as strict as CUDA about what is where.

PyTorch lets Python register one device of any name. A tensor there is a wrapper around one of the CPU; an operation runs on
what is inside, and one that mixes devices is refused where CUDA would refuse it. So code that is meant for a GPU can be run,
and caught, where there is none. It shows nothing of speed, streams, or the other rounding of a GPU.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "pretend"
_aten = torch.ops.aten
_ASKING = (_aten._local_scalar_dense.default, _aten.nonzero.default, _aten.masked_select.default, _aten.equal.default)
_INDEXING = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default)


class OnDevice(torch.Tensor):
    """A tensor on `pretend:0`. `inside`: the tensor of the CPU that it wraps; a view of one wraps a view of the other."""

    @staticmethod
    def __new__(cls, inside: torch.Tensor) -> "OnDevice":
        layout = {"strides": inside.stride(), "storage_offset": inside.storage_offset(), "dtype": inside.dtype}
        with torch.inference_mode(False):  # a view in inference mode of a tensor from outside counts its versions
            made = torch.Tensor._make_wrapper_subclass(cls, inside.shape, **layout, device=f"{NAME}:0")
        made.inside = inside
        return made

    def __repr__(self) -> str:
        return f"{self.inside!r} on {NAME}:0"

    def numpy(self, *, force: bool = False):
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() first")

    def tolist(self) -> list:
        _present[-1].reads += 1
        return self.inside.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class Accelerator(TorchDispatchMode):
    """Sends what is made for the device there. `arrived`: the bytes that were copied to it from the CPU.

    `reads`: how often the CPU would have waited for it, for a copy, for one number, or for how many a mask selects.
    """

    arrived = 0
    reads = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if torch.is_inference_mode_enabled():  # what is made of several operations arrives whole, and is taken apart
            with self:
                if (done := func.decompose(*args, **(kwargs or {}))) is not NotImplemented:
                    return done
        return _run(func, args, kwargs or {})


_present: list[Accelerator] = []


@contextlib.contextmanager
def accelerator() -> Iterator[Accelerator]:
    """The device is there within this context."""
    with Accelerator() as mode:
        _present.append(mode)
        try:
            yield mode
        finally:
            _present.pop()


def _run(func, args, kwargs):
    came: list[torch.Tensor] = []
    inner, named = _each(args, lambda t: came.append(t) or _inside(t)), _each(kwargs, lambda t: came.append(t) or _inside(t))
    there, asked = any(isinstance(t, OnDevice) for t in came), kwargs.get("device")
    target = there if asked is None else torch.device(asked).type == NAME  # where the result will be
    if target and asked is not None:
        named["device"] = torch.device("cpu")
    if func is _aten._pin_memory.default:
        return args[0]
    if there and _waits(func, args, target):
        _present[-1].reads += 1
    if func is _aten._to_copy.default or func is _aten.copy_.default:  # may go from one device to another
        if target and not isinstance(came[-1], OnDevice):
            _present[-1].arrived += came[-1].nbytes
            _present[-1].reads += came[-1].ndim > 0 and not (kwargs or {}).get("non_blocking", len(args) > 2 and args[2])
    elif there:
        _check(func, args, came)
    own = {id(_inside(t)): t for t in came}  # of an operation in place, what came in goes out
    return _each(func(*inner, **named), lambda t: own[id(t)] if id(t) in own else OnDevice(t) if target else t)


def _waits(func, args, target) -> bool:
    if func is _aten.copy_.default:
        return isinstance(args[1], OnDevice) and not isinstance(args[0], OnDevice)
    if func in _INDEXING:
        return any(index is not None and index.dtype == torch.bool for index in args[1])
    return func in _ASKING or (func is _aten._to_copy.default and not target)


def _inside(t: torch.Tensor) -> torch.Tensor:
    return t.inside if isinstance(t, OnDevice) else t


def _each(x, change):
    """The same structure with every tensor changed."""
    if isinstance(x, torch.Tensor):
        return change(x)
    if isinstance(x, dict):
        return {name: _each(value, change) for name, value in x.items()}
    return type(x)(_each(value, change) for value in x) if isinstance(x, list | tuple) else x


def _check(func, args, came):
    """As CUDA: all on one device, but single numbers, and indices of the CPU into what is on the device."""
    if func in _INDEXING and isinstance(args[0], OnDevice):
        came = args[2:3]  # what is put there
    if any(isinstance(t, torch.Tensor) and not isinstance(t, OnDevice) and t.ndim for t in came):
        raise RuntimeError(f"Expected all tensors to be on the same device, but got {NAME}:0 and cpu in {func}")


class _Module(_DummyBackendModule):
    def is_available(self) -> bool:
        return bool(_present)  # elsewhere in the tests there is no such device

    def device_count(self) -> int:
        return len(_present)

    def mem_get_info(self, device=None) -> tuple[int, int]:
        return 2**30, 2**31

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def get_rng_state(self, device=None):
        return torch.get_rng_state()

    def set_rng_state(self, state, device=None):
        torch.set_rng_state(state)


def _empty_strided(size, stride, device=None, **layout):
    return OnDevice(torch.empty_strided(size, stride, **layout))


def _copy_from(source, to, non_blocking=False):
    return _run(_aten.copy_.default, (to, source), {})


_setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
_library = torch.library.Library("aten", "IMPL")  # `torch.tensor(..., device=)` goes past every mode, and asks for these
_library.impl("empty_strided", _empty_strided, "PrivateUse1")
_library.impl("_copy_from", _copy_from, "PrivateUse1")
_autocast = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")  # no mixed precision: all as it is
_autocast.fallback(torch.library.fallthrough_kernel)
