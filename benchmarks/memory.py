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
from fisherlib import feature_folder

TOKENS, DIM = 32, 256  # of each example: 32 KB in float32, eight pages of memory


def write(folder: Path, gigabytes: float) -> None:
    """A feature folder as `TokenFeatures.save` writes it, of any size: the first 4 tokens of each example are random.

    They fill one page of the file; the other rows are zeros that are never written, so the disk holds an eighth of it.
    """
    examples = max(int(gigabytes * 1e9 / (TOKENS * DIM * 4)), 1)
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    with open(folder / "values.bin", "wb") as file:
        for i in range(examples):
            file.seek(i * TOKENS * DIM * 4)
            file.write((random.standard_normal((4, DIM), dtype=np.float32) * random.uniform(0.3, 1.5)).tobytes())
        file.truncate(examples * TOKENS * DIM * 4)
    offsets = torch.arange(examples + 1) * TOKENS
    np.save(folder / "offsets.npy", offsets.numpy())
    info = feature_folder.describe(torch.float32, DIM, offsets, {}, {"model": "synthetic"})
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
    parser.add_argument("--in-memory", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    features = fl.TokenFeatures.load(options.folder)
    if options.in_memory:
        features = fl.TokenFeatures(features.values.clone(), features.offsets)
    before, peak = status("RssAnon"), Peak()
    peak.start()
    began = time.perf_counter()
    selection = fl.select(features, examples=options.examples, device="cpu")
    seconds = time.perf_counter() - began
    peak.done.set()
    peak.join()
    result = {
        "seconds": seconds,
        "before_gb": before,  # with torch and the library imported (and the features, if in memory)
        "anonymous_gb": max(peak.highest, before),
        "resident_gb": status("VmHWM"),
        "evaluations": int(selection.evaluations),
        "indices": selection.indices.tolist(),
    }
    print(json.dumps(result), flush=True)
    os._exit(0)  # unmapping tens of gigabytes in order serves nobody


if __name__ == "__main__":
    main()
