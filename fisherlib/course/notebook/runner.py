"""Execute a notebook with checked parameters, through papermill."""

import difflib
import os
from pathlib import Path

from fisherlib.assets import ROOT
from fisherlib.course.notebook.lesson import results

NOTEBOOKS = ROOT / "notebooks"


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
