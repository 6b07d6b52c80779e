"""Killed at any moment, twice at once, on a disk that is full: what is done is kept, and the end is the same."""

import contextlib
import json
import multiprocessing
import random
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tqdm import tqdm

import fisherlib as fl
from fisherlib.evaluation import judging
from fisherlib.features import extract
from fisherlib.greedy import checkpoint
from fisherlib.greedy.race import Race
from tests.attack import things
from tests.attack.runner import SAYS_WHAT

pytestmark = pytest.mark.slow

PICKS = 60
FULL = "needs a small file system of its own"  # where mounting is not allowed


# --- three works, each slow enough to be hit in the middle -----------------------------------------------------------


def alone() -> None:
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own lock is a semaphore of the system, which a killed process leaves behind


def rows_of_ids(count: int = 120) -> list[list[int]]:
    dice = random.Random(3)
    return [[dice.randrange(1, 99) for _ in range(dice.randrange(1, 20))] for _ in range(count)]


def extract_slowly(folder: Path) -> None:
    alone()
    extract._SHARD_EXAMPLES = 2
    fl.extract_features(things.model(), None, rows_of_ids(), out_dir=folder / "features", **things.EXACT)


def pool() -> fl.TokenFeatures:
    rng = np.random.default_rng(0)
    return fl.TokenFeatures.from_list([torch.from_numpy(rng.normal(size=(t, 24))).float() for t in rng.integers(1, 9, 400)])


def select_slowly(folder: Path) -> None:
    alone()
    checkpoint.SAVE_EVERY = 0.0  # after every pick
    following = Race.next

    def slow(self, left):
        time.sleep(0.005)
        return following(self, left)

    Race.next = slow
    fl.select(pool(), examples=PICKS, checkpoint=folder / "picks.json", progress=False)


def pairs() -> list[judging.Pair]:
    return [judging.Pair(k, f"text {k}", "x", "y", f"a {k}", f"b {k} longer") for k in range(20)]


def judge_slowly(folder: Path) -> None:
    """Each question that is asked is written down, by the judge."""
    alone()

    def rule(a: str, b: str) -> str:
        with (folder / "asked").open("a") as file:
            file.write(f"{a}|{b}\n")
        time.sleep(0.005)
        return "A" if len(a) > len(b) else "B"

    with judging.rule_server(rule, "a rule", retries=0, timeout=20.0) as endpoint:
        judging.judge(pairs(), endpoint, cache=folder / "cache.jsonl", progress=False)


def start(work, folder: Path) -> multiprocessing.Process:
    context = multiprocessing.get_context("forkserver")  # imports everything once; each process is a fresh fork of that
    context.set_forkserver_preload([__name__])
    process = context.Process(target=work, args=(folder,))
    process.start()
    return process


def ended(work, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    process = start(work, folder)
    process.join(60)
    assert process.exitcode == 0


def stopped(work, folder: Path, end: str, file: str, seconds: float) -> bool:
    """Start, wait until it has written to its file, then for so long, and end it. Whether it was hit in the middle."""
    before, process, limit = written(folder / file), start(work, folder), time.monotonic() + 60
    while process.is_alive() and written(folder / file) == before:
        assert time.monotonic() < limit
        time.sleep(0.001)
    time.sleep(seconds)
    getattr(process, end)()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode != 0


def written(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


# --- what must be the same --------------------------------------------------------------------------------------------


def data_of(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in sorted((folder / "features").glob("*")) if path.suffix in (".bin", ".npy")
    }


def picks_of(folder: Path) -> fl.Selection:
    return fl.Selection.load(folder / "picks.json")


def records_of(folder: Path) -> dict[str, dict]:
    """Of a cache that is whole: every line is a record, and none is there twice."""
    entries = [json.loads(line) for line in (folder / "cache.jsonl").read_bytes().splitlines()]
    assert len({entry["key"] for entry in entries}) == len(entries)
    return {entry["key"]: entry for entry in entries}


def same_features(folder: Path, whole: Path) -> None:
    assert data_of(folder) == data_of(whole) and len(data_of(whole)) == 5
    assert len(fl.TokenFeatures.load(folder / "features")) == len(rows_of_ids())


def same_picks(folder: Path, whole: Path) -> None:
    assert picks_of(folder).indices.tolist() == picks_of(whole).indices.tolist()
    assert picks_of(folder).objective == pytest.approx(picks_of(whole).objective, rel=1e-12)


def same_judgements(folder: Path, whole: Path) -> None:
    assert records_of(folder) == records_of(whole) and len(records_of(whole)) == 2 * len(pairs())


WORKS = {  # each with the file that grows, and what is compared
    "extract": (extract_slowly, "features/info.json", same_features),
    "select": (select_slowly, "picks.json", same_picks),
    "judge": (judge_slowly, "cache.jsonl", same_judgements),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A folder in which each work was done without a disturbance."""
    folder = tmp_path_factory.mktemp("whole")
    for work, _, _ in WORKS.values():
        ended(work, folder)
    return folder


@pytest.mark.parametrize("end", ["kill", "terminate"])
@pytest.mark.parametrize("name", WORKS)
def test_ended_at_random_moments_it_goes_on_and_ends_the_same(name, end, undisturbed, tmp_path):
    """SIGKILL, and SIGTERM of a scheduler."""
    work, file, compare = WORKS[name]
    dice = random.Random(f"{name} {end}")
    hits = sum(stopped(work, tmp_path, end, file, dice.uniform(0, 0.25)) for _ in range(4))
    ended(work, tmp_path)
    compare(tmp_path, undisturbed)
    assert hits  # else nothing was tried
    if name == "judge":  # one question may be on its way when the process ends: it is asked again
        asked = (tmp_path / "asked").read_text().splitlines()
        assert 2 * len(pairs()) == len(set(asked)) <= len(asked) <= 2 * len(pairs()) + hits


@pytest.mark.parametrize("name", WORKS)
def test_two_at_once_end_the_same_or_the_second_is_refused(name, undisturbed, tmp_path):
    work, _, compare = WORKS[name]
    processes = [start(work, tmp_path) for _ in range(2)]
    for process in processes:
        process.join(60)
    assert sorted(process.exitcode for process in processes) in ([0, 0], [0, 1])
    compare(tmp_path, undisturbed)
    assert not [path.name for path in tmp_path.rglob("*") if path.name.endswith(".new") or path.name.startswith(".picks")]


# --- disks ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int):
    """A file system with room for so much; call the value to make it read-only."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    try:
        made = subprocess.run(mount, capture_output=True, timeout=30).returncode == 0
    except FileNotFoundError:
        made = False
    if not made:
        pytest.skip(FULL)
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True, timeout=30)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=30)


def judge_some(folder: Path, count: int) -> None:
    asked = [judging.Pair(k, f"text {k}", "x", "y", "a", "b") for k in range(count)]
    with judging.rule_server(lambda a, b: "A", "a rule", retries=0, timeout=20.0) as endpoint:
        judging.judge(asked, endpoint, cache=folder / "cache.jsonl", progress=False)


WRITERS = {
    "extract": lambda folder: fl.extract_features(things.model(), None, rows_of_ids(), out_dir=folder / "f", **things.EXACT),
    "features": lambda folder: pool().save(folder / "g"),
    "manifest": lambda folder: things.selection().save(folder / "s.json"),
    "manifest, again": lambda folder: things.selection().save(folder / "kept.json"),
    "checkpoint": lambda folder: fl.select(pool(), examples=5, checkpoint=folder / "c.json", progress=False),
    "judge": lambda folder: judge_some(folder, 200),
}


@pytest.mark.parametrize("disk", ["full", "read-only"])
def test_a_disk_that_takes_nothing_is_an_error_that_says_so_and_nothing_is_lost(disk, tmp_path, as_a_user):
    with small_disk(tmp_path / "disk", 64) as make_read_only:
        folder = tmp_path / "disk"
        things.selection().save(folder / "kept.json")
        kept = (folder / "kept.json").read_bytes()
        if disk == "read-only":
            make_read_only()
        else:
            with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))
        for name, write in WRITERS.items():
            try:
                made = write(folder)
            except (OSError, judging.JudgeError) as error:
                assert SAYS_WHAT.search(str(error)) and "\n" not in str(error), f"{name}: {error}"
            else:  # a selection that is made is not thrown away because it could not be kept
                assert name == "checkpoint" and len(made) == 5, name
            assert (folder / "kept.json").read_bytes() == kept
        assert fl.Selection.load(folder / "kept.json").indices.tolist() == things.selection().indices.tolist()
