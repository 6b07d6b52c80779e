"""The file that judgements are kept in: recognised before it is touched, appended to, written by one process at a time."""

import contextlib
import json
import re
import tempfile
from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path

from filelock import FileLock, Timeout

KEPT = ("A", "B", "tie", "malformed", "refused")  # a timeout is no judgement: it is asked again
_KEY = re.compile("[0-9a-f]{24}")
_START = b'{"key": "000000000000000000000000", "answer": "'  # of every line we write, its key aside
_LONGEST = 1_000_000  # bytes of a line: a reply is cut to 200 characters, but a model may have a long name


class Cache:
    """Judgements by key. Reading needs no lock and changes no byte; the first `find` of what is not known opens the file.

    To be used in a `with`, at the end of which the file is closed and free for others. Raises `ValueError` for a file that
    holds anything but judgements, with the line, and leaves it as it is; `OSError` if it cannot be read.
    """

    def __init__(self, path: str | Path | None):
        self.path = None if path is None else Path(path)
        self.known: dict[str, dict] = {}
        self._file: RawIOBase | None = None
        self._stack = contextlib.ExitStack()
        with self._explained("read", "nothing was asked"):
            self._load()

    def __enter__(self) -> "Cache":
        return self

    def __exit__(self, *_) -> None:
        self._file = None
        self._stack.close()

    def find(self, key: str) -> dict | None:
        """The judgement, or None, and then it can be added: whatever can fail does so now, before a judge is paid.

        Raises `ValueError` if another process writes to this cache, `OSError` if nothing can be written there.
        """
        if key not in self.known and self.path is not None and self._file is None:
            with self._explained("write", "nothing is lost"):
                self._open(self.path)
        return self.known.get(key)

    def add(self, entry: dict, *, lasting: bool) -> None:
        """Know a judgement from now on; if `lasting`, append it at once. Raises `OSError` if it cannot be kept."""
        self.known[entry["key"]] = entry
        if lasting and self._file is not None:
            with self._explained("write", "what it holds is safe, the last judgement is lost"):
                _write(self._file, json.dumps(entry).encode() + b"\n")

    def _load(self) -> int:
        """Read what is there. The number of bytes to keep: all, without a last record whose writer was killed."""
        keep = 0
        if self.path is None or not self.path.exists():
            return keep
        if not self.path.is_file():
            raise ValueError(f"expected cache= to be a file, got {self.path}, which is none: name a file")
        with self.path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST), b""), start=1):
                entry = _judgement(line)
                if entry is not None:
                    self.known[entry["key"]] = entry
                    keep += len(line)
                elif line.endswith(b"\n") or len(line) == _LONGEST or not _torn(line):
                    raise ValueError(
                        f"{self.path.name} line {number}: expected a judgement, got something else: name another cache, "
                        "or remove the line if this file is one; it is left as it was"
                    )
        return keep

    def _open(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._stack.enter_context(FileLock(path.with_name(f".{path.name}.lock"), timeout=0))
        except Timeout:
            raise ValueError(
                f"expected a cache that nobody else writes to, but another process judges into {path}: "
                "wait until it is done and call again, or name another"
            ) from None
        keep = self._load()  # again: somebody may have written before the lock was ours
        with tempfile.TemporaryFile(dir=path.parent, buffering=0) as probe:  # a full disk lets itself be opened
            _write(probe, bytes(4096))
        file = self._stack.enter_context(path.open("a+b", buffering=0))
        if file.tell() > keep:
            file.truncate(keep)
        if keep:
            file.seek(keep - 1)
            if file.read(1) != b"\n":  # killed between a judgement and the end of its line
                _write(file, b"\n")
        self._file = file

    @contextlib.contextmanager
    def _explained(self, what: str, state: str) -> Iterator[None]:
        """Turn an `OSError` (a full disk, no permission) into one of the same errno that says what to do."""
        try:
            yield
        except OSError as error:
            message = f"cannot {what} the cache {self.path} ({error.strerror or error}; {state})"
            raise OSError(error.errno, f"{message}: free some space or name another place, and call again") from error


def _write(file: RawIOBase, data: bytes) -> None:
    while data:  # a disk that fills up takes a part first, and then says so
        data = data[file.write(data) or 0 :]


def _judgement(line: bytes) -> dict | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("key"), str) or not _KEY.fullmatch(entry["key"]):
        return None
    return entry if entry.get("answer") in KEPT and isinstance(entry.get("said"), str) else None


def _torn(line: bytes) -> bool:
    """Is it how a judgement begins? Then it is one whose writer was killed."""
    start = line[:9] + re.sub(rb"[0-9a-f]", b"0", line[9:33]) + line[33 : len(_START)]
    return _START.startswith(start)
