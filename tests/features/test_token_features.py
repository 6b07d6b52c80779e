"""Sums and means of what tokens have, over each example."""

import copy
import os
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

import fisherlib as fl
from fisherlib.text import provenance

KINDS = [torch.float32, torch.float64]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000), longest=st.sampled_from([1, 8, 300]), kind=st.sampled_from([torch.float32, torch.float64])
)
def test_sums_and_means_are_those_of_each_example_one_token_after_the_other(seed, longest, kind):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, longest + 1, 9)
    features = fl.TokenFeatures.from_list([torch.ones(int(t), 2) for t in lengths])
    x = torch.from_numpy(rng.normal(size=lengths.sum())).to(kind)
    parts = np.split(x.double().numpy(), lengths.cumsum()[:-1])
    in_turn = np.array([part.cumsum()[-1] if len(part) else 0.0 for part in parts])  # to the last bit
    assert np.array_equal(features.sum(x), in_turn) and np.array_equal(features.sum(x.numpy()), in_turn)
    assert np.array_equal(features.mean(x), in_turn / np.maximum(lengths, 1))
    owner = torch.arange(9).repeat_interleave(torch.from_numpy(lengths))  # as committed numbers were summed
    assert np.array_equal(features.sum(x), torch.zeros(9, dtype=torch.float64).index_add_(0, owner, x.double()).numpy())


def test_sums_of_no_token_at_all_are_floats():
    features = fl.TokenFeatures.from_list([torch.ones(0, 2)] * 3)
    for found in (features.sum(torch.zeros(0)), features.mean(torch.zeros(0))):
        assert found.dtype == np.float64 and found.tolist() == [0, 0, 0]


def test_another_number_of_them_is_refused():
    features = fl.TokenFeatures.from_list([torch.ones(2, 3), torch.ones(0, 3)])
    with pytest.raises(ValueError, match="expected a number for each of 2 tokens, got shape \\(3,\\)"):
        features.sum(np.ones(3))
    assert features.mean(torch.tensor([1.0, 3.0])).tolist() == [2.0, 0.0]


@pytest.mark.parametrize("block", [torch.ones(2, 0), torch.ones(2, 3, dtype=torch.complex64)])
def test_values_are_real_and_have_a_width(block, as_a_user):
    with pytest.raises(ValueError, match="with d of at least 1, got shape|of real numbers, got others"):
        fl.TokenFeatures.from_list([block])
    with pytest.raises(ValueError, match="with d of at least 1, got shape|expected values, real numbers, got complex ones"):
        fl.TokenFeatures(block, torch.tensor([0, 2]))


MATRIX = np.arange(6, dtype=np.float32).reshape(3, 2)
READ_ONLY = MATRIX.copy()
READ_ONLY.setflags(write=False)


@pytest.mark.parametrize(
    "block",
    [
        MATRIX[::-1][::-1],
        np.asarray(MATRIX[::-1].tolist(), dtype=np.float32)[::-1],
        MATRIX.astype(">f4"),
        MATRIX.astype(np.int16),
        MATRIX.astype(np.uint16),
        READ_ONLY,
        np.asfortranarray(MATRIX),
        MATRIX.tolist(),
        pd.DataFrame(MATRIX),
        torch.tensor(MATRIX.T.copy()).T,
        torch.tensor(MATRIX, requires_grad=True),
        torch.tensor(MATRIX, dtype=torch.bfloat16),
    ],
)
def test_a_block_may_be_any_matrix_of_real_numbers(block):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = fl.TokenFeatures.from_list([block, torch.ones(1, 2)])
    assert features[0].tolist() == MATRIX.tolist() and not features.values.requires_grad
    assert fl.select(features, examples=1).indices.tolist() == [0]


@pytest.mark.parametrize(
    "block",
    [
        MATRIX.astype(complex),
        MATRIX.astype(object),
        MATRIX.astype(str),
        MATRIX > 1,
        [["a", "b"]],
        None,
        {"a": 1},
        "text",
        [None],
        [[1.0, 2.0], [3.0]],
    ],
    ids=str,
)
def test_a_block_of_anything_else_is_refused_by_its_number(block):
    with pytest.raises(
        ValueError, match=r"^block 1: expected a matrix \[T, d\] of real numbers, got others \(.+\): convert"
    ):
        fl.TokenFeatures.from_list([MATRIX, block])


def test_an_example_is_taken_by_its_number(as_a_user):
    features = fl.TokenFeatures.from_list([torch.full((i + 1, 2), float(i)) for i in range(3)])
    for i in (1, np.int64(1), np.uint8(1), np.array(1), torch.tensor(1), -2):
        assert features[i].shape == (2, 2) and float(features[i][0, 0]) == 1
    assert [len(block) for block in features] == [1, 2, 3]
    for i in (3, -4):
        with pytest.raises(IndexError, match=f"example {i} of 3"):
            features[i]
    for i in ("1", True, 1.0, None, [0, 1], torch.tensor([0, 1])):
        with pytest.raises(ValueError, match="expected i, a whole number, got .*: change i="):
            features[i]
    with pytest.raises(ValueError, match=r"got a slice: take several with subset\(range\(...\)\)"):
        features[1:3]


def test_features_are_equal_to_themselves_alone():
    one, other = (fl.TokenFeatures.from_list([torch.ones(2, 2)]) for _ in range(2))
    assert one == one and one != other and one in {one} and other not in [one]


ROWS = Dataset.from_list([{"prompt": p, "response": "b", "id": i} for i, p in enumerate("cabc")])


@pytest.fixture
def traced():
    return fl.TokenFeatures.from_list([torch.randn(2, 3) for _ in ROWS], provenance=provenance(ROWS))


def test_where_rows_come_from_stays_with_them(traced, tmp_path):
    assert traced.subset([3, 0, 3]).provenance["id"] == ["3", "0", "3"]
    assert len(traced.subset([]).provenance) == 0
    traced.subset(np.array([2, 1])).save(tmp_path / "f")
    loaded = fl.TokenFeatures.load(tmp_path / "f")
    assert loaded.provenance.to_list() == traced.provenance.select([2, 1]).to_list()
    for same in (fl.compress(traced, 2), copy.deepcopy(traced), pickle.loads(pickle.dumps(traced))):
        assert same.provenance.to_list() == traced.provenance.to_list()
    assert "provenance" not in repr(traced)


def test_features_of_no_dataset_have_no_provenance(tiny, ids, tmp_path):
    assert fl.TokenFeatures.from_list([torch.ones(1, 2)]).provenance is None
    features = fl.extract_features(tiny, None, ids, progress=False)
    assert features.provenance is None
    features.save(tmp_path / "f")
    assert fl.TokenFeatures.load(tmp_path / "f").provenance is None and not (tmp_path / "f" / "rows.parquet").exists()


def test_provenance_is_of_every_example():
    with pytest.raises(ValueError, match="expected provenance of each of 1 examples, got that of 4"):
        fl.TokenFeatures.from_list([torch.ones(1, 2)], provenance=provenance(ROWS))


@pytest.mark.parametrize("method", ["pca", "random"])
def test_compress_refuses_what_it_cannot_use(method):
    features = fl.TokenFeatures.from_list([torch.randn(4, 3)])
    for dim in (0, 3, -1):
        with pytest.raises(ValueError, match=f"a width from 1 to 2, less than that of the features, got {dim}"):
            fl.compress(features, dim, method=method)
    with pytest.raises(ValueError, match="expected seed from 0 to 4,294,967,295, got -1"):
        fl.compress(features, 2, method=method, seed=-1)
    features.values[1, 1] = torch.nan
    if method == "pca":
        with pytest.raises(ValueError, match="expected finite features, got NaN or infinity"):
            fl.compress(features, 2)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"offsets": torch.tensor([0.0, 2.5, 4.0])}, "a list of whole numbers as offsets, got torch.float32 of shape"),
        ({"offsets": torch.tensor([[0, 2, 4]])}, "a list of whole numbers as offsets, got torch.int64 of shape"),
        ({"labels": torch.rand(4)}, "a list of whole numbers as labels, got torch.float32"),
        ({"values": torch.ones(4, 2).to_sparse()}, r"dense values, got torch.sparse_coo: give values.to_dense\(\)"),
    ],
)
def test_fields_that_would_fail_later_are_refused_at_once(fields, said, as_a_user):
    with pytest.raises(ValueError, match=f"^expected {said}"):
        fl.TokenFeatures(**({"values": torch.ones(4, 2), "offsets": torch.tensor([0, 2, 4])} | fields))


def test_a_list_of_lists_is_no_list_of_indices(as_a_user):
    features = fl.TokenFeatures.from_list([torch.ones(2, 2)] * 3)
    with pytest.raises(ValueError, match=r"indices as a list of whole numbers, got shape \(2, 1\)"):
        features.subset([[0], [1]])


def test_what_cannot_take_its_place_is_explained(tmp_path, monkeypatch):
    replace = os.replace

    def busy(source, target):
        if os.path.isdir(source):
            raise OSError(16, "Device or resource busy")
        replace(source, target)

    monkeypatch.setattr("os.replace", busy)
    with pytest.raises(OSError, match="cannot write features to .*f .*nothing was kept"):
        fl.TokenFeatures.from_list([torch.ones(2, 2)]).save(tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_info_may_hold_arrays(tmp_path):
    features = fl.TokenFeatures.from_list([torch.ones(2, 2)], info={"layers": np.arange(2), "scales": torch.ones(1, 2)})
    features.save(tmp_path / "f")
    assert fl.TokenFeatures.load(tmp_path / "f").info == {"layers": [0, 1], "scales": [[1.0, 1.0]]}


def test_info_is_what_a_file_can_hold():
    values = torch.ones(2, 3)
    for info in ({(1, 2): 3}, {1: "a", "1": "b"}):
        with pytest.raises(ValueError, match="expected info that JSON can hold, got others"):
            fl.TokenFeatures(values, torch.tensor([0, 2]), info=info)
