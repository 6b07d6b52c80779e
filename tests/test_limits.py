"""Nothing may wait for ever: every call that waits for somebody else says for how long."""

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest

from fisherlib.assets import ROOT
from tests.conftest import EXPLAINED, slow_ones_first, unexplained

# A call of this name needs a keyword; a method of that name needs `timeout`, or a first argument that is one.
NEEDS = {"run": "timeout", "call": "timeout", "check_call": "timeout", "check_output": "timeout"}  # of subprocess
KEYWORD = {"FileLock": "timeout", "urlopen": "timeout", "communicate": "timeout", "execute_notebook": "minutes"}
METHODS = {"wait", "join", "get", "result"}  # "".join and {}.get have an argument, whatever they are called on


def without_limit(source: str) -> list[str]:
    """The calls of a file that may wait for ever."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        owner = getattr(getattr(node.func, "value", None), "id", "")
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        named = {keyword.arg for keyword in node.keywords}
        wanted = NEEDS.get(name) if owner == "subprocess" else KEYWORD.get(name)
        waits = isinstance(node.func, ast.Attribute) and name in METHODS and not node.args and "timeout" not in named
        if waits or (wanted and wanted not in named):
            found.append(f"line {node.lineno}: {ast.unparse(node)[:80]}")
    return found


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("subprocess.run(['x'])", 1),
        ("subprocess.run(['x'], timeout=5)", 0),
        ("thread.join(); ', '.join(names); child.wait(); child.wait(5)", 2),
        ("process.join(timeout=3); queue.get(); {}.get('x'); future.result()", 2),
        ("FileLock(path); FileLock(path, timeout=0); child.communicate(b'x')", 2),
    ],
)
def test_the_reader_sees_what_has_no_limit(source, count):
    assert len(without_limit(source)) == count


def test_every_test_has_a_limit(pytestconfig):
    limit, end = (float(pytestconfig.getini(name)) for name in ("timeout", "faulthandler_timeout"))
    assert 0 < limit < end and pytestconfig.getini("faulthandler_exit_on_timeout")


def test_a_skip_needs_an_explanation_and_no_more_than_that_many_have_it():
    few = [
        "Skipped: needs a CUDA device",
        *["Skipped: apricot-select comes with the bench extra: make bench installs it"] * 3,
    ]
    assert unexplained(few) == []
    assert unexplained([*few, "Skipped: it is late"]) == ["Skipped: it is late (1 times)"]
    assert unexplained(few * 2) == ["needs a CUDA device (2 times)", "comes with the bench extra (6 times)"]
    readme = (ROOT / "tests" / "README.md").read_text()
    assert all(f"| {reason}" in readme for reason in EXPLAINED)


def test_workers_begin_with_what_takes_long_and_leave_no_test_out():
    def item(path, slow, name):
        marker = "slow" if slow else None
        return SimpleNamespace(path=Path(path), name=name, get_closest_marker=lambda asked: marker)

    fast, slow = ([item(f"tests/{i // 5}.py", kind, f"{kind}{i}") for i in range(20)] for kind in (False, True))
    runs = [item("tests/notebooks/test_run.py", True, f"run{i}") for i in range(5)]
    ordered = slow_ones_first([*fast[:10], *runs, *slow, *fast[10:]])
    assert sorted(map(id, ordered)) == sorted(map(id, [*fast, *runs, *slow]))
    assert [i.name for i in ordered[:4]] == ["run0", "run2", "run4", "True0"] and ordered[21] is fast[8]
    assert [i.name for i in ordered[22:26]] == ["run1", "run3", "True5", "True6"] and ordered[-1] is fast[-1]
    assert slow_ones_first(fast) == fast


def test_every_wait_has_a_limit():
    paths = [path for folder in ("fisherlib", "tests", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(paths) > 100
    found = {str(path.relative_to(ROOT)): lines for path in paths if (lines := without_limit(path.read_text()))}
    assert not found
