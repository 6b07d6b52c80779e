"""One hostile case, run: what came of it, in one word.

`clean`    refused in our own words, which say what was expected or what to do
`right`    returned, and rightly
`unclear`  refused by us, without saying what was expected
`raw`      an error from inside: of another kind, or in somebody else's words
`silent`   returned, although the input is wrong; or harmed what was there
`refused`  refused, although the input is right
`hang`     did not end within the case's limit
`crash`    the process died
"""

import contextlib
import faulthandler
import linecache
import multiprocessing
import os
import re
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import fisherlib as fl

PACKAGE = Path(fl.__file__).parent
OURS = (ValueError, OSError, fl.AssetError, fl.judging.JudgeError)  # a TimeoutError is an OSError
SAYS_WHAT = re.compile(r"expected|refusing|: \S.*\b(again|another|check|choose|free|give|lower|make|raise|remove|set|use)\b")
SIGNATURE = re.compile(r"unexpected keyword argument|missing \d+ required|takes .*positional|multiple values for")
OUTCOMES = ("clean", "right", "unclear", "raw", "silent", "refused", "hang", "crash")
BAD = ("raw", "silent", "refused", "hang", "crash")


class Case(NamedTuple):
    """`call` gets a new folder, in which it is run.

    `oracle` is "wrong" for an input that must be refused, "right" for one that must be taken (and the call must not return
    False), "either" if both will do; or it looks at what was returned, where a clear refusal will do too.
    `alone`: in a process of its own, which may die.
    """

    group: str
    name: str
    call: Callable[[Path], Any]
    oracle: str | Callable[[Any], Any] = "wrong"
    limit: float = 10.0
    alone: bool = False


class Outcome(NamedTuple):
    case: Case
    kind: str
    message: str = ""


class Damage(Exception):
    """A file of somebody else's was changed."""


class Hang(BaseException):
    """No `except Exception` may take it for a mistake of the input."""


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise `Hang` in the main thread after so long. The clock of pytest-timeout, which is the same one, goes on."""

    def late(*_):
        raise Hang

    began, (others, _) = time.monotonic(), signal.getitimer(signal.ITIMER_REAL)
    handler = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if others:
            signal.setitimer(signal.ITIMER_REAL, max(others - (time.monotonic() - began), 0.01))


def run(case: Case) -> Outcome:
    """Run a case, whatever it does."""
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        return _in_a_process(case, Path(folder)) if case.alone else _here(case, Path(folder))


def _here(case: Case, folder: Path) -> Outcome:
    before = os.getcwd()
    try:
        os.chdir(folder)  # a wrong value may be a path
        with at_most(case.limit), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = case.call(folder)
            fine = case.oracle(result) if callable(case.oracle) else case.oracle != "wrong" and result is not False
        return Outcome(case, "right" if fine else "silent", "" if fine else f"returned {result!r:.150}".replace("\n", " "))
    except Hang:
        return Outcome(case, "hang", f"not done in {case.limit:g} s")
    except Damage as damage:
        return Outcome(case, "silent", f"damage: {damage}")
    except (Exception, SystemExit) as error:
        return Outcome(case, _kind_of(error, case), f"{type(error).__name__}: {error}"[:300])
    finally:
        os.chdir(before)


def _kind_of(error: BaseException, case: Case) -> str:
    if case.group.startswith("arguments") and isinstance(error, TypeError) and SIGNATURE.search(str(error)):
        return "right"  # Python's own words
    innermost = error.__traceback__
    while innermost.tb_next:
        innermost = innermost.tb_next
    file = innermost.tb_frame.f_code.co_filename
    said = Path(file).is_relative_to(PACKAGE) and linecache.getline(file, innermost.tb_lineno).strip().startswith("raise")
    if not isinstance(error, OURS) or not said:  # int("x") on a line of ours has Python's words
        return "raw"
    if not SAYS_WHAT.search(str(error)) or "\n" in str(error):
        return "unclear"
    return "refused" if case.oracle == "right" else "clean"


def _in_a_process(case: Case, folder: Path) -> Outcome:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def work():
        faulthandler.disable()  # pytest's, which would print the stacks of a process that is meant to die
        theirs.send(_here(case, folder)[1:])

    process = context.Process(target=work)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # a fork beside the threads of our servers, which it does not use
        process.start()
    process.join(case.limit + 5)
    if process.is_alive():
        process.kill()
        process.join(60)
        return Outcome(case, "hang", f"not done in {case.limit:g} s")
    if process.exitcode:
        return Outcome(case, "crash", f"exit status {process.exitcode}")
    return Outcome(case, *ours.recv())


def table(outcomes: list[Outcome]) -> str:
    """Group by outcome, in numbers."""
    lines = [f"{'group':24}{'cases':>7}" + "".join(f"{kind:>9}" for kind in OUTCOMES)]
    for group in [*dict.fromkeys(o.case.group for o in outcomes), "all"]:
        kinds = Counter(o.kind for o in outcomes if group in (o.case.group, "all"))
        lines.append(f"{group:24}{kinds.total():7}" + "".join(f"{kinds[kind]:9}" for kind in OUTCOMES))
    return "\n".join(lines)


def bad_ones(outcomes: list[Outcome], kinds=BAD) -> str:
    """Each bad case on a line: what to type to see it again, what came of it, and the first line of the message."""
    found = [o for o in outcomes if o.kind in kinds]
    return "\n".join(
        f"{o.kind:8} {o.case.group!r} {o.case.name!r}: {o.message.splitlines()[0][:200] if o.message else ''}" for o in found
    )
