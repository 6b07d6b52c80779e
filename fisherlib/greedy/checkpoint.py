"""A file that keeps the picks so far, and the check that it belongs to the call."""

import hashlib
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fisherlib._files import explained, first_line, plain, scratch_of
from fisherlib.features import TokenFeatures
from fisherlib.greedy.selection import Selection

SAVE_EVERY = 30.0  # seconds between two savings


class Checkpoint:
    """The file of one call of `select`. Without a path nothing is kept, and there is nothing to go on from.

    A file that cannot be written is an error before the work begins, and a warning once there are picks to lose.
    """

    def __init__(
        self, path: str | Path | None, settings: dict, features: TokenFeatures, costs: np.ndarray, start: Selection | None
    ):
        """`settings`: what was asked for. With a path they also say which features, costs and start it was asked of."""
        self.path = None if path is None else Path(path)
        if self.path is not None:
            _try_to_write(self.path)
        self.settings = settings if path is None else settings | fingerprints(features, costs, start)
        self._pool_size, self._saved_at = len(features), time.perf_counter()
        self._kept = 0  # picks on the disk

    def exists(self) -> bool:
        return self.path is not None and self.path.exists()

    def beside(self, name: str) -> Path | None:
        """The file of a part of the work."""
        return None if self.path is None else self.path.with_name(f"{self.path.name}.{name}")

    def remove(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def load(self) -> Selection | None:
        """What the file holds, if there is one. Raises `ValueError` unless it was made by the same call."""
        if self.path is None or not self.exists():
            return None
        try:
            saved = Selection.load(self.path)
        except ValueError as error:
            if isinstance(error.__cause__, FileNotFoundError):  # by now: another thread, or process, has finished with it
                return None
            raise
        asked = json.loads(json.dumps(self.settings, default=plain)) | {"pool_size": self._pool_size}
        made = saved.settings | {"pool_size": saved.pool_size}
        made.pop("stopped", None)  # what came of the call is no part of what was asked
        if different := [name for name in sorted(asked | made) if asked.get(name) != made.get(name)]:
            raise ValueError(f"expected a checkpoint of this call, got another {different[0]} in {self.path}: remove it")
        self._kept = len(saved)
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
        """Write it down. A disk that is full by now is no reason to lose what is in memory: it warns."""
        if self.path is None:
            return
        self._saved_at = time.perf_counter()
        try:
            selection.save(self.path)
        except OSError as error:
            warnings.warn(f"the checkpoint is not up to date: {first_line(error)}", stacklevel=2)
        else:
            self._kept = len(selection)

    def kept(self, picks: list[int]) -> str:
        """For who was interrupted: what is kept, and how to go on."""
        if self.path is None:
            return f"none of {len(picks):,} picks is kept: give checkpoint="
        return f"{self._kept:,} of {len(picks):,} picks are kept in {self.path}: the same call goes on from there"


def _try_to_write(path: Path) -> None:
    """Raise `OSError` if a file could not take the place of `path`."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(21, "it is a folder")
        trial = scratch_of(path)
        try:
            trial.write_bytes(bytes(4096))
        finally:
            trial.unlink(missing_ok=True)


def fingerprints(features: TokenFeatures, costs: np.ndarray, start: Selection | None) -> dict[str, str | None]:
    """What a checkpoint belongs to, beside the options: the start, all costs, all lengths and a sample of the features."""
    return {
        "start": None if start is None else digest(start.indices),
        "costs": digest(costs),
        "pool": of_pool(features),
    }


def of_pool(features: TokenFeatures) -> str:
    """All lengths, and a sample of the values."""
    step = max(len(features.values) // 1000, 1)
    return f"{digest(features.offsets)} {digest(features.values[::step])}"


def digest(numbers) -> str:
    if isinstance(numbers, Tensor):
        numbers = numbers.detach().to("cpu", torch.float64).numpy()
    return hashlib.sha256(np.array(numbers, dtype=np.float64).tobytes()).hexdigest()[:16]
