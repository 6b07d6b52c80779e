"""The helpers that the notebooks use, and the runner."""

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from fisherlib.course import notebook
from fisherlib.course.notebook.__main__ import _typed, main


def test_check_passes_what_holds_and_raises_what_does_not(capsys):
    notebook.check("equal", [1.0, 2.0], [1.0, 2.0 + 1e-9], atol=1e-8)
    notebook.check("true", True)
    assert capsys.readouterr().out.count("✓") == 2
    for got, expected, atol in (
        (1.0, 1.1, 1e-3),
        (float("nan"), 1.0, 10.0),
        ([1, 2], [1, 2, 3], 1.0),
        (False, True, 0.0),
        (1, True, 0.0),
        ([], [], 0.0),
        (np.zeros(3), np.array([0, 0, 1e-6]), 1e-7),
    ):
        with pytest.raises(AssertionError, match="claim: expected"):
            notebook.check("claim", got, expected, atol=atol)


def test_an_open_exercise_is_no_failure_but_a_wrong_answer_is(capsys):
    notebook.attempt("x", ..., 3.0)
    assert "not answered yet" in capsys.readouterr().out
    notebook.attempt("x", 3.0, 3.0)
    with pytest.raises(AssertionError):
        notebook.attempt("x", 2.0, 3.0)


def small(*sources, parameters=None):
    cells = [new_markdown_cell("# t\n<!-- box -->\n> b\n<!-- /box -->")]
    if parameters:
        cells.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return new_notebook(cells=[*cells, *(new_code_cell(source) for source in sources)], metadata=kernel)


def test_record_and_results_round_trip(tmp_path):
    body = (
        "import numpy as np\nimport fisherlib as fl\n"
        "fl.notebook.record(summary='**s**', a=np.float64(x), b=np.arange(2))\nfl.notebook.record(c={'d': [1]})"
    )
    nbformat.write(small(body, parameters="x: float = 1.5  # a number"), tmp_path / "n.ipynb")
    found = notebook.run(tmp_path / "n.ipynb", tmp_path / "out" / "n.ipynb", parameters={"x": 2.5}, progress=False)
    assert found.pop("peak_gigabytes") > 0
    assert found == {"summary": "", "a": 2.5, "b": [0, 1], "c": {"d": [1]}}
    with pytest.raises(ValueError, match="got none in"):
        notebook.results(tmp_path / "n.ipynb")


def test_a_misspelt_parameter_is_refused_and_the_nearest_named(tmp_path, capsys):
    with pytest.raises(ValueError, match="no parameter 'token': did you mean 'tokens'") as error:
        notebook.run(notebook.NOTEBOOKS / "00_quickstart.ipynb", tmp_path / "o.ipynb", parameters={"token": 3})
    assert "learning_rate" in str(error.value)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SystemExit, match="did you mean 'learning_rate'"):
        main(["run", "00_quickstart", "-p", "learnin_rate", "1"])
    with pytest.raises(SystemExit, match="expected a profile out of \\['full', 'smoke'\\], got 'smok'"):
        main(["run", "00_quickstart", "--profile", "smok"])
    with pytest.raises(SystemExit, match="expected one of .*00_quickstart"):
        main(["run", "0_quickstart"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("tokens", "abc", "tokens to be of type int"),
        ("seed", "1.5", "seed to be of type int"),
        ("data", "", "a value for data"),
    ],
)
def test_parameters_are_of_the_declared_type_before_anything_runs(name, text, message):
    with pytest.raises(SystemExit, match=message):
        main(["run", "00_quickstart", "-p", name, text])


def test_numbers_may_be_written_as_python_writes_them():
    values = _typed(notebook.NOTEBOOKS / "00_quickstart.ipynb", {"learning_rate": "1e-4", "data": "[x", "tokens": "30"})
    assert values == {"learning_rate": 1e-4, "data": "[x", "tokens": 30}


def test_a_failing_cell_is_one_line(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"cell \d failed with ValueError: expected a file of examples, got 'no.jsonl'"):
        main(["run", "00_quickstart", "-p", "data", "no.jsonl"])


def test_clean_keeps_what_is_stable():
    node = small("print(1)", parameters="x: int = 1  # n")
    node.metadata["papermill"] = {"start_time": "now"}
    node.metadata["widgets"] = {"state": 1}
    cell = node.cells[2]
    cell.metadata = {
        "execution": {"iopub.status.busy": "now"},
        "papermill": {"duration": 1},
        "tags": ["injected-parameters"],
    }
    cell.outputs = [new_output("stream", name="stderr", text="w"), new_output("stream", name="stdout", text="1\n")]
    tidy = notebook.clean(node)
    assert set(tidy.metadata) == {"kernelspec", "language_info"}
    assert tidy.cells[1].metadata == {"tags": ["parameters"]} and tidy.cells[2].metadata == {}
    assert [o.name for o in tidy.cells[2].outputs] == ["stdout"]


def test_the_stamp_follows_the_code_and_not_the_prose():
    node = small("print(1)")
    before = notebook.stamp(node)
    node.cells[0].source += " more"
    assert notebook.stamp(node) == before
    node.cells[1].source += "  # changed"
    assert notebook.stamp(node) != before
