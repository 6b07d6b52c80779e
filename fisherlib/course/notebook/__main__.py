"""`python -m fisherlib.notebook`: the runner behind `make quickstart` and `make notebooks`."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fisherlib._signals import INTERRUPTED
from fisherlib.course.notebook.committed import build
from fisherlib.course.notebook.runner import NOTEBOOKS, need_clone, run


def _quickstart() -> None:
    folder = Path("runs/quickstart")
    executed = folder / "00_quickstart.ipynb"
    recorded = run(NOTEBOOKS / "00_quickstart.ipynb", executed, parameters={"out_dir": str(folder)})
    print(f"\n{recorded['summary']}\n")
    for what, name in (
        ("executed notebook", executed.name),
        ("selection manifest", "selection.json"),
        ("chosen examples", "subset.jsonl"),
    ):
        print(f"{what + ':':20}{folder / name}")


def _typed(notebook: Path, texts: dict[str, str]) -> dict:
    """Parameter values from the command line, as the types that the notebook declares. Raises `ValueError`."""
    import papermill

    kinds: dict[str, Callable[[str], Any]]
    kinds = {"int": int, "float": float, "str": str, "bool": lambda text: {"true": True, "false": False}[text.lower()]}
    declared = papermill.inspect_notebook(str(notebook))
    values: dict = {}
    for name, text in texts.items():
        kind = declared[name]["inferred_type_name"] if name in declared else "str"  # `run` names the nearest
        try:
            values[name] = kinds[kind](text)
        except (ValueError, KeyError):
            raise ValueError(f"expected {name} to be of type {kind}, got {text!r}") from None
        if text == "":
            raise ValueError(f"expected a value for {name}, got an empty one")
    return values


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m fisherlib.notebook", description="Run the notebooks of the course.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("quickstart", help="run notebook 00 and print its results")
    one = commands.add_parser("run", help="run one notebook with parameters")
    one.add_argument("notebook", help="for instance 00_quickstart")
    one.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    one.add_argument("--profile", help="smoke or full")
    one.add_argument("--minutes", type=float, default=30, help="time for the whole run, then it is stopped (default: 30)")
    one.add_argument("--output", help="the executed notebook (default: runs/NOTEBOOK.ipynb)")
    every = commands.add_parser("build", help="refresh the committed outputs")
    every.add_argument("notebook", nargs="*", help="default: all, with the solutions")
    options = parser.parse_args(arguments)
    try:
        need_clone()  # before papermill, which a package without its extras has not
    except ValueError as error:
        sys.exit(f"fisherlib: {error}")
    from papermill.exceptions import PapermillExecutionError

    try:
        if options.command == "quickstart":
            _quickstart()
        elif options.command == "run":
            path = NOTEBOOKS / f"{options.notebook.removesuffix('.ipynb')}.ipynb"
            if not path.is_file():
                raise ValueError(
                    f"expected one of {sorted(p.stem for p in NOTEBOOKS.glob('*.ipynb'))}, got {options.notebook!r}"
                )
            values = _typed(path, dict(options.parameter))
            output = options.output or f"runs/{path.name}"
            recorded = run(path, output, parameters=values, profile=options.profile, minutes=options.minutes)
            print(f"\n{recorded['summary']}\n\nexecuted notebook: {output}")
        else:
            named = [NOTEBOOKS / f"{name.removesuffix('.ipynb')}.ipynb" for name in options.notebook]
            for path in named or [
                *sorted(NOTEBOOKS.glob("[0-9]*.ipynb")),
                *sorted(NOTEBOOKS.glob("solutions/*.ipynb")),
            ]:
                print(f"building {path.name}", file=sys.stderr)
                build(path)
    except (ValueError, TimeoutError, RuntimeError) as error:
        sys.exit(f"fisherlib: {error}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except PapermillExecutionError as error:
        sys.exit(f"fisherlib: cell {error.exec_count} failed with {error.ename}: {error.evalue}")


if __name__ == "__main__":
    main()
