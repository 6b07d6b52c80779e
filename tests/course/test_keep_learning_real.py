"""The panel of a pre-trained model: equal tokens, sides that share no file, a run that goes on. With a small model."""

import json

import pandas as pd
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fisherlib.course.study import keep_learning_real, kept
from fisherlib.course.study.keep_learning_real import Plan, texts


@pytest.fixture
def small(real):
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(real[1]), **size)).eval(), real[1]


def test_texts_depend_on_the_seed_and_their_sides_share_no_document():
    one, again, other = (texts(Plan(), seed) for seed in (0, 0, 1))
    for name in ("old", "new"):
        (learn, ask), (same, _), (else_, _) = one[name], again[name], other[name]
        assert learn["response"] == same["response"] != else_["response"] and len(ask) == 20
        assert not set(learn["document"]) & set(ask["document"])


def test_a_run_goes_on_where_it_was_and_its_arms_are_equal_but_for_replay(tmp_path, monkeypatch, small, capsys):
    monkeypatch.setattr(keep_learning_real, "load_model", lambda name: small)
    arguments = ["--folder", str(tmp_path), "--results", str(tmp_path / "table"), "--seeds", "1", "--tokens", "1200"]
    keep_learning_real.main(arguments)
    assert capsys.readouterr().out.count("/4 ") == 4
    first = (tmp_path / "table" / "rows.json").read_text()
    (tmp_path / "rows" / "2-0.json").unlink()
    keep_learning_real.main(arguments)
    assert capsys.readouterr().out.count("/4 ") == 1
    table, before = (pd.DataFrame(json.loads(text)) for text in ((tmp_path / "table" / "rows.json").read_text(), first))
    pd.testing.assert_frame_equal(table.drop(columns="seconds"), before.drop(columns="seconds"))
    assert table["old_before"].nunique() == table["new_before"].nunique() == 1  # all begin from the same model
    assert ((table["tokens"] > 1000) & (table["tokens"] <= 1200)).all() and table["new"].nunique() == 4
    assert list(kept.arms(table, keep_learning_real.SHIFT).index) == list(keep_learning_real.NAMES)
    about = json.loads((tmp_path / "table" / "about.json").read_text())
    assert about["rows"] == about["rows_wanted"] == 4 and about["settings"]["tokens"] == 1200
