"""The engine and the extraction on one GPU, beside the device's measured ceilings and a plain loop: `make bench-gpu`.

Under four minutes, with its own random data and models: no network, no files. Each part has a limit of seconds, so that one
that is slow does not eat the rest; what ran out of time, or failed, is a row that says so. Without a GPU: one line.
"""

import argparse
import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

import fisherlib as fl
from benchmarks import gpu_checks, report
from fisherlib.greedy import race, screen
from fisherlib.greedy.log_det import log_det


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size, for a rehearsal on a CPU")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--results", type=Path, default=report.RESULTS)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("not yet measured on a GPU: no CUDA device is visible here, so there is nothing to run")
        return
    rows: list[dict] = []
    for name in options.parts:
        part, seconds = PARTS[name]
        began = time.perf_counter()
        try:
            with limit(seconds):
                for row in part(options.device, options.scale):
                    rows.append(say(row))
        except Exception as error:  # of any kind: the other parts are worth their minutes all the same, and the row says it
            rows.append(
                say({"what": name, "error": f"{type(error).__name__}: {str(error) or f'took over {seconds} s'}"[:200]})
            )
        rows.append(say({"what": f"{name}: this part in all", "value": time.perf_counter() - began, "unit": "s"}))
    cuda = options.device == "cuda"
    if cuda:
        rows.append({"what": "peak device memory", "value": torch.cuda.max_memory_allocated() / 1e9, "unit": "GB"})
    notes = ["Random features and weights, made on the device. A pick's evaluations are those of `fl.select`."]
    machine = {"gpu": torch.cuda.get_device_name()} if cuda else {}
    report.save("gpu", {"scale": options.scale}, rows, options.results, machine=machine, notes=notes)
    if cuda:
        report.refresh(options.results)


# --- the parts ---------------------------------------------------------------------------------------------------------


def checks(device: str, scale: float) -> Iterator[dict]:
    for check in gpu_checks.CHECKS:
        try:
            check(device)
            value = "holds"
        except AssertionError as error:
            value = f"FAILS: {error}"
        yield {"what": f"check: {check.__name__.replace('_', ' ')}", "value": value, "unit": ""}


def ceilings(device: str, scale: float) -> Iterator[dict]:
    size = width(8192, scale)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        A, B = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        rate = 2 * size**3 / seconds_of(lambda a=A, b=B: a @ b, device) / 1e12
        yield {"what": f"matrix product, {str(dtype).removeprefix('torch.')}", "value": rate, "unit": "TFLOP/s"}
    a, b, c = (torch.zeros(size**2 * 4, device=device) for _ in range(3))
    rate = 3 * a.nbytes / seconds_of(lambda: torch.add(b, c, alpha=2.0, out=a), device) / 1e9
    yield {"what": "device memory, a = b + 2c", "value": rate, "unit": "GB/s"}
    host = torch.zeros(size**2 * 4, pin_memory=device == "cuda")
    rate = host.nbytes / seconds_of(lambda: a.copy_(host, non_blocking=True), device) / 1e9
    yield {"what": "host to device, page-locked", "value": rate, "unit": "GB/s"}
    for t in (16, 32, 48):
        W = torch.randn(2048, t, 64, device=device)
        matrices = W @ W.mT + torch.eye(t, device=device)
        ways: dict[str, Callable] = {"LU": lambda m=matrices: log_det(m, kernel=False)}
        ways["Cholesky"] = lambda m=matrices: torch.linalg.cholesky_ex(m)[0].diagonal(dim1=1, dim2=2).log().sum(1)
        if device == "cuda":
            ways["Triton"] = lambda m=matrices: log_det(m, kernel=True)
        for way, call in ways.items():
            yield {"what": f"log det of 2,048 of {t} x {t}, {way}", "value": 1e6 * seconds_of(call, device), "unit": "us"}


def agreement(device: str, scale: float) -> Iterator[dict]:
    features, picks = ragged(int(20_000 * scale), width(576, scale), device, seed=1), max(int(60 * scale), 5)
    here = fl.TokenFeatures(features.values.cpu(), features.offsets)
    there, expected = fl.select(features, examples=picks, device=device), fl.select(here, examples=picks, device="cpu")
    same = there.indices.tolist() == expected.indices.tolist()
    yield {"what": f"the picks of the CPU, {picks:,} of {len(here):,}, ragged", "value": same, "unit": ""}
    yield {"what": "on the CPU", "value": expected.seconds, "unit": "s"}
    yield {"what": f"on {device}", "value": there.seconds, "unit": "s"}


def ragged_pool(device: str, scale: float) -> Iterator[dict]:
    features = ragged(int(400_000 * scale), width(576, scale), device)
    yield from selection(features, max(int(2000 * scale), 5), max(int(200 * scale), 3), device)


def equal_pool(device: str, scale: float) -> Iterator[dict]:
    features = ragged(int(1_000_000 * scale), width(768, scale), device, shortest=32, longest=32)
    yield from selection(features, max(int(10_000 * scale), 5), max(int(200 * scale), 3), device)


def levers(device: str, scale: float) -> Iterator[dict]:
    """What each switch is worth: the same picks, with one thing changed at a time."""
    features, picks = ragged(int(200_000 * scale), width(576, scale), device), max(int(150 * scale), 5)

    def timed(**changed) -> float:
        return min(fl.select(features, examples=picks, device=device, **changed).seconds for _ in range(2))

    where = f"{picks:,} of {len(features):,}, ragged"
    yield {"what": f"{where}: as it is", "value": timed(), "unit": "s"}
    with mock.patch.object(screen, "log_det", lambda matrices: log_det(matrices, kernel=False)):
        yield {"what": f"{where}: log det by LU", "value": timed(), "unit": "s"}
    for batch in (512, 1024, 4096, 8192):
        yield {"what": f"{where}: batches of {batch:,}", "value": timed(batch_size=batch), "unit": "s"}
    for name, values in {"size": (2**13, 2**17), "finalists": (4, 64)}.items():
        for value in values:
            with changed_race(**{name: value}):
                yield {"what": f"{where}: {name} of {value:,}", "value": timed(), "unit": "s"}
    yield {"what": f"{where}: float32 screens", "value": timed(dtype="float32"), "unit": "s"}


def extraction(device: str, scale: float) -> Iterator[dict]:
    """Features of a random Llama of 1.1 billion parameters (at full scale) beside its bare forward pass."""
    from transformers import LlamaConfig, LlamaForCausalLM

    wide = scale >= 1
    shape = dict(hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32) if wide else dict(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4
    )  # fmt: skip
    config = LlamaConfig(**shape, num_key_value_heads=4, vocab_size=32_000 if wide else 500, max_position_embeddings=2048)
    with torch.device(device):
        model = LlamaForCausalLM(config).eval().to(torch.bfloat16 if device == "cuda" else torch.float32)
    parameters = sum(p.numel() for p in model.parameters())
    yield {"what": "parameters of the model", "value": parameters, "unit": ""}
    batch = torch.randint(config.vocab_size, (64, 64), device=device)

    def bare():
        with torch.inference_mode():
            model.model(input_ids=batch, use_cache=False)

    rate = batch.numel() / seconds_of(bare, device)
    yield {"what": "bare forward pass, 64 x 64, without the head", "value": rate, "unit": "tokens/s"}
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, config.vocab_size, size).tolist() for size in rng.integers(20, 81, max(int(20_000 * scale), 20))]
    fl.extract_features(model, None, rows[:64])
    wait(device)
    began = time.perf_counter()
    features = fl.extract_features(model, None, rows)
    seconds = time.perf_counter() - began
    tokens = sum(len(row) for row in rows)
    yield {"what": "extract_features, rows of 20 to 80 tokens", "value": tokens / seconds, "unit": "tokens/s"}
    yield {"what": "share of the bare forward pass", "value": tokens / seconds / rate, "unit": ""}
    yield {"what": "bytes of a token's features", "value": features.dim * features.values.itemsize, "unit": "B"}
    chosen = fl.select(features, examples=max(len(rows) // 100, 2), device=device)
    yield {"what": f"selecting {len(chosen):,} of {len(rows):,} takes of the extraction", "value": chosen.seconds / seconds,
           "unit": ""}  # fmt: skip


PARTS: dict[str, tuple[Callable[[str, float], Iterator[dict]], int]] = {  # and the seconds that each may take
    "checks": (checks, 35),
    "ceilings": (ceilings, 15),
    "agreement": (agreement, 35),
    "400,000 ragged": (ragged_pool, 30),
    "1,000,000 x 32": (equal_pool, 45),
    "extraction": (extraction, 45),
    "levers": (levers, 30),
}


# --- what they share ---------------------------------------------------------------------------------------------------


def selection(features: fl.TokenFeatures, picks: int, prefix: int, device: str) -> Iterator[dict]:
    """`fl.select`, and the plain loop on the first picks; the share of the screening precision's ceiling that it reaches."""
    where = f"{len(features):,} examples, d = {features.dim}"
    fl.select(features, examples=2, device=device)
    rounds, reads = [0], race.Race._read

    def counted(self, most):
        rounds[0] += 1
        return reads(self, most)

    with mock.patch.object(race.Race, "_read", counted):
        whole = fl.select(features, examples=picks, device=device)
    yield {"what": f"{where}: fl.select, {picks:,} picks", "value": whole.seconds, "unit": "s"}
    yield {"what": f"{where}: evaluations of a gain", "value": int(whole.evaluations), "unit": ""}
    yield {"what": f"{where}: questions to the device a pick", "value": rounds[0] / picks, "unit": ""}
    flops = 2 * features.lengths.double().mean().item() * features.dim**2 * whole.evaluations
    yield {"what": f"{where}: arithmetic of its products", "value": flops / whole.seconds / 1e12, "unit": "TFLOP/s"}
    yield {"what": f"{where}: certificate", "value": whole.certificate, "unit": ""}
    wait(device)
    began = time.perf_counter()
    plain = plain_loop(features, prefix, device)
    seconds = time.perf_counter() - began
    same = plain == whole.indices[:prefix].tolist()
    yield {"what": f"{where}: plain loop, the first {prefix:,} picks", "value": seconds, "unit": "s"}
    ours = fl.select(features, examples=prefix, device=device).seconds
    yield {"what": f"{where}: fl.select, the first {prefix:,} picks and their certificate", "value": ours, "unit": "s"}
    yield {"what": f"{where}: both pick the same", "value": same, "unit": ""}


def plain_loop(features: fl.TokenFeatures, picks: int, device: str, batch: int = 2048, finalists: int = 16) -> list[int]:
    """Lazy greedy as one would write it for a GPU: what stands highest is screened, the best of it decided in float64.

    Screened gains are trusted to a thousandth; everything is padded to the longest example. Prior I.
    """
    N, d = len(features), features.dim
    low = torch.bfloat16 if device == "cuda" else torch.float32
    values, offsets = features.values.to(device, low), features.offsets.to(device)
    lengths, steps = offsets.diff(), torch.arange(int(features.lengths.max()), device=device)
    bound = torch.full((N,), torch.inf, dtype=torch.float64, device=device)
    V, taken, chosen = torch.eye(d, dtype=torch.float64, device=device), torch.zeros_like(bound, dtype=torch.bool), []
    batch, finalists = min(batch, N), min(finalists, N)

    def gains(at: Tensor, root: Tensor) -> Tensor:
        rows = offsets[at][:, None] + steps
        real = (steps < lengths[at][:, None])[..., None]
        W = (values[rows.clamp(max=len(values) - 1)] * real).to(root.dtype) @ root
        W = W if root.dtype == torch.float64 else W.float()
        G = W @ W.mT + torch.eye(len(steps), dtype=W.dtype, device=device)
        return 2 * torch.linalg.cholesky_ex(G)[0].diagonal(dim1=1, dim2=2).log().sum(1).double()

    for _ in range(picks):
        root = torch.linalg.solve_triangular(
            torch.linalg.cholesky_ex(V)[0], torch.eye(d, dtype=V.dtype, device=device), upper=False
        ).T
        narrow, new, exact = root.to(low), taken.clone(), taken.clone()
        if not chosen:  # a pass over all
            for part in torch.arange(N, device=device).split(batch):
                bound[part] = 1.001 * gains(part, narrow)
            new[:] = True
        while True:
            at = torch.where(new, -torch.inf, bound).topk(batch).indices
            fresh = ~new[at]
            bound[at] = torch.where(fresh, 1.001 * gains(at, narrow), bound[at])
            new[at] = True
            last = torch.where(taken | exact, -torch.inf, bound).topk(finalists).indices
            bound[last] = torch.where(taken[last] | exact[last], bound[last], gains(last, root))
            exact[last] = True
            best = torch.where(taken, -torch.inf, bound).argmax()
            if bool(exact[best] & ~taken[best]):  # the one question of a round
                break
        i = int(best)
        X = values[int(features.offsets[i]) : int(features.offsets[i + 1])].double()
        V += X.T @ X
        taken[i] = True
        chosen.append(i)
    return chosen


def ragged(examples: int, d: int, device: str, shortest: int = 11, longest: int = 47, seed: int = 0) -> fl.TokenFeatures:
    """Like a language model's: a falling spectrum, a few directions to each example, scales that differ. On the device."""
    draw = torch.Generator(device).manual_seed(seed)
    examples = max(examples, 40)
    lengths = torch.randint(shortest, longest + 1, (examples,), generator=draw, device=device)
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    owner = torch.repeat_interleave(torch.arange(examples, device=device), lengths)
    M, rank, spectrum = len(owner), 4, torch.linspace(2.0, 0.2, d, device=device)
    values = torch.empty(M, d, dtype=torch.bfloat16, device=device)
    own = torch.randn(examples // 8 + 1, rank, d, generator=draw, device=device) * spectrum  # eight share their directions
    scale = torch.rand(examples, generator=draw, device=device) + 0.3
    for tokens in torch.arange(M, device=device).split(2**18):
        of = owner[tokens]
        X = 0.3 * torch.randn(len(tokens), d, generator=draw, device=device)
        mixture = torch.randn(len(tokens), rank, generator=draw, device=device) / rank**0.5
        X += torch.einsum("mr,mrd->md", mixture, own[of // 8])
        values[tokens] = (X * scale[of][:, None]).to(values.dtype)
    return fl.TokenFeatures(values, offsets.cpu(), info={"model": "synthetic"})


def width(d: int, scale: float) -> int:
    """At full scale d; a rehearsal has narrower features too."""
    return max(int(d * scale**0.5), 16)


@contextlib.contextmanager
def changed_race(**attributes) -> Iterator[None]:
    init = race.Race.__init__

    def changed(self, *arguments, **named):
        init(self, *arguments, **named)
        vars(self).update(attributes)

    with mock.patch.object(race.Race, "__init__", changed):
        yield


@contextlib.contextmanager
def limit(seconds: int) -> Iterator[None]:
    """Raise `TimeoutError` inside if it takes longer. Main thread only."""

    def stop(*_):
        raise TimeoutError(f"took over {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def seconds_of(call: Callable, device: str, times: int = 5) -> float:
    """The fastest of several calls, the device's queue drained around each."""
    found = []
    for _ in range(times + 1):  # the first one warms up
        wait(device)
        began = time.perf_counter()
        call()
        wait(device)
        found.append(time.perf_counter() - began)
    return min(found[1:])


def say(row: dict) -> dict:
    print(f"  {row['what']}: {row.get('error') or row['value']} {row.get('unit', '')}", flush=True)
    return row


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
