"""Continual pre-training in small: the arms see equally many bytes, start where they should, and a run goes on."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch

from fisherlib.course.study import keep_learning
from fisherlib.course.study.keep_learning import ARMS, Arm, Plan

SMALL = Plan(
    pretraining_steps=4, steps=4, rows_per_step=5, window=16, width=16, layers=1, test_rows=4, watched=2, candidates=15
)


@pytest.fixture(scope="module")
def start():
    return keep_learning.pretrained(SMALL, 0, "annealed")


def test_texts_are_real_and_their_sides_share_no_window():
    for name in (keep_learning.OLD, *keep_learning.SHIFTS.values()):
        train, test = keep_learning.corpus(name)
        assert len(train) > 400_000 and len(test) > 100_000
        pieces = {train[k : k + 129] for k in range(0, len(train), 128)}
        assert not any(test[k : k + 129] in pieces for k in range(0, len(test) - 129, 128))


def test_windows_tile_the_text():
    text = bytes(range(200))
    rows = keep_learning.windows(text, 16, 12, seed=0)
    assert sorted(row[0] for row in rows) == [16 * k for k in range(12)] and all(len(row) == 17 for row in rows)
    assert all(row == list(range(row[0], row[0] + 17)) for row in rows)
    with pytest.raises(ValueError, match="expected 13 windows"):
        keep_learning.windows(text, 16, 13, seed=0)


def test_every_arm_sees_as_many_bytes_of_the_second_text_as_its_share_leaves(start):
    for name in ("re-warm, re-decay", "re-warm, 20% replay", "re-warm, 50% replay"):
        row = keep_learning.run("weak", name, 0, SMALL, start)
        assert row["bytes"] == 4 * 5 * 16 and row["steps"] == [0, 1, 4]
        assert (row["old"], row["new"]) == (row["old_curve"][-1], row["new_curve"][-1])
        assert row["old_before"] == row["old_curve"][0]
    union = keep_learning.run("weak", "A and B from scratch", 0, SMALL)
    assert union["bytes"] == 8 * 5 * 16 and union["old_before"] > 5.4  # about log 256: it has learned nothing


def test_a_share_of_0_is_no_replay_to_the_last_bit(start, monkeypatch):
    plain = keep_learning.run("strong", "re-warm, re-decay", 0, SMALL, start)
    for name, arm in {"none": Arm(share=0.0), "other": Arm(share=0.0, replay="uniform")}.items():
        monkeypatch.setitem(ARMS, name, arm)
        assert keep_learning.run("strong", name, 0, SMALL, start)["new_curve"] == plain["new_curve"]


@pytest.mark.parametrize("how", ["FisherSFT given B", "FisherSFT", "MinHash"])
def test_replay_may_be_chosen(start, monkeypatch, how):
    monkeypatch.setitem(ARMS, "chosen", Arm(share=0.25, replay=how))
    row = keep_learning.run("strong", "chosen", 0, SMALL, start)
    assert row["bytes"] == 4 * 5 * 16 and torch.isfinite(torch.tensor(row["old_curve"])).all()


def test_the_infinite_schedule_starts_from_a_rate_that_never_fell():
    row = keep_learning.run("weak", "infinite", 0, replace(SMALL, steps=20))
    assert row["rates"][0] == SMALL.learning_rate and row["rates"][-1] < SMALL.learning_rate


def test_a_run_goes_on_where_it_was_and_writes_a_table(tmp_path, monkeypatch, capsys):
    few = {name: ARMS[name] for name in ("constant, lowest rate", "A and B from scratch")}
    monkeypatch.setattr(keep_learning, "ARMS", few)
    monkeypatch.setattr(keep_learning, "Plan", lambda: SMALL)
    arguments = ["--folder", str(tmp_path), "--results", str(tmp_path / "table"), "--seeds", "1"]
    keep_learning.main(arguments)
    assert capsys.readouterr().out.count("/4 ") == 4
    (tmp_path / "rows" / "weak-0-0.json").unlink()
    keep_learning.main(arguments)
    assert capsys.readouterr().out.count("/4 ") == 1
    about = json.loads((tmp_path / "table" / "about.json").read_text())
    assert len(pd.read_json(tmp_path / "table" / "rows.json")) == 4
    assert about["rows"] == about["rows_wanted"] == 4 and about["settings"]["window"] == 16
