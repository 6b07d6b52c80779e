"""A file is replaced whole or not at all."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from fisherlib._files import plain, replacing

each_way = pytest.mark.parametrize("options", [{}, {"alone": True}, {"durable": True}, {"alone": True, "durable": True}])


@each_way
def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path, options):
    path = tmp_path / "a.json"
    path.write_text("old")
    with replacing(path, **options) as scratch:
        scratch.write_text("ne")
        assert path.read_text() == "old" and scratch.parent == tmp_path  # one file system: else it is no rename
        assert [p.name for p in tmp_path.glob("*.json")] == ["a.json"]  # the scratch file is not taken for one of them
        scratch.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


@each_way
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path, options):
    path = tmp_path / "a.json"
    for there in (False, True):
        if there:
            path.write_text("old")
        with pytest.raises(OSError, match="No space"), replacing(path, **options) as scratch:
            scratch.write_text("ha")
            raise OSError(28, "No space left on device")
        assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == ([("a.json", "old")] if there else [])


def test_alone_writes_over_what_a_killed_run_left_and_others_have_a_scratch_file_each(tmp_path, monkeypatch):
    with replacing(tmp_path / "a", alone=True) as first:
        first.write_text("x" * 1000)
    (tmp_path / first.name).write_text("half of the last r")
    with replacing(tmp_path / "a", alone=True) as second:
        second.write_text("y")
    assert first == second and (tmp_path / "a").read_text() == "y" and len(list(tmp_path.iterdir())) == 1
    with replacing(tmp_path / "a") as mine:
        mine.write_text("mine")
        monkeypatch.setattr(os, "getpid", lambda: 1)
        with replacing(tmp_path / "a") as theirs:
            assert theirs != mine
            theirs.write_text("theirs")
        assert (tmp_path / "a").read_text() == "theirs"
    assert (tmp_path / "a").read_text() == "mine"


def test_two_threads_have_a_scratch_file_each(tmp_path):
    with replacing(tmp_path / "a") as mine, ThreadPoolExecutor(1) as pool:
        mine.write_text("mine")
        pool.submit(_write, tmp_path / "a", "theirs").result(timeout=60)
        assert mine.read_text() == "mine" and (tmp_path / "a").read_text() == "theirs"
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "mine")]


def _write(path, text):
    with replacing(path) as scratch:
        scratch.write_text(text)


def test_durable_is_on_the_disk_before_it_takes_the_place(tmp_path, monkeypatch):
    calls, replace = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda number: calls.append(("fsync", os.fstat(number).st_size)))
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append(("replace", None)), replace(*paths)))
    with replacing(tmp_path / "a", durable=True) as scratch:
        scratch.write_text("four")
    assert calls == [("fsync", 4), ("replace", None)]


def test_plain_is_what_json_takes(tmp_path):
    for value, kind in ((np.float32(0.5), float), (torch.tensor(3), int), (np.bool_(True), bool), (tmp_path, str)):
        assert type(plain(value)) is kind
