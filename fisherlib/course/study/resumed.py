"""Studies that go on where they were: each result in a file of its own, and one table of all that are done."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fisherlib._files import replacing
from fisherlib._signals import interruptible


def parser(name: str, about: str | None, *, seeds: bool = True) -> argparse.ArgumentParser:
    """The options of the command `python -m fisherlib.course.study.NAME`: `--folder`, `--results` and `--seeds`."""
    found = argparse.ArgumentParser(prog=f"python -m fisherlib.course.study.{name}", description=about)
    found.add_argument("--folder", type=Path, default=Path("runs") / name, help="rows are kept here; a run goes on there")
    found.add_argument("--results", type=Path, help="folder for the table (default: that of the rows)")
    if seeds:
        found.add_argument("--seeds", type=int, default=5)
    return found


def run_all(
    wanted: Sequence[Any],
    run_one: Callable[[Any], list[dict]],
    name: Callable[[Any], str],
    options: argparse.Namespace,
    about: dict,
    *,
    each: int = 1,
) -> None:
    """Run what is missing, each into a file of its own as it ends, and write the table of all that is done after each.

    `run_one` gives the `each` rows of one of `wanted`, with their `seconds` and `origin`; `name` that of its file.
    `about`: what stands beside the table, `command` and `settings` at least.
    """
    folder, results = options.folder, options.results or options.folder
    (folder / "rows").mkdir(parents=True, exist_ok=True)
    paths = [row_file(folder, name(one)) for one in wanted]
    about = about | {"rows_wanted": each * len(wanted)}
    with interruptible(lambda: f"all rows that ended are kept in {folder}: the same command goes on from there"):
        for number, (one, path) in enumerate(zip(wanted, paths, strict=True), start=1):
            if not path.exists():
                found = run_one(one)
                put(path, json.dumps(found))
                print(f"{number}/{len(wanted)} {one}: {sum(row['seconds'] for row in found):.1f} s", flush=True)
                write([path for path in paths if path.exists()], results, about)
    write([path for path in paths if path.exists()], results, about)


def row_file(folder: Path, name: str) -> Path:
    """Where `run_all` keeps the rows of one of `wanted`: a list of them, as JSON."""
    return folder / "rows" / f"{name}.json"


def write(done: Sequence[Path], results: Path, about: dict) -> None:
    """The table of the rows that are done, a line each, and where they come from."""
    rows = [row for path in done for row in json.loads(path.read_text())]
    results.mkdir(parents=True, exist_ok=True)
    about = about | {"rows": len(rows), "hours": round(sum(row["seconds"] for row in rows) / 3600, 2)}
    about |= {name: sorted({row[name] for row in rows}) for name in ("machine", "versions", "commit")}
    lines = ",\n".join(json.dumps(row) for row in rows)
    put(results / "rows.json", f"[\n{lines}\n]\n")
    put(results / "about.json", json.dumps(about, indent=1) + "\n")


def put(path: Path, text: str) -> None:
    """Write a file in one piece: it is whole, or it is not there."""
    with replacing(path, alone=True) as scratch:
        scratch.write_text(text)
