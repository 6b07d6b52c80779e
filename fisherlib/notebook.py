"""What the notebooks share, and the runner behind `make quickstart` and `make notebooks`.

In a notebook: `setup`, `check`, `attempt`, `show`, `record`. Outside: `results` reads what a run recorded, `run` executes a
notebook with checked parameters, `build` refreshes the committed outputs.
"""

import argparse
import difflib
import hashlib
import inspect
import json
import os
import re
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fisherlib.assets import ROOT

NOTEBOOKS = ROOT / "notebooks"
RECORD_MIME = "application/vnd.fisherlib.record+json"


# --- in a notebook ---------------------------------------------------------------------------------------------------


def setup(*, seed: int, out_dir: str) -> Path:
    """Seed everything, apply the house style, silence progress bars of libraries; returns `out_dir`, created."""
    import datasets
    import torch
    import transformers

    from fisherlib import plotting

    transformers.set_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    transformers.utils.logging.set_verbosity_error()
    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    plotting.style()
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check(claim: str, got, expected=True, *, atol: float = 0.0) -> None:
    """Print the claim if `got` equals `expected` (numbers and arrays: within `atol`); otherwise raise `AssertionError`."""
    if isinstance(expected, bool | str):
        if not isinstance(got, bool | str | np.bool_) or got != expected:
            raise AssertionError(f"{claim}: expected {expected}, got {got!r}")
        print(f"✓ {claim}")
        return
    got, expected = np.asarray(got, dtype=float), np.asarray(expected, dtype=float)
    if got.shape != expected.shape:
        raise AssertionError(f"{claim}: expected shape {expected.shape}, got {got.shape}")
    if got.size == 0:
        raise AssertionError(f"{claim}: expected something to compare, got nothing")
    difference = float(np.abs(got - expected).max())
    if not difference <= atol:  # also catches NaN
        raise AssertionError(f"{claim}: expected a difference of at most {atol:g}, got {difference:g}")
    print(f"✓ {claim} (largest difference {difference:.0e}, allowed {atol:.0e})")


def attempt(claim: str, answer, expected, *, atol: float = 0.0) -> None:
    """Check an exercise; `...` as the answer means that it is still open."""
    if answer is ...:
        print(f"○ not answered yet: {claim}")
    else:
        check(claim, answer, expected, atol=atol)


def show(thing) -> None:
    """Display the source of a library function: the text that runs, never a copy of it."""
    from IPython.display import Markdown, display

    lines, first = inspect.getsourcelines(thing)
    path = Path(inspect.getsourcefile(thing)).relative_to(ROOT).as_posix()
    display(Markdown(f"`{path}`, line {first}:\n\n```python\n{''.join(lines)}```"))


def record(summary: str = "", **numbers) -> None:
    """Put results into the notebook itself, to be read back with `results`. `summary`: Markdown that states them."""
    from IPython.display import display

    numbers = json.loads(json.dumps(numbers, default=_plain))
    numbers["peak_gigabytes"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    bundle = {RECORD_MIME: {"summary": summary, **numbers}, "text/plain": f"recorded: {', '.join(numbers)}"}
    if summary:
        bundle["text/markdown"] = summary
    display(bundle, raw=True)


def _plain(value):
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"expected numbers, strings, lists or dicts to record, got {type(value).__name__}")


def results(path: str | Path) -> dict:
    """What a notebook recorded. Raises `ValueError` if it recorded nothing."""
    import nbformat

    found: dict = {}
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            found |= output.get("data", {}).get(RECORD_MIME, {})
    if not found:
        raise ValueError(f"expected a notebook with recorded results, got none in {path}: run it to its end first")
    return found


# --- the runner ------------------------------------------------------------------------------------------------------


def run(
    notebook: str | Path,
    output: str | Path,
    *,
    parameters: dict | None = None,
    profile: str | None = None,
    cwd: str | Path | None = None,
    progress: bool = True,
) -> dict:
    """Execute a notebook through papermill and return its results.

    `parameters` must be names that the notebook declares (papermill itself would only warn); a `profile` is a file in
    `notebooks/profiles`, of which the names that this notebook declares are used. The executed notebook is `output`.
    Raises `ValueError` for an unknown parameter, naming the nearest; papermill's error if a cell fails.
    """
    import papermill
    import yaml

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # inherited by the kernel
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # a debugger's warning in every kernel start
    notebook = Path(notebook)
    declared = papermill.inspect_notebook(str(notebook))
    values = {}
    if profile is not None:
        file = NOTEBOOKS / "profiles" / f"{profile}.yaml"
        if not file.is_file():
            known = sorted(p.stem for p in file.parent.glob("*.yaml"))
            raise ValueError(f"expected a profile out of {known}, got {profile!r}")
        values = {name: value for name, value in yaml.safe_load(file.read_text()).items() if name in declared}
    for name, value in (parameters or {}).items():
        if name not in declared:
            nearest = difflib.get_close_matches(name, declared, n=1, cutoff=0.0)
            hint = f"did you mean {nearest[0]!r}? " if nearest else ""
            raise ValueError(f"{notebook.name} has no parameter {name!r}: {hint}It has {', '.join(declared)}")
        values[name] = value
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        str(notebook),
        str(output),
        parameters=values,
        kernel_name="python3",
        cwd=None if cwd is None else str(cwd),
        progress_bar=progress,
        execution_timeout=4 * 3600,
        log_output=False,
        extra_arguments=["--IPKernelApp.log_level=40"],  # not the transport warning of every kernel start
    )
    return results(output)


def build(notebook: Path) -> None:
    """Run a notebook with its defaults and commit-ready outputs into the file itself; refresh box, figures and README."""
    import nbformat

    with tempfile.TemporaryDirectory(prefix="fisherlib-") as scratch:
        executed = Path(scratch) / notebook.name
        began = time.perf_counter()
        recorded = run(notebook, executed, cwd=scratch)
        minutes = (time.perf_counter() - began) / 60
        node = clean(nbformat.read(executed, as_version=4))
        for figure in Path(scratch).glob("runs/**/*.svg"):
            (NOTEBOOKS / "figures" / f"{notebook.stem}_{figure.name}").write_bytes(figure.read_bytes())
        if scratch in (text := nbformat.writes(node)) or str(ROOT) in text:
            raise ValueError(
                f"{notebook.name}: expected outputs without paths of this machine; print the name, not the path"
            )
    about = node.metadata.setdefault("fisherlib", {})
    about |= {"stamp": stamp(node), "minutes": round(minutes, 1), "gigabytes": recorded["peak_gigabytes"]}
    box = f"{about['minutes']:g} minutes on 2 CPU cores · {about['gigabytes']:.1f} GB of memory · needs {about['needs']}"
    node.cells[0].source = _between(node.cells[0].source, "box", f"> {box}")
    nbformat.write(node, notebook)
    refresh_readme()


def clean(node):
    """Remove from an executed notebook what changes from run to run or machine to machine."""
    node.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        **({"fisherlib": node.metadata["fisherlib"]} if "fisherlib" in node.metadata else {}),
    }
    for position, cell in enumerate(node.cells):
        cell.id = f"cell-{position:02d}"
        tags = [tag for tag in cell.metadata.get("tags", []) if tag == "parameters"]
        cell.metadata = {"tags": tags} if tags else {}
        if cell.cell_type == "code":
            cell.outputs = [
                o
                for o in cell.outputs
                if o.get("name") != "stderr" and "application/vnd.jupyter.widget-view+json" not in o.get("data", {})
            ]
            for output in cell.outputs:
                output.pop("metadata", None)
                if output.output_type in ("display_data", "execute_result"):
                    output.metadata = {}
    return node


def stamp(node) -> str:
    """Hash of the code cells: outputs that were made by other code have another stamp."""
    code = "\0".join(cell.source for cell in node.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def refresh_readme() -> None:
    """Regenerate the README's table of notebooks and its results from the notebooks themselves."""
    readme = ROOT / "README.md"
    readme.write_text(readme_with_tables(readme.read_text()))


def readme_with_tables(text: str) -> str:
    """The README with fresh tables between its markers: the notebooks, and what 00, 05, 05b and 07 found."""
    import nbformat

    rows = ["| notebook | after it you can | minutes, 2 CPU cores |", "|---|---|---|"]
    for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")):
        about = nbformat.read(path, as_version=4).metadata["fisherlib"]
        rows.append(f"| [{path.stem}](notebooks/{path.name}) | {about['goal']} | {about.get('minutes', 0):g} |")
    text = _between(text, "notebooks", "\n".join(rows))
    text = _between(text, "claims", results(NOTEBOOKS / "05_fine_tuning.ipynb")["summary"])
    text = _between(text, "recipe", results(NOTEBOOKS / "05b_why.ipynb")["summary"])
    text = _between(text, "related", results(NOTEBOOKS / "07_related_selectors.ipynb")["summary"])
    return _between(text, "results", results(NOTEBOOKS / "00_quickstart.ipynb")["summary"])


def _between(text: str, name: str, content: str) -> str:
    pattern = rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)"
    if not re.search(pattern, text, re.DOTALL):
        raise ValueError(f"expected the markers <!-- {name} --> and <!-- /{name} -->, each on its own line")
    return re.sub(pattern, lambda m: m[1] + content + m[2], text, flags=re.DOTALL)


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
    from papermill.exceptions import PapermillExecutionError

    parser = argparse.ArgumentParser(prog="python -m fisherlib.notebook", description="Run the notebooks of the course.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("quickstart", help="run notebook 00 and print its results")
    one = commands.add_parser("run", help="run one notebook with parameters")
    one.add_argument("notebook", help="for instance 00_quickstart")
    one.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    one.add_argument("--profile", help="smoke or full")
    one.add_argument("--output", help="the executed notebook (default: runs/NOTEBOOK.ipynb)")
    every = commands.add_parser("build", help="refresh the committed outputs")
    every.add_argument("notebook", nargs="*", help="default: all, with the solutions")
    options = parser.parse_args(arguments)
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
            recorded = run(path, output, parameters=values, profile=options.profile)
            print(f"\n{recorded['summary']}\n\nexecuted notebook: {output}")
        else:
            named = [NOTEBOOKS / f"{name.removesuffix('.ipynb')}.ipynb" for name in options.notebook]
            for path in named or [
                *sorted(NOTEBOOKS.glob("[0-9]*.ipynb")),
                *sorted(NOTEBOOKS.glob("solutions/*.ipynb")),
            ]:
                print(f"building {path.name}", file=sys.stderr)
                build(path)
    except ValueError as error:
        sys.exit(f"fisherlib: {error}")
    except PapermillExecutionError as error:
        sys.exit(f"fisherlib: cell {error.exec_count} failed with {error.ename}: {error.evalue}")


if __name__ == "__main__":
    main()
