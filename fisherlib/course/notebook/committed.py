"""What is committed of a run: outputs without traces of the machine, figures, and the tables of the README."""

import hashlib
import re
import tempfile
import time
from functools import cache
from pathlib import Path

from fisherlib.assets import ROOT
from fisherlib.course.notebook.house import house_map
from fisherlib.course.notebook.runner import NOTEBOOKS, run


def build(notebook: Path) -> None:
    """Run a notebook with its defaults and commit-ready outputs into the file itself; refresh box, figures and README.

    Raises `ValueError` if a cell wrote to stderr or an output holds a path of this machine: then nothing is changed.
    """
    import nbformat

    with tempfile.TemporaryDirectory(prefix="fisherlib-") as scratch:
        executed = Path(scratch) / notebook.name
        began = time.perf_counter()
        recorded = run(notebook, executed, cwd=scratch)
        minutes = (time.perf_counter() - began) / 60
        node = clean(nbformat.read(executed, as_version=4))
        refuse_stderr(node, notebook.name)
        if scratch in (text := nbformat.writes(node)) or str(ROOT) in text:
            raise ValueError(
                f"{notebook.name}: expected outputs without paths of this machine; print the name, not the path"
            )
        for figure in Path(scratch).glob("runs/**/*.svg"):
            (NOTEBOOKS / "figures" / f"{notebook.stem}_{figure.name}").write_bytes(figure.read_bytes())
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
            cell.outputs = [o for o in cell.outputs if "application/vnd.jupyter.widget-view+json" not in o.get("data", {})]
            for output in cell.outputs:
                shown = output.pop("metadata", {}).get("image/png")  # at which size; the picture has twice the pixels
                if output.output_type in ("display_data", "execute_result"):
                    output.metadata = {"image/png": shown} if shown else {}
    return node


def refuse_stderr(node, name: str) -> None:
    """Raise `ValueError` if a cell of an executed notebook wrote to stderr: a warning has a cause, and a reader sees it."""
    code = [cell for cell in node.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        text = "".join(output.text for output in cell.outputs if output.get("name") == "stderr").strip()
        if text:
            first = cell.source.strip().splitlines()[0]
            raise ValueError(
                f"{name}: expected nothing on stderr, but cell {number} (`{first}`) wrote there: mend the cause. It said: "
                f"{text[:1000]}"
            )


def stamp(node) -> str:
    """Hash of the code cells: outputs that were made by other code have another stamp."""
    code = "\0".join(cell.source for cell in node.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def refresh_readme() -> None:
    """Regenerate what stands between the README's markers."""
    readme = ROOT / "README.md"
    readme.write_text(readme_with_tables(readme.read_text()))


def readme_with_tables(text: str) -> str:
    """The README with fresh text between its markers: the notebooks, the house, and what the committed rows say.

    Cost: seconds, since all verdicts are computed anew.
    """
    import nbformat

    rows = ["| notebook | after it you can | minutes, 2 CPU cores |", "|---|---|---|"]
    for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")):
        about = nbformat.read(path, as_version=4).metadata["fisherlib"]
        rows.append(f"| [{path.stem}](notebooks/{path.name}) | {about['goal']} | {about.get('minutes', 0):g} |")
    text = _between(text, "notebooks", "\n".join(rows))
    text = _between(text, "map", house_map(sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))))
    for name, content in _answers().items():
        text = _between(text, name, content)
    return text


@cache
def _answers() -> dict[str, str]:
    """What the committed rows say; a build of many notebooks asks once."""
    from fisherlib.course.study.answers import sections
    from fisherlib.course.study.verdicts import load

    return sections(load())


def _between(text: str, name: str, content: str) -> str:
    pattern = rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)"
    if not re.search(pattern, text, re.DOTALL):
        raise ValueError(f"expected the markers <!-- {name} --> and <!-- /{name} -->, each on its own line")
    return re.sub(pattern, lambda m: m[1] + content + m[2], text, flags=re.DOTALL)
