"""What is meant for a GPU gives on a pretend accelerator what it gives on the CPU, and mixes no devices on the way.

How far the pretend device carries a transformers model: a small Llama is run, trained (also with LoRA) and sampled from,
whole, in float32. Not shown: mixed precision, which passes it by; weights that two modules share, which `Module.to` parts
there; a GPU's own rounding; and whatever needs a second device.
"""

import contextlib
import copy
import functools
import inspect
import re
import types
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

import fisherlib as fl
from fisherlib import _device
from fisherlib.evaluation.judging import continuations
from fisherlib.greedy import blocks, information, memory
from fisherlib.greedy.blocks import Blocks
from fisherlib.greedy.race import Race
from fisherlib.greedy.screen import screen_of
from fisherlib.training.curriculum import ClusterOrder
from fisherlib.training.heads import fit_head, head_frame
from tests.pretend import accelerator

DEVICE = "pretend"
COLUMNS = ("values", "trace_weights", "nll", "labels")


def make_pool(kind: str, seed: int, n: int, d: int, longest: int) -> fl.TokenFeatures:
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=(t, d)) for t in rng.integers(1, longest + 1, n)]
    if kind == "duplicated":
        arrays = [arrays[i] for i in rng.integers(0, max(n // 3, 1), n)]
    elif kind == "ragged":
        arrays = [np.concatenate([block] * int(rng.integers(1, 5))) + rng.normal() for block in arrays]
    elif kind == "near-tied":
        arrays = [arrays[0][:1] * (1 + 1e-8 * rng.integers(0, 9)) for _ in arrays]
    elif kind == "heavy-tailed":
        arrays = [block * 10.0 ** rng.integers(-3, 3) for block in arrays]
    elif kind == "with empty rows":
        arrays = [block[: rng.integers(0, len(block) + 1)] for block in arrays]
    features = fl.TokenFeatures.from_list([torch.tensor(block, dtype=torch.float32) for block in arrays])
    m, draw = len(features.values), torch.Generator().manual_seed(seed)
    columns = {"trace_weights": torch.rand(m, generator=draw), "nll": torch.rand(m, generator=draw)}
    return replace(features, **columns, labels=torch.randint(9, (m,), generator=draw))


def on_device(features: fl.TokenFeatures) -> fl.TokenFeatures:
    return replace(features, **{name: getattr(features, name).to(DEVICE) for name in COLUMNS})


def assert_equal(there: fl.Selection, here: fl.Selection) -> None:
    assert there.indices.tolist() == here.indices.tolist()
    assert np.allclose(there.gains, here.gains, rtol=1e-9, atol=1e-12) and np.array_equal(there.costs, here.costs)
    assert (there.upper_bound is None) == (here.upper_bound is None)
    assert here.upper_bound is None or there.upper_bound == pytest.approx(here.upper_bound, rel=1e-9)


# --- the device itself -------------------------------------------------------------------------------------------------

HERE = torch.arange(12.0).view(3, 4)
REFUSED = {
    "sum": lambda there: there + HERE,
    "product": lambda there: there @ HERE.T,
    "in place": lambda there: HERE.clone().add_(there),
    "single number that is there": lambda there: HERE + there.sum(),
    "cat": lambda there: torch.cat([there, HERE]),
    "index_select": lambda there: there.index_select(0, torch.tensor([1])),
    "indices that are there": lambda there: HERE[torch.tensor([1]).to(DEVICE)],
    "put": lambda there: there.index_put_((torch.tensor([1]),), HERE[:1]),
    "numpy": lambda there: np.asarray(there),
}


@pytest.mark.parametrize("operation", REFUSED.values(), ids=REFUSED)
def test_the_pretend_device_refuses_what_cuda_refuses(operation):
    with accelerator(), pytest.raises((RuntimeError, TypeError), match="same device|numpy"):
        operation(HERE.to(DEVICE))


def test_the_pretend_device_allows_what_cuda_allows():
    with accelerator() as device:
        there = HERE.to(DEVICE)
        assert there.device == torch.device("pretend:0") != torch.device(DEVICE) and there.to(DEVICE) is there
        assert device.arrived == HERE.nbytes
        assert torch.equal((there + torch.tensor(2.0)).cpu(), HERE + 2)
        assert torch.equal(there[torch.tensor([2, 0])].cpu(), HERE[[2, 0]])
        made = torch.zeros(3, 4, dtype=torch.float64, device=DEVICE)
        made[1:] = HERE[1:]
        made.diagonal().add_(1.0)
        expected = torch.cat([torch.zeros(1, 4), HERE[1:]]).double()
        assert torch.equal(made.cpu(), expected + torch.eye(3, 4)) and made.cpu().device.type == "cpu"
        assert torch.tensor([1.0, 2.0], device=DEVICE).device == torch.arange(3, device=DEVICE).device == there.device
        leaf = there.clone().requires_grad_()
        (leaf**3).sum().backward()
        assert leaf.grad.device == there.device and torch.equal(leaf.grad.cpu(), 3 * HERE**2)
    with pytest.raises(ValueError, match="expected a device that is visible here, got 'pretend': use device='cpu'"):
        fl.select(make_pool("random", 0, 5, 3, 4), examples=2, device=DEVICE)


# --- which device ------------------------------------------------------------------------------------------------------


def test_two_spellings_of_a_device_are_one():
    with accelerator():
        there = torch.zeros(1, device=DEVICE).device
        assert all(_device.resolve(name) == there for name in (DEVICE, "pretend:0", torch.device(DEVICE), there))
    assert _device.resolve("cpu") == _device.resolve("cpu:0") == torch.zeros(1).device
    assert _device.resolve("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert [_device.is_accelerator(name) for name in (DEVICE, "cuda", "cuda:1", "xpu", "cpu", "mps")] == [True] * 4 + [
        False
    ] * 2


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "expected the name of a device, like 'cpu', 'cuda' or 'cuda:0', got 'gpu'"),
        ("meta", "expected the name of a device.*got 'meta'"),
        ("mps", "it has no float64"),
        ("pretend:3", "expected pretend:0 to pretend:0, got 'pretend:3'"),
    ],
)
def test_what_is_no_device(device, message):
    with accelerator(), pytest.raises(ValueError, match=message):
        fl.select(make_pool("random", 0, 5, 3, 4), examples=2, device=device)


def test_a_backend_that_does_not_say_what_is_free_needs_to_be_told(monkeypatch):
    features = make_pool("random", 0, 20, 3, 4)
    monkeypatch.delattr(type(torch.pretend), "mem_get_info")
    with accelerator():
        with pytest.raises(ValueError, match="expected memory= .*pretend:0 does not say what is free"):
            fl.select(features, examples=5, device=DEVICE)
        assert_equal(fl.select(features, examples=5, device=DEVICE, memory=0.1), fl.select(features, examples=5))


@pytest.mark.parametrize(("says", "expected"), [(None, torch.float32), (False, torch.float32), (True, torch.bfloat16)])
def test_a_backend_is_asked_for_bfloat16(says, expected, monkeypatch):
    if says is not None:
        monkeypatch.setattr(type(torch.pretend), "is_bf16_supported", lambda self: says, raising=False)
    seen, init = [], Race.__init__
    monkeypatch.setattr(Race, "__init__", lambda self, state, *rest: seen.append(rest[0].dtype) or init(self, state, *rest))
    with accelerator():
        fl.select(make_pool("random", 0, 5, 3, 4), examples=2, device=DEVICE)
    assert seen == [expected]


def test_the_library_asks_for_accelerators_and_not_for_cuda():
    """Whoever compares a device with the word "cuda" shuts all others out."""
    for path in Path(fl.__file__).parent.rglob("*.py"):
        if path.name != "_device.py":
            assert not re.search(r"""[!=]= ["']cuda|torch\.cuda\.""", path.read_text()), path


# --- selection ---------------------------------------------------------------------------------------------------------


def without(text: str, module: types.ModuleType) -> types.ModuleType:
    """The module as if this were not in its source."""
    source = inspect.getsource(module)
    assert text in source
    undone = types.ModuleType(module.__name__)
    exec(source.replace(text, ""), undone.__dict__)
    return undone


@pytest.mark.parametrize("move", [lambda features: features, on_device], ids=["features in memory", "features there"])
def test_the_error_of_cuda_comes_back_without_the_mend(move, monkeypatch):
    """`torch.device("cuda") != torch.device("cuda:0")`: rows of the CPU were to pick from values that had been moved."""
    features = make_pool("random", 1, 20, 4, 5)
    here = fl.select(features, examples=5)
    with accelerator():
        assert_equal(fl.select(move(features), examples=5, device=DEVICE), here)
        # Each mend helps alone, so all are undone: the plan finds moved values elsewhere, and their rows stay on the CPU.
        monkeypatch.setattr(memory, "resolve", torch.device)
        undone = without(".to(values.device)", blocks)
        undone.plan_memory = lambda *call: replace(memory.plan_memory(*call), cache_rows=len(features.values))
        monkeypatch.setattr(information, "Blocks", undone.Blocks)
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device.*index_select"):
            fl.select(move(features), examples=5, device=DEVICE)


@contextlib.contextmanager
def fronts_of(size: int, batch: int | None = None):
    """Races among so few that they have to be drawn again and again."""
    init = Race.__init__

    def small(self, *arguments, **named):
        init(self, *arguments, **named)
        self.size, self.batch_size = size, batch or self.batch_size
        self._needed = self.batch_size

    with mock.patch.object(Race, "__init__", small):
        yield


@pytest.mark.parametrize("move", [lambda features: features, on_device], ids=["moved by select", "features there"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("weighting", ["none", "trace"])
def test_a_round_asks_the_device_once(move, dtype, weighting):
    """And sends it no more than the numbers of a batch: nothing waits, or is copied, between two questions."""
    features, n = make_pool("ragged", 3, 300, 16, 9), 300
    with accelerator() as device:
        state = information.Information(move(features), 1.0, weighting, DEVICE)
        race = Race(state, screen_of(state, dtype), np.ones(n), np.ones(n), batch_size=16)
        rounds, read = [], Race._read
        with mock.patch.object(Race, "_read", lambda self, most: rounds.append(most) or read(self, most)):
            race.take(race.next(float(n))[0])  # the first one draws a front
            for left in range(n - 1, n - 25, -1):
                rounds.clear()
                before, arrived, evaluated = device.reads, device.arrived, state.evaluations
                best, _ = race.next(float(left))
                assert device.reads - before == len(rounds) <= 8
                assert device.arrived - arrived <= 64 * (state.evaluations - evaluated)
                before = device.reads
                race.take(best)
                assert device.reads - before <= 4  # how large W is, and every few picks two questions of a new root
        assert len(rounds) > 0


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["random", "ragged", "duplicated", "near-tied", "heavy-tailed", "with empty rows"]),
    seed=st.integers(0, 10**6),
    n=st.integers(2, 40),
    front=st.integers(1, 12),
    batch=st.sampled_from([1, 4]),
    budget=st.sampled_from(["examples", "tokens", "per token", "stochastic"]),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_a_small_front_changes_no_pick(kind, seed, n, front, batch, budget, dtype):
    features = make_pool(kind, seed, n, 4, 6)
    if not (total := int(features.lengths.sum())):
        return
    options = {
        "examples": {"examples": n // 2 + 1},
        "tokens": {"tokens": max(total // 2, int(features.lengths.max()))},
        "per token": {"tokens": max(total // 2, int(features.lengths.max())), "rule": "gain_per_token"},
        "stochastic": {"examples": n // 3 + 1, "stochastic": 0.1},
    }[budget]
    whole = fl.select(features, **options, dtype="float64" if budget == "stochastic" else dtype)
    with fronts_of(front, batch):
        assert_equal(fl.select(features, **options, dtype=dtype), whole)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["random", "ragged", "duplicated", "near-tied", "heavy-tailed", "with empty rows"]),
    seed=st.integers(0, 10**6),
    n=st.integers(2, 24),
    d=st.sampled_from([1, 2, 4, 6, 30]),  # the last is wider than the longest example
    front=st.sampled_from([1, 3, 2**15]),
    longest=st.sampled_from([1, 2, 6]),
    by_tokens=st.booleans(),
    rule=st.sampled_from(["gain", "gain_per_token"]),
    weighting=st.sampled_from(["none", "trace"]),
    matrix=st.booleans(),
    dtype=st.sampled_from(["auto", "bfloat16", "float32", "float64"]),
    stored=st.sampled_from([torch.float32, torch.bfloat16]),
    start=st.booleans(),
    there=st.booleans(),
    move=st.booleans(),
)
def test_selects_as_on_the_cpu(
    kind, seed, n, d, front, longest, by_tokens, rule, weighting, matrix, dtype, stored, start, there, move
):
    """Wherever the features are; and features that are there are selected from on the CPU, too."""
    features = make_pool(kind, seed, n, d, longest)
    features = replace(features, values=features.values.to(stored))
    total = int(features.lengths.sum())
    if total < 2:
        return
    longest_row = int(features.lengths.max())
    budget = {"tokens": min(max(total // 2, longest_row), total)} if by_tokens else {"examples": (n + 1) // 2}
    prior = 0.5 * torch.eye(d) + 0.1 if matrix else 0.7
    options = {**budget, "rule": rule, "weighting": weighting, "prior": prior, "dtype": dtype}
    if start and not by_tokens:
        options["start"] = fl.score_selection(features, [n - 1])
    here = fl.select(features, **options)
    with accelerator(), fronts_of(front):
        moved = on_device(features) if move else features
        assert_equal(fl.select(moved, **options, device=DEVICE if there else "cpu"), here)


@pytest.mark.parametrize("move", [lambda features: features, on_device], ids=["features in memory", "features there"])
def test_examples_without_tokens_are_picked_in_their_order(move):
    none = {"trace_weights": torch.zeros(0), "nll": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
    features = fl.TokenFeatures(torch.zeros(0, 4), torch.zeros(6, dtype=torch.int64), **none)
    with accelerator():
        for dtype in ("float32", "float64"):
            assert fl.select(move(features), examples=3, dtype=dtype, device=DEVICE).indices.tolist() == [0, 1, 2]


@pytest.mark.parametrize("rule", ["gain", "gain_per_token"])
def test_costs_and_random_samples_too(rule):
    features = make_pool("ragged", 4, 40, 6, 5)
    costs = np.linspace(0.5, 4, 40)
    for options in (
        {"tokens": 20.0, "costs": costs},
        {"examples": 10, "stochastic": 0.1, "seed": 3},
        {"examples": 5, "batch_size": 3},
        {"examples": 40, "dtype": "float64"},
    ):
        with accelerator():
            assert_equal(fl.select(features, **options, rule=rule, device=DEVICE), fl.select(features, **options, rule=rule))


@pytest.mark.parametrize("mapped", [False, True], ids=["in memory", "mapped from a disk"])
@pytest.mark.parametrize("roomy", [True, False], ids=["all of it there", "a part of it there"])
@pytest.mark.parametrize("weighting", ["none", "trace"])
def test_a_pool_that_does_not_fit_is_cached_there(mapped, roomy, weighting, tmp_path):
    features = make_pool("with empty rows", 7, 120, 12, 12)
    if mapped:
        features.save(tmp_path / "features")
        features = fl.TokenFeatures.load(tmp_path / "features")
    tight = 100 * 12**2 + 128 * 120 + 4 * 32 * 16 * 12  # what it must have, see `Blocks`
    options = {"examples": 12, "weighting": weighting, "memory": 1.0 if roomy else (tight + features.values.nbytes) / 1e9}
    with accelerator() as device:
        read = Blocks(features, weighting, DEVICE, int(options["memory"] * 1e9))
        assert (len(read._cache) == 0) == roomy
        a_token, an_example = 8 * (weighting == "trace"), 16  # its weight; where it begins and its length
        all_of_it = features.values.nbytes + a_token * len(features.values) + an_example * len(features)
        assert device.arrived == all_of_it * roomy
        assert_equal(fl.select(features, **options, device=DEVICE), fl.select(features, examples=12, weighting=weighting))


def test_an_interrupted_selection_goes_on_there_or_here(tmp_path, monkeypatch):
    features, following = make_pool("ragged", 5, 60, 6, 5), Race.next
    whole = fl.select(features, examples=12)
    for number, goes_on in enumerate((DEVICE, "cpu")):
        made = []

        def stopping(self, left, made=made):
            made.append(1)
            if len(made) > 4:
                raise KeyboardInterrupt
            return following(self, left)

        with accelerator(), monkeypatch.context() as patch:
            patch.setattr(Race, "next", stopping)
            with pytest.raises(KeyboardInterrupt):
                fl.select(features, examples=12, device=DEVICE, checkpoint=tmp_path / f"{number}.json")
            patch.undo()
            assert len(fl.Selection.load(tmp_path / f"{number}.json")) == 4
            moved = on_device(features) if goes_on == DEVICE else features  # the same features, so the same checkpoint
            assert_equal(fl.select(moved, examples=12, device=goes_on, checkpoint=tmp_path / f"{number}.json"), whole)


@pytest.mark.parametrize("move", [lambda features: features, on_device], ids=["features in memory", "features there"])
def test_picks_of_others_are_scored_and_certified_there(move):
    features = make_pool("ragged", 6, 40, 6, 5)
    chosen = fl.select(features, tokens=60)
    with accelerator():
        for weighting, prior in (("none", 2.0), ("trace", torch.eye(6) + 0.1)):
            options = {"weighting": weighting, "prior": prior}
            here = fl.score_selection(features, [30, 2, 17], **options)
            assert_equal(fl.score_selection(move(features), [30, 2, 17], **options, device=DEVICE), here)
            assert_equal(
                fl.certify(move(features), chosen, **options, device=DEVICE), fl.certify(features, chosen, **options)
            )


# --- features that are there, in what computes on the CPU --------------------------------------------------------------

ROWS = Dataset.from_list([{"prompt": "p", "response": f"text {i} {i * i}"} for i in range(40)])
HEAD = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))


def study_head(features: fl.TokenFeatures) -> np.ndarray:
    return fit_head(head_frame(features, classes=5, dimensions=4).tokens(features, HEAD), ridge=1.0)


WITH_FEATURES = {
    "compress": lambda f: fl.compress(f, 4).values.cpu().numpy(),
    "compress at random": lambda f: fl.compress(f, 4, method="random").values.cpu().numpy(),
    "heads": lambda f: fl.fit_heads(f, [[0, 1, 2, 5, 8]], classes=5, dimensions=4)[0].held_out(f).nll_sums,
    "heads of the study": study_head,
    "held out": lambda f: fl.HeldOut.from_features(f).nll_sums,
    "a part": lambda f: fl.select(f.subset([3, 1, 8]), examples=2).gains,
    "forecast": lambda f: np.array(fl.forecast(f, examples=5, sample=10).evaluations),
    "uniform": lambda f: fl.selectors.uniform(ROWS, f, examples=9).gains,
    "i_optimal": lambda f: fl.selectors.i_optimal(ROWS, f, examples=9).indices,
    "farthest_point": lambda f: fl.selectors.farthest_point(ROWS, f, examples=9).indices,
    "adaicl": lambda f: fl.selectors.adaicl(ROWS, f, examples=9).indices,
    "recipe": lambda f: fl.recipe(ROWS, f, examples=9).indices,
    "doubt": lambda f: fl.selectors.llmaaa_scores(f, HEAD),
    "gradients": lambda f: fl.selectors.meta_gradients(f, f.subset([2, 5]), HEAD),
}


@pytest.mark.parametrize("compute", WITH_FEATURES.values(), ids=WITH_FEATURES)
def test_features_may_be_there(compute):
    features = make_pool("ragged", 8, 40, 6, 5)
    with accelerator():
        assert np.allclose(compute(on_device(features)), compute(features), rtol=1e-6, atol=1e-9)


def test_features_that_are_there_are_written_to_disk(tmp_path):
    features = make_pool("with empty rows", 9, 20, 6, 5)
    with accelerator():
        on_device(features).save(tmp_path / "features")
    loaded = fl.TokenFeatures.load(tmp_path / "features")
    assert all(torch.equal(getattr(loaded, name), getattr(features, name)) for name in COLUMNS)


# --- what runs a model -------------------------------------------------------------------------------------------------

FLOAT32 = {"precision": "float32", "progress": False}


def test_features_are_extracted_there_and_come_to_the_cpu(tiny, twin, ids, tmp_path):
    here = fl.extract_features(tiny, None, ids, **FLOAT32)
    for options in ({}, {"padding_side": "left", "tokens_per_batch": 8}, {"out_dir": tmp_path / "features"}):
        there = fl.extract_features(twin, None, ids, **FLOAT32, **options)
        for name in COLUMNS:
            column = getattr(there, name)
            assert type(column) is torch.Tensor and column.device.type == "cpu"
            assert torch.allclose(column, getattr(here, name), rtol=1e-4, atol=1e-4)


def test_from_a_model_there_to_picks_by_a_file_in_half_precision(twin, tmp_path):
    rng = np.random.default_rng(0)
    ids = [rng.integers(1, 97, length).tolist() for length in rng.integers(5, 30, 30)]
    features = fl.extract_features(twin, None, ids, out_dir=tmp_path / "features", dtype=torch.bfloat16, **FLOAT32)
    assert features.maps and features.values.dtype == torch.bfloat16
    tight = (100 * 16**2 + 128 * 30 + 4 * 32 * 32 * 16 + features.values.nbytes) / 1e9  # no room for all of the file
    for rule in ("gain", "gain_per_token", "best"):
        here = fl.select(features, tokens=100, rule=rule, device="cpu")
        for room in (1.0, tight):
            assert_equal(fl.select(features, tokens=100, rule=rule, device=DEVICE, memory=room), here)


def test_held_out_text_is_read_there(tiny, twin, ids):
    here, there = (fl.held_out_nll(model, None, ids, **FLOAT32) for model in (tiny, twin))
    assert np.allclose(there.nll_sums, here.nll_sums, rtol=1e-4) and np.array_equal(there.tokens, here.tokens)


TRAINING = {
    "plain": {"epochs": 2},
    "weighted": {"weights": [1.0, 2.0, 0.0, 0.5, 1.0, 3.0, 1.0, 1.0]},
    "low rank": {"lora_rank": 2, "learning_rate": 5e-4},
    "in an order of its own": {
        "steps_per_epoch": 3,
        "order": lambda: ClusterOrder([0, 0, 0, 1, -1, 1, -1, 1], examples_per_step=2, seed=1),
    },
}


@pytest.mark.parametrize("options", TRAINING.values(), ids=TRAINING)
def test_a_model_is_tuned_where_it_is(options, tiny, twin, ids):
    def tuned(model):
        own = options | ({"order": options["order"]()} if "order" in options else {})
        return fl.fine_tune(model, None, ids, tokens_per_step=12, **FLOAT32, **own)

    here, there = tuned(tiny), tuned(twin)
    assert np.allclose(there.losses, here.losses, rtol=1e-4)
    assert there.model.device == twin.device and all(p.device == twin.device for p in there.model.parameters())
    for name, weights in here.model.state_dict().items():
        assert torch.allclose(there.model.state_dict()[name].cpu(), weights, rtol=1e-2, atol=1e-4), name
    assert all(torch.equal(a.cpu(), b) for a, b in zip(twin.parameters(), tiny.parameters(), strict=True))  # left alone


def test_more_devices_of_the_kind_do_not_share_a_step(tiny, twin, ids, monkeypatch):
    """On a machine with two GPUs Trainer wraps the model in DataParallel, which hides its head: an error, always."""
    here = fl.fine_tune(tiny, None, ids, tokens_per_step=12, **FLOAT32)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert np.allclose(fl.fine_tune(twin, None, ids, tokens_per_step=12, **FLOAT32).losses, here.losses, rtol=1e-4)


@functools.cache
def writer(vocabulary: int, end: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=vocabulary, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                         num_attention_heads=2, max_position_embeddings=1024, eos_token_id=end)  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_continuations_are_written_there(temperature, real, device):
    tokenizer = real[1]
    model = writer(len(tokenizer), tokenizer.eos_token_id)
    rows, options = ROWS.select(range(3)), {"max_new_tokens": 5, "temperature": temperature, "progress": False}
    here, state = continuations(model, tokenizer, rows, **options), torch.get_rng_state()
    assert continuations(copy.deepcopy(model).to(DEVICE), tokenizer, rows, **options) == here
    assert torch.equal(torch.get_rng_state(), state)
