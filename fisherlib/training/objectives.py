"""What a step of `fl.fine_tune(objective=)` can minimise instead of the mean loss of its response tokens.

An objective is called as `objective(row, log_p)`: the row's number, and a list of 1-D tensors, the log-probabilities of the
tokens of its response and then of each of its `alternatives`. It returns the loss of this row; a step takes the mean over
its rows. Below y is the response, z an alternative, |y| the number of tokens, CE(y) = -log p(y) / |y|; several alternatives
count by their mean. Dropout, if the model has any, is on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from fisherlib._door import checked
from fisherlib._types import Model, Tokenizer
from fisherlib.model import check_run, context_length, nll, per_token
from fisherlib.text import encode
from fisherlib.training.groups import Objective, grouped

Parts = Sequence[Float[Tensor, " _"]]


@checked
def log_likelihoods(
    model: Model,
    tokenizer: Tokenizer | None,
    rows: Dataset | Sequence[Sequence[int]],
    *,
    tokens_per_batch: int = 1024,
    precision: str = "auto",
    progress: bool | None = None,
) -> list[Float[np.ndarray, " _"]]:
    """Of each row, log p of its response and of each of its alternatives, summed over tokens: float64 [1 + alternatives].

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=99, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    >>> [one.shape for one in fl.objectives.log_likelihoods(model, None, [[3, 1, 4, 1, 5], [9, 2, 6]])]
    [(1,), (1,)]

    One forward pass over all of them; memory bounded by `tokens_per_batch`. `precision` as in `fl.extract_features`. Raises
    `ValueError` as `fl.held_out_nll` does, and for alternatives that `fl.fine_tune` would refuse.
    """
    encoded = encode(rows, tokenizer, max_tokens=context_length(model))
    groups = grouped(rows, encoded, tokenizer, context_length(model))
    flat = [member for group in groups for member in group.members]
    check_run(model, flat)
    values = per_token(model, flat, nll, tokens_per_batch=tokens_per_batch, precision=precision, progress=progress)
    sums = iter(-one.sum() for one in values)
    return [np.array([next(sums) for _ in group.members]) for group in groups]


@dataclass(frozen=True)
class MLE:
    """CE(y): as `fl.fine_tune` without an objective, but each *row* counts the same, not each token."""

    def __call__(self, row: int, log_p: Parts) -> Tensor:
        return -log_p[0].mean()


@dataclass(frozen=True)
class ExMATE:
    """CE(y) + c exp(-CE(z)): the penalty is c times the geometric mean of z's token probabilities, so never above c.

    Source: arXiv 2408.16751 (its own coefficient is not known to us; .05 is that of its predecessor, arXiv 2212.10515).
    With the sum in place of the mean, exp would be of the order e^-100 for any answer of some length, and its gradient too.
    """

    c: float | int = 0.05

    def __call__(self, row: int, log_p: Parts) -> Tensor:
        return -log_p[0].mean() + self.c * _mean(row, log_p, lambda z: z.mean().exp())


@dataclass(frozen=True)
class MATE:
    """CE(y) - c CE(z): has no minimum, since CE(z) may grow for ever. Source: arXiv 2212.10515, as what ExMATE mends."""

    c: float | int = 0.05

    def __call__(self, row: int, log_p: Parts) -> Tensor:
        return -log_p[0].mean() + self.c * _mean(row, log_p, lambda z: z.mean())


@dataclass(frozen=True)
class Unlikelihood:
    """CE(y) - c mean over the tokens of z of log(1 - p). Source: arXiv 1908.04319; 1 - p is cut off at 1e-6 (our choice)."""

    c: float | int = 0.05

    def __call__(self, row: int, log_p: Parts) -> Tensor:
        return -log_p[0].mean() - self.c * _mean(row, log_p, lambda z: (-torch.expm1(z)).clamp(min=1e-6).log().mean())


@dataclass(frozen=True)
class Preference:
    """-log sigmoid(beta m) with m = [log p(y) - log q(y)] - [log p(z) - log q(z)]; with `hinge`, max(0, 1 - beta m).

    DPO (arXiv 2305.18290): z is an answer that people like less, q the model before training. SPIN (arXiv 2401.01335): z is
    the opponent's own answer, q the opponent. `reference[row]` = (log q(y), log q(z), ...), summed over tokens, as
    `log_likelihoods` of q gives them. At p = q the loss is log 2, and its gradient beta / 2 times that of
    log p(z) - log p(y). Over own samples z of p the first of the two has mean 0; what is left is beta / 2 of SFT's gradient.
    """

    reference: Sequence[Sequence[float | int] | Float[np.ndarray, " _"]]
    beta: float | int = 0.1
    hinge: bool = False

    def __call__(self, row: int, log_p: Parts) -> Tensor:
        q = _numbers_of("reference", self.reference, row, log_p)
        if not all(map(math.isfinite, q)):
            raise ValueError(f"row {row}: expected finite log-probabilities in reference, got {q}: the opponent diverged")
        gains = [one.sum() - before for one, before in zip(log_p, q, strict=True)]
        margins = self.beta * (gains[0] - torch.stack(_others(row, gains)))
        return (relu(1 - margins) if self.hinge else -logsigmoid(margins)).mean()


@dataclass(frozen=True)
class Ranking:
    """weight times the mean, over the pairs with r_i > r_j, of relu(scale log(2 (r_i - r_j)) - (f_i - f_j)).

    f = log p / |.|^length_power, over y and all z; `ranks[row]` = (r of y, of each z), whole numbers, *higher is better*,
    ties share one; NaN: not ranked. 0 where no two differ. With `Sum` and `MLE` it is the loss of SumLLM (arXiv 2305.14239,
    after BRIO, arXiv 2203.16804); equal to the released one on sorted answers, and finite where that is not a number.
    """

    ranks: Sequence[Sequence[float | int] | Float[np.ndarray, " _"]]
    weight: float | int = 100.0
    scale: float | int = 0.01
    length_power: float | int = 1.0

    def __call__(self, row: int, log_p: Parts) -> Tensor:
        r = _numbers_of("ranks", self.ranks, row, log_p)
        f = [one.sum() / len(one) ** self.length_power for one in log_p]
        pairs = [(i, j) for i in range(len(r)) for j in range(len(r)) if r[i] > r[j]]
        losses = [relu(self.scale * math.log(2 * (r[i] - r[j])) - (f[i] - f[j])) for i, j in pairs]
        return self.weight * torch.stack(losses).mean() if losses else 0 * torch.stack(f).sum()


class Sum:
    """The weighted sum of objectives, as pairs: `Sum((MLE(), 1), (Ranking(ranks), 1))` is SumLLM's loss.

    >>> one = fl.objectives.Sum((fl.objectives.MLE(), 1), (fl.objectives.ExMATE(c=0.5), 2))
    >>> float(one(0, [torch.tensor([-1.0, -3.0]), torch.zeros(1)]))
    7.0
    """

    def __init__(self, *parts: tuple[Objective, float | int]):
        if not parts:
            raise ValueError("expected at least one pair of an objective and its weight, got none")
        self.parts = parts

    def __call__(self, row: int, log_p: Parts) -> Tensor:
        return torch.stack([weight * objective(row, log_p) for objective, weight in self.parts]).sum()


def _others(row: int, values: Sequence) -> list:
    """What belongs to the alternatives. Raises `ValueError` for a row that has none."""
    if len(values) < 2:
        raise ValueError(f"row {row}: expected an alternative to compare the response with, got none: leave the row out")
    return list(values[1:])


def _mean(row: int, log_p: Parts, term) -> Tensor:
    return torch.stack([term(z) for z in _others(row, log_p)]).mean()


def _numbers_of(name: str, table: Sequence, row: int, log_p: Parts) -> list[float]:
    """The row's numbers, one for the response and one for each alternative."""
    found = list(map(float, table[row])) if row < len(table) else []
    if len(found) != len(log_p):
        raise ValueError(
            f"row {row}: expected {len(log_p)} numbers in {name}, for the response and its {len(log_p) - 1} alternatives, "
            f"got {len(found)}: make {name} from the same rows"
        )
    return found
