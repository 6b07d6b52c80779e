"""Token features on disk: a folder that says what it holds, can be read without loading it, and can be extended.

    values.bin                   [M, d] by rows, in `dtype`: bfloat16, float16, float32 or float64
    offsets.npy                  int64 [N+1]: example i is rows offsets[i]:offsets[i+1]
    trace_weights.bin, nll.bin   float32 [M], and
    labels.bin                   int64 [M]: the columns that are known
    rows.parquet                 of each example the hash, id, file and line of its row, where they are known
    info.json                    all of the above in numbers, the `source` of the values, how many examples are `done`, and
                                 `digests` of the files (see `digests.py`; folders of the first versions have none)

Rows are only ever appended: first the data, made durable, then an `info.json` that counts them, renamed into place. So
whenever a process dies the folder says the truth; what lies beyond `done` is cut off by the next one that writes.
"""

import contextlib
import io
import json
import mmap
import os
import tokenize
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from filelock import FileLock, Timeout
from jaxtyping import Int
from torch import Tensor

from fisherlib._files import first_line, plain, replacing
from fisherlib._version import __version__
from fisherlib.features import digests

FORMAT = 1
COLUMNS = ("trace_weights", "nll", "labels")
_DTYPES = {name: getattr(torch, name) for name in ("bfloat16", "float16", "float32", "float64", "int32", "int64")}
FLOATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)  # that features are extracted to
_FIRST = {"offsets.npy", "rows.parquet"}  # only these are ever written before info.json, and only beside a .lock
_FILES = _FIRST | {"info.json", "values.bin", *(f"{name}.bin" for name in COLUMNS)}
_SCRATCH = {"info.json.new", "offsets.npy.new", "rows.parquet.new", ".lock"}
# The name may be another path to the same weights; the scale follows from weights and rows, up to a device's rounding.
_NOT_COMPARED = {"model", "logit_scale"}
_NEWER = {"model_positions"}  # of which older folders know nothing


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


def open_folder(folder: Path, *, verify: bool) -> tuple[dict[str, Tensor], Dataset | None, list[mmap.mmap], dict]:
    """Check a complete folder and map it: the tensors by name, the rows, the maps, and what `info.json` says.

    Nothing but the offsets and the rows is read, or all with `verify`. Raises `ValueError` if anything is missing, of the
    wrong size, not done yet, or not what was written.
    """
    info = read_info(folder)
    if info["done"] < info["examples"]:
        raise ValueError(
            f"expected features of all {info['examples']:,} examples in {folder}, got {info['done']:,}: the extraction "
            "was interrupted or still runs; call extract_features again with the same out_dir, and it goes on from there"
        )
    tensors, maps = {"offsets": _read_offsets(folder, info)}, []
    rows = _read_rows(folder, info)
    for name, (dtype, width) in _layout(info).items():
        path, size = folder / f"{name}.bin", info["tokens"] * width * dtype.itemsize
        found = _size(path)
        if found != size:
            raise ValueError(f"expected {size:,} bytes in {path}, got {found:,}: it is damaged, extract again elsewhere")
        if size:
            with path.open("rb") as file:
                maps.append(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY))  # writing to it changes no file
            tensor = torch.frombuffer(maps[-1], dtype=dtype)
        else:  # an empty file cannot be mapped
            tensor = torch.empty(0, dtype=dtype)
        tensors[name] = tensor.view(info["tokens"], width) if name == "values" else tensor
    if verify:
        digests.verify(folder, info, _row_bytes(info), tensors["offsets"])
    return tensors, rows, maps, info


def check_maps(maps: list[mmap.mmap]) -> None:
    """Raise `ValueError` if a file is shorter by now than what is mapped of it. To read there would end the process."""
    for mapped in maps:
        if mapped.size() < len(mapped):
            raise ValueError(
                f"expected {len(mapped):,} bytes in a file that features are mapped from, got {mapped.size():,}: it was cut "
                "since it was opened, extract again"
            )


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
        digests.check(info)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
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
    known = _SCRATCH | (_FILES if "info.json" in names else _FIRST if ".lock" in names else set())
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
    for name, row_bytes in _row_bytes(info).items():
        if row_bytes:
            rows = max(_size(folder / f"{name}.bin"), 0) // row_bytes
            held = min(held, int(torch.searchsorted(offsets, rows, right=True)) - 1)
    return info | {"done": held}


def whole(folder: Path, info: dict, offsets: Int[Tensor, " N_plus_1"]) -> int:
    """How many of the examples that are done are, on the disk, what was written: those before the first damaged shard.

    Reads all that is done. What has no digest, from an older version, counts as whole.
    """
    damaged = digests.damaged(folder, info, _row_bytes(info), offsets)
    return info["done"] if damaged is None else damaged.begin


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

    def __init__(
        self,
        folder: Path,
        info: dict,
        offsets: Int[Tensor, " N_plus_1"],
        rows: Dataset | None = None,
        shown: Path | None = None,
    ):
        """Begin, or go on: whatever the files hold beyond `info["done"]` examples is cut off. `shown`: in messages."""
        self.folder, self.info, self.offsets, self.shown = folder, dict(info), offsets.long(), shown or folder
        first = {"offsets.npy": io.BytesIO()}
        np.save(first["offsets.npy"], self.offsets.numpy())
        if rows is not None:
            first["rows.parquet"] = io.BytesIO()
            pq.write_table(rows.with_format("arrow")[:], first["rows.parquet"])
        self.info["digests"] = digests.kept(info) | {
            name: digests.of(content.getbuffer()) for name, content in first.items()
        }
        with self._explain():
            for name, content in first.items():
                with replacing(folder / name, alone=True, durable=True) as scratch:
                    scratch.write_bytes(content.getbuffer())
            self._say_done(info["done"])  # before the cut: at no moment may it say more than the files hold
            for name, row_bytes in _row_bytes(info).items():
                with (folder / f"{name}.bin").open("ab") as file:
                    file.truncate(int(offsets[info["done"]]) * row_bytes)

    def append(self, columns: dict[str, Tensor], examples: int) -> None:
        """Add the rows of the next `examples` examples. They are durable when this returns. Raises `OSError`, explained."""
        done = self.info["done"]
        shard: dict[str, int | str] = {"begin": done, "end": done + examples}
        with self._explain():
            for name, row_bytes in _row_bytes(self.info).items():
                data = columns[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data
                with (self.folder / f"{name}.bin").open("r+b") as file:
                    file.seek(int(self.offsets[done]) * row_bytes)
                    shard[name] = digests.write(file, data)
                    file.flush()
                    os.fsync(file.fileno())
            self._say_done(done + examples, shard)

    def _say_done(self, done: int, *shard: dict) -> None:
        known = self.info["digests"]
        info = self.info | {"done": done, "digests": known | {"shards": [*known["shards"], *shard]}}
        with replacing(self.folder / "info.json", alone=True, durable=True) as scratch:
            scratch.write_text(json.dumps(info, indent=1, default=plain))
        self.info = info

    def _explain(self):
        safe = f"{self.info['done']:,} of {self.info['examples']:,} examples are safe"
        return explain_disk_errors(self.shown, safe)


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


def _row_bytes(info: dict) -> dict[str, int]:
    """Of each .bin file, the bytes of a token."""
    return {name: dtype.itemsize * width for name, (dtype, width) in _layout(info).items()}


def _read_rows(folder: Path, info: dict) -> Dataset | None:
    """What is known of the rows, if it is. Raises `ValueError` for a file that is not what was written."""
    path = folder / "rows.parquet"
    if "rows.parquet" not in info.get("digests", {}):
        return None
    try:
        data = path.read_bytes()
        digests.compare(info, "rows.parquet", data)
        rows = Dataset(pq.read_table(pa.BufferReader(data)))
        if len(rows) != info["examples"]:
            raise ValueError(f"{len(rows):,} rows")
    except (OSError, ValueError, pa.ArrowException) as error:
        what = f"expected {info['examples']:,} rows in {path}, got a damaged file"
        raise ValueError(f"{what} ({first_line(error)}): extract again elsewhere") from error
    return rows


def _read_offsets(folder: Path, info: dict) -> Int[Tensor, " N_plus_1"]:
    path = folder / "offsets.npy"
    try:
        data = path.read_bytes()
        offsets = np.load(io.BytesIO(data), allow_pickle=False)
        if offsets.dtype != np.int64 or offsets.shape != (info["examples"] + 1,):
            raise ValueError(f"{offsets.dtype} of shape {offsets.shape}")
        if offsets[0] != 0 or offsets[-1] != info["tokens"] or (np.diff(offsets) < 0).any():
            raise ValueError("they do not rise from 0 to that number")
        digests.compare(info, "offsets.npy", data)
    except (OSError, ValueError, EOFError, tokenize.TokenError) as error:  # the header is Python, and read as such
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
    different = [name for name in here if there.get(name) != here[name] and (name in there or name not in _NEWER)]
    return [f"{name} ({str(there.get(name))[:10]} there, {str(here[name])[:10]} here)" for name in different]


def _size(path: Path) -> int:
    """In bytes; of a file that is missing -1, which no file is expected to have."""
    return path.stat().st_size if path.is_file() else -1


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
