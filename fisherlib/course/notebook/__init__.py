"""What the notebooks share, and the runner behind `make quickstart` and `make notebooks`.

In a notebook: `setup`, `check`, `attempt`, `show`, `record`. Outside: `results` reads what a run recorded, `run` executes a
notebook with checked parameters, `build` refreshes the committed outputs.
"""

from fisherlib.course.notebook.committed import build, clean, readme_with_tables, refresh_readme, stamp
from fisherlib.course.notebook.lesson import RECORD_MIME, attempt, check, record, results, setup, show
from fisherlib.course.notebook.runner import NOTEBOOKS, run

__all__ = [
    "NOTEBOOKS",
    "RECORD_MIME",
    "attempt",
    "build",
    "check",
    "clean",
    "readme_with_tables",
    "record",
    "refresh_readme",
    "results",
    "run",
    "setup",
    "show",
    "stamp",
]
