"""The command under attack: killed at any moment, twice at once, on disks that are full, with files that were damaged."""

import contextlib
import json
import multiprocessing
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fisherlib.assets import ROOT
from fisherlib.cli import main
from fisherlib.features import extract
from fisherlib.greedy import checkpoint
from tests.attack.runner import SAYS_WHAT
from tests.attack.test_kills import alone, small_disk
from tests.attack.texts import spoiled
from tests.cli.things import SELECT, record, rows, write

pytestmark = pytest.mark.usefixtures("as_a_user")

CALL = "select my.jsonl -m my-model -t 400 -t 900 -o subset.jsonl --method fisher --group-by kind --quota b=0.3: --for trl"
INTERRUPTED = (130, -signal.SIGINT)  # as Python ends itself if it was hit while it compiled a text: a shell says 130 of both
CODES = {0, 1, 2, 3, 10, 11, 12, 130}
HOW = ("flip", "zero", "cut", "drop", "insert", "repeat")


# --- processes --------------------------------------------------------------------------------------------------------


def work(folder: Path, call: str) -> None:
    """The command, in parts so small that any of them can be hit. What it says is in a file."""
    alone()
    os.chdir(folder)
    said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal
    extract._SHARD_EXAMPLES, checkpoint.SAVE_EVERY = 4, 0.0
    main(shlex.split(call))


def start(folder: Path, call: str) -> multiprocessing.Process:
    context = multiprocessing.get_context("forkserver")  # imports everything once; each process is a fresh fork of that
    context.set_forkserver_preload([__name__, "fisherlib.cli.choose", "fisherlib.cli.back"])
    process = context.Process(target=work, args=(folder, call))
    process.start()
    return process


def ended(process: multiprocessing.Process) -> int:
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def place(folder: Path, model: Path) -> Path:
    folder.mkdir()
    os.symlink(model, folder / "my-model")
    write(folder / "my.jsonl", *rows(80))
    return folder


TIMES = {"digest", "seconds", "evaluations", "folder", "file", "id", "started", "pid"}


def timeless(value):
    """What is said, but for times, and where it was done."""
    if isinstance(value, dict):
        return {name: timeless(one) for name, one in value.items() if name not in TIMES}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def same_as(folder: Path, whole: Path, *, all_of_it: bool) -> None:
    """Every file that is there is whole, whenever the run was ended."""
    for there in whole.glob("subset.*"):
        path = folder / there.name
        if there.is_dir() or (not all_of_it and not path.exists()):
            continue
        if path.suffix == ".jsonl" and "reasons" not in path.name:
            assert path.read_bytes() == there.read_bytes(), path.name
        elif path.name.endswith("reasons.jsonl"):
            pairs = zip(path.open(), there.open(), strict=True)
            for one, other in ((json.loads(a), json.loads(b)) for a, b in pairs):
                assert {k: one[k] for k in ("index", "line", "reason") if k in one} == {
                    k: other[k] for k in ("index", "line", "reason") if k in other
                }
        elif path.name.endswith("manifest.json"):
            assert timeless(json.loads(path.read_text())) == timeless(json.loads(there.read_text())), path.name
        else:
            said = json.loads(path.read_text())
            assert not all_of_it or said["state"] == "done"
    assert not all_of_it or not [path.name for path in folder.glob("**/.*") if not path.name.endswith(".lock")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, model):
    """A folder in which the command was not disturbed, and how long it took."""
    folder = place(tmp_path_factory.mktemp("whole") / "run", model)
    assert ended(start(folder, "--version")) == 0  # starts the server
    began = time.monotonic()
    assert ended(start(folder, CALL)) == 0, (folder / "said.txt").read_text()
    return folder, min(time.monotonic() - began, 4.0)  # on a machine that does much else, no test waits for all of it


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_again_and_again_it_goes_on_and_ends_the_same(kills, undisturbed, tmp_path, model):
    whole, seconds = undisturbed
    folder, dice, hits = place(tmp_path / "run", model), random.Random(kills), 0
    for _ in range(kills):
        process = start(folder, CALL)
        time.sleep(dice.uniform(0.05, 1) * seconds)
        process.kill()
        hits += ended(process) == -signal.SIGKILL
        same_as(folder, whole, all_of_it=False)
    assert hits  # else nothing was tried
    assert ended(start(folder, CALL)) == 0, (folder / "said.txt").read_text()
    same_as(folder, whole, all_of_it=True)


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_ended_by_a_scheduler_or_by_hand_it_says_so_with_130(by, undisturbed, tmp_path, model):
    whole, seconds = undisturbed
    folder, dice, hits = place(tmp_path / "run", model), random.Random(int(by)), 0
    for _ in range(8):
        (folder / "said.txt").unlink(missing_ok=True)
        process = start(folder, CALL)
        time.sleep(dice.uniform(0.1, 1) * seconds)
        with contextlib.suppress(ProcessLookupError):  # it is done
            os.kill(process.pid, by)
        code, said = ended(process), (folder / "said.txt").read_text()
        assert code in (0, *INTERRUPTED) and "Traceback" not in said and "fault of ours" not in said, said
        if code in INTERRUPTED:
            hits += 1
            assert "interrupted; the same command goes on from what is kept" in said
            assert not (folder / "subset.run.json").exists() or record(folder / "subset.run.json")["state"] == "interrupted"
        same_as(folder, whole, all_of_it=False)
    assert hits
    assert ended(start(folder, CALL)) == 0
    same_as(folder, whole, all_of_it=True)


def test_a_signal_before_any_work_ends_it_with_130_too():
    """The handler stands before PyTorch is imported, which takes seconds."""
    code = (
        "import os, signal, sys, fisherlib.cli as cli\n"
        "def app(*_, **__):\n"
        "    assert 'torch' not in sys.modules\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "cli.app = app\n"
        "cli.main([])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 130 and done.stderr == "fisherlib: interrupted; the same command goes on from what is kept\n"


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.1, 0.5, 2.0])
def test_a_signal_while_python_starts_leaves_nothing(seconds, tmp_path, model):
    folder = place(tmp_path / "run", model)
    before = sorted(path.name for path in folder.iterdir())
    process = subprocess.Popen(
        [sys.executable, "-m", "fisherlib", *shlex.split(CALL)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode in (*INTERRUPTED, -signal.SIGTERM) and "Traceback" not in err, err
    assert sorted(path.name for path in folder.iterdir() if ".run.json" not in path.name) == before


@pytest.mark.parametrize("other", [CALL, CALL.replace("-o subset.jsonl", "-o other.jsonl --work subset.work")])
def test_two_commands_at_once_end_the_same_or_the_second_is_refused(other, undisturbed, tmp_path, model):
    """On one output, or with one work folder for two."""
    whole, _ = undisturbed
    folder = place(tmp_path / "run", model)
    processes = [start(folder, call) for call in (CALL, other)]
    codes, said = [ended(process) for process in processes], (folder / "said.txt").read_text()
    assert sorted(codes) in ([0, 0], [0, 12]), said
    assert 12 not in codes or re.search("another command (writes|fills) .* now: wait for it", said)
    for code, call in zip(codes, (CALL, other), strict=True):
        assert code == 0 or ended(start(folder, call)) == 0
    same_as(folder, whole, all_of_it=True)
    if other != CALL:
        assert (folder / "other.900.jsonl").read_bytes() == (whole / "subset.900.jsonl").read_bytes()


# --- disks ------------------------------------------------------------------------------------------------------------


def in_our_words(code: int, err: str) -> None:
    own = [line for line in err.strip().splitlines() if line.startswith("fisherlib: ")]
    assert code in CODES and "Traceback" not in err and "fault of ours" not in err, err
    assert code in (0, 3, 130) or SAYS_WHAT.search(own[-1]), err


@pytest.mark.slow
@pytest.mark.parametrize("what", ["-o disk/subset.jsonl --work work", "-o subset.jsonl --work disk/work"])
def test_a_disk_that_is_full_sooner_or_later_is_said_and_nothing_looks_whole_that_is_not(what, command, here, tmp_path):
    call = f"select my.jsonl -m my-model -t 200 --method fisher {what}"
    assert command(call.replace("disk/", "good-"))[0] == 0
    good = {path.name.removeprefix("good-"): path for path in here.glob("*subset.*") if path.suffix in (".json", ".jsonl")}
    codes = set()
    with small_disk(tmp_path / "disk", 512):
        for kilobytes in (0, 4, 8, 12, 16, 24, 40, 80, 160, 320):
            for path in (tmp_path / "disk").rglob("*"):
                if path.is_file():
                    path.unlink()
            with contextlib.suppress(OSError), (tmp_path / "disk" / "filler").open("wb", buffering=0) as filler:
                filler.write(bytes((512 - kilobytes) * 1024))
                while kilobytes == 0:
                    filler.write(bytes(4096))
            code, _, err = command(call, "--overwrite")
            in_our_words(code, err)
            codes.add(code)
            assert code in (0, 1, 11), err
            assert code == 0 or re.search("No space left|of free disk", err), err
            for name, path in good.items():
                made = tmp_path / what.split()[1].replace("subset.jsonl", name)
                if name in ("subset.jsonl", "subset.reasons.jsonl") and made.exists() and "disk" in str(made):
                    assert made.read_bytes() == path.read_bytes(), (kilobytes, name)
                elif made.exists():
                    json.loads(made.read_text().splitlines()[0] if name.endswith("l") else made.read_text())
    assert 0 in codes and len(codes) > 1


@pytest.mark.slow
def test_a_place_that_is_read_only_is_named_with_1(command, here, tmp_path):
    with small_disk(tmp_path / "disk", 512) as make_read_only:
        assert command(f"{SELECT} -o disk/subset.jsonl")[0] == 0
        kept = (tmp_path / "disk" / "subset.jsonl").read_bytes()
        make_read_only()
        for call, named in (
            (f"{SELECT} -o disk/subset.jsonl", "disk/subset.run.json"),
            (f"{SELECT} -o disk/other.jsonl", "disk/other.run.json"),
            (f"{SELECT} --work disk/other.work", "disk/other.work"),
            ("report disk/subset.manifest.json", "subset.html"),
            ("forecast my.jsonl -m my-model -t 200 -o new.jsonl --plan disk/plan.json", "disk/plan.json"),
            ("audit my.jsonl -m my-model --too-long drop -o disk/skipped.jsonl", ""),
        ):
            code, _, err = command(call)
            in_our_words(code, err)
            assert (code == 1 and "Read-only" in err) if named else code == 0, (call, err)
            assert named in err
        assert (tmp_path / "disk" / "subset.jsonl").read_bytes() == kept
        assert command("status disk/subset.jsonl")[0] == 0
        assert command("explain disk/subset.manifest.json --pick 2")[0] == 0


def test_an_output_that_may_not_grow_is_said(here):
    """Where nothing can be mounted: the system lets no file be larger than so much (RLIMIT_FSIZE)."""
    code = (
        "import resource, signal, sys, torch\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "from fisherlib.cli import main\n"
        "main(sys.argv[1:])"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *shlex.split(SELECT)],
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1 and "File too large" in done.stderr and "Traceback" not in done.stderr
    assert not (here / "subset.jsonl").exists() and not (here / "subset.manifest.json").exists()


# --- files --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_data_that_were_damaged_are_read_or_refused_in_our_words(seed, command, here):
    dice, good = random.Random(seed), (here / "my.jsonl").read_bytes()
    codes = []
    for how in HOW:
        data = spoiled(good, how, dice)
        (here / "my.jsonl").write_bytes(data)
        code, _, err = command(f"{SELECT} --work work-{how} -o {how}.jsonl --no-reasons --seed {seed}")
        in_our_words(code, err)
        codes.append(code)
        if code in (0, 3):
            assert set((here / f"{how}.jsonl").read_bytes().splitlines()) <= set(data.splitlines())
    assert set(codes) & {0, 3}


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["status", "explain", "report", "replay", "select"])
def test_files_of_a_run_that_were_damaged_are_refused_in_our_words_or_do_no_harm(verb, command, here):
    assert command(f"{SELECT} --method fisher")[0] == 0
    subset, dice = (here / "subset.jsonl").read_bytes(), random.Random(verb)
    names = ["subset.manifest.json", "subset.reasons.jsonl", "subset.run.json", "subset.jsonl"]
    names += [f"subset.work/features/{name}" for name in ("info.json", "offsets.npy", "rows.parquet", "values.bin")]
    call = {"status": "status subset.jsonl", "select": f"{SELECT} --method fisher"}.get(verb, f"{verb} subset.manifest.json")
    call += " --work subset.work" if verb == "replay" else ""
    for name in names:
        kept = {path: path.read_bytes() for path in here.rglob("subset.*/**/*") if path.is_file()}
        kept |= {path: path.read_bytes() for path in here.glob("subset.*") if path.is_file()}
        for how in dice.sample(HOW, 3):
            (here / name).write_bytes(spoiled((here / name).read_bytes(), how, dice))
            code, _, err = command(call)
            in_our_words(code, err)
            if verb == "select" and code == 0:
                assert (here / "subset.jsonl").read_bytes() == subset, (name, how)
            for path, data in kept.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)


def test_what_is_no_file_of_a_run_is_refused(command, here):
    (here / "a folder").mkdir()
    for verb in ("explain", "report", "replay"):
        for name in ("none.json", "a folder", "my.jsonl", "my-model/config.json"):
            code, _, err = command(verb, name)
            in_our_words(code, err)
            assert code in (1, 2)
