"""Prefixes, manifests and subsets round-trip; nothing half-written remains."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

import fisherlib as fl


@pytest.fixture
def selection():
    generator = torch.Generator().manual_seed(0)
    features = fl.TokenFeatures.from_list([torch.randn(n, 4, generator=generator) for n in (3, 5, 2, 4, 1, 6)])
    return fl.select(features, examples=4)


def test_save_and_load(selection, tmp_path):
    selection.save(tmp_path / "deep" / "s.json")
    loaded = fl.Selection.load(tmp_path / "deep" / "s.json")
    for name in ("indices", "gains", "costs"):
        assert np.array_equal(getattr(loaded, name), getattr(selection, name))
        assert getattr(loaded, name).dtype == getattr(selection, name).dtype
    assert (loaded.upper_bound, loaded.pool_size, loaded.settings) == (selection.upper_bound, 6, selection.settings)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["s.json"]


def test_weights_are_saved_and_belong_to_the_whole_sample(selection, tmp_path):
    from dataclasses import replace

    weighted = replace(selection, weights=np.array([1.0, 2.5, 1.0, 1e9 / 3]))
    weighted.save(tmp_path / "s.json")
    assert np.array_equal(fl.Selection.load(tmp_path / "s.json").weights, weighted.weights)
    assert weighted.prefix(examples=4).weights is None
    for bad in ([1.0, 1.0], [1.0, 0.0, 1.0, 1.0], [1.0, np.nan, 1.0, 1.0]):
        with pytest.raises(ValueError, match="a positive weight for each of the 4 indices"):
            replace(selection, weights=np.array(bad))
    manifest = json.loads((tmp_path / "s.json").read_text())
    del manifest["weights"], manifest["digest"]  # as they were written before there were any
    (tmp_path / "old.json").write_text(json.dumps(manifest))
    assert fl.Selection.load(tmp_path / "old.json").weights is None


def test_a_failed_save_leaves_the_old_manifest(selection, tmp_path, monkeypatch):
    path = tmp_path / "s.json"
    selection.save(path)
    before = path.read_text()

    def full_disk(self, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="No space"):
        selection.prefix(examples=1).save(path)
    assert path.read_text() == before and [p.name for p in tmp_path.iterdir()] == ["s.json"]


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"format": 99}', '{"format": 1, "indices": "x"}'])
def test_what_is_no_manifest_is_refused(tmp_path, content):
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(ValueError, match="expected a manifest written by Selection.save"):
        fl.Selection.load(tmp_path / "s.json")


def test_frozen_means_frozen_and_numpy_numbers_can_be_saved(selection, tmp_path):
    with pytest.raises(ValueError, match="read-only"):
        selection.prefix(examples=2).indices[0] = 3
    features = fl.TokenFeatures.from_list([torch.ones(3, 2), torch.eye(2)], info={"folder": Path("x"), "n": np.int64(3)})
    fl.select(features, tokens=3).save(tmp_path / "n.json")
    assert fl.Selection.load(tmp_path / "n.json").settings["features"] == {"folder": "x", "n": 3}


def test_settings_come_back_as_json_has_them(selection, tmp_path):
    from dataclasses import replace

    settings = {"labels": np.arange(3), "one": np.array([1]), "of": torch.eye(2), "n": np.int64(3), "t": (1, 2), 5: None}
    replace(selection, settings=settings).save(tmp_path / "s.json")
    said = {"labels": [0, 1, 2], "one": [1], "of": [[1.0, 0.0], [0.0, 1.0]], "n": 3, "t": [1, 2], "5": None}
    assert fl.Selection.load(tmp_path / "s.json").settings == said


def test_settings_that_json_cannot_hold_are_refused_before_a_byte_is_written(selection, tmp_path):
    from dataclasses import replace

    circle = {}
    circle["a"] = circle
    (tmp_path / "s.json").write_text("old")
    for settings, message in (
        ({(1, 2): 3}, "keys must be str"),
        ({"a": {"b": {(1,): 2}}}, "keys must be str"),
        ({"quotas": {1: 0.5, "1": 0.25}}, "a key twice, as text, among .'1', '1'."),
        (circle, "Circular"),
        ({"a": 10**5000}, "digits"),
        ({"a": torch.empty(2, device="meta")}, "meta"),
    ):
        with pytest.raises(ValueError, match=f"expected settings that JSON can hold, got others .*{message}") as error:
            replace(selection, settings=settings).save(tmp_path / "s.json")
        assert "\n" not in str(error.value)
    assert (tmp_path / "s.json").read_text() == "old" and len([*tmp_path.iterdir()]) == 1
    with pytest.raises(ValueError, match="expected a file to write to, got '.': name one in it"):
        selection.save("")


def test_a_selection_equals_itself_and_can_be_a_key(selection):
    from dataclasses import replace

    other = replace(selection)
    assert selection == selection and selection != other and len({selection, other}) == 2  # no array is compared


def test_prefixes_nest(selection):
    assert selection.prefix(examples=2).indices.tolist() == selection.indices[:2].tolist()
    spent = selection.costs.cumsum()
    for budget in (spent[0], spent[0] + 0.5, spent[2], spent[-1]):
        part = selection.prefix(tokens=budget)
        assert part.costs.sum() <= budget and part.indices.tolist() == selection.indices[: len(part)].tolist()
        assert len(part) == len(selection) or spent[len(part)] > budget
    assert selection.prefix(examples=2).certificate is None  # the bound was for another budget


def test_to_dataset_keeps_the_order_and_checks_the_pool(selection):
    rows = Dataset.from_list([{"text": str(i)} for i in range(6)])
    assert selection.to_dataset(rows)["text"] == [str(i) for i in selection.indices]
    assert selection.to_dataset(rows.with_format("pandas")).format["type"] == "pandas"  # theirs, as they are
    with pytest.raises(ValueError, match="the pool of 6 rows that was selected from, got 5"):
        selection.to_dataset(rows.select(range(5)))


def test_the_certificate_is_rounded_down(selection):
    from dataclasses import replace

    almost = replace(selection, upper_bound=selection.objective / 0.99999)
    assert "at least 99.99 % of the best" in repr(almost)
    assert json.loads(json.dumps(almost.certificate)) == almost.certificate


def test_gains_of_narrow_features_at_once_are_those_one_by_one(monkeypatch):
    """Empty examples, gains too small for a difference of log-determinants, and a part of the pool too."""
    generator = torch.Generator().manual_seed(0)
    blocks = [torch.randn(t, 5, generator=generator) * 10.0 ** -(t % 4 * 3) for t in (3, 0, 7, 1, 6, 5, 0, 2)]
    features, order = fl.TokenFeatures.from_list(blocks), [6, 4, 0, 2, 7, 5, 1]
    at_once = fl.score_selection(features, order)
    monkeypatch.setattr("fisherlib.greedy.score._NARROW", 0)
    one_by_one = fl.score_selection(features, order)
    np.testing.assert_allclose(at_once.gains, one_by_one.gains, rtol=1e-9, atol=0)
    assert at_once.gains[0] == 0 and len(fl.score_selection(features, []).gains) == 0


def test_narrow_features_that_are_not_finite_are_refused_by_name():
    features = fl.TokenFeatures.from_list([torch.ones(2, 3), torch.full((1, 3), float("nan")), torch.ones(1, 3)])
    with pytest.raises(ValueError, match="expected finite features, got NaN or infinity in example 1"):
        fl.score_selection(features, [0, 1])
