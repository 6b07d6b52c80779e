"""What the notebooks share: `setup`, `check`, `attempt`, `show`, `record`; and `results`, what a run recorded."""

import html
import inspect
import json
import random
import resource
from pathlib import Path
from typing import Any

import numpy as np

from fisherlib.assets import ROOT

RECORD_MIME = "application/vnd.fisherlib.record+json"


def setup(*, seed: int, out_dir: str) -> Path:
    """Seed everything, apply the house style, silence progress bars of libraries; returns `out_dir`, created."""
    import datasets
    import torch
    import transformers

    from fisherlib.course import plotting

    random.seed(seed)  # with the two below all that `transformers.set_seed` does, which takes seconds to import
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_deterministic_debug_mode("warn")  # as `use_deterministic_algorithms` does, which imports a compiler first
    transformers.utils.logging.set_verbosity_error()
    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    plotting.style()
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check(claim: str, got: Any, expected: Any = True, *, atol: float = 0.0) -> None:
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


def attempt(claim: str, answer: Any, expected: Any, *, atol: float = 0.0) -> None:
    """Check an exercise; `...` as the answer means that it is still open."""
    if answer is ...:
        print(f"○ not answered yet: {claim}")
    else:
        check(claim, answer, expected, atol=atol)


def show(thing) -> None:
    """Display the source of a public function, folded: the text that runs, never a copy of it.

    Raises `ValueError` for a private one: a lesson teaches what a reader may call.
    """
    from IPython.display import display

    private = [name for name in thing.__qualname__.split(".") if name.startswith("_")]
    if private:
        raise ValueError(f"expected a public function, got {thing.__qualname__}: write a small version of it instead")
    lines, first = inspect.getsourcelines(thing)
    where = f"{Path(inspect.getsourcefile(inspect.unwrap(thing)) or '').relative_to(ROOT).as_posix()}, line {first}"
    source = "".join(lines)
    folded = (
        f"<details><summary><code>{where}</code></summary>"
        f'<pre style="font-family:monospace">{html.escape(source)}</pre></details>'
    )
    display({"text/html": folded, "text/markdown": f"`{where}`:\n\n```python\n{source}```", "text/plain": source}, raw=True)


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
