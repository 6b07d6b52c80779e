"""SIGTERM ends a run as Ctrl-C does: what is done is kept. A private helper that every wing may use."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator

INTERRUPTED = 128 + signal.SIGINT  # 130
TERMINATED = 128 + signal.SIGTERM  # 143, the exit status that shells and schedulers know


@contextlib.contextmanager
def interruptible(kept: Callable[[], str]) -> Iterator[None]:
    """Inside, SIGTERM (a scheduler, `docker stop`) raises `SystemExit(143)` where Ctrl-C raises `KeyboardInterrupt`.

    After either, one line on stderr says what is kept and how to go on: `kept()`. SIGTERM is left alone outside the main
    thread, where Python allows no handler, and where the program has a handler of its own.
    """
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        print(f"fisherlib: interrupted; {kept()}", file=sys.stderr)
        raise
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(_signal, _frame):
    raise SystemExit(TERMINATED)
