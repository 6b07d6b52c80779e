"""Every example in a docstring runs and prints what it says. They know `fl`, `np` and `torch`, and need no other file."""

import ast
import dataclasses
import doctest
from pathlib import Path

import numpy as np
import pytest
import torch

import fisherlib as fl

ROOT = Path(fl.__file__).parent
SLOW = {"fisherlib/__init__.py"}  # runs the shipped model


def examples():
    """The docstrings with examples, read from the source: wrappers of functions hide them from doctest's own search."""
    for path in sorted(ROOT.rglob("*.py")):
        name = str(path.relative_to(ROOT.parent))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node, clean=False) or ""
                if ">>>" in text:
                    marks = [pytest.mark.slow] if name in SLOW else []
                    yield pytest.param(
                        name, node.body[0].lineno, text, id=f"{name}:{getattr(node, 'name', '')}", marks=marks
                    )


FOUND = list(examples())


@pytest.mark.parametrize("name, line, text", FOUND)
def test_an_example_prints_what_it_says(name, line, text, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)  # an example may write a file
    if name in SLOW:
        plays = request.getfixturevalue("plays")
        few = dataclasses.replace(plays, train=plays.train.select(range(8)))
        monkeypatch.setattr(fl, "load_pool", lambda name: few)
        text = text.replace("tokens=6_000", "tokens=100")
    test = doctest.DocTestParser().get_doctest(text, {"fl": fl, "np": np, "torch": torch}, name, name, line - 1)
    said = []
    failed, tried = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert tried and not failed, "".join(said)


def test_the_calls_a_user_learns_have_examples():
    shown = {found.id.split(":")[1] for found in FOUND}
    assert shown >= {"encode", "extract_features", "compress", "uniform", "fine_tune", "held_out_nll"}
