"""`python -m fisherlib.study`: run the rows of a profile that are not there yet, and write the table of all."""

import argparse
import dataclasses
import sys

from fisherlib.assets import AssetError
from fisherlib.study.profiles import PROFILES
from fisherlib.study.rows import run_rows
from fisherlib.study.store import restore, write


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m fisherlib.study", description=__doc__)
    parser.add_argument("--profile", choices=PROFILES, default="full")
    parser.add_argument("--folder", default="runs/study", help="rows and features are kept here; a run goes on where it was")
    parser.add_argument(
        "--results", help="folder for the tables (default: that of the rows); rows that it holds are not run"
    )
    parser.add_argument("--model", help="another model than the profile's: a folder or an id")
    parser.add_argument("--training", nargs="*", help="only these trainings")
    parser.add_argument("--pool", nargs="*", help="only these pools")
    parser.add_argument("--seconds", type=float, help="begin no row later than this; 0: only write the tables")
    options = parser.parse_args(arguments)
    profile = PROFILES[options.profile]
    if options.model:
        profile = dataclasses.replace(profile, settings=dataclasses.replace(profile.settings, model=options.model))
    rows = [
        row
        for row in profile.rows()
        if row.training in (options.training or [row.training]) and row.pool in (options.pool or [row.pool])
    ]
    if options.results and (restored := restore(options.results, options.folder)):
        print(f"{restored:,} rows were in {options.results} already", flush=True)
    try:
        table = run_rows(rows, profile.settings, options.folder, seconds=options.seconds)
    except (AssetError, ValueError) as error:
        sys.exit(f"fisherlib: {error}")
    command = f".venv/bin/python -m fisherlib.study --profile {options.profile}"  # no folders, which are this machine's
    command += f" --model {options.model}" if options.model else ""
    if len(table):
        write(table, options.results or options.folder, profile.settings, command, wanted=len(profile.rows()))
    print(f"{len(table):,} of {len(rows):,} rows are done")


if __name__ == "__main__":
    main()
