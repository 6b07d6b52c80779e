"""Execute a notebook with checked parameters, through papermill, with a limit in minutes."""

import difflib
import os
from pathlib import Path

from fisherlib._signals import interruptible
from fisherlib.assets import IN_CLONE, ROOT
from fisherlib.course.notebook.lesson import results

NOTEBOOKS = ROOT / "notebooks"  # in a clone; an installed wheel has none: `need_clone`
_START = 120  # seconds in which a kernel must answer


def need_clone() -> None:
    """Raise `ValueError` where fisherlib is installed without its notebooks."""
    if not IN_CLONE:
        raise ValueError(
            "expected a clone of the project, got an installed package, which has no notebooks: "
            "clone the project and run this in its folder"
        )


def run(
    notebook: str | Path,
    output: str | Path,
    *,
    parameters: dict | None = None,
    profile: str | None = None,
    cwd: str | Path | None = None,
    progress: bool = True,
    minutes: int | float = 30,
) -> dict:
    """Execute a notebook through papermill and return its results.

    `parameters` must be names that the notebook declares (papermill itself would only warn); a `profile` is a file in
    `notebooks/profiles`, of which the names that this notebook declares are used. The executed notebook is `output`.
    `minutes` is the time for all cells together: the notebooks of the course take one to three, the profile `full` hours.

    Raises `ValueError` for an unknown parameter, naming the nearest, and for a profile outside a clone; papermill's error if
    a cell fails; `TimeoutError` if the time is up and `RuntimeError` if the kernel died, both naming the cell, or if it did
    not start; `SystemExit(143)` after SIGTERM.
    """
    if profile is not None:
        need_clone()
    import papermill
    import yaml

    from fisherlib.course.notebook.engine import ENGINE

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # inherited by the kernel
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # a debugger's warning in every kernel start
    if not 0 < minutes < float("inf"):
        raise ValueError(f"expected a finite number of minutes above 0 for the run, got {minutes}: nothing may run for ever")
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
    with interruptible(lambda: f"the cells that ended are in {output}; the same call begins anew"):
        papermill.execute_notebook(
            str(notebook),
            str(output),
            parameters=values,
            kernel_name="python3",
            cwd=None if cwd is None else str(cwd),
            progress_bar=progress,
            engine_name=ENGINE,
            minutes=minutes,
            start_timeout=_START,
            log_output=False,
            extra_arguments=["--IPKernelApp.log_level=40"],  # not the transport warning of every kernel start
        )
    return results(output)
