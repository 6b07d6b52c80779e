"""Select from one feature file in this process and print, as JSON, what it took: `python -m benchmarks.memory FOLDER ...`

A process of its own, because peak memory is a property of a process. Pages of a mapped file count as resident while they
are cached, but the kernel takes them back when it needs memory; *anonymous* memory is what the selection itself holds.
"""

import argparse
import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import torch

import fisherlib as fl
from fisherlib.features import folder as feature_folder

TOKENS, DIM = 32, 256  # of each example: 16 KB in bfloat16
CHUNK = 4096  # examples written at once


def write(folder: Path, gigabytes: float) -> None:
    """A feature folder as `TokenFeatures.save` writes it, of any size, in bfloat16.

    Each example lies in a few directions of its own, with a shared spectrum, some noise and a size that varies widely.
    """
    examples = max(int(gigabytes * 1e9 / (TOKENS * DIM * 2)), 1)
    folder.mkdir(parents=True)
    draw, shared = torch.Generator().manual_seed(0), torch.linspace(2.0, 0.2, DIM)
    with open(folder / "values.bin", "wb") as file:
        for begin in range(0, examples, CHUNK):
            n = min(CHUNK, examples - begin)
            own = torch.randn(n, 4, DIM, generator=draw) * shared / 2
            X = torch.randn(n, TOKENS, 4, generator=draw) @ own + 0.3 * torch.randn(n, TOKENS, DIM, generator=draw)
            X = (X * torch.randn(n, 1, 1, generator=draw).exp()).bfloat16()
            file.write(X.view(torch.int16).numpy().tobytes())
    offsets = torch.arange(examples + 1) * TOKENS
    np.save(folder / "offsets.npy", offsets.numpy())
    info = feature_folder.describe(torch.bfloat16, DIM, offsets, {}, {"model": "synthetic"})
    (folder / "info.json").write_text(json.dumps(info | {"done": examples}))


def status(field: str) -> float:
    """A field of /proc/self/status, such as RssAnon or VmHWM, in gigabytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e9
    raise ValueError(f"expected {field} in /proc/self/status: this measurement needs Linux")


class Peak(threading.Thread):
    """The highest anonymous memory, looked at every 5 ms. (The kernel keeps a peak of the whole only, VmHWM.)"""

    def __init__(self):
        super().__init__(daemon=True)
        self.highest, self.done = 0.0, threading.Event()

    def run(self):
        while not self.done.wait(0.005):
            self.highest = max(self.highest, status("RssAnon"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--examples", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--memory", type=float, help="gigabytes that the selection may work with; by default its own choice")
    parser.add_argument("--in-memory", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    features = fl.TokenFeatures.load(options.folder)
    if options.in_memory:
        features = fl.TokenFeatures(features.values.clone(), features.offsets)
    fl.select(fl.TokenFeatures(torch.eye(32).repeat(9, 1), torch.arange(10) * 32), examples=2)  # libraries load on first use
    before, before_resident, peak = status("RssAnon"), status("VmHWM"), Peak()
    peak.start()
    began = time.perf_counter()
    selection = fl.select(features, examples=options.examples, device="cpu", memory=options.memory)
    seconds = time.perf_counter() - began
    peak.done.set()
    peak.join(timeout=5)
    result = {
        "seconds": seconds,
        "before_gb": before,  # with torch and the library loaded (and the features, if in memory)
        "before_resident_gb": before_resident,
        "anonymous_gb": max(peak.highest, before),
        "resident_gb": status("VmHWM"),
        "evaluations": int(selection.evaluations),
        "indices": selection.indices.tolist(),
    }
    print(json.dumps(result), flush=True)
    os._exit(0)  # unmapping tens of gigabytes in order serves nobody


if __name__ == "__main__":
    main()
