"""A file that keeps the picks so far, and the check that it belongs to the call."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fisherlib._files import plain
from fisherlib.features import TokenFeatures
from fisherlib.greedy.selection import Selection

SAVE_EVERY = 30.0  # seconds between two savings


class Checkpoint:
    """The file of one call of `select`. Without a path nothing is kept, and there is nothing to go on from."""

    def __init__(
        self, path: str | Path | None, settings: dict, features: TokenFeatures, costs: np.ndarray, start: Selection | None
    ):
        """`settings`: what was asked for. With a path they also say which features, costs and start it was asked of."""
        self.path = None if path is None else Path(path)
        self.settings = settings if path is None else settings | fingerprints(features, costs, start)
        self._pool_size, self._saved_at = len(features), time.perf_counter()

    def load(self) -> Selection | None:
        """What the file holds, if there is one. Raises `ValueError` unless it was made by the same call."""
        if self.path is None or not self.path.exists():
            return None
        saved = Selection.load(self.path)
        asked = json.loads(json.dumps(self.settings, default=plain)) | {"pool_size": self._pool_size}
        made = saved.settings | {"pool_size": saved.pool_size}
        if different := [name for name in sorted(asked | made) if asked.get(name) != made.get(name)]:
            raise ValueError(f"expected a checkpoint of this call, got another {different[0]} in {self.path}: remove it")
        return saved

    def check(self, saved: Selection, gains: list[float], costs: np.ndarray) -> None:
        """Raise `ValueError` if its picks gain or cost something else here: the features are others after all."""
        if not (np.allclose(gains, saved.gains) and np.array_equal(saved.costs, costs)):
            raise ValueError(f"expected a checkpoint of these features and costs, got other gains in {self.path}: remove it")

    def tick(self, so_far: Callable[[], Selection]) -> None:
        """Save if the last time is `SAVE_EVERY` seconds ago."""
        if self.path is not None and time.perf_counter() - self._saved_at > SAVE_EVERY:
            self.save(so_far())

    def save(self, selection: Selection) -> None:
        if self.path is not None:
            selection.save(self.path)
            self._saved_at = time.perf_counter()


def fingerprints(features: TokenFeatures, costs: np.ndarray, start: Selection | None) -> dict[str, str | None]:
    """What a checkpoint belongs to, beside the options: the start, all costs, all lengths and a sample of the features."""
    step = max(len(features.values) // 1000, 1)
    return {
        "start": None if start is None else digest(start.indices),
        "costs": digest(costs),
        "pool": f"{digest(features.offsets)} {digest(features.values[::step])}",
    }


def digest(numbers) -> str:
    if isinstance(numbers, Tensor):
        numbers = numbers.detach().to("cpu", torch.float64).numpy()
    return hashlib.sha256(np.array(numbers, dtype=np.float64).tobytes()).hexdigest()[:16]
