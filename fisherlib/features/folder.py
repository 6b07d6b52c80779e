"""Token features on disk: a folder that says what it holds, can be read without loading it, and can be extended.

    values.bin                   [M, d] by rows, in `dtype`: bfloat16, float16, float32 or float64
    offsets.npy                  int64 [N+1]: example i is rows offsets[i]:offsets[i+1]
    trace_weights.bin, nll.bin   float32 [M], and
    labels.bin                   int64 [M]: the columns that are known
    info.json                    all of the above in numbers, the `source` of the values, and how many examples are `done`

Rows are only ever appended: first the data, made durable, then an `info.json` that counts them, renamed into place. So
whenever a process dies the folder says the truth; what lies beyond `done` is cut off by the next one that writes.
"""

import contextlib
import json
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from jaxtyping import Int
from torch import Tensor

from fisherlib._files import first_line, plain, replacing
from fisherlib._version import __version__

FORMAT = 1
COLUMNS = ("trace_weights", "nll", "labels")
_DTYPES = {name: getattr(torch, name) for name in ("bfloat16", "float16", "float32", "float64", "int32", "int64")}
_FILES = {"values.bin", "offsets.npy", "info.json", *(f"{name}.bin" for name in COLUMNS)}
_SCRATCH = {"info.json.new", "offsets.npy.new", ".lock"}
# The name may be another path to the same weights; the scale follows from weights and rows, up to a device's rounding.
_NOT_COMPARED = {"model", "logit_scale"}


def describe(
    dtype: torch.dtype, dim: int, offsets: Int[Tensor, " N_plus_1"], columns: dict[str, torch.dtype], source: dict
) -> dict:
    """What `info.json` says of a folder in which nothing is done yet. Raises `ValueError` for a dtype that is not known."""

    for kind in (dtype, *columns.values()):
        if kind not in _DTYPES.values():
            raise ValueError(f"expected features of one of the dtypes {', '.join(_DTYPES)}, got {kind}: convert them")
    return {
        "format": FORMAT,
        "fisherlib": __version__,
        "dtype": _name(dtype),
        "dim": dim,
        "examples": len(offsets) - 1,
        "tokens": int(offsets[-1]),
        "columns": {name: _name(kind) for name, kind in columns.items()},
        "done": 0,
        "source": source,
    }


def open_folder(folder: Path) -> tuple[dict[str, Tensor], list[mmap.mmap], dict]:
    """Verify a complete folder and map it: the tensors by name, the maps behind them, and what `info.json` says.

    Nothing but the offsets is read. Raises `ValueError` if anything is missing, of the wrong size or not done yet.
    """
    info = read_info(folder)
    if info["done"] < info["examples"]:
        raise ValueError(
            f"expected features of all {info['examples']:,} examples in {folder}, got {info['done']:,}: the extraction "
            "was interrupted or still runs; call extract_features again with the same out_dir, and it goes on from there"
        )
    tensors, maps = {"offsets": _read_offsets(folder, info)}, []
    for name, (dtype, width) in _layout(info).items():
        path, size = folder / f"{name}.bin", info["tokens"] * width * dtype.itemsize
        found = _size(path)
        if found != size:
            raise ValueError(f"expected {size:,} bytes in {path}, got {found:,}: it is damaged, extract again elsewhere")
        if size:
            with path.open("rb") as file:
                maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))  # writing to it changes no file
            tensor = torch.frombuffer(maps[-1], dtype=dtype)
        else:  # an empty file cannot be mapped
            tensor = torch.empty(0, dtype=dtype)
        tensors[name] = tensor.view(info["tokens"], width) if name == "values" else tensor
    return tensors, maps, info


def release(maps: list[mmap.mmap]) -> None:
    """Give the resident pages of these maps back; they are read from disk again when touched. No-op without madvise."""
    if hasattr(mmap, "MADV_DONTNEED"):
        for mapped in maps:
            mapped.madvise(mmap.MADV_DONTNEED)


def read_info(folder: Path) -> dict:
    """`info.json`, checked key by key. Raises `ValueError`."""
    try:
        info = json.loads((folder / "info.json").read_text())
        if info["format"] != FORMAT:
            raise ValueError(f"it has format {info['format']}, this version reads format {FORMAT}")
        for name in ("dim", "examples", "tokens", "done"):
            if not isinstance(info[name], int) or info[name] < 0:
                raise ValueError(f"{name} is {info[name]!r}")
        for dtype in (info["dtype"], *info["columns"].values()):
            if dtype not in _DTYPES:
                raise ValueError(f"unknown dtype {dtype!r}")
        if unknown := set(info["columns"]).difference(COLUMNS):
            raise ValueError(f"unknown columns {sorted(unknown)}")
        if not isinstance(info["source"], dict):
            raise ValueError("its source is no JSON object")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        cause = f"no {error} in info.json" if isinstance(error, KeyError) else first_line(error)
        raise ValueError(f"expected a folder of token features, got {folder} ({cause}): extract again elsewhere") from error
    return info


def find(folder: Path, wanted: dict, offsets: Int[Tensor, " N_plus_1"]) -> dict:
    """What the folder holds of the extraction `wanted`: its own info, with no more `done` than its files really hold.

    That is `wanted` itself for a folder that is absent, empty or in which nothing is done yet. Raises `ValueError` for a
    folder with other files, or with features of another extraction; the message names what differs.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"expected a folder as out_dir, got the file {folder}: choose another")
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    known = _SCRATCH | (_FILES if "info.json" in names else {"offsets.npy"})  # only that is ever written before info.json
    if foreign := sorted(names - known):
        raise ValueError(f"expected a new out_dir or one of features, got {folder} with {foreign[0]!r}: choose another")
    if "info.json" not in names:
        return wanted
    info = read_info(folder)
    if info["done"] == 0:
        return wanted
    if differences := _differences(info, wanted):
        raise ValueError(
            f"expected the extraction that {folder} was begun with, got another {'; '.join(differences)}: "
            "give the same arguments to go on with it, or choose another out_dir"
        )
    held = info["done"]
    for name, (dtype, width) in _layout(info).items():
        if row_bytes := dtype.itemsize * width:
            rows = max(_size(folder / f"{name}.bin"), 0) // row_bytes
            held = min(held, int(torch.searchsorted(offsets, rows, right=True)) - 1)
    return info | {"done": held}


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing to the folder. Raises `ValueError`, at once, if another one is writing."""
    with explain_disk_errors(folder, "nothing is done yet" if not folder.exists() else "what is done is safe"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise ValueError(
                f"expected an out_dir that nobody else writes to, but another process is extracting into {folder}: "
                "wait until it is done and call again, or choose another"
            ) from None
    try:
        yield
    finally:
        lock.release()


class Writer:
    """Appends examples to a folder. Only one at a time may do so: hold `locked(folder)`, or own the folder."""

    def __init__(self, folder: Path, info: dict, offsets: Int[Tensor, " N_plus_1"]):
        """Begin, or go on: whatever the files hold beyond `info["done"]` examples is cut off."""
        self.folder, self.info, self.offsets = folder, dict(info), offsets.long()
        with self._explain():
            with replacing(folder / "offsets.npy", alone=True, durable=True) as scratch, scratch.open("wb") as file:
                np.save(file, self.offsets.numpy())
            self._say_done(info["done"])  # before the cut: at no moment may it say more than the files hold
            for name, (dtype, width) in _layout(info).items():
                with (folder / f"{name}.bin").open("ab") as file:
                    file.truncate(int(offsets[info["done"]]) * width * dtype.itemsize)

    def append(self, columns: dict[str, Tensor], examples: int) -> None:
        """Add the rows of the next `examples` examples. They are durable when this returns. Raises `OSError`, explained."""
        begin = int(self.offsets[self.info["done"]])
        with self._explain():
            for name, (dtype, width) in _layout(self.info).items():
                data = columns[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data
                with (self.folder / f"{name}.bin").open("r+b") as file:
                    file.seek(begin * width * dtype.itemsize)
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            self._say_done(self.info["done"] + examples)

    def _say_done(self, done: int) -> None:
        info = self.info | {"done": done}
        with replacing(self.folder / "info.json", alone=True, durable=True) as scratch:
            scratch.write_text(json.dumps(info, indent=1, default=plain))
        self.info = info

    def _explain(self):
        safe = f"{self.info['done']:,} of {self.info['examples']:,} examples are safe"
        return explain_disk_errors(self.folder, safe)


@contextlib.contextmanager
def explain_disk_errors(folder: Path, safe: str) -> Iterator[None]:
    """Turn an `OSError` (a full disk, no permission) into one of the same errno that says what to do."""
    try:
        yield
    except OSError as error:
        message = f"cannot write features to {folder} ({error.strerror or error}; {safe})"
        raise OSError(error.errno, f"{message}: free some space or choose a writable folder, and call again") from error


def _layout(info: dict) -> dict[str, tuple[torch.dtype, int]]:
    """Of each .bin file, the dtype and how many numbers a token has in it."""
    columns = {name: (_DTYPES[dtype], 1) for name, dtype in info["columns"].items()}
    return {"values": (_DTYPES[info["dtype"]], info["dim"]), **columns}


def _read_offsets(folder: Path, info: dict) -> Int[Tensor, " N_plus_1"]:
    path = folder / "offsets.npy"
    try:
        offsets = np.load(path, allow_pickle=False)
        if offsets.dtype != np.int64 or offsets.shape != (info["examples"] + 1,):
            raise ValueError(f"{offsets.dtype} of shape {offsets.shape}")
        if offsets[0] != 0 or offsets[-1] != info["tokens"] or (np.diff(offsets) < 0).any():
            raise ValueError("they do not rise from 0 to that number")
    except (OSError, ValueError, EOFError) as error:
        what = f"expected offsets of {info['examples']:,} examples and {info['tokens']:,} tokens in {path}"
        raise ValueError(f"{what} ({first_line(error)}): it is damaged, extract again elsewhere") from error
    return torch.from_numpy(offsets)


def _differences(info: dict, wanted: dict) -> list[str]:
    """What differs between the extraction in a folder and the wanted one: "dtype (float32 there, bfloat16 here)"."""
    sides = []
    for side in (info, wanted):
        shape = {name: side[name] for name in ("dtype", "dim", "examples", "tokens", "columns")}
        sides.append(shape | {name: value for name, value in side["source"].items() if name not in _NOT_COMPARED})
    there, here = sides
    different = [name for name in here if there.get(name) != here[name]]
    return [f"{name} ({str(there.get(name))[:10]} there, {str(here[name])[:10]} here)" for name in different]


def _size(path: Path) -> int:
    """In bytes; of a file that is missing -1, which no file is expected to have."""
    return path.stat().st_size if path.is_file() else -1


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
