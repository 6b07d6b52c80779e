"""Every notebook and solution through papermill, with claims about what it recorded; one twice, one sabotaged."""

import json
import os
import subprocess
import sys

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell

import fisherlib as fl
from fisherlib.notebook import NOTEBOOKS, results, run
from tests.test_notebooks_static import ALL

QUICKSTART = NOTEBOOKS / "00_quickstart.ipynb"


def claims_00(r):
    arms = {"FisherSFT", "uniform", "longest"}
    assert set(r["information"]) == set(r["head_nll"]) == set(r["tokens_trained"]) == arms
    assert r["information"]["FisherSFT"] > max(r["information"]["uniform"], r["information"]["longest"])
    assert all(130 < tokens <= 150 for tokens in r["tokens_trained"].values())
    assert len(set(r["steps"].values())) == 1
    untuned = r["full_nll"].pop("no fine-tuning")
    assert all(nll < untuned for nll in r["full_nll"].values())  # every arm learned something
    for mean, low, high in (r["head_versus_uniform"], r["full_versus_uniform"]):
        assert low <= mean <= high and low < high
    assert 0 < r["certificate"] <= 1


def claims_00_solutions(r):
    assert r["tokens_of_picks"] > r["tokens_of_pool"] and r["correlation"] > 0.95


CLAIMS = {"00_quickstart.ipynb": claims_00, "solutions/00_quickstart.ipynb": claims_00_solutions}


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Each notebook once, in the smoke profile, from a folder that is not the repository's."""
    done = {}

    def get(name):
        if name not in done:
            folder = tmp_path_factory.mktemp("elsewhere")
            recorded = run(NOTEBOOKS / name, folder / "out.ipynb", profile="smoke", cwd=folder, progress=False)
            done[name] = (folder, recorded)
        return done[name]

    return get


@pytest.mark.parametrize("name", [path.relative_to(NOTEBOOKS).as_posix() for path in ALL])
def test_runs_and_its_claims_hold(executed, name):
    CLAIMS[name](json.loads(json.dumps(executed(name)[1])))


def test_the_quickstart_leaves_what_it_promises(executed):
    folder, recorded = executed("00_quickstart.ipynb")
    selection = fl.Selection.load(folder / "runs/00_quickstart/selection.json")
    assert selection.indices.tolist() == recorded["picks"]
    subset = [json.loads(line) for line in (folder / "runs/00_quickstart/subset.jsonl").read_text().splitlines()]
    assert len(subset) == len(selection) and all(row["prompt"] and row["response"] for row in subset)
    assert {p.name for p in (folder / "runs/00_quickstart").glob("*.svg")} == {
        "comparison.svg",
        "ellipses.svg",
        "information.svg",
    }


def test_a_second_run_gives_the_same_numbers(executed, tmp_path):
    _, first = executed("00_quickstart.ipynb")
    second = run(QUICKSTART, tmp_path / "out.ipynb", profile="smoke", cwd=tmp_path, progress=False)
    for name in ("information", "head_nll", "full_nll", "full_versus_uniform", "picks", "certificate"):
        assert first[name] == second[name], name


def test_sabotage_fails_at_the_check_that_guards_it(tmp_path):
    """A gain of the wrong sign in the library must stop the notebook where naive and library are compared."""
    node = nbformat.read(QUICKSTART, as_version=4)
    wrong = (
        "from fisherlib.information import Information\n"
        "right = Information.gains\n"
        "Information.gains = lambda *a, **k: (lambda g, e: (1 / (1 + g), 0 * e))(*right(*a, **k))"
    )
    setup = next(i for i, cell in enumerate(node.cells) if "notebook.setup" in cell.source)
    node.cells.insert(setup + 1, new_code_cell(wrong))
    nbformat.write(node, tmp_path / "sabotaged.ipynb")
    with pytest.raises(papermill.PapermillExecutionError, match="the naive and the library's greedy pick the same"):
        run(tmp_path / "sabotaged.ipynb", tmp_path / "out.ipynb", profile="smoke", cwd=tmp_path, progress=False)


def test_plain_papermill_on_a_user_s_own_jsonl(tmp_path):
    """The README's command, on rows of another shape, from the folder in which the file lies."""
    subjects = ["frost", "rivers", "engines", "bread", "maps", "winter", "glass", "music"]
    rows = [
        {"messages": [{"role": "user", "content": f"Say something about {s}."}, {"role": "assistant", "content": text}]}
        for i, s in enumerate(subjects * 3)
        for text in [f"Number {i}: people who study {s} often begin with what they can see, and end with what they cannot."]
    ]
    (tmp_path / "my.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    small = ["-p", "tokens", "90", "-p", "pool_examples", "12", "-p", "test_examples", "3", "-p", "out_dir", "mine"]
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(QUICKSTART),
        "out.ipynb",
        "-k",
        "python3",
        "-p",
        "data",
        "my.jsonl",
        *small,
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert results(tmp_path / "out.ipynb")["information"]["FisherSFT"] > 0
    subset = (tmp_path / "mine" / "subset.jsonl").read_text().splitlines()
    assert all(json.loads(line) in rows for line in subset)
