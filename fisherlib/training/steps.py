"""Which rows each step of training holds, and how much they count."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int

from fisherlib.model import pad
from fisherlib.text import Encoded
from fisherlib.training.groups import Group, parts_of


@runtime_checkable
class Order(Protocol):
    """An order of the data that is made up while the model learns: `ClusterOrder`, for one."""

    def next(self) -> Sequence[int] | Int[np.ndarray, " b"]:
        """The rows of the next step."""

    def update(self, accuracy: Float[np.ndarray, " b"]) -> None:
        """Hear, before that step, the share of each of its rows' response tokens that the model finds likeliest."""


@dataclass(frozen=True)
class Weighted(Encoded):
    weight: float


def weighted(encoded: Sequence[Encoded], weights: Float[np.ndarray, " n"]) -> list[Encoded]:
    """The rows that count, each with its weight divided by the mean weight of a response token."""
    if weights.shape != (len(encoded),) or not (np.isfinite(weights.sum()) and (weights >= 0).all()):
        raise ValueError(f"expected a finite weight of at least 0 for each of {len(encoded):,} rows, got {weights}")
    lengths = np.array([sum(e.is_response) for e in encoded])
    kept = np.flatnonzero(weights * lengths)
    if not len(kept):
        raise ValueError("expected a positive weight for a row with response tokens, got none: nothing is left to train on")
    scale = np.average(weights[kept], weights=lengths[kept])
    return [Weighted(encoded[i].input_ids, encoded[i].is_response, float(weights[i] / scale)) for i in kept.tolist()]


def batch_of(step: Sequence[Encoded]) -> dict[str, Any]:
    """One step as tensors, with `weights` [m], one for each response token, if its rows have them.

    Of groups: the response and the alternatives of each row, one after the other, and the `parts` of the batch.
    """
    if groups := [example for example in step if isinstance(example, Group)]:
        return {**pad([member for group in groups for member in group.members]), "parts": parts_of(groups)}
    batch = pad(step)
    if weights := [example.weight for example in step if isinstance(example, Weighted)]:
        batch["weights"] = torch.tensor(weights).repeat_interleave(torch.tensor([sum(e.is_response[1:]) for e in step]))
    return batch


def ask(order: Order, encoded: Sequence[Encoded]) -> list[Encoded]:
    rows = order.next()
    if not len(rows) or not all(0 <= i < len(encoded) and any(encoded[i].is_response) for i in rows):
        raise ValueError(f"expected the order to give some of the {len(encoded)} rows, with response tokens, got {rows}")
    return [encoded[i] for i in rows]


def equal_token_steps(
    encoded: Sequence[Encoded], tokens_per_step: int, seed: int, steps: int | None = None
) -> list[list[Encoded]]:
    """Cut the examples into steps of about equally many response tokens; examples of similar length share a step.

    There are `steps` of them, by default round(tokens / tokens_per_step) but at least 1 and at most one for each example.
    Raises `ValueError` for a number below 1 or above the number of examples.
    """
    if tokens_per_step < 1:
        raise ValueError(f"expected tokens_per_step of at least 1, got {tokens_per_step}")
    rng = np.random.default_rng(seed)
    useful = [e for e in encoded if any(e.is_response)]
    useful = [useful[i] for i in rng.permutation(len(useful))]
    useful.sort(key=lambda e: len(e.input_ids))  # stable: random among equals; saves padding
    ends = np.cumsum([sum(e.is_response) for e in useful])
    if steps is None:
        steps = min(max(round(ends[-1] / tokens_per_step), 1), len(useful))
    if not 1 <= steps <= len(useful):
        raise ValueError(f"expected 1 to {len(useful)} steps, at least one example for each, got {steps}")
    # Cut where k / steps of the tokens is reached, but leave at least one example on either side of each cut.
    cuts = [0]
    for k in range(1, steps):
        wanted = int(np.searchsorted(ends, ends[-1] * k / steps, side="left")) + 1
        cuts.append(min(max(wanted, cuts[-1] + 1), len(useful) - (steps - k)))
    return [useful[begin:end] for begin, end in itertools.pairwise([*cuts, len(useful)])]
