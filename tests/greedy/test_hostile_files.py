"""Manifests and checkpoints that were edited, damaged or cannot be written: refused by name, and no selection is lost."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from datasets import Dataset

import fisherlib as fl
from fisherlib.greedy import checkpoint

FEATURES = fl.TokenFeatures.from_list([torch.randn(3, 4, generator=torch.Generator().manual_seed(i)) for i in range(12)])
NAN = float("nan")
# What a manifest may not say, and a word of the refusal.
EDITS = {
    "indices are no whole numbers": ({"indices": [1.9, 0, 2]}, "whole numbers as indices"),
    "indices are true": ({"indices": [True, False, True]}, "whole numbers as indices"),
    "indices repeat": ({"indices": [1, 1, 2]}, "different indices"),
    "indices are far away": ({"indices": [1, 2, 99]}, "different indices"),
    "a gain is null": ({"gains": [1.0, None, 1.0]}, "numbers as gains"),
    "a gain is not finite": ({"gains": [1.0, NAN, 1.0]}, "finite gains"),
    "a gain is a text": ({"gains": ["1", "2", "3"]}, "numbers as gains"),
    "a cost is negative": ({"costs": [-1, 3, 3]}, "finite costs of at least 0"),
    "a cost is missing": ({"costs": [3, 3]}, "as many gains and costs"),
    "the pool is no whole number": ({"pool_size": 12.5}, "expected pool_size, a whole number"),
    "the bound is negative": ({"upper_bound": -1.0}, "an upper bound of at least"),
    "the bound is not finite": ({"upper_bound": NAN}, "an upper bound of at least"),
    "the bound is below the objective": ({"upper_bound": 0.1, "certificate": None}, "an upper bound of at least"),
    "the objective is another": ({"objective": 1e6}, "its objective is 1000000.0"),
    "the certificate is another": ({"certificate": 0.5}, "its certificate is 0.5"),
    "the settings are a list": ({"settings": []}, "expected settings, a dict"),
    "evaluations are many": ({"evaluations": "many"}, "expected evaluations, a whole number"),
    "seconds are not finite": ({"seconds": NAN}, "expected seconds of at least 0"),
    "the weights are negative": ({"weights": [1, -1, 1]}, "a positive weight"),
    "nothing says what it is": ({"format": 7}, "this version reads format 1"),
}


def edited(selection, path, changes, digest=False):
    selection.save(path)
    manifest = json.loads(path.read_text()) | changes
    if not digest:
        del manifest["digest"]  # as of an older version, or of somebody who knows what he does
    path.write_text(json.dumps(manifest))
    return path


@pytest.mark.parametrize("name", EDITS)
def test_a_manifest_that_says_what_no_selection_can_be(name, tmp_path, as_a_user):
    changes, message = EDITS[name]
    selection = fl.select(FEATURES, examples=3)
    with pytest.raises(ValueError, match=f"expected a manifest written by Selection.save, got .*{message}.*: name another"):
        fl.Selection.load(edited(selection, tmp_path / "s.json", changes))


def test_an_edit_that_could_be_right_is_found_by_the_digest(tmp_path):
    selection = fl.select(FEATURES, examples=3)
    others = np.setdiff1d(np.arange(12), selection.indices)[:3]
    path = edited(selection, tmp_path / "s.json", {"indices": others.tolist()}, digest=True)
    with pytest.raises(ValueError, match="it was edited or damaged: its digest is another"):
        fl.Selection.load(path)
    with pytest.raises(ValueError, match="it was edited or damaged"):  # so a checkpoint with other picks is not continued
        fl.select(FEATURES, examples=5, checkpoint=path)


@pytest.mark.parametrize("text", ["", "[", "[" * 100_000, "[]", "3", '{"format": 1}', "{" + '"a":' * 2000, "1" * 5000])
def test_what_is_no_manifest_at_all(text, tmp_path):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ValueError, match="expected a manifest written by Selection.save"):
        fl.Selection.load(tmp_path / "s.json")


def test_a_manifest_and_its_digest_survive_what_settings_may_hold(tmp_path):
    settings = {"a": np.float32(0.1), "b": (1, 2), "c": {3: None, 20: "é"}, "path": tmp_path, "nan": NAN}
    selection = fl.score_selection(FEATURES, [2, 0], settings=settings)
    selection.save(tmp_path / "s.json")
    assert fl.Selection.load(tmp_path / "s.json").indices.tolist() == [2, 0]


def test_selections_that_cannot_be():
    for changes, message in (
        ({"indices": np.array([0.0])}, "whole numbers as indices"),
        ({"gains": np.array([NAN])}, "finite gains"),
        ({"costs": np.array([-1.0])}, "costs of at least 0"),
        ({"upper_bound": 0.5}, "an upper bound of at least 1"),
        ({"upper_bound": NAN}, "an upper bound of at least 1"),
    ):
        given = {"indices": np.array([0]), "gains": np.ones(1), "costs": np.ones(1), "pool_size": 2} | changes
        with pytest.raises(ValueError, match=message):
            fl.Selection(**given)


def test_a_certificate_speaks_of_what_lies_within_the_budget():
    selection = fl.score_selection(FEATURES, [0, 1, 2], settings={"budget": {"tokens": 1}})
    with pytest.raises(ValueError, match="expected a selection within its budget of 1, got one that cost 9"):
        fl.certify(FEATURES, selection)


def test_a_checkpoint_that_cannot_be_written_is_found_before_the_work(tmp_path, monkeypatch):
    def work(self, left):
        raise AssertionError("it began")

    monkeypatch.setattr("fisherlib.greedy.race.Race.next", work)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "folder", tmp_path / "file" / "c.json", "/proc/c.json"):
        with pytest.raises(OSError, match="expected to write .*: free some space, or name another place"):
            fl.select(FEATURES, examples=3, checkpoint=path)
    assert (tmp_path / "file").read_text() == "mine" and sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_a_disk_that_fills_up_loses_no_selection(tmp_path, monkeypatch):
    whole = fl.select(FEATURES, examples=6)

    def full(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fl.Selection, "save", full)
    monkeypatch.setattr(checkpoint, "SAVE_EVERY", 0.0)
    with pytest.warns(UserWarning, match="the checkpoint is not up to date: .*No space left"):
        selection = fl.select(FEATURES, examples=6, checkpoint=tmp_path / "c.json")
    assert selection.indices.tolist() == whole.indices.tolist() and selection.certificate == whole.certificate


def test_a_manifest_on_a_full_disk_says_so(tmp_path, monkeypatch):
    def full(self, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OSError, match="expected to write .*s.json, but No space left on device: free some space"):
        fl.score_selection(FEATURES, [0]).save(tmp_path / "s.json")
    assert not list(tmp_path.iterdir())


ROWS = Dataset.from_list([{"id": f"r{i}", "prompt": f"{i}?", "response": f"{i}!"} for i in range(12)])


def with_rows():
    from fisherlib.text import provenance

    return fl.TokenFeatures(FEATURES.values, FEATURES.offsets, provenance=provenance(ROWS))


def test_a_selection_knows_its_rows_and_refuses_others(tmp_path):
    features = with_rows()
    for selection in (
        fl.select(features, examples=4),
        fl.recipe(ROWS, features, examples=4),
        fl.selectors.uniform(ROWS, features, examples=4),
        fl.certify(features, fl.select(features, examples=4)),
        fl.select(features, examples=6).prefix(examples=4),
    ):
        selection.save(tmp_path / "s.json")
        loaded = fl.Selection.load(tmp_path / "s.json")
        assert list(loaded.provenance["id"]) == [f"r{i}" for i in selection.indices]
        assert loaded.to_dataset(ROWS)["id"] == selection.to_dataset(ROWS)["id"]
        with pytest.raises(
            ValueError,
            match="expected the rows that the features are of, in their order, got (another|the same rows in another order)",
        ):
            loaded.to_dataset(ROWS.shuffle(seed=3))
    assert json.loads((tmp_path / "s.json").read_text())["provenance"][0]["id"] == f"r{selection.indices[0]}"


@pytest.mark.parametrize("select", [fl.recipe, fl.selectors.uniform, fl.selectors.deduplicated], ids=lambda s: s.title)
def test_selectors_refuse_rows_in_another_order(select):
    with pytest.raises(
        ValueError, match="got the same rows in another order, first row 0: give the same dataset, not shuffled"
    ):
        select(ROWS.shuffle(seed=3), with_rows(), examples=4)
    more = ROWS.add_column("score", list(range(12)))  # who adds a column has the same rows
    assert len(select(more, with_rows(), examples=4)) == 4


STOPPED = """
    import os, signal, sys, threading, time, torch
    import fisherlib as fl
    from fisherlib.greedy.race import Race
    following, made = Race.next, []
    def stopping(self, left):
        made.append(1)
        if len(made) == 10:
            os.kill(os.getpid(), {signal})
        return following(self, left)
    Race.next = stopping
    features = fl.TokenFeatures.from_list(list(torch.randn(200, 4, 16, generator=torch.Generator().manual_seed(0))))
    fl.select(features, examples=60, **({{"checkpoint": sys.argv[1]}} if len(sys.argv) > 1 else {{}}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_scheduler_that_ends_it_is_as_ctrl_c(number, status, tmp_path):
    path = tmp_path / "c.json"
    program = textwrap.dedent(STOPPED.format(signal=int(number)))
    ended = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, timeout=120)
    assert ended.returncode == status
    n = len(fl.Selection.load(path))
    assert n in (9, 10) and f"{n} of {n} picks are kept in {path}: the same call goes on from there" in ended.stderr
    without = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert without.returncode == status and "none of 9 picks is kept: give checkpoint=" in without.stderr


def test_what_a_full_disk_did_not_keep_is_not_called_kept(tmp_path, monkeypatch, capsys):
    def full(self, path):
        raise OSError(28, "No space left on device")

    def stopping(self, left):
        raise KeyboardInterrupt

    fl.select(FEATURES, examples=3, checkpoint=tmp_path / "c.json")
    monkeypatch.setattr(fl.Selection, "save", full)
    monkeypatch.setattr("fisherlib.greedy.race.Race.next", stopping)
    with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match="not up to date"):
        fl.select(FEATURES, examples=3, start=None, checkpoint=tmp_path / "new.json")
    assert "0 of 0 picks are kept in" in capsys.readouterr().err


def test_who_handles_sigterm_goes_on_doing_so():
    from fisherlib._signals import interruptible

    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
    try:
        with interruptible(lambda: "nothing"):
            os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [1]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_pick_in_hand_when_it_is_interrupted_is_no_lie(tmp_path, monkeypatch):
    """Whatever moment the interruption comes at, the checkpoint's gains are those of its picks."""
    from fisherlib.greedy.budget import Budget

    taking, taken = Budget.take, []

    def stopping(self, picks):
        taken.append(1)
        if len(taken) == 4:
            raise KeyboardInterrupt
        taking(self, picks)

    monkeypatch.setattr(Budget, "take", stopping)
    with pytest.raises(KeyboardInterrupt):
        fl.select(FEATURES, examples=8, checkpoint=tmp_path / "c.json")
    monkeypatch.undo()
    ended = fl.select(FEATURES, examples=8, checkpoint=tmp_path / "c.json")
    assert ended.indices.tolist() == fl.select(FEATURES, examples=8).indices.tolist()
