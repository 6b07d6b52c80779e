"""What is shown while something long runs. Private helpers that every wing may use."""

import contextlib
import sys
from collections.abc import Iterator

from tqdm.auto import tqdm


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars or advice while weights load; errors still show."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def progress_bar(examples: int, progress: bool | None, done: int = 0) -> tqdm:
    return tqdm(total=examples, initial=done, unit="example", disable=hidden(progress), mininterval=1)


def hidden(progress: bool | None) -> bool:
    """For tqdm's `disable`: None, the default, shows a bar in a terminal and nothing in a notebook's saved output."""
    return not sys.stderr.isatty() if progress is None else not progress
