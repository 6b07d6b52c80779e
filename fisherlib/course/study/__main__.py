"""`python -m fisherlib.study`: run the rows of a profile or a plan that are not there yet, and write the table of all."""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

import pandas as pd

from fisherlib._signals import INTERRUPTED, interruptible
from fisherlib.assets import AssetError
from fisherlib.course.study.plans import PLANS, Part
from fisherlib.course.study.profiles import PROFILES
from fisherlib.course.study.runs import run_rows
from fisherlib.course.study.store import restore, write


def _parts(name: str) -> list[Part]:
    return PLANS[name] if name in PLANS else [(PROFILES[name].settings, PROFILES[name].rows())]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m fisherlib.study", description=__doc__)
    parser.add_argument("--profile", choices=[*PROFILES, *PLANS], default="full")
    parser.add_argument("--folder", default="runs/study", help="rows and features are kept here; a run goes on where it was")
    parser.add_argument(
        "--results",
        help="folder for the tables (default: that of the rows); rows that it and those beside it hold are not run",
    )
    parser.add_argument("--model", help="another model than the profile's: a folder or an id")
    parser.add_argument("--training", nargs="*", help="only these trainings")
    parser.add_argument("--pool", nargs="*", help="only these pools")
    parser.add_argument("--seconds", type=float, help="begin no row later than this; 0: only write the tables")
    options = parser.parse_args(arguments)
    parts = [
        (
            dataclasses.replace(settings, model=options.model) if options.model else settings,
            [
                row
                for row in rows
                if row.training in (options.training or [row.training]) and row.pool in (options.pool or [row.pool])
            ],
        )
        for settings, rows in _parts(options.profile)
    ]
    wanted = sum(len(rows) for _, rows in parts)
    beside = sorted(Path(options.results).parent.glob("*/")) if options.results else []
    if restored := sum(restore(folder, options.folder) for folder in beside):
        print(f"{restored:,} rows were committed already", flush=True)
    tables, began = [], time.perf_counter()
    try:
        with interruptible(lambda: f"all rows that ended are kept in {options.folder}: the same command goes on from there"):
            for settings, rows in parts:
                left = None if options.seconds is None else max(options.seconds - (time.perf_counter() - began), 0)
                table = run_rows(rows, settings, options.folder, seconds=left)
                if options.profile in PLANS:  # whose settings differ from row to row
                    own = dataclasses.asdict(settings)
                    differs = {name: own[name] for name in ("epochs", "learning_rate")}
                    table = table.assign(sizes=json.dumps(own["sizes"]), **differs)
                tables.append(table)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except (AssetError, ValueError) as error:
        sys.exit(f"fisherlib: {error}")
    table = pd.concat(tables, ignore_index=True)
    command = f".venv/bin/python -m fisherlib.study --profile {options.profile}"  # no folders, which are this machine's
    command += f" --model {options.model}" if options.model else ""
    if len(table):
        everything = sum(len(rows) for _, rows in _parts(options.profile))
        write(
            table,
            options.results or options.folder,
            parts[0][0],
            command,
            wanted=everything,
            by_seed=options.profile == "quotas",
        )
    print(f"{len(table):,} of {wanted:,} rows are done")


if __name__ == "__main__":
    main()
