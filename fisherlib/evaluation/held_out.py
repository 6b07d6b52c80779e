"""Held-out evaluation: what a model says of text it was not tuned on, and how sure a difference is."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float

from fisherlib._door import checked, numbers
from fisherlib._types import Model, Tokenizer
from fisherlib.evaluation.statistics import Interval, percentile_bootstrap
from fisherlib.features import TokenFeatures
from fisherlib.model import context_length, nll, per_token
from fisherlib.text import encode


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Negative log-likelihood (nats) summed over the response tokens of each example, and how many these are.

    `token_nll` [M]: that of each token, example after example, where it is known. Raises `ValueError` for lengths that
    differ.
    """

    nll_sums: Float[np.ndarray, " N"]
    tokens: Float[np.ndarray, " N"]
    token_nll: Float[np.ndarray, " M"] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self):
        for name in ("nll_sums", "tokens"):
            object.__setattr__(self, name, numbers(getattr(self, name), name))
        if self.nll_sums.ndim != 1 or self.nll_sums.shape != self.tokens.shape:
            got = f"{self.nll_sums.shape} and {self.tokens.shape}"
            raise ValueError(f"expected a sum and a number of tokens for each example, got shapes {got}: check both")

    @property
    def nll(self) -> float:
        """Mean per token."""
        return float(self.nll_sums.sum() / self.tokens.sum())

    @classmethod
    @checked
    def from_features(cls, features: TokenFeatures) -> "HeldOut":
        """Of the model that the features were extracted from: no further forward pass is needed."""
        nll, tokens = features.column("nll"), features.lengths.double().numpy()
        return cls(features.sum(nll), tokens, nll.cpu().double().numpy())

    def __repr__(self) -> str:
        return f"HeldOut({self.nll:.4f} nats per token, {len(self.tokens):,} examples, {self.tokens.sum():,.0f} tokens)"


@checked
def held_out_nll(
    model: Model,
    tokenizer: Tokenizer | None,
    rows: Dataset | Sequence[Sequence[int]],
    *,
    tokens_per_batch: int = 1024,
    precision: str = "auto",
    progress: bool | None = None,
) -> HeldOut:
    """Negative log-likelihood of the response tokens of `rows`. One forward pass; memory bounded by `tokens_per_batch`.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=99, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    >>> held_out = fl.held_out_nll(model, None, [[3, 1, 4, 1, 5], [9, 2, 6]])
    >>> held_out.nll_sums.shape, held_out.tokens
    ((2,), array([4., 2.]))

    `rows`: a dataset (see `fisherlib.text`), or lists of token ids with `tokenizer=None`. `precision` as in
    `fl.extract_features`. Raises `ValueError` for rows that are longer than the model's context, or without any response
    token, for token ids outside its vocabulary, and for a loss that is NaN or infinite: the message names the first row.
    """
    encoded = encode(rows, tokenizer, max_tokens=context_length(model))
    values = per_token(model, encoded, nll, tokens_per_batch=tokens_per_batch, precision=precision, progress=progress)
    # Torch's sums, as from the first: NumPy's add in another order, and committed results hold every digit.
    sums = np.array([float(torch.from_numpy(v).sum()) for v in values])
    if not np.isfinite(sums).all():
        bad = int(np.flatnonzero(~np.isfinite(sums))[0])
        raise ValueError(
            f"row {bad}: expected a finite loss, got {sums[bad]}: the model has diverged, tune it with a lower learning rate"
        )
    return HeldOut(sums, np.array([float(len(v)) for v in values]), np.concatenate(values))


@checked
def paired_difference(first: HeldOut, second: HeldOut, *, resamples: int = 10_000, seed: int = 0) -> Interval:
    """NLL per token of `first` minus `second`, resampling held-out examples (percentile bootstrap, `scipy.stats`).

    >>> tokens = np.array([2.0, 4.0, 3.0])
    >>> fl.paired_difference(fl.HeldOut(np.array([7.0, 15.0, 9.0]), tokens), fl.HeldOut(np.array([8.0, 16.0, 11.0]), tokens))
    -0.4444 [-0.6667, -0.2500] (better)

    Below zero the first is better, and `verdict` says "better", "worse", or "tie" where the interval holds zero.
    The interval covers the choice of test examples, and with some dozens of them is a little too narrow; it does not cover
    the seeds of training or of a random selection. Examples without tokens are left out.
    Raises `ValueError` if the two were not measured on the same two or more examples, or a loss is not finite.
    """
    if resamples < 1:
        raise ValueError(f"expected at least 1 resample, got {resamples}: change resamples=")
    if not np.array_equal(first.tokens, second.tokens):
        raise ValueError("expected two measurements of the same held-out examples: evaluate both on the same rows")

    scored = first.tokens > 0
    differences = (first.nll_sums - second.nll_sums)[scored]
    if not np.isfinite(differences).all():
        raise ValueError("expected finite losses, got NaN or infinity: an arm diverged; lower the learning rate")
    if scored.sum() < 2:
        raise ValueError(f"expected at least two held-out examples with tokens to score, got {scored.sum()}: hold out more")
    low, high = percentile_bootstrap(differences, first.tokens[scored], resamples=resamples, seed=seed)
    return Interval(first.nll - second.nll, low, high)
