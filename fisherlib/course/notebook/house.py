"""The map of the house for the README: its wings in the order of the line, and the notebooks that use each."""

import ast
import importlib
import textwrap
from pathlib import Path
from types import ModuleType

from fisherlib.assets import ROOT

PACKAGE = ROOT / "fisherlib"
WINGS = ("text", "model", "features", "greedy", "selectors", "mixtures", "training", "evaluation", "course")
_PLAIN = ("fisher", "assets")  # files of the root that a reader looks for


def house_map(notebooks: list[Path]) -> str:
    """A text tree: each wing with the first sentence of its docstring, its files, and the notebooks that name it."""
    used: dict[str, list[str]] = {}
    for path in notebooks:
        for wing in _wings_of(path):
            used.setdefault(wing, []).append(path.stem.partition("_")[0])
    lines = ["fisherlib/"]
    for wing in WINGS:
        lines.append(f"  {wing + '/':13}{_about(wing)}")
        inside = [p.stem if p.suffix else f"{p.name}/" for p in sorted((PACKAGE / wing).iterdir()) if _shown(p)]
        lines += _wrapped(", ".join(inside))
        lines.append(f"{'':15}used by notebook {', '.join(used[wing])}" if wing in used else f"{'':15}used by no notebook")
    for name in _PLAIN:
        lines.append(f"  {name + '.py':13}{_about(name)}")
    return "```text\n" + "\n".join(lines) + "\n```"


def _about(name: str) -> str:
    """The first line of a docstring."""
    return (importlib.import_module(f"fisherlib.{name}").__doc__ or "").partition("\n")[0].rstrip(".:")


def _shown(path: Path) -> bool:
    is_room = path.suffix == ".py" or (path / "__init__.py").is_file()
    return is_room and not path.name.startswith("_")


def _wrapped(text: str, width: int = 100) -> list[str]:
    return [f"{'':15}{line}" for line in textwrap.wrap(text, width)]


def _wings_of(path: Path) -> set[str]:
    """The wings behind the names of `fl` and of `fisherlib` that a notebook's code cells use."""
    import nbformat

    import fisherlib

    found = set()
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("fisherlib."):
                found.add(node.module.split(".")[1])
            elif isinstance(node, ast.ImportFrom) and node.module == "fisherlib":
                found |= {_home(getattr(fisherlib, alias.name)) for alias in node.names}
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "fl" and not node.attr.startswith("__"):
                found.add(_home(getattr(fisherlib, node.attr)))
    return found & set(WINGS)


def _home(thing) -> str:
    """The wing that a public name comes from."""
    module = thing.__name__ if isinstance(thing, ModuleType) else thing.__module__
    return module.split(".")[1]
