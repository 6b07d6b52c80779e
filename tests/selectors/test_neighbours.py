"""The neighbours of notebook 07: facility location and SemHash by their packages, farthest points as in scikit-matter."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fisherlib as fl
from fisherlib.course.study.methods import NEIGHBOURS
from fisherlib.selectors import farthest_point, neighbours
from fisherlib.selectors._pooled import centred
from fisherlib.selectors.neighbours import facility_location, semhash

some = settings(max_examples=15, deadline=None)


def features(X, lengths=None):
    lengths = [1] * len(X) if lengths is None else lengths
    blocks = [torch.as_tensor(np.tile(x, (t, 1))) for x, t in zip(np.asarray(X, dtype=float), lengths, strict=True)]
    return fl.TokenFeatures.from_list(blocks)


def cosines(f):
    _, X = centred(f)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    return unit @ unit.T


@some
@given(seed=st.integers(0, 10_000))
def test_facility_location_is_a_greedy_of_its_objective(seed):
    f = features(np.random.default_rng(seed).normal(size=(12, 5)))
    alike, best = (1 + cosines(f)) / 2, np.zeros(12)
    for pick in facility_location(None, f, examples=12).indices:
        gains = np.maximum(alike, best[:, None]).sum(axis=0) - best.sum()
        assert gains[pick] == pytest.approx(gains.max(), abs=1e-5)  # two that are alone with each other gain the same
        best = np.maximum(best, alike[:, pick])


@some
@given(seed=st.integers(0, 10_000))
def test_what_semhash_keeps_first_means_different_things(seed):
    rng = np.random.default_rng(seed)
    base = np.linalg.qr(rng.normal(size=(8, 8)))[0][:6]  # orthogonal: random directions may be near each other
    f = features(np.concatenate([base, base + 1e-2 * rng.normal(size=base.shape), base[:2]]))
    chosen = semhash(None, f, examples=6, seed=seed)
    assert chosen.settings["removed"] == 8 and sorted(chosen.indices % 6) == list(range(6))
    assert cosines(f)[np.ix_(chosen.indices, chosen.indices)][~np.eye(6, dtype=bool)].max() < 0.9
    first = [semhash(None, f, examples=6, seed=s).indices.tolist() for s in range(8)]
    assert len({tuple(order) for order in first}) > 1, "uniform among them: the seed counts"
    assert semhash(None, f, examples=6, threshold=0.999999, seed=seed).settings["removed"] == 2  # only the copies


@some
@given(seed=st.integers(0, 10_000))
def test_farthest_points_are_those_of_scikit_matter(seed):
    FPS = pytest.importorskip("skmatter.sample_selection").FPS  # it asks for an older scikit-learn: `make bench` has it
    X = np.random.default_rng(seed).normal(size=(20, 3))
    ours = farthest_point(None, features(X), examples=8, start=3).indices
    assert ours.tolist() == FPS(n_to_select=8, initialize=3).fit(X).selected_idx_.tolist()


@pytest.mark.parametrize("name", neighbours.PACKAGES)
def test_a_package_that_is_not_there_is_named(name, monkeypatch):
    monkeypatch.setattr(neighbours, "find_spec", lambda module: None if module == neighbours.PACKAGES[name] else module)
    assert neighbours.installed() == [arm for arm in NEIGHBOURS if arm != name]
    with pytest.raises(ImportError, match=rf"{name} needs {neighbours.PACKAGES[name]}: pip install"):
        NEIGHBOURS[name](None, features(np.eye(3)), examples=1)
