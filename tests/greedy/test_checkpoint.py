"""A selection that is interrupted or killed goes on where it was, and a checkpoint of another selection is refused."""

import json
import multiprocessing
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tqdm import tqdm

import fisherlib as fl
from fisherlib.greedy import checkpoint, run
from fisherlib.greedy.race import Race

PICKS = 60


def pool(seed=0):
    rng = np.random.default_rng(seed)
    blocks = [rng.normal(size=(t, 24)) * np.exp(rng.normal()) for t in rng.integers(1, 9, 400)]
    return fl.TokenFeatures.from_list([torch.tensor(b, dtype=torch.float32) for b in blocks])


class Stopped(Exception):
    pass


@pytest.fixture
def stop_after(monkeypatch):
    """Call it with a number: a selection is interrupted at the pick after so many."""
    following = Race.next

    def after(picks):
        made = []

        def stopping(self, left):
            made.append(1)
            if len(made) > picks:
                raise Stopped
            return following(self, left)

        monkeypatch.setattr(Race, "next", stopping)

    yield after
    monkeypatch.undo()


OPTIONS = {
    "gain": {"examples": PICKS},
    "per token": {"tokens": 150, "rule": "gain_per_token"},
    "matrix prior": {"examples": PICKS, "prior": 2 * np.eye(24)},
    "stochastic": {"examples": PICKS, "stochastic": 0.1, "seed": 3},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_an_interrupted_selection_goes_on_and_ends_the_same(options, tmp_path, stop_after, monkeypatch):
    features, path = pool(), tmp_path / "picks.json"
    whole = fl.select(features, **options)
    stop_after(9)
    with pytest.raises(Stopped):
        fl.select(features, **options, checkpoint=path)
    assert fl.Selection.load(path).indices.tolist() == whole.indices[:9].tolist()
    monkeypatch.undo()
    ended = fl.select(features, **options, checkpoint=path)
    assert ended.indices.tolist() == whole.indices.tolist()
    assert np.allclose(ended.gains, whole.gains, rtol=1e-9) and ended.upper_bound == pytest.approx(whole.upper_bound)
    assert fl.Selection.load(path).indices.tolist() == whole.indices.tolist()
    again = fl.select(features, **options, checkpoint=path)  # nothing is left to do
    assert again.indices.tolist() == whole.indices.tolist() and again.certificate == pytest.approx(whole.certificate)


def test_a_start_and_a_checkpoint_of_what_follows(tmp_path, stop_after, monkeypatch):
    features, path = pool(), tmp_path / "picks.json"
    first, other = fl.select(features, examples=5), fl.select(pool(), examples=5, prior=1000.0)
    stop_after(4)
    with pytest.raises(Stopped):
        fl.select(features, examples=PICKS, start=first, checkpoint=path)
    monkeypatch.undo()
    assert len(fl.Selection.load(path)) == 9
    with pytest.raises(
        ValueError, match=r"expected a checkpoint of this call, got another start in .*picks.json: remove it"
    ):
        fl.select(features, examples=PICKS, start=other, checkpoint=path)
    ended = fl.select(features, examples=PICKS, start=first, checkpoint=path)
    assert ended.indices.tolist() == fl.select(features, examples=PICKS).indices.tolist()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"examples": PICKS + 1}, "budget"),
        ({"examples": PICKS, "prior": 2.0}, "prior"),
        ({"examples": PICKS, "rule": "gain_per_token"}, "rule"),
        ({"examples": PICKS, "stochastic": 0.5}, "seed"),
    ],
)
def test_a_checkpoint_of_another_call_is_refused_by_name(changed, named, tmp_path):
    path = tmp_path / "picks.json"
    fl.select(pool(), examples=PICKS, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"expected a checkpoint of this call, got another {named} in .*: remove it"):
        fl.select(pool(), **changed, checkpoint=path)
    assert path.read_bytes() == before


def test_a_checkpoint_of_another_start_other_costs_or_another_pool(tmp_path):
    """Also where the first picks, their costs and their gains are the same."""
    features, path = pool(), tmp_path / "picks.json"
    first = fl.select(features, examples=5)
    fl.select(features, examples=PICKS, start=first, checkpoint=path)
    for start in (None, first.prefix(examples=3)):
        with pytest.raises(ValueError, match="got another start in"):
            fl.select(features, examples=PICKS, start=start, checkpoint=path)
    path.unlink()
    picks = fl.select(features, tokens=50, rule="gain_per_token", checkpoint=path).indices
    costs = features.lengths.numpy().astype(float)
    costs[np.setdiff1d(np.arange(400), picks)] *= 0.3
    with pytest.raises(ValueError, match="got another costs in"):
        fl.select(features, tokens=50, costs=costs, rule="gain_per_token", checkpoint=path)
    values = features.values.clone()
    values[0] *= 100
    with pytest.raises(ValueError, match="got another pool in"):
        other = fl.TokenFeatures(values, features.offsets)
        fl.select(other, tokens=50, rule="gain_per_token", checkpoint=path)


def test_an_interrupt_while_it_is_certified_loses_no_pick(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "slack", stop)
    with pytest.raises(KeyboardInterrupt):
        fl.select(pool(), examples=PICKS, checkpoint=tmp_path / "picks.json")
    assert len(fl.Selection.load(tmp_path / "picks.json")) == PICKS


def test_a_checkpoint_of_other_features_or_no_checkpoint_at_all(tmp_path, monkeypatch):
    path = tmp_path / "picks.json"
    fl.select(pool(), examples=PICKS, checkpoint=path)
    with pytest.raises(ValueError, match="got another costs in"):
        fl.select(pool(seed=1), examples=PICKS, checkpoint=path)
    made = json.loads(path.read_text())["settings"]
    monkeypatch.setattr(checkpoint, "fingerprints", lambda *_: made)  # as if they had missed what is different
    with pytest.raises(ValueError, match=r"expected a checkpoint of these features and costs, got other gains"):
        fl.select(pool(seed=1), examples=PICKS, checkpoint=path)
    path.write_text("{")
    with pytest.raises(ValueError, match="expected a manifest written by Selection.save"):
        fl.select(pool(), examples=PICKS, checkpoint=path)


# --- killed at any moment --------------------------------------------------------------------------------------------


def select_slowly(folder, path):
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own lock is a semaphore of the system, which a killed process leaves behind
    checkpoint.SAVE_EVERY = 0.0  # after every pick
    following = Race.next

    def slow(self, left):
        time.sleep(0.01)
        return following(self, left)

    Race.next = slow
    fl.select(fl.TokenFeatures.load(folder), examples=PICKS, checkpoint=path, progress=False)


@pytest.mark.slow
def test_killed_twenty_times_the_picks_are_those_of_an_undisturbed_run(tmp_path):
    """Each time some picks further, at a random moment: on the disk there is always a whole manifest of the first picks."""
    pool().save(tmp_path / "features")
    whole = fl.select(pool(), examples=PICKS)
    path, rng, reached = tmp_path / "picks.json", random.Random(0), [0]
    context = multiprocessing.get_context("forkserver")  # imports everything once; each process is a fresh fork of that
    context.set_forkserver_preload([__name__])
    for _ in range(20):
        process = context.Process(target=select_slowly, args=(tmp_path / "features", path))
        process.start()
        deadline = time.monotonic() + 60
        while not (path.exists() and len(json.loads(path.read_text())["indices"]) > min(reached[-1] + 1, PICKS - 2)):
            assert time.monotonic() < deadline and process.is_alive()
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        process.join(60)
        saved = fl.Selection.load(path)
        assert saved.indices.tolist() == whole.indices[: len(saved)].tolist()
        reached.append(len(saved))
    assert reached == sorted(reached) and len(set(reached)) > 10, reached  # every run went on from the one before
    ended = fl.select(fl.TokenFeatures.load(tmp_path / "features"), examples=PICKS, checkpoint=path)
    assert ended.indices.tolist() == whole.indices.tolist() and np.allclose(ended.gains, whole.gains, rtol=1e-9)


@pytest.mark.parametrize("rule", ["gain_per_token", "best"])
def test_threads_that_share_a_checkpoint_end_the_same(rule, tmp_path, monkeypatch):
    features, path = pool(), tmp_path / "picks.json"
    monkeypatch.setattr(checkpoint, "SAVE_EVERY", 0.0)  # at every pick
    whole = fl.select(features, tokens=150, rule=rule)
    with ThreadPoolExecutor(4) as threads:
        calls = [
            threads.submit(fl.select, features, tokens=150, rule=rule, checkpoint=path, progress=False) for _ in range(4)
        ]
        for call in calls:
            assert call.result(timeout=120).indices.tolist() == whole.indices.tolist()
    assert fl.Selection.load(path).indices.tolist() == whole.indices.tolist() and list(tmp_path.iterdir()) == [path]


def test_a_file_that_goes_while_it_is_read_is_none(tmp_path, monkeypatch):
    path = tmp_path / "picks.json"
    monkeypatch.setattr(checkpoint.Checkpoint, "exists", lambda self: True)
    assert checkpoint.Checkpoint(path, {}, pool(), np.ones(400), None).load() is None
