"""Many rows of the study, resumable.

A finished row is a small file of its own, renamed into place, so a run can be killed at any moment and goes on where it was.
"""

import json
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from fisherlib._files import replacing
from fisherlib.course.study.rows import Bench, Row, Settings, key, run_row


def run_rows(
    rows: Iterable[Row], settings: Settings, folder: str | Path, *, progress: bool = True, seconds: float | int | None = None
) -> pd.DataFrame:
    """Run the rows that `folder` does not hold yet; returns the table of all of them, in the given order.

    May be killed at any moment and called again. `seconds`: stop before a row that would begin later than that; the table
    then has only what is done. One process for one folder.
    """
    folder, rows = Path(folder), list(rows)
    (folder / "rows").mkdir(parents=True, exist_ok=True)
    open_rows = [row for row in rows if not _file(folder, row, settings).exists()]
    bench, began, spent = Bench(settings, folder), time.perf_counter(), []
    for number, row in enumerate(open_rows, start=1):
        if seconds is not None and time.perf_counter() - began > seconds:
            break
        result = run_row(row, bench)
        with replacing(_file(folder, row, settings), alone=True) as scratch:
            scratch.write_text(json.dumps(result))
        spent.append((row.training.startswith("head"), result["seconds"]))
        if progress:
            left = _expected(spent, open_rows[number:])
            what = f"{row.pool} {row.training} {row.method} {row.tokens or row.examples} seed {row.seed}"
            line = f"{len(rows) - len(open_rows) + number}/{len(rows)} {what}: NLL {result['nll']:.4f}"
            print(f"{line}, {result['seconds']:.1f} s, {left / 60:.0f} minutes left", flush=True)
    return collect(folder, settings, rows)


def collect(folder: str | Path, settings: Settings, rows: Iterable[Row]) -> pd.DataFrame:
    """The table of those rows that are done."""
    done = [path for row in rows if (path := _file(Path(folder), row, settings)).exists()]
    return pd.DataFrame([json.loads(path.read_text()) for path in done])


def _file(folder: Path, row: Row, settings: Settings) -> Path:
    return folder / "rows" / f"{key(row, settings)}.json"


def _expected(spent: list[tuple[bool, float]], left: list[Row]) -> float:
    """Seconds for the rows that are left, from those that were done; heads take far less than fine-tuning."""
    everything = float(np.mean([seconds for _, seconds in spent]))
    mean = {head: np.mean([s for kind, s in spent if kind == head] or [everything]) for head in (True, False)}
    return float(sum(mean[row.training.startswith("head")] for row in left))
