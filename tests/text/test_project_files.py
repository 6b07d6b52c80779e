"""Functions and their docstrings: parsed, never run, and no side knows the other's."""

import sys

from fisherlib.text import project_files


def test_functions_come_without_their_docstrings_and_sides_share_no_file_and_no_answer():
    train, test = project_files.docstrings()
    assert len(train) > 200 and len(test) > 50
    assert not {row["document"] for row in train} & {row["document"] for row in test}
    assert not {row["response"].lower() for row in train} & {row["response"].lower() for row in test}
    for row in [*train, *test]:
        assert row["response"].strip() and "\n" not in row["response"] and "def " in row["prompt"]
        assert row["response"][:40] not in row["prompt"].replace("\n", " ") or len(row["response"]) < 25
        compile(row["prompt"].split("\n\n", 1)[1], "function", "exec")  # still a function


def test_nothing_is_imported_or_run():
    before = set(sys.modules)
    project_files.docstrings()
    assert not [name for name in set(sys.modules) - before if name.startswith("django")]
    found = project_files._documented(
        'raise SystemExit\n\nclass A:\n    def f(self):\n        """Say it.\n\n        More."""\n        return 1\n'
    )
    assert found == [("def f(self):\n    return 1", "Say it.")]


def test_what_has_no_docstring_or_no_body_is_left_out():
    assert project_files._documented('def f():\n    """Only this."""\n\ndef g():\n    return 1\n') == []
