"""What has to hold on an accelerator, as plain functions: `benchmarks.gpu` runs them on a real one, the tests on a pretend.

Each takes the name of a device, and raises `AssertionError` where the device's answer is not the CPU's.
"""

import tempfile
from dataclasses import replace

import numpy as np
import torch

import fisherlib as fl
from fisherlib.greedy.log_det import log_det


def pool(kind: str, seed: int = 0, n: int = 60, d: int = 12, longest: int = 10) -> fl.TokenFeatures:
    """A small pool of one kind, float32, on the CPU."""
    rng = np.random.default_rng(seed)
    blocks = [rng.normal(size=(t, d)) for t in rng.integers(1, longest + 1, n)]
    if kind == "duplicated":
        blocks = [blocks[i] for i in rng.integers(0, n // 3, n)]
    elif kind == "near-tied":
        blocks = [blocks[0][:1] * (1 + 1e-8 * rng.integers(0, 9)) for _ in blocks]
    elif kind == "heavy-tailed":
        blocks = [block * 10.0 ** rng.integers(-2, 3) for block in blocks]
    elif kind == "with empty rows":
        blocks = [block[: rng.integers(0, len(block) + 1)] for block in blocks]
    features = fl.TokenFeatures.from_list([torch.tensor(block, dtype=torch.float32) for block in blocks])
    weights = torch.rand(len(features.values), generator=torch.Generator().manual_seed(seed))
    return replace(features, trace_weights=weights)


KINDS = ("random", "duplicated", "near-tied", "heavy-tailed", "with empty rows")
OPTIONS: tuple[dict, ...] = (
    {"examples": 20},
    {"examples": 20, "dtype": "float32", "batch_size": 5},
    {"examples": 20, "dtype": "float64", "weighting": "trace"},
    {"tokens": 60, "rule": "gain_per_token", "prior": 0.3},
    {"tokens": 60, "rule": "best"},
    {"examples": 10, "stochastic": 0.2, "seed": 1, "dtype": "float32"},
)


def picks_are_those_of_the_cpu(device: str) -> None:
    for kind in KINDS:
        features = pool(kind)
        for options in OPTIONS:
            here, there = (fl.select(features, **options, device=name) for name in ("cpu", device))
            same_picks(there, here, f"{kind}, {options}")


def features_may_lie_anywhere(device: str) -> None:
    """On the device, in memory, or in a file of which the device holds a part."""
    features = pool("heavy-tailed", n=200, longest=12)
    here = fl.select(features, examples=20)
    same_picks(fl.select(replace(features, values=features.values.to(device)), examples=20, device=device), here, "there")
    with tempfile.TemporaryDirectory() as folder:
        features.save(f"{folder}/features")
        mapped = fl.TokenFeatures.load(f"{folder}/features")
        same_picks(fl.select(mapped, examples=20, device=device), here, "mapped")
        tight = (100 * 12**2 + 128 * 200 + 4 * 32 * 16 * 12 + features.values.nbytes) / 1e9
        same_picks(fl.select(mapped, examples=20, device=device, memory=tight), here, "mapped, and larger than the memory")


def others_are_scored_and_certified(device: str) -> None:
    features = pool("random")
    here, there = (fl.score_selection(features, [30, 2, 17], device=name) for name in ("cpu", device))
    same_picks(there, here, "score_selection")
    chosen = fl.select(features, tokens=60)
    same_picks(fl.certify(features, chosen, device=device), fl.certify(features, chosen, device="cpu"), "certify")


def log_determinants_are_right(device: str) -> None:
    for t in (1, 2, 8, 16, 24, 32, 48, 64, 96):
        W = torch.randn(9, t, 80, generator=torch.Generator().manual_seed(t)) * torch.logspace(-2, 0.5, 9)[:, None, None]
        matrices = W @ W.mT + torch.eye(t)
        found, expected = log_det(matrices.to(device)).cpu().double(), torch.linalg.slogdet(matrices.double())[1]
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5), f"{t} x {t}: {float((found - expected).abs().max())}"
    wrong = torch.stack([torch.diag(torch.tensor([1.0, -1.0])), torch.full((2, 2), torch.nan), torch.eye(2)])
    assert torch.isnan(log_det(wrong.to(device))).cpu().tolist() == [True, True, False]


def bad_features_are_named(device: str) -> None:
    features = pool("random")
    features.values[int(features.offsets[7])] = torch.nan
    try:
        fl.select(features, examples=5, device=device)
    except ValueError as error:
        assert "example 7" in str(error), error
    else:
        raise AssertionError("NaN went unnoticed")


def features_come_as_on_the_cpu(device: str) -> None:
    """From a random-weight Llama in float32; on a device of half precision, that is what is stored by default."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=97, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    model, rng = LlamaForCausalLM(config).eval(), np.random.default_rng(0)
    rows = [rng.integers(0, 97, size).tolist() for size in rng.integers(2, 30, 40)]
    here = fl.extract_features(model, None, rows, precision="float32")
    there = fl.extract_features(model.to(device), None, rows, precision="float32", dtype=torch.float32, tokens_per_batch=200)
    for name in ("values", "nll", "trace_weights"):
        assert torch.allclose(getattr(there, name), getattr(here, name), rtol=1e-3, atol=1e-3), name
    assert torch.equal(there.labels, here.labels)


CHECKS = (
    picks_are_those_of_the_cpu,
    features_may_lie_anywhere,
    others_are_scored_and_certified,
    log_determinants_are_right,
    bad_features_are_named,
    features_come_as_on_the_cpu,
)


def same_picks(there: fl.Selection, here: fl.Selection, what: str) -> None:
    assert there.indices.tolist() == here.indices.tolist(), f"{what}: other picks"
    assert np.allclose(there.gains, here.gains, rtol=1e-8, atol=1e-12), f"{what}: other gains"
    assert here.upper_bound is None or np.isclose(there.upper_bound, here.upper_bound, rtol=1e-8), f"{what}: other bound"
