"""The memory plan says what a selection holds, line by line, and asks for no copy of the pool to say so."""

import mmap
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fisherlib as fl
from fisherlib.assets import ROOT
from fisherlib.greedy.information import Information
from fisherlib.greedy.memory import plan_memory
from fisherlib.greedy.race import Race
from fisherlib.greedy.screen import screen_of
from tests.pretend import accelerator


def one_byte():
    with tempfile.TemporaryFile() as file:
        file.write(b"x")
        file.flush()
        return mmap.mmap(file.fileno(), 1)


def make_pool(n: int, d: int, longest: int, dtype=torch.float32, mapped: bool = False) -> fl.TokenFeatures:
    rng = np.random.default_rng(n)
    features = fl.TokenFeatures.from_list([torch.tensor(rng.normal(size=(t, d))) for t in rng.integers(0, longest + 1, n)])
    maps = [one_byte()] if mapped else []
    trace_weights = torch.rand(len(features.values), generator=torch.Generator().manual_seed(0))
    return replace(features, values=features.values.to(dtype), trace_weights=trace_weights, maps=maps)


@settings(max_examples=200, deadline=None)
@given(
    n=st.integers(1, 300),
    d=st.integers(1, 40),
    longest=st.integers(0, 30),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    mapped=st.booleans(),
    weighting=st.sampled_from(["none", "trace"]),
    room=st.integers(10_000, 10**9),
)
def test_the_plan_of_a_cpu_is_the_formula(n, d, longest, dtype, mapped, weighting, room):
    """The formula as it stood before its parts had names; the number of parts and so the batches depend on it."""
    features = make_pool(n, d, longest, dtype, mapped)
    widest = max(int(features.lengths.max()), 1)
    widest = widest if widest == 1 else 8 * ((widest + 7) // 8)
    least = 100 * d**2 + 128 * n + 4 * 32 * widest * d
    if room < least:
        with pytest.raises(ValueError, match="raise memory="):
            plan_memory(features, weighting, "cpu", room)
        return
    left, size = room - least, features.values.nbytes
    row = d * features.values.itemsize
    cached = min(left // 4, size, 2**28) // row if mapped else 0
    numbers = features.values.numel()
    copied = not mapped and dtype != torch.bfloat16 and weighting == "none" and numbers * 2 < left // 2
    elements = max(min(left // 4 // 32, 2**21), widest * d)
    expected = least + (elements - widest * d) * 32 + copied * numbers * 2 + cached * row
    plan = plan_memory(features, weighting, "cpu", room)
    assert plan.total == expected <= room
    assert (plan.part_numbers, plan.cache_rows) == (elements, cached)
    assert (plan.narrow > 0) == (copied and numbers > 0) and plan.pool == 0


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 300), longest=st.integers(1, 30), room=st.integers(10_000, 10**7), there=st.booleans())
def test_the_plan_of_an_accelerator_counts_what_moves_there(n, longest, room, there):
    features = make_pool(n, 12, longest)
    assume(len(features.values))
    with accelerator():
        features = replace(features, values=features.values.to("pretend")) if there else features
        try:
            plan = plan_memory(features, "none", "pretend", room)
        except ValueError:
            return
        assert plan.total <= room
        assert plan.pool == 0 or (plan.pool == features.values.nbytes and not there)
        assert (plan.cache_rows == 0) or (plan.pool == 0 and not there)
        assert there or plan.pool or features.values.nbytes > room - 2 * (100 * 144 + 128 * n + 128 * 12 * plan.widest)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("weighting", ["none", "trace"])
@pytest.mark.parametrize("mapped", [False, True])
def test_every_array_of_the_engine_has_its_line(dtype, weighting, mapped):
    features = make_pool(200, 24, 12, mapped=mapped)
    information = Information(features, 1.0, weighting, "cpu", 4_000_000)
    race = Race(information, screen_of(information, dtype), np.ones(200), np.ones(200))
    for _ in range(12):
        best, _ = race.next(200.0)
        race.take(best)
    plan, blocks = information.blocks.plan, information.blocks
    given_to_it = (features.values.data_ptr(), race.divisor.data_ptr(), race.price.data_ptr())
    sizes = {"matrices": 0, "examples": 0, "narrow": 0, "cache": 0}
    for owner in filter(None, (information, blocks, race, race.screen)):
        for name, array in vars(owner).items():
            if not isinstance(array, torch.Tensor | np.ndarray) or not array.ndim or name in ("_begins", "lengths"):
                continue  # `_begins` is a part of the features' offsets, and `lengths` is `_lengths`
            if isinstance(array, torch.Tensor) and array.data_ptr() in given_to_it and array.numel():
                continue
            line = {"_in_bfloat16": "narrow", "_cache": "cache"}.get(name)
            if line is None:
                line = "matrices" if array.shape == (24, 24) else "examples"
                assert line == "matrices" or len(array) in (0, 200), name
            sizes[line] += array.nbytes
    for line, size in sizes.items():
        assert size <= getattr(plan, line), line
    assert sizes["cache"] == plan.cache and sizes["examples"] > 0.3 * plan.examples
    assert sizes["narrow"] == (plan.narrow if dtype == "bfloat16" else 0)


PEAK = """
import sys, torch
from datasets import Dataset
import fisherlib as fl
from benchmarks.memory import Peak, status
features = fl.TokenFeatures.load(sys.argv[1])
rows = Dataset.from_dict({"text": [f"{i} {i * i} {i + 7} {i * 31}" for i in range(len(features))]})
small = features.subset(range(20))
fl.recipe(rows.select(range(20)), small, examples=2), fl.select(small, examples=1)  # libraries load on first use
before, peak = status("RssAnon"), Peak()
peak.start()
fl.recipe(rows, features, tokens=4000)
fl.select(features, examples=1, memory=0.03)
peak.done.set()
peak.join(timeout=5)
print(peak.highest - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_recipe_and_select_hold_a_part_of_a_mapped_file(tmp_path):
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(3000 * 128, 256, generator=draw, dtype=torch.bfloat16)
    fl.TokenFeatures(values, torch.arange(3001) * 128).save(tmp_path / "features")
    command = [sys.executable, "-c", PEAK, str(tmp_path / "features")]
    plain = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}  # huge pages keep what was freed
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240, env=plain)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < values.nbytes / 1e9 / 2


def test_a_forecast_reads_the_plan_and_copies_no_pool():
    features = make_pool(3000, 12, 12)
    options = {"examples": 30, "sample": 20, "device": "pretend", "memory": 0.1}
    with accelerator() as device:
        found = fl.forecast(features, **options)
        samples = 30 / 3000 * features.values.nbytes  # of 10 and of 20 examples
        assert device.arrived < features.values.nbytes / 4 and device.arrived > samples / 2
        assert found.gigabytes == plan_memory(features, "none", "pretend", 10**8).total / 1e9
