"""The benchmark compares like with like: rivals pick what a naive greedy picks, and the tables are those of the files."""

import json
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest
import torch

import fisherlib as fl
from benchmarks import gpu, gpu_checks, memory, peers, report, vectors
from tests.pretend import accelerator


def naive_greedy(blocks, n):
    """Float64, from the definition: the largest log det(V + X^T X) at each pick."""
    V, picks = np.eye(blocks[0].shape[1]), []
    for _ in range(n):
        value = [-np.inf if i in picks else np.linalg.slogdet(V + X.T @ X)[1] for i, X in enumerate(blocks)]
        picks.append(int(np.argmax(value)))
        V += blocks[picks[-1]].T @ blocks[picks[-1]]
    return np.array(picks)


@pytest.fixture(scope="module")
def ragged():
    random = np.random.default_rng(3)
    blocks = [random.standard_normal((random.integers(1, 13), 8)).astype(np.float32) for _ in range(40)]
    return fl.TokenFeatures.from_list(blocks), naive_greedy([block.astype(float) for block in blocks], 30)


RIVALS = {
    "algorithm 1": lambda f: peers.naive(f, 30, 1.0),
    "algorithm 1 + lemma": lambda f: peers.naive(f, 30, 1.0, peers.by_lemma),
    "algorithm 2": lambda f: peers.algorithm_2(f, 30, 1.0, peers.by_determinant),
    "algorithm 2 + lemma": lambda f: peers.algorithm_2(f, 30, 1.0),
    "algorithm 2, batches of 3": lambda f: peers.algorithm_2(f, 30, 1.0, batch=3),
    "heap-lazy": lambda f: peers.heap_lazy(f, 30, 1.0),
    "heap-lazy, batches of 4": lambda f: peers.heap_lazy(f, 30, 1.0, batch=4),
}


@pytest.mark.parametrize("rival", RIVALS)
def test_every_rival_on_tokens_is_the_greedy_and_so_are_we(ragged, rival):
    features, expected = ragged
    run = RIVALS[rival](features)
    assert run.indices.tolist() == expected.tolist() == fl.select(features, examples=30).indices.tolist()
    assert len(features) <= run.evaluations <= sum(40 - t for t in range(30))


def test_extrapolation_makes_the_greedy_picks_with_the_true_number_of_evaluations(ragged):
    features, expected = ragged
    whole = peers.algorithm_2(features, 30, 1.0)
    for gains_at in (peers.by_determinant, peers.by_lemma):
        for run, evaluations in (
            (peers.naive_extrapolated(features, expected, 1.0, gains_at, limit=60), sum(40 - t for t in range(30))),
            (peers.algorithm_2_extrapolated(features, whole, 1.0, gains_at, limit=60), whole.evaluations),
        ):
            assert len(run.stages) >= 2 and run.stages[0] == 0 and run.stages[-1] == 29
            assert run.indices.tolist() == expected[run.stages].tolist()
            assert run.evaluations == evaluations and run.seconds > 0


def test_the_common_yardstick_is_the_log_determinant(ragged):
    features, picks = ragged
    X = torch.cat([features[i] for i in picks[:5]]).double().numpy()
    assert peers.objective(features, picks[:5], 2.0) == pytest.approx(
        np.linalg.slogdet(2 * np.eye(8) + X.T @ X)[1] - 8 * np.log(2)
    )


@pytest.mark.parametrize("name", [name for name, (_, kind, _) in vectors.RIVALS.items() if kind == "exact"])
def test_every_exact_package_is_the_greedy_on_one_vector_each(name):
    rival, _, package = vectors.RIVALS[name]
    try:
        version(package)
    except PackageNotFoundError:
        pytest.skip(f"{package} comes with the bench extra: make bench installs it")
    X = vectors.synthetic(40, 8)
    assert rival(X, 20).tolist() == naive_greedy(list(X[:, None]), 20).tolist()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_selection_from_a_mapped_file_stays_within_its_memory(tmp_path):
    """Measured in a process of its own: what it holds, and what it has mapped of a file that is larger than its bound."""
    memory.write(tmp_path / "features", 0.4)
    command = [sys.executable, "-m", "benchmarks.memory", str(tmp_path / "features"), "--examples=2", "--threads=1"]
    options = {"capture_output": True, "text": True, "cwd": report.FOLDER.parent, "check": True}
    done = subprocess.run([*command, "--memory=0.1"], timeout=300, **options)
    measured = json.loads(done.stdout.splitlines()[-1])
    slack = 0.1  # for what libraries keep for themselves
    assert measured["anonymous_gb"] - measured["before_gb"] < 0.1 + slack
    assert measured["resident_gb"] - measured["before_resident_gb"] < 0.2 + slack  # with what is mapped of the 0.4 GB


CHECKS = {check.__name__: check for check in gpu_checks.CHECKS}


@pytest.mark.parametrize("check", CHECKS)
def test_what_has_to_hold_on_a_gpu_holds_on_the_pretend_one(check):
    with accelerator():
        CHECKS[check]("pretend")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_and_on_a_real_one():
    for check in gpu_checks.CHECKS:
        check("cuda")


def test_a_check_can_fail(monkeypatch):
    monkeypatch.setattr(gpu_checks.fl, "select", lambda f, device, **more: fl.score_selection(f, [3, int(device == "cpu")]))
    with pytest.raises(AssertionError, match="random, {'examples': 20}: other picks"):
        gpu_checks.picks_are_those_of_the_cpu("pretend")


def test_the_plain_loop_for_gpus_is_the_greedy_too(ragged):
    features, expected = ragged
    assert gpu.plain_loop(features, 20, "cpu", batch=7, finalists=2) == expected[:20].tolist()


@pytest.mark.slow
def test_the_benchmark_of_gpus_is_rehearsed_at_a_hundredth_of_its_size(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--device=cpu", "--scale=0.01", f"--results={tmp_path}"]
    done = subprocess.run(command, timeout=600, capture_output=True, text=True, cwd=report.FOLDER.parent, check=True)
    result = json.loads((tmp_path / "gpu.json").read_text())
    rows = {row["what"]: row for row in result["rows"]}
    assert set(result) >= report.REQUIRED and report.table(result) in done.stdout
    assert not [row for row in result["rows"] if "error" in row]
    assert sum(what.startswith("check: ") for what in rows) == len(CHECKS)
    assert all(row["value"] == "holds" for what, row in rows.items() if what.startswith("check: "))
    same = [row["value"] for what, row in rows.items() if "pick the same" in what or "picks of the CPU" in what]
    assert same == [True] * 3 and all(f"{name}: this part in all" in rows for name in gpu.PARTS)


def test_a_part_that_takes_too_long_or_fails_is_a_row(tmp_path, monkeypatch, capsys):
    def slow(device, scale):
        yield {"what": "begun", "value": 1, "unit": ""}
        time.sleep(30)

    def failing(device, scale):
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(gpu, "PARTS", {"slow": (slow, 1), "failing": (failing, 9)})
    monkeypatch.setattr(sys, "argv", ["gpu", "--device=cpu", f"--results={tmp_path}"])
    gpu.main()
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert [row.get("error") for row in rows] == [
        None,
        "TimeoutError: took over 1 s",
        None,
        "RuntimeError: no kernel image",
        None,
    ]


def test_committed_results_are_whole_and_the_readme_shows_them():
    results = report.load()
    for name, result in results.items():
        assert set(result) >= report.REQUIRED and result["name"] == name and result["rows"]
        first = report.SECTIONS[name][1][0]
        assert all(row[first] for row in result["rows"])
    text = (report.FOLDER / "README.md").read_text()
    assert report.readme_with_results(text, results) == text, "stale tables: run python -m benchmarks.report"


def test_a_method_that_cannot_run_is_a_row_with_its_reason():
    rows = [
        {"method": "fl.select", "kind": "ours", "seconds": 1.0},
        {"method": "x", "kind": "exact", "error": "E: no wheel"},
    ]
    result = {"name": "vectors", "date": "", "commit": "", "machine": report.machine(), "versions": report.versions()}
    assert "| x | exact | did not run: E: no wheel |" in report.table(result | {"settings": {}, "rows": rows})
