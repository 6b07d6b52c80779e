"""`make bench`: fl.select beside its rivals, on this machine, in one run. See benchmarks/README.md."""

import argparse
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

import fisherlib as fl
from benchmarks import chat, copies, peers, report, vectors

CACHE = report.FOLDER / "cache"
OURS = {"fl.select": {}, 'fl.select, dtype="float32"': {"dtype": "float32"}}  # the first one is the yardstick
PRIOR = 1.0


def repeat(call: Callable, times: int, limit: float = 60.0):
    """The last result, and the seconds of up to `times` calls; no further call once `limit` seconds are spent."""
    seconds = []
    while len(seconds) < times and sum(seconds) < limit:
        gc.collect()
        began = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - began)
    return result, seconds


def row_of(method: str, kind: str, features, picks: np.ndarray, seconds: list[float], ours: np.ndarray | None) -> dict:
    """A method that ran to the end. `seconds` is the median of its repetitions, `fastest` their minimum."""
    picks = np.asarray(picks)
    same = "the reference" if ours is None else "the same"
    if ours is not None and not np.array_equal(picks, ours):
        first = int(np.argmax(picks != ours)) if len(picks) == len(ours) else 0
        same = f"{len(np.intersect1d(picks, ours)):,} of {len(ours):,} in common, first different: {first + 1}"
    return {
        "method": method,
        "kind": kind,
        "seconds": statistics.median(seconds),
        "fastest": min(seconds),
        "repetitions": len(seconds),
        "objective": peers.objective(features, picks, PRIOR),
        "picks": same,
    }


def failed(method: str, kind: str, error: Exception) -> dict:
    text = str(error).splitlines()[0] if str(error) else ""
    return {"method": method, "kind": kind, "error": f"{type(error).__name__}: {text[:160]}"}


def with_ratios(rows: list[dict]) -> list[dict]:
    """Each method's time divided by ours: above 1, ours is faster."""
    ours = next(row["seconds"] for row in rows if row["method"] == "fl.select")
    return [row if row.get("error") else row | {"ratio": row["seconds"] / ours} for row in rows]


def say(row: dict) -> dict:
    what = f"did not run: {row['error']}" if row.get("error") else f"{row['seconds']:.3f} s"
    print(f"  {row['method']}: {what}", flush=True)
    return row


# --- (a) token features ----------------------------------------------------------------------------------------------


def token_features(options) -> tuple[fl.TokenFeatures, dict]:
    """The features of shuffled training dialogues, extracted once and kept; and how long that took, when."""
    folder = options.features or CACHE / f"shakespeare-{options.pool}-smollm2-135m"
    source = f"reused from {folder.name}" if folder.exists() else "extracted in this run"
    if not folder.exists():
        train = fl.load_pool("shakespeare").train.shuffle(seed=0).select(range(options.pool))
        model, tokenizer = fl.load_model("smollm2-135m")
        began = time.perf_counter()
        extracted = fl.extract_features(model, tokenizer, train)
        extracted.info["seconds"] = time.perf_counter() - began
        extracted.save(folder)
    saved = fl.TokenFeatures.load(folder)
    features = saved.subset(range(options.pool))  # a copy in memory: no rival waits for a disk
    seconds = {f"extraction seconds for {len(saved):,} dialogues": saved.info.get("seconds")}
    return fl.TokenFeatures(features.values, features.offsets, info=saved.info), {"features": source} | seconds


def tokens(options) -> list[dict]:
    features, origin = token_features(options)
    n = min(options.picks, len(features))
    settings = {
        "pool": len(features), "tokens": len(features.values), "d": features.dim, "picks": n, "prior": PRIOR,
        "threads": options.threads, **origin,
    }  # fmt: skip
    print(f"tokens: {settings}", flush=True)
    warm_up = features.subset(range(min(64, len(features))))

    rows, selection = [], None
    for method, arguments in OURS.items():
        fl.select(warm_up, examples=3, device="cpu", **arguments)
        chosen, seconds = repeat(
            lambda a=arguments: fl.select(features, examples=n, prior=PRIOR, device="cpu", **a), options.repetitions
        )
        row = row_of(method, "ours", features, chosen.indices, seconds, selection and selection.indices)
        rows.append(say(row | {"evaluations": int(chosen.evaluations), "certificate": chosen.certificate}))
        selection = selection or chosen
    path = selection.indices

    def to_the_end(method: str, call: Callable) -> peers.Run | None:
        try:
            call(warm_up, 3)
            run, seconds = repeat(lambda: call(features, n), options.repetitions)
        except Exception as error:
            rows.append(say(failed(method, "exact", error)))
            return None
        row = row_of(method, "exact", features, run.indices, seconds, path)
        rows.append(say(row | {"evaluations": run.evaluations}))
        return run

    def extrapolated(method: str, call: Callable) -> None:
        try:
            run = call()
        except Exception as error:
            rows.append(say(failed(method, "exact", error)))
            return
        agreed = int((run.indices == path[run.stages]).sum())
        row = {"method": method, "kind": "exact", "seconds": run.seconds, "evaluations": run.evaluations}
        row |= {"objective": None, "picks": f"the same at {agreed} of the {len(run.stages)} picks it made"}
        rows.append(say(row | {"extrapolated_from": len(run.stages)}))

    to_the_end("heap-lazy, batches of 32", lambda f, k: peers.heap_lazy(f, k, PRIOR, batch=32))
    to_the_end("heap-lazy, one at a time", lambda f, k: peers.heap_lazy(f, k, PRIOR))
    whole = to_the_end("algorithm 2 + determinant lemma", lambda f, k: peers.algorithm_2(f, k, PRIOR))
    limit = options.limit
    if whole is not None:
        extrapolated(
            "algorithm 2",
            lambda: peers.algorithm_2_extrapolated(features, whole, PRIOR, peers.by_determinant, limit),
        )
    extrapolated(
        "algorithm 1 + determinant lemma",
        lambda: peers.naive_extrapolated(features, path, PRIOR, peers.by_lemma, limit),
    )
    extrapolated(
        "algorithm 1",
        lambda: peers.naive_extrapolated(features, path, PRIOR, peers.by_determinant, limit),
    )
    notes = [
        "The time of `fl.select` includes its float64 decisions and its certificate"
        f" (at least {selection.certificate:.2%} of the best possible); the rivals decide in float32 and give none.",
        "An extrapolated row made only some picks, spread over the run; so it has no objective of its own.",
    ]
    report.save("tokens", settings, with_ratios(rows), options.results, notes=notes)
    return rows


# --- (b) one vector per example --------------------------------------------------------------------------------------


def one_vector(options) -> None:
    n, d, k = options.vectors
    X32 = vectors.synthetic(n, d).astype(np.float32)
    X = X32.astype(np.float64)  # the same numbers for everyone
    features = fl.TokenFeatures(torch.from_numpy(X32), torch.arange(n + 1))
    settings = {"n": n, "d": d, "picks": k, "prior": PRIOR, "threads": options.threads}
    print(f"vectors: {settings}", flush=True)
    rows, ours = [], None
    for method, arguments in OURS.items():
        chosen, seconds = repeat(
            lambda a=arguments: fl.select(features, examples=k, prior=PRIOR, device="cpu", **a), options.repetitions
        )
        rows.append(say(row_of(method, "ours", features, chosen.indices, seconds, ours)))
        ours = chosen.indices if ours is None else ours
    for method, (rival, kind, package) in vectors.RIVALS.items():
        try:
            rival(X[:100], 3)  # imports and compiles
            picks, seconds = repeat(lambda r=rival: r(X, k), options.repetitions)
            row = row_of(method, kind, features, picks, seconds, ours)
        except Exception as error:  # a peer that cannot run is a row that says so
            row = failed(method, kind, error)
        rows.append(say(row | {"package": package}))
    notes = [
        "Times include the kernel where a method needs one, and the certificate of `fl.select`; the ratio is of medians.",
        "In float32 a rival's own arithmetic decides, so near ties may fall otherwise.",
    ]
    report.save("vectors", settings, with_ratios(rows), options.results, notes=notes)


# --- (c) scaling -----------------------------------------------------------------------------------------------------


def low_rank_plus_noise(n: int, tokens: int, d: int, seed: int = 0) -> fl.TokenFeatures:
    """Token features of one length: each example in a few directions of its own, a shared spectrum, some noise."""
    draw = torch.Generator().manual_seed(seed)
    rank = 4
    shared = torch.linspace(2.0, 0.2, d)
    own = torch.randn(n, rank, d, generator=draw) * shared
    X = torch.randn(n, tokens, rank, generator=draw) @ own / rank**0.5
    X = (X + 0.3 * torch.randn(n, tokens, d, generator=draw)) * torch.rand(n, 1, 1, generator=draw).add(0.3)
    return fl.TokenFeatures(X.reshape(n * tokens, d), torch.arange(n + 1) * tokens)


def scaling(options) -> None:
    base = {"N": 2000, "n": 100, "T": 16, "d": 128}
    values = {"N": (1000, 2000, 4000, 8000), "n": (50, 100, 200, 400), "T": (4, 8, 16, 32, 64), "d": (64, 128, 256, 512)}
    rows = []
    fl.select(low_rank_plus_noise(64, 16, 128), examples=3, device="cpu")
    for varied, sizes in values.items():
        print(f"scaling in {varied}", flush=True)
        part = []
        for value in sizes:
            size = base | {varied: value}
            features = low_rank_plus_noise(size["N"], size["T"], size["d"])
            chosen, seconds = repeat(
                lambda f=features, n=size["n"]: fl.select(f, examples=n, device="cpu"), times=3, limit=10
            )
            row = {"varied": varied, "value": value, "seconds": statistics.median(seconds)}
            part.append(row | {"evaluations": int(chosen.evaluations), "exponent": None})
        slope = np.polyfit(np.log(sizes), np.log([row["seconds"] for row in part]), 1)[0]
        part[-1]["exponent"] = float(slope)  # of seconds ~ value^exponent, fitted over the part; shown in its last row
        rows += part
    notes = ["The exponent e of seconds ~ value^e is fitted over the rows of one variable and stands in the last of them."]
    report.save("scaling", base | {"threads": options.threads}, rows, options.results, notes=notes)


# --- (d) roofline ----------------------------------------------------------------------------------------------------


def roofline(options) -> None:
    """The machine's measured ceilings, and the work that the evaluations of section (a) stand for, set against them."""
    rows = []
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        best = 0.0
        for size in (1024, 2048):
            A, B = (torch.randn(size, size).to(dtype) for _ in range(2))
            A @ B
            _, seconds = repeat(lambda a=A, b=B: a @ b, times=5, limit=5)
            best = max(best, 2 * size**3 / min(seconds) / 1e9)
        rows.append({"what": f"matmul peak, {str(dtype).removeprefix('torch.')}", "value": best, "unit": "GFLOP/s"})
    peak = {row["what"].split()[-1]: row["value"] for row in rows}
    a, b, c = (torch.zeros(2**25) for _ in range(3))  # 128 MB each, beyond any cache
    _, seconds = repeat(lambda: torch.add(b, c, alpha=2.0, out=a), times=7, limit=5)
    bandwidth = 3 * a.nbytes / min(seconds) / 1e9
    rows.append({"what": "memory bandwidth, a = b + 2c, 3 arrays of 128 MB", "value": bandwidth, "unit": "GB/s"})

    notes = []
    result = report.load(options.results).get("tokens")
    if result is None:
        notes.append("No run of the section on tokens to set against these ceilings.")
    else:
        s, ours = result["settings"], next(row for row in result["rows"] if row["method"] == "fl.select")
        T, d, n, evaluations = s["tokens"] / s["pool"], s["d"], s["picks"], ours["evaluations"]
        one = 2 * T * d**2 + 2 * T**2 * d + T**3 / 3  # W = X L^-T, W W^T, its Cholesky factor
        per_pick = 2 * T * d**2 + d**3 / 3 + d**3  # V += X^T X, its Cholesky factor, L^-1
        flops, bytes_read = evaluations * one + n * per_pick, evaluations * T * d * 4
        intensity = flops / bytes_read
        roof = min(peak["float32"], intensity * bandwidth)
        rows += [
            {"what": "evaluations of a gain in the section on tokens", "value": evaluations, "unit": ""},
            {"what": "work they stand for", "value": flops / 1e9, "unit": "GFLOP"},
            {"what": "features they read", "value": bytes_read / 1e9, "unit": "GB"},
            {"what": "arithmetic intensity", "value": intensity, "unit": "FLOP/byte"},
            {"what": "float32 roof at that intensity", "value": roof, "unit": "GFLOP/s"},
            {"what": "least time under that roof", "value": flops / 1e9 / roof, "unit": "s"},
            {"what": "time that fl.select took", "value": ours["seconds"], "unit": "s"},
            {"what": "rate that this implies", "value": flops / 1e9 / ours["seconds"], "unit": "GFLOP/s"},
            {"what": "share of the float32 roof", "value": flops / 1e9 / ours["seconds"] / roof, "unit": ""},
        ]
        notes += [
            "Assumed: each evaluation is of an example of average length T, costs 2Td^2 + 2T^2d + T^3/3 and reads its "
            "float32 features once; each pick costs 2Td^2 + (4/3)d^3; certificate and float64 decisions are not counted.",
            "So the share is that of the plain algorithm's work: an engine that needs less work than assumed can exceed 1.",
        ]
        if result["commit"] != report.commit():
            notes.append(f"The section on tokens is from another commit, `{result['commit']}`.")
    report.save("roofline", {"threads": options.threads}, rows, options.results, notes=notes)


# --- (e) memory ------------------------------------------------------------------------------------------------------


def memory(options) -> None:
    """Peak memory of selecting from a mapped file; and the same picks from memory, at a size where both fit."""
    from benchmarks.memory import write

    picks, gigabytes = 50, options.gigabytes
    fits = 0.4 * report.machine()["memory_gb"]
    rows = []
    scratch = Path(tempfile.mkdtemp(prefix="fisherlib-bench-", dir=options.scratch))
    try:
        for size in sorted({min(gigabytes, 1.0 if gigabytes > fits else gigabytes), gigabytes}):
            folder = scratch / f"{size:g}"
            print(f"memory: a file of {size:g} GB", flush=True)
            write(folder, size)
            mapped = _measure(folder, picks, options.threads)
            indices = mapped.pop("indices", None)
            rows.append(say({"method": "mapped", "features": "memory-mapped", "gigabytes": size, **mapped}))
            if size <= fits:
                both = _measure(folder, picks, options.threads, "--in-memory")
                if not both.get("error") and indices:
                    same = both.pop("indices") == indices
                    both["picks"] = "the same" if same else "DIFFERENT"
                rows.append(say({"method": "in memory", "features": "in memory", "gigabytes": size, **both}))
            shutil.rmtree(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    notes = [
        "Anonymous memory is what the process holds (the library alone, before: "
        f"{rows[0].get('before_gb', float('nan')):.2f} GB); resident memory also counts cached pages of the mapped file, "
        "which the kernel takes back when memory is short.",
    ]
    settings = {"picks": picks, "tokens per example": 32, "d": 256, "dtype": "bfloat16", "threads": options.threads}
    report.save("memory", settings, rows, options.results, notes=notes)


_HOURS = 2  # for one measurement of memory, in a process of its own


def _measure(folder: Path, picks: int, threads: int, *more: str) -> dict:
    command = [sys.executable, "-m", "benchmarks.memory", str(folder), f"--examples={picks}", f"--threads={threads}", *more]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=report.FOLDER.parent, timeout=_HOURS * 3600)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {_HOURS} hours"}
    if done.returncode:
        return {"error": f"exit status {done.returncode}: {(done.stderr.strip().splitlines() or [''])[-1][:160]}"}
    return json.loads(done.stdout.splitlines()[-1])


# --- the command -----------------------------------------------------------------------------------------------------

RUNNERS = {"tokens": tokens, "vectors": one_vector, "scaling": scaling, "roofline": roofline, "memory": memory}
RUNNERS |= {"copies": copies.section, "chat": chat.section}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=RUNNERS, default=list(RUNNERS), help="sections to run")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="for every method alike")
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="folder for the JSON files and the figure")
    parser.add_argument("--features", type=Path, help="use these saved token features instead of extracting some")
    parser.add_argument("--pool", type=int, default=6000, help="dialogues in the section on tokens")
    parser.add_argument("--picks", type=int, default=1000, help="picks in the section on tokens")
    parser.add_argument("--vectors", type=int, nargs=3, default=(5000, 256, 500), metavar=("N", "D", "K"))
    parser.add_argument("--repetitions", type=int, default=5, help="at most; no further one after a minute")
    parser.add_argument("--limit", type=float, default=120, help="seconds to spend on each extrapolated method")
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the mapped feature file")
    parser.add_argument("--rows", type=int, default=10_000, help="chat rows in the section on near-duplicates")
    parser.add_argument(
        "--chat",
        type=lambda text: text.split("x"),
        nargs="+",
        default=[["50000", "64", "recipe"], ["50000", "64", "fisher"], ["5000", "576", "recipe"]],
        help="rows x width x method of each run of the command, such as 50000x64xrecipe (or 50000x64xrecipexforecast)",
    )
    parser.add_argument("--budget", type=int, default=20_000, help="response tokens in the section on the command")
    parser.add_argument("--scratch", type=Path, help="where to write that file; by default the system's")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module=r"(?!fisherlib|benchmarks)")  # peers warn about their own dependencies
    torch.set_num_threads(options.threads)
    os.environ["NUMBA_NUM_THREADS"] = str(options.threads)  # before apricot imports numba
    with threadpool_limits(options.threads):
        for name, run in RUNNERS.items():
            if name in options.only:
                run(options)
    report.refresh(options.results)
    print(f"written to {options.results}")


if __name__ == "__main__":
    main()
