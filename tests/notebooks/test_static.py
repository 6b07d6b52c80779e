"""Hygiene of the committed notebooks: read, never executed."""

import ast
import inspect
import operator
import re

import nbformat
import papermill
import pytest
import yaml

import fisherlib as fl
from fisherlib.course.notebook import NOTEBOOKS, RECORD_MIME, results, stamp

COURSE = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
ALL = [*COURSE, *sorted(NOTEBOOKS.glob("solutions/*.ipynb"))]
every_notebook = pytest.mark.parametrize("path", ALL, ids=lambda p: p.relative_to(NOTEBOOKS).as_posix())
course_notebook = pytest.mark.parametrize("path", COURSE, ids=lambda p: p.name)


def cells(path, kind):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def test_there_are_notebooks_and_each_has_solutions():
    assert COURSE
    assert [p.name for p in sorted(NOTEBOOKS.glob("solutions/*.ipynb"))] == [p.name for p in COURSE]


@every_notebook
def test_outputs_come_from_this_code_run_from_top_to_bottom(path):
    node = nbformat.read(path, as_version=4)
    nbformat.validate(node)
    assert node.metadata["fisherlib"]["stamp"] == stamp(node), "stale outputs: run make notebooks"
    code = [cell for cell in node.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert outputs and not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert results(path)


@every_notebook
def test_nothing_of_the_machine_or_the_run_is_committed(path):
    text = path.read_text()
    assert not re.search(r"/(root|home|work|tmp|Users)/|[A-Z]:\\\\\\\\", text)
    assert not re.search(r'"papermill"|iopub|"widgets"|widget-view|injected-parameters', text)
    assert len(text) < 600_000


@every_notebook
def test_parameters_are_documented_literals(path):
    tagged = [c for c in cells(path, "code") if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    for statement in ast.parse(tagged[0].source).body:
        assert isinstance(statement, ast.AnnAssign)
        ast.literal_eval(statement.value)
    declared = papermill.inspect_notebook(str(path))
    assert len(declared) == len(ast.parse(tagged[0].source).body)  # papermill's own parser sees them all
    assert all(about["help"] and about["inferred_type_name"] for about in declared.values())
    assert {"seed", "out_dir"} <= set(declared)


@every_notebook
def test_no_notebook_redefines_a_public_name_and_no_cell_is_long(path):
    for cell in cells(path, "code"):
        assert len(cell.source.splitlines()) <= 40
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert node.name not in fl.__all__
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                assert node.id not in set(fl.__all__) - {"selectors"}


@every_notebook
def test_no_lesson_has_an_output_widget(path):
    """It shows nothing where no kernel runs, and a runner that plays the browser for it can wait for ever (engine.py)."""
    for cell in cells(path, "code"):
        names = {getattr(node, "attr", getattr(node, "id", None)) for node in ast.walk(ast.parse(cell.source))}
        assert not names & {"Output", "interact", "interact_manual", "interactive", "interactive_output"}, cell.source


@course_notebook
def test_the_size_of_a_lesson(path):
    code, prose = cells(path, "code"), cells(path, "markdown")
    lines = sum(bool(line.strip()) for cell in code for line in cell.source.splitlines())
    text = [cell.source.split("## References")[0] for cell in prose]  # nobody reads those from top to bottom
    words = sum(any(map(str.isalnum, word)) for part in text for word in part.split())  # not a table's bars
    assert 20 <= len(code) + len(prose) <= 45
    assert 110 <= lines <= 200
    assert 700 <= words <= 1500


@course_notebook
def test_the_parts_of_a_lesson(path):
    node = nbformat.read(path, as_version=4)
    prose = [cell.source for cell in node.cells if cell.cell_type == "markdown"]
    code = "\n".join(cell.source for cell in node.cells if cell.cell_type == "code")
    assert prose[0].startswith("# ") and "<!-- box -->" in prose[0] and "minutes on 2 CPU cores" in prose[0]
    assert "After this notebook you can" in prose[1]
    assert "did not show" in prose[-1] and "## References" in prose[-1]
    assert "**Exercise 1**" in "\n".join(prose) and "Hint" in "\n".join(prose)
    for call in ("check(", "attempt(", "show(fl.", "notebook.record("):
        assert call in code, call
    assert any(RECORD_MIME in output.get("data", {}) for cell in node.cells for output in cell.get("outputs", []))


@every_notebook
def test_prose_holds_no_result_typed_by_hand(path):
    for cell in cells(path, "markdown"):
        prose = re.sub(
            r"<!-- box -->.*?<!-- /box -->|\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|arXiv \d+\.\d+|95 %|Apache-2\.0",
            "",
            cell.source,
            flags=re.S,
        )
        assert not re.findall(r"\d+\.\d+|\d+ ?%", prose), cell.source


@every_notebook
def test_shown_source_is_today_s(path):
    for cell in cells(path, "code"):
        for name in re.findall(r"^show\(fl\.([\w.]+)\)", cell.source, re.MULTILINE):
            source = inspect.getsource(operator.attrgetter(name)(fl))
            assert any(source in output.get("data", {}).get("text/markdown", "") for output in cell.outputs), (
                "stale: make notebooks"
            )


@pytest.mark.parametrize("profile", sorted(NOTEBOOKS.glob("profiles/*.yaml")), ids=lambda p: p.stem)
def test_profiles_name_parameters_that_exist(profile):
    declared = set().union(*(papermill.inspect_notebook(str(path)) for path in ALL))
    values = yaml.safe_load(profile.read_text())
    assert values and set(values) <= declared
    assert all(isinstance(value, int | float | str | bool) for value in values.values())  # flat
