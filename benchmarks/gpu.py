"""`make bench-gpu`: the engine on CUDA, beside the device's measured ceilings. Without a GPU: one line, and no result."""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import fisherlib as fl
from benchmarks import report

KINDS = {  # a kernel's name contains -> what it does; the first match counts
    "matrix products": ("gemm", "cutlass", "xmma", "nvjet", "cublas", "bmm"),
    "factorisations": ("potrf", "potrs", "cholesky", "trsm", "trsv", "trtri", "syevj", "magma", "cusolver"),
    "copies host to device": ("memcpy htod",),
    "copies, other": ("memcpy", "memset", "copy", "index", "gather", "scatter", "cat"),
}


def pool(examples: int, tokens: int, d: int, device: str, seed: int = 0) -> fl.TokenFeatures:
    """Low rank plus noise, bfloat16, in host memory; drawn on the device in parts, since a CPU would take long."""
    draw = torch.Generator(device).manual_seed(seed)
    values = torch.empty(examples * tokens, d, dtype=torch.bfloat16)
    spectrum, part = torch.linspace(2.0, 0.2, d, device=device), 2**14
    for begin in range(0, examples, part):
        m, rank = min(part, examples - begin), 4
        own = torch.randn(m, rank, d, generator=draw, device=device) * spectrum
        X = torch.randn(m, tokens, rank, generator=draw, device=device) @ own / rank**0.5
        X += 0.3 * torch.randn(m, tokens, d, generator=draw, device=device)
        X *= torch.rand(m, 1, 1, generator=draw, device=device) + 0.3
        values[begin * tokens : (begin + m) * tokens] = X.reshape(-1, d).to("cpu", torch.bfloat16)
    return fl.TokenFeatures(values, torch.arange(examples + 1) * tokens, info={"model": "synthetic"})


def seconds_of(call, device: str, times: int = 5) -> float:
    """The fastest of several calls, the device's queue drained around each."""
    found = []
    for _ in range(times + 1):  # the first one warms up
        _wait(device)
        began = time.perf_counter()
        call()
        _wait(device)
        found.append(time.perf_counter() - began)
    return min(found[1:])


def ceilings(device: str, size: int) -> list[dict]:
    rows = []
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        A, B = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        rate = 2 * size**3 / seconds_of(lambda a=A, b=B: a @ b, device) / 1e12
        name = str(dtype).removeprefix("torch.")
        rows.append({"what": f"matmul peak, {name}", "value": rate, "unit": "TFLOP/s"})
    a, b, c = (torch.zeros(size**2 * 4, device=device) for _ in range(3))
    rate = 3 * a.nbytes / seconds_of(lambda: torch.add(b, c, alpha=2.0, out=a), device) / 1e9
    rows.append({"what": "device memory bandwidth, a = b + 2c", "value": rate, "unit": "GB/s"})
    host = torch.zeros(size**2 * 4, pin_memory=device == "cuda")
    rate = host.nbytes / seconds_of(lambda: a.copy_(host), device) / 1e9
    rows.append({"what": "host to device, pinned", "value": rate, "unit": "GB/s"})
    return rows


def profile(features: fl.TokenFeatures, picks: int, device: str) -> list[dict]:
    """A short selection under torch.profiler: device seconds by kind of kernel, and by any ranges the engine names.

    Ranges are `torch.profiler.record_function` blocks whose name begins with "fisherlib: ".
    """
    from torch.profiler import ProfilerActivity

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with torch.profiler.profile(activities=activities) as profiler:
        fl.select(features, examples=picks, device=device)
    totals = dict.fromkeys([*KINDS, "other kernels"], 0.0)
    ranges: dict[str, float] = {}
    for event in profiler.key_averages():
        name = event.key.lower()
        if name.startswith("fisherlib: "):
            ranges[event.key] = max(ranges.get(event.key, 0.0), event.cpu_time_total, event.device_time_total)
        elif event.device_type.name == "CUDA":  # kernels and copies themselves, not the operators that start them
            kind = next((k for k, parts in KINDS.items() if any(p in name for p in parts)), "other kernels")
            totals[kind] += event.self_device_time_total
    where = f"profiled, {picks} picks"
    rows = [{"what": f"{where}: {kind}", "value": us / 1e6, "unit": "s"} for kind, us in totals.items() if us]
    return rows + [{"what": f"{where}: {key}", "value": us / 1e6, "unit": "s"} for key, us in ranges.items()]


def run(options, device: str) -> None:
    small = pool(options.agreement, options.tokens, options.d, device, seed=1)
    fl.select(small.subset(range(100)), examples=3, device=device)  # context, libraries, kernels
    rows = ceilings(device, options.matmul)
    there, here = (fl.select(small, examples=options.agreement_picks, device=name) for name in (device, "cpu"))
    same = bool(np.array_equal(there.indices, here.indices))
    rows.append(
        {
            "what": f"same picks as on the CPU, {options.agreement_picks:,} of {options.agreement:,}",
            "value": same,
            "unit": "",
        }
    )
    rows += [
        {"what": f"seconds on that pool, {s}", "value": c.seconds, "unit": "s"} for s, c in (("CPU", here), (device, there))
    ]
    for row in rows:
        print(f"  {row['what']}: {row['value']} {row['unit']}", flush=True)

    features = pool(options.pool, options.tokens, options.d, device)
    print(features, flush=True)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    first = fl.select(features, examples=1, device=device)
    rows.append({"what": "first pass over the pool, one pick, certificate", "value": first.seconds, "unit": "s"})
    rows += profile(features, options.profile_picks, device)
    whole = fl.select(features, examples=options.picks, device=device)
    more = (whole.seconds - first.seconds) / max(options.picks - 1, 1)
    rows += [
        {"what": f"{options.picks:,} picks in all", "value": whole.seconds, "unit": "s"},
        {"what": "each further pick, on average", "value": 1e3 * more, "unit": "ms"},
        {"what": "evaluations of a gain", "value": int(whole.evaluations), "unit": ""},
        {"what": "certificate", "value": whole.certificate, "unit": ""},
    ]
    if device == "cuda":
        rows.append({"what": "peak device memory", "value": torch.cuda.max_memory_allocated() / 1e9, "unit": "GB"})
    settings = {"pool": options.pool, "tokens per example": options.tokens, "d": options.d, "dtype": "bfloat16"}
    gpu = {"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}
    notes = ["The features lie in host memory. Profiled seconds are those of the device, in a short run of its own."]
    report.save("gpu", settings | {"picks": options.picks, "prior": 1.0}, rows, options.results, machine=gpu, notes=notes)
    report.refresh(options.results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--pool", type=int, default=1_000_000)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--d", type=int, default=768)
    parser.add_argument("--picks", type=int, default=10_000)
    parser.add_argument("--profile-picks", type=int, default=20)
    parser.add_argument("--agreement", type=int, default=20_000, help="pool on which CUDA and CPU must pick the same")
    parser.add_argument("--agreement-picks", type=int, default=200)
    parser.add_argument("--matmul", type=int, default=8192, help="size of the matrices that measure the ceilings")
    parser.add_argument("--results", type=Path, default=report.RESULTS)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("not yet measured on a GPU: no CUDA device is visible here, so there is nothing to run")
        return
    run(options, "cuda")


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
