"""The helpers that the notebooks use, and the runner."""

import html
import inspect
import os
import re
import signal
import subprocess
import sys
import time

import nbformat
import numpy as np
import pytest
from nbclient.output_widget import OutputWidget
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import fisherlib as fl
from fisherlib.course import notebook
from fisherlib.course.notebook import committed
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


def test_the_source_of_a_public_function_is_shown_folded_and_a_private_one_is_not(monkeypatch):
    from IPython import display

    shown = []
    monkeypatch.setattr(display, "display", lambda bundle, raw: shown.append(bundle))
    notebook.show(fl.fisher.gain)
    (bundle,) = shown
    source = inspect.getsource(fl.fisher.gain)
    assert bundle["text/plain"] == source and f"```python\n{source}```" in bundle["text/markdown"]
    assert re.match(r"<details><summary><code>fisherlib/fisher.py, line \d+</code></summary><pre ", bundle["text/html"])
    assert "monospace" in bundle["text/html"] and html.escape(source) in bundle["text/html"]
    for private in (notebook.lesson._plain, fl.TokenFeatures.__len__):
        with pytest.raises(ValueError, match="expected a public function, got .*: write a small version of it instead"):
            notebook.show(private)


def small(*sources, parameters=None):
    cells = [new_markdown_cell("# t\n<!-- box -->\n> b\n<!-- /box -->")]
    if parameters:
        cells.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return new_notebook(cells=[*cells, *(new_code_cell(source) for source in sources)], metadata=kernel)


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_failing_cell_is_one_line(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"cell \d failed with ValueError: expected a file of examples, got 'no.jsonl'"):
        main(["run", "00_quickstart", "-p", "data", "no.jsonl"])


RECORD = f"display({{{notebook.RECORD_MIME!r}: {{'ended': True}}}}, raw=True)"  # without waiting for `import fisherlib`


@pytest.mark.slow
def test_a_lost_wake_up_makes_no_run_wait(tmp_path, monkeypatch):
    """nbclient writes to the socket on which it waits, for an Output widget; late enough, it then misses the kernel's reply.

    Without an engine that asks again, the second cell takes the whole limit: here 30 seconds, hours in earnest.
    """
    publish = OutputWidget._publish_msg

    def late(*values, **named):
        time.sleep(0.5)  # the kernel's reply arrives meanwhile
        return publish(*values, **named)

    monkeypatch.setattr(OutputWidget, "_publish_msg", late)
    widget = small("import ipywidgets\nout = ipywidgets.Output()\nout", "with out:\n    print('seen')", RECORD)
    nbformat.write(widget, tmp_path / "n.ipynb")
    assert notebook.run(tmp_path / "n.ipynb", tmp_path / "o.ipynb", progress=False, minutes=0.5) == {"ended": True}
    took = nbformat.read(tmp_path / "o.ipynb", as_version=4).cells[2].metadata.papermill.duration
    assert took < 15


@pytest.mark.slow
def test_a_cell_that_never_ends_is_stopped_and_named(tmp_path):
    nbformat.write(small("import os\nprint(os.getpid())", "while True:\n    pass", RECORD), tmp_path / "n.ipynb")
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=re.escape("cell 2 (`while True:`) had not ended after ")) as error:
        notebook.run(tmp_path / "n.ipynb", tmp_path / "o.ipynb", progress=False, minutes=0.1)
    assert time.monotonic() - began < 60 and "--minutes" in str(error.value) and "0.1 minutes" in str(error.value)
    cells = nbformat.read(tmp_path / "o.ipynb", as_version=4).cells  # what ran is kept, and says what failed
    assert [cell.metadata.papermill.status for cell in cells[1:]] == ["completed", "failed", "pending"]
    with pytest.raises(ProcessLookupError):  # no kernel goes on
        os.kill(int(cells[1].outputs[0].text), 0)


ENDED = """
import sys
from fisherlib.course import notebook
notebook.run(sys.argv[1], sys.argv[2], progress=False, minutes=2)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_run_that_is_ended_by_a_scheduler_keeps_its_cells_and_no_kernel(number, status, tmp_path):
    pid = tmp_path / "pid"
    begin = f"import os, pathlib\npathlib.Path({str(pid)!r}).write_text(str(os.getpid()))"
    nbformat.write(small(begin, "import time\ntime.sleep(100)", RECORD), tmp_path / "n.ipynb")
    command = [sys.executable, "-c", ENDED, tmp_path / "n.ipynb", tmp_path / "o.ipynb"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        until = time.monotonic() + 120
        while not (pid.exists() and pid.read_text()) and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(1)  # into the cell that sleeps
        run.send_signal(number)
        _, said = run.communicate(timeout=60)
    assert run.returncode == status and f"the cells that ended are in {tmp_path / 'o.ipynb'}" in said
    cells = nbformat.read(tmp_path / "o.ipynb", as_version=4).cells
    assert cells[1].metadata.papermill.status == "completed"
    with pytest.raises(ProcessLookupError):  # no kernel goes on
        os.kill(int(pid.read_text()), 0)


@pytest.mark.slow
def test_all_cells_together_have_the_minutes_of_the_run(tmp_path):
    """Five cells of two seconds in six: no cell alone is too long."""
    nbformat.write(small(*["import time\ntime.sleep(2)"] * 5, RECORD), tmp_path / "n.ipynb")
    with pytest.raises(TimeoutError, match=r"cell [34] \(`import time`\) had not ended after \d s, when the 0.1 minutes"):
        notebook.run(tmp_path / "n.ipynb", tmp_path / "o.ipynb", progress=False, minutes=0.1)


@pytest.mark.slow
def test_a_kernel_that_dies_is_named_with_its_cell(tmp_path):
    nbformat.write(small("x = 1", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"), tmp_path / "n.ipynb")
    with pytest.raises(RuntimeError, match=re.escape("the kernel died in cell 2 (`import os, signal`)")):
        notebook.run(tmp_path / "n.ipynb", tmp_path / "o.ipynb", progress=False, minutes=2)


@pytest.mark.slow
def test_the_limit_of_a_run_is_checked_and_the_command_says_what_was_stopped(tmp_path, monkeypatch):
    for minutes in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected a finite number of minutes above 0"):
            notebook.run(tmp_path / "n.ipynb", tmp_path / "o.ipynb", minutes=minutes)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"fisherlib: expected every cell to end, but cell \d \(`.+`\) had not ended"):
        main(["run", "00_quickstart", "--minutes", "0.01"])


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
    size = {"width": 400, "height": 300}  # of a picture with twice the pixels
    node.cells[1].outputs = [
        new_output("display_data", {"image/png": ""}, metadata={"image/png": size, "needs_background": "light"}),
        new_output("display_data", {"text/plain": ""}, metadata={"transient": 1}),
    ]
    tidy = notebook.clean(node)
    assert set(tidy.metadata) == {"kernelspec", "language_info"}
    assert tidy.cells[1].metadata == {"tags": ["parameters"]} and tidy.cells[2].metadata == {}
    assert [o.get("metadata") for o in tidy.cells[1].outputs] == [{"image/png": size}, {}]
    assert [o.name for o in tidy.cells[2].outputs] == ["stderr", "stdout"]  # not hidden: `build` refuses it
    with pytest.raises(ValueError, match=re.escape("n.ipynb: expected nothing on stderr, but cell 2 (`print(1)`) wrote")):
        committed.refuse_stderr(tidy, "n.ipynb")


@pytest.mark.slow
def test_a_build_whose_run_writes_to_stderr_changes_nothing(tmp_path):
    wrote = small("import sys\nprint('told you', file=sys.stderr)", RECORD, parameters="x: int = 1  # n")
    nbformat.write(wrote, tmp_path / "n.ipynb")
    before = (tmp_path / "n.ipynb").read_bytes()
    with pytest.raises(ValueError, match=re.escape("but cell 2 (`import sys`) wrote there: mend the cause. It said: told")):
        notebook.build(tmp_path / "n.ipynb")
    assert (tmp_path / "n.ipynb").read_bytes() == before


def test_the_stamp_follows_the_code_and_not_the_prose():
    node = small("print(1)")
    before = notebook.stamp(node)
    node.cells[0].source += " more"
    assert notebook.stamp(node) == before
    node.cells[1].source += "  # changed"
    assert notebook.stamp(node) != before
