"""A file that keeps the picks so far, and the check that it belongs to the call."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fisherlib._files import plain
from fisherlib.features import TokenFeatures
from fisherlib.greedy.selection import Selection

SAVE_EVERY = 30.0  # seconds between two savings of a checkpoint


def saved_at(checkpoint: Path, settings: dict, pool_size: int) -> Selection | None:
    """What a checkpoint holds. Raises `ValueError` unless it was made by the same call."""
    if not checkpoint.exists():
        return None
    saved = Selection.load(checkpoint)
    asked = json.loads(json.dumps(settings, default=plain)) | {"pool_size": pool_size}
    made = saved.settings | {"pool_size": saved.pool_size}
    if different := [name for name in sorted(asked | made) if asked.get(name) != made.get(name)]:
        raise ValueError(f"expected a checkpoint of this call, got another {different[0]} in {checkpoint}: remove it")
    return saved


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
