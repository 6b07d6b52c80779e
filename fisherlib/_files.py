"""Writing files whole, and words for errors and manifests. Private helpers that every wing may use."""

import contextlib
import errno
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: Path, *, alone: bool = False, durable: bool = False) -> Iterator[Path]:
    """A scratch file beside `path`, to be written to: it takes the place of `path` whole, or is removed if that failed.

    `alone`: nobody else writes to this path, so the scratch file has one name, and what a killed run left of it is
    written over. `durable`: on the disk before it takes the place, so that a power cut leaves the old file or the new one.
    Raises `ValueError` for a path without a name, like "".
    """
    if not path.name:
        raise ValueError(f"expected a file to write to, got {str(path)!r}: name one in it")
    path = path.resolve()  # what a link points to is what is to be replaced
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "it is a pipe or a device, no file")
    scratch = path.with_name(f"{path.name}.new") if alone else scratch_of(path)
    try:
        yield scratch
        if path.exists():
            shutil.copymode(path, scratch)  # a private file stays private
        if durable:
            with scratch.open("r+b") as file:
                os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def scratch_of(path: Path) -> Path:
    """A file beside `path` that no other process, and no other thread of this one, writes to."""
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}")


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """An `OSError` of writing to `path` says which file, why, and what to do; one that says so already stays as it is."""
    try:
        yield
    except OSError as error:
        if (error.strerror or "").startswith("expected"):
            raise
        raise OSError(
            error.errno, f"expected to write {path}, but {error.strerror or error}: free some space, or name another place"
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of a message, for errors that must fit on one."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


def plain(value: object) -> object:
    """For json: numbers and arrays of numpy and torch as numbers and lists, anything else (a path, say) as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def as_json(said: dict, what: str) -> dict:
    """What JSON will read of it again: keys are text, tuples and arrays are lists, a path is text.

    Raises `ValueError` where JSON has nothing: tuples as keys, two keys with one text, a circle.
    """
    try:
        return json.loads(json.dumps(said, default=plain), object_pairs_hook=_distinct)
    except (TypeError, ValueError, RecursionError, RuntimeError) as error:  # RuntimeError: of a tensor without values
        raise ValueError(f"expected {what} that JSON can hold, got others ({first_line(error)}): change them") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, none of whose keys is there twice: of 1 and "1" JSON would make one."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError(f"a key twice, as text, among {[name for name, _ in pairs][:20]}")
    return made
