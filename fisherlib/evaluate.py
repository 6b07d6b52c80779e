"""Held-out evaluation: what a model says of text it was not tuned on, and how sure a difference is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float

from fisherlib.data import encode
from fisherlib.features import TokenFeatures, at_responses, batches


@dataclass(frozen=True)
class HeldOut:
    """Negative log-likelihood (nats) summed over the response tokens of each example, and how many these are."""

    nll_sums: Float[np.ndarray, " N"]
    tokens: Float[np.ndarray, " N"]

    @property
    def nll(self) -> float:
        """Mean per token."""
        return float(self.nll_sums.sum() / self.tokens.sum())

    @classmethod
    def from_features(cls, features: TokenFeatures) -> "HeldOut":
        """Of the model that the features were extracted from: no further forward pass is needed."""
        sums = torch.cat([torch.zeros(1, dtype=torch.float64), features.nll.double().cumsum(0)])
        return cls((sums[features.offsets[1:]] - sums[features.offsets[:-1]]).numpy(), features.lengths.double().numpy())

    def __repr__(self) -> str:
        return f"HeldOut({self.nll:.4f} nats per token, {len(self.tokens):,} examples, {self.tokens.sum():,.0f} tokens)"


def held_out_nll(
    model,
    tokenizer,
    rows: Dataset | Sequence[Sequence[int]],
    *,
    tokens_per_batch: int = 1024,
    precision: str = "bfloat16",
    progress: bool | None = None,
) -> HeldOut:
    """Negative log-likelihood of the response tokens of `rows`. One forward pass; memory bounded by `tokens_per_batch`."""
    encoded = encode(rows, tokenizer, max_tokens=getattr(model.config, "max_position_embeddings", None))
    sums = np.zeros(len(encoded))
    counts = np.array([sum(e.is_response) for e in encoded], dtype=float)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for indices, batch in batches(encoded, tokens_per_batch, "right", model.device, progress):
                logits, labels = at_responses(model, batch, precision, compute_logits=True)
                nll = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none").cpu().double()
                parts = nll.split([int(counts[i]) for i in indices])
                sums[indices] = [float(part.sum()) for part in parts]
    finally:
        model.train(was_training)
    return HeldOut(sums, counts)


@dataclass(frozen=True)
class Difference:
    """A paired difference with a 95 % bootstrap interval; below zero the first is better (lower NLL)."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """ "better", "worse", or "tie" when the interval holds zero."""
        return "better" if self.high < 0 else "worse" if self.low > 0 else "tie"

    def __repr__(self) -> str:
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}] ({self.verdict})"


def paired_difference(first: HeldOut, second: HeldOut, *, resamples: int = 2000, seed: int = 0) -> Difference:
    """NLL per token of `first` minus `second`, resampling held-out examples (percentile bootstrap, `scipy.stats`).

    The interval covers the choice of test examples; it does not cover the seeds of training or of a random selection.
    Raises `ValueError` if the two were not measured on the same examples.
    """
    from scipy.stats import bootstrap

    if not np.array_equal(first.tokens, second.tokens):
        raise ValueError("expected two measurements of the same held-out examples: evaluate both on the same rows")

    def mean(difference, tokens, axis=-1):
        return difference.sum(axis=axis) / tokens.sum(axis=axis)

    result = bootstrap(
        (first.nll_sums - second.nll_sums, first.tokens),
        mean,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    interval = result.confidence_interval
    return Difference(first.nll - second.nll, float(interval.low), float(interval.high))
