"""A hostile day: some thousand cases of what users, disks and servers do, and none may surprise.

One of them again, with its traceback: `python -m tests.attack.test_fuzz GROUP NAME`. All, as a table: without both.
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import datasets
import pytest
import transformers

import fisherlib as fl
from tests.attack import arguments, folders, records, texts
from tests.attack.runner import BAD, Case, Damage, bad_ones, run, table

pytestmark = pytest.mark.slow

GROUPS: dict[str, Callable[[], Iterator[Case]]] = {
    "load_pool": texts.load_pools,
    "encode": texts.encodings,
    "features": folders.feature_folders,
    "models": folders.model_folders,
    "assets": folders.asset_caches,
    "manifests": records.manifests,
    "checkpoints": records.checkpoints,
    "judge replies": records.replies,
    "judge caches": records.judge_caches,
    "arguments": partial(arguments.arguments, "arguments", arguments.functions, 11),
    "arguments of selectors": partial(arguments.arguments, "arguments of selectors", arguments.ways_to_choose, 6),
    "arguments of judges": partial(arguments.arguments, "arguments of judges", arguments.judges, 9),
}


@pytest.mark.parametrize("group", GROUPS)
def test_nothing_is_raw_or_silent_hangs_or_dies(group, as_a_user):
    outcomes = [run(case) for case in GROUPS[group]()]
    print(table(outcomes))
    assert not bad_ones(outcomes), f"{table(outcomes)}\n\n{bad_ones(outcomes)}"


def test_there_are_more_than_a_thousand_cases_each_with_a_name_of_its_own():
    names = [(case.group, case.name) for group in GROUPS.values() for case in group()]
    assert len(names) == len(set(names)) > 1000 and {group for group, _ in names} == set(GROUPS)


def damages(folder: Path) -> None:
    raise Damage("gone")


def unclear(folder: Path) -> None:
    fl.encode(datasets.Dataset.from_list([{"text": "x"}]), type("Slow", (), {"is_fast": False})())


# What the runner must say of cases that are what they are.
KNOWN = {
    "a refusal in our words": (lambda folder: fl.Selection.load("absent"), "wrong", "clean"),
    "in Python's words": (lambda folder: int("x"), "wrong", "raw"),
    "of another kind": (lambda folder: {}["x"], "either", "raw"),
    "an exit": (lambda folder: sys.exit(0), "either", "raw"),
    "nothing is said": (lambda folder: 1, "wrong", "silent"),
    "a wrong result": (lambda folder: 1, lambda result: result == 2, "silent"),
    "a right result": (lambda folder: 2, lambda result: result == 2, "right"),
    "false": (lambda folder: False, "right", "silent"),
    "a right input is refused": (lambda folder: fl.Selection.load("absent"), "right", "refused"),
    "damage": (damages, "either", "silent"),
    "a wait": (lambda folder: time.sleep(60), "either", "hang"),
    "a loop that catches all": (lambda folder: [None for _ in iter(int, 1)], "either", "hang"),
}


@pytest.mark.parametrize("alone", [False, True], ids=["here", "in a process of its own"])
@pytest.mark.parametrize("name", KNOWN)
def test_the_runner_sees_what_there_is(name, alone, as_a_user):
    call, oracle, kind = KNOWN[name]
    before = signal.getsignal(signal.SIGALRM), os.getcwd()
    assert run(Case("self", name, call, oracle, limit=0.3, alone=alone)).kind == kind
    assert (signal.getsignal(signal.SIGALRM), os.getcwd()) == before


def test_who_truncates_a_mapped_file_ends_its_reader(as_a_user):
    """Known, and not to be helped: the system kills who reads a page that is gone (SIGBUS). So the runner can see it."""
    call = partial(folders.truncated, "values.bin", "while it is mapped")
    outcome = run(Case("features", "truncated while it is mapped", call, alone=True))
    assert (outcome.kind, outcome.message) == ("crash", f"exit status {-signal.SIGBUS}")


def main(asked: list[str]) -> None:
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    if not asked:
        outcomes = [run(case) for group in GROUPS.values() for case in group()]
        print(table(outcomes), bad_ones(outcomes, (*BAD, "unclear")), sep="\n\n")
        return
    group, name = asked
    (case,) = [case for case in GROUPS[group]() if case.name == name]
    outcome = run(case)
    print(bad_ones([outcome], (outcome.kind,)), flush=True)
    if outcome.kind not in ("hang", "crash"):
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            print(case.call(Path(folder)))


if __name__ == "__main__":
    main(sys.argv[1:])
