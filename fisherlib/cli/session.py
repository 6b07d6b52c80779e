"""One call of the command: what it says and where, the record that it leaves, and the code that it ends with."""

import contextlib
import glob
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fisherlib._files import explained, first_line, plain, replacing
from fisherlib._version import __version__

DONE, FAILED, USAGE, PARTIAL, UNUSABLE, NO_ROOM, FOREIGN, INTERRUPTED = 0, 1, 2, 3, 10, 11, 12, 130
STATES = {DONE: "done", PARTIAL: "done in part", INTERRUPTED: "interrupted"}
FORMATS = ("auto", "human", "json", "quiet")
_BEAT = 30.0  # seconds between two lines on a stderr that is no terminal
_PACKAGES = ("torch", "transformers", "datasets", "numpy", "scikit-learn")


class Stop(Exception):
    """The end of a call, with its exit code and one line of why and what to do."""

    def __init__(self, code: int, words: str):
        super().__init__(words)
        self.code = code


class Session:
    """What every verb uses: `result` on stdout, `hint` and `beat` on stderr, `step` for times, and the record.

    `record`: a file that holds all arguments with their defaults, versions, the time of each step and what came of it. It is
    written at every step and at the end, whatever the end is.
    """

    def __init__(self, verb: str, arguments: dict[str, Any], *, format: str = "auto", debug: bool = False):
        self.format, self.debug = format, debug
        self.record: Path | None = None
        self._before: bytes | None = None  # the record that was there
        self._lock: FileLock | None = None
        self.partial: list[str] = []  # why the end is 3 and not 0
        self._began = time.perf_counter()
        self._console: Any = None
        self.said: dict[str, Any] = {
            "format": 1,
            "command": verb,
            "state": "running",
            "exit_code": None,
            "arguments": arguments,
            "versions": {"fisherlib": __version__, "python": platform.python_version()},
            "folder": os.getcwd(),
            "pid": os.getpid(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "steps": [],
            "seconds": 0.0,
        }

    # --- what is said ------------------------------------------------------------------------------------------------

    def result(self, text: str) -> None:
        """A line of the result, for a reader."""
        if self.format not in ("auto", "human"):
            return
        with explained(Path("stdout")):
            if sys.stdout is not None and sys.stdout.isatty():
                if self._console is None:
                    from rich.console import Console

                    self._console = Console(highlight=False, soft_wrap=True)
                head, colon, rest = text.partition(": ")
                from rich.markup import escape

                self._console.print(f"[bold]{escape(head)}[/bold]{colon}{escape(rest)}" if colon else escape(text))
            else:
                print(text, flush=True)

    def hint(self, text: str) -> None:
        """A line beside the result: what goes on, what to do next."""
        if self.format in ("auto", "human"):
            print(f"fisherlib: {text}", file=sys.stderr, flush=True)

    def event(self, kind: str, **numbers: Any) -> None:
        """A line of JSON, for a program: a "status", the "summary" or an "error"."""
        if self.format == "json":
            with explained(Path("stdout")):
                print(json.dumps({"type": kind, **numbers}, default=plain), flush=True)

    @property
    def progress(self) -> bool | None:
        """For the bars of the library: in a terminal, and never beside lines of JSON."""
        return None if self.format in ("auto", "human") else False

    # --- what is done ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def step(self, name: str, so_far: Callable[[], str] | None = None) -> Iterator[None]:
        """A step, with its seconds in the record. `so_far` says how far it is; where no bar is seen, each half minute."""
        began = time.perf_counter()
        self.said["steps"].append({"name": name, "seconds": None})
        self.write()
        self.event("status", step=name)
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(_BEAT):
                text = so_far() if so_far else ""
                seconds = time.perf_counter() - began
                if self.format == "json":
                    self.event("status", step=name, seconds=round(seconds, 1), so_far=text)
                elif not sys.stderr.isatty():
                    self.hint(f"{name}: {text + ', ' if text else ''}{seconds:,.0f} s so far")

        beating = threading.Thread(target=beat, daemon=True)
        beating.start()
        try:
            yield
        finally:
            ended.set()
            self.said["steps"][-1]["seconds"] = round(time.perf_counter() - began, 3)

    def spent(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._began

    def write(self) -> None:
        """Write the record, if there is one."""
        if self.record is None:
            return
        self.said["seconds"] = round(self.spent(), 3)
        with explained(self.record):
            self.record.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.record) as scratch:
                scratch.write_text(json.dumps(self.said, indent=1, default=plain))

    def keep_in(self, record: Path) -> None:
        """From now on there is a record. Raises `Stop` if another process writes it: then these are files of its run."""
        with explained(record):
            record.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(record.with_name(f".{record.name}.lock"), timeout=0)
            try:
                lock.acquire()
            except Timeout:
                raise Stop(
                    FOREIGN,
                    f"expected files that nobody else writes, but another command writes {record} now: wait for it, "
                    "or give another --out",
                ) from None
            self._before = record.read_bytes() if record.is_file() else None
        self.record, self._lock = record, lock
        sweep(record.parent, f".{record.name.removesuffix('run.json')}")
        for package in _PACKAGES:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                self.said["versions"][package] = importlib.metadata.version(package)
        self.write()

    def end(self, code: int, words: str) -> None:
        """Write the record for the last time, and let others write it.

        A run that found files of another run has made nothing: the record of what is there stays as it was.
        """
        self.said |= {"state": STATES.get(code, "failed"), "exit_code": code, "error": words or None}
        try:
            if code == FOREIGN and self._before is not None and self.record is not None:
                with explained(self.record), replacing(self.record) as scratch:
                    scratch.write_bytes(self._before)
            else:
                self.write()
        finally:
            if self._lock is not None:
                self._lock.release()


def alive(pid: int) -> bool:
    """Whether a process of this machine still runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def sweep(folder: Path, begin: str) -> None:
    """Remove what killed runs left half-written: files of this beginning, with the number of a process that is gone."""
    for path in folder.glob(f"{glob.escape(begin)}*") if folder.is_dir() else ():
        found = re.fullmatch(r".*\.(\d+)-\d+", path.name)
        if found and not alive(int(found[1])):
            path.unlink(missing_ok=True)


def digest_of(said: dict[str, Any]) -> str:
    """By which a file of JSON that was edited is known."""
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def run(session: Session, work: Callable[[Session], None]) -> int:
    """Do the work, say how it ended, and return the exit code."""
    error: BaseException | None = None
    try:
        work(session)
        code, words = (PARTIAL, "; ".join(session.partial)) if session.partial else (DONE, "")
    except KeyboardInterrupt as stopped:
        error, code, words = stopped, INTERRUPTED, "interrupted; the same command goes on from what is kept"
    except Stop as stopped:
        error, code, words = stopped, stopped.code, str(stopped)
    except Exception as failed:
        error, code, words = failed, *_ending(failed)
    if error is not None and session.debug:
        traceback.print_exception(error)
    try:
        session.end(code, words)
    except OSError as failed:
        code, words = (FAILED, first_line(failed)) if code in (DONE, PARTIAL) else (code, words)
    if code not in (DONE, PARTIAL):
        session.event("error", exit_code=code, message=words)
    elif session.partial:
        session.hint(f"done, but {words}")
    if code not in (DONE, PARTIAL) and session.format != "json":
        print(f"fisherlib: {words}", file=sys.stderr, flush=True)
    return code


def _ending(error: Exception) -> tuple[int, str]:
    """The code and the line of an exception that nobody has explained yet."""
    words = first_line(error) if not isinstance(error, ValueError) else str(error).strip().splitlines()[0]
    name = type(error).__name__
    if isinstance(error, OSError) and error.strerror:  # one of ours says all; Python's own says a number and a scratch file
        ours, of = error.strerror.startswith("expected"), f" {error.filename}" if error.filename else ""
        words = (
            error.strerror
            if ours
            else (f"expected to read or write{of}, but {error.strerror}: free some space, or name another place")
        )
    if name in ("MemoryError", "OutOfMemoryError") or "memory=" in words:
        return NO_ROOM, f"out of memory ({words}): try --memory, a smaller --dtype, or fewer rows"
    if isinstance(error, ValueError | OSError) or name == "AssetError":
        return FAILED, words
    return FAILED, f"unexpected {name}: {words}: this is a fault of ours; --debug shows where"
