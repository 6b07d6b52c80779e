"""What all studies share: rows in files of their own, a run that goes on, and the table of what is done."""

import json
import time
from contextlib import nullcontext

import pytest

from fisherlib.course.study import resumed


def test_a_run_goes_on_where_it_was_and_writes_a_table(tmp_path, capsys):
    ran = []

    def run_one(one):
        ran.append(one)
        return [{"arm": one, "part": k, "seconds": 1800.0, "machine": "m", "versions": "v", "commit": one} for k in (0, 1)]

    options = resumed.parser("none", "nothing").parse_args(["--folder", str(tmp_path), "--results", str(tmp_path / "table")])
    for wanted in (["a"], ["a", "b", "c"]):
        with pytest.raises(RuntimeError) if "c" in wanted else nullcontext():
            resumed.run_all(
                wanted, lambda one: run_one(one) if one != "c" else _fail(), str, options, {"command": "none"}, each=2
            )
    assert ran == ["a", "b"] and capsys.readouterr().out.splitlines() == ["1/1 a: 3600.0 s", "2/3 b: 3600.0 s"]
    rows, about = (json.loads((tmp_path / "table" / name).read_text()) for name in ("rows.json", "about.json"))
    assert [(row["arm"], row["part"]) for row in rows] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert about == {
        "command": "none", "rows_wanted": 6, "rows": 4, "hours": 2.0, "machine": ["m"], "versions": ["v"],
        "commit": ["a", "b"],
    }  # fmt: skip


def test_what_is_done_is_not_done_again_and_still_comes_into_a_new_table(tmp_path):
    options = resumed.parser("none", None).parse_args(["--folder", str(tmp_path)])
    row = {"seconds": 1.0, "machine": "m", "versions": "v", "commit": "c"}
    resumed.run_all(["a"], lambda one: [row], str, options, {})
    stamp = resumed.row_file(tmp_path, "a").stat().st_mtime_ns
    (tmp_path / "rows.json").unlink()
    time.sleep(0.01)
    resumed.run_all(["a"], lambda one: _fail(), str, options, {})
    assert json.loads((tmp_path / "rows.json").read_text()) == [row]
    assert resumed.row_file(tmp_path, "a").stat().st_mtime_ns == stamp


def _fail():
    raise RuntimeError("not to be run")
