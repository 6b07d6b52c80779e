"""Where a number comes from: the machine, the versions and the commit that are kept beside it."""

import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from fisherlib._device import is_accelerator
from fisherlib.assets import IN_CLONE, ROOT


@cache  # the commit is that of the code which this process runs, whatever is committed meanwhile
def origin(device: str) -> dict[str, str]:
    """Where a number comes from: machine, versions, commit."""
    names = ("torch", "transformers", "numpy", "scipy")
    asked = ["git", "rev-parse", "--short", "HEAD"]
    # Outside a clone the package may still lie in some other project's repository: its commit says nothing of this code.
    commit = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=60).stdout.strip() if IN_CLONE else ""
    cpu = next((line.split(":")[1].strip() for line in _cpu_lines() if line.startswith("model name")), platform.machine())
    machine = f"{cpu}, {torch.get_num_threads()} threads"
    if is_accelerator(device):
        machine = torch.get_device_module(device).get_device_name()
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return {"machine": machine, "versions": f"fisherlib {version('fisherlib')}, {versions}", "commit": commit or "unknown"}


def _cpu_lines() -> list[str]:
    info = Path("/proc/cpuinfo")
    return info.read_text().splitlines() if info.is_file() else []
