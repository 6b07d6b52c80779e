"""Exact lazy greedy maximisation of the log-determinant of the information matrix.

The objective of a set S of examples, with X_i [T_i, d] the token features of example i (paper, section 3):

    f(S) = log det V - log det V0,    V = V0 + sum_{i in S} X_i^T X_i
    gain_i = f(S + i) - f(S) = log det(I + X_i V^-1 X_i^T)

f is monotone and submodular: gains only shrink as S grows. So a gain computed earlier is an upper bound, and at each pick
only the examples whose old gain could still win are evaluated again (paper, algorithm 2).

Gains are *screened* in a low precision with an estimate of their rounding error, and *decided* in float64: a screened gain
can rule an example out, never choose it. So the answer is the float64 greedy's, whatever the batch size and the device.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from fisherlib._quiet import hidden
from fisherlib.features import TokenFeatures
from fisherlib.greedy.certificate import slack
from fisherlib.greedy.checkpoint import SAVE_EVERY, digest, fingerprints, saved_at
from fisherlib.greedy.checks import check_options, costs_of
from fisherlib.greedy.information import TIE, Information
from fisherlib.greedy.one_token import OneToken
from fisherlib.greedy.race import Race
from fisherlib.greedy.score import replay
from fisherlib.greedy.selection import Selection


def select(
    features: TokenFeatures,
    *,
    examples: int | None = None,
    tokens: float | int | None = None,
    costs: Sequence[float] | Float[np.ndarray, " N"] | None = None,
    rule: str = "gain",
    weighting: str = "none",
    prior: float | int | Float[Tensor, "d d"] | Float[np.ndarray, "d d"] = 1.0,
    start: Selection | None = None,
    batch_size: int | None = None,
    device: str | torch.device = "auto",
    dtype: str = "auto",
    memory: float | int | None = None,
    stochastic: float | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
) -> Selection:
    """Choose the examples that together tell most about the model's last layer.

    Give exactly one budget: `examples`, or `tokens` (in units of `costs` [N], by default each example's response tokens).
    `rule`: "gain" picks the largest gain, "gain_per_token" the largest gain / cost (for token budgets). `weighting`:
    "trace" multiplies each token's x x^T by 1 - ||p||^2 (extension). `prior`: sigma0^2, or a matrix V0 [d, d] of what is
    already known. `start`: an earlier selection to continue; its picks count towards the budget. Under a token budget,
    picking goes on with what still fits. `dtype` of the screening: "bfloat16", "float32", "float64" (no screening) or
    "auto", the quickest of the device; `batch_size` examples are screened at once (by default 32, on CUDA 256). Neither
    changes the answer. `memory`: gigabytes to work with beside features that are in memory; by default half of what is
    free (four fifths of a GPU's).
    `stochastic`: an epsilon from 0 to 1, for pools that are too large even so: each pick looks at (N / n) log(1 / epsilon)
    random examples with tokens only (drawn with `seed`), and is worth 1 - 1/e - epsilon of the optimum in expectation
    (Mirzasoleiman et al. 2015; needs `examples`). The certificate holds for such a selection too. `checkpoint`: a file that
    keeps the picks so far, twice a minute and when interrupted; the same call goes on from there. In the end it is the
    manifest of the whole. (Features are compared by their lengths, a sample of their values, and what the picks gain.)

    Returns a `Selection` whose certificate is a bound that holds for this very selection (see `upper_bound`).
    Ties go to the lowest index. Examples without tokens gain 0 and are picked last, under a token budget never.
    Time O(evaluations * T d^2 + picks * T d^2); memory O(d^2 + N d + a batch), wherever the features are: in memory, or
    mapped from a disk (`TokenFeatures.load`). Source: paper, algorithms 1 and 2; token budgets, gain per token, weighting,
    screening and certificate are extensions.
    Raises `ValueError` for a budget that is missing, doubled, not positive or larger than the pool, for features or a
    prior that are not finite, for too little memory, for an unknown option, and for a checkpoint of another selection.
    """
    began = time.perf_counter()
    costs = costs_of(features, costs)
    check_options(features, costs, examples, tokens, rule, weighting, dtype, start, batch_size, stochastic, memory)
    settings = {
        "method": "FisherSFT" if weighting == "none" else "FisherSFT, trace-weighted",
        "budget": {"examples": examples} if examples is not None else {"tokens": tokens},
        "rule": rule,
        "weighting": weighting,
        "prior": float(prior) if np.ndim(prior) == 0 else f"matrix {digest(prior)}",
        **({"stochastic": stochastic, "seed": seed} if stochastic is not None else {}),
        "features": features.info,
        **({} if checkpoint is None else fingerprints(features, costs, start)),
    }
    saved = None if checkpoint is None else saved_at(Path(checkpoint), settings, len(features))
    picks = [int(i) for i in (saved or start).indices] if saved or start else []
    n = len(features)
    divisor = np.where(costs > 0, costs, 1.0) if rule == "gain_per_token" else np.ones(n)
    price = costs if examples is None else np.ones(n)
    room = None if memory is None else int(memory * 1e9)
    sampled = None if stochastic is None else math.ceil(n / examples * math.log(1 / stochastic))
    if sampled is None and OneToken.fits(features, device, dtype, room):
        state = race = OneToken(features, prior, weighting, divisor, price)
    else:
        state = Information(features, prior, weighting, device, dtype, room)
        race = Race(state, divisor, price, picks, batch_size, sampled, seed)
    gains = replay(state, picks)  # anew, since the start may have had another prior or weighting
    if saved and not (np.allclose(gains, saved.gains) and np.array_equal(saved.costs, costs[picks])):
        raise ValueError(f"expected a checkpoint of these features and costs, got other gains in {checkpoint}: remove it")
    budget = float(tokens if examples is None else examples)
    left = budget - price[picks].sum()
    if left < 0:
        raise ValueError(f"expected a budget that covers the start selection ({budget - left:g}), got {budget:g}: raise it")

    def so_far(upper_bound: float | None = None) -> Selection:
        return Selection(
            indices=np.array(picks, dtype=np.int64),
            gains=np.array(gains, dtype=np.float64),
            costs=costs[picks],
            pool_size=n,
            upper_bound=upper_bound,
            evaluations=state.evaluations + (saved.evaluations if saved else 0),
            seconds=time.perf_counter() - began + (saved.seconds if saved else 0.0),
            settings=settings,
        )

    bar = tqdm(
        total=budget, initial=budget - left, unit="token" if examples is None else "example", disable=hidden(progress)
    )
    kept = time.perf_counter()
    try:
        with bar, state.threads():
            while len(picks) != examples and (found := race.winner(left + TIE * budget)) is not None:
                best, gain = found
                if gain <= 0 and examples is None:
                    break  # nothing that fits adds anything
                state.add(best)
                picks.append(best)
                gains.append(gain)
                left -= price[best]
                bar.update(price[best])
                if checkpoint is not None and time.perf_counter() - kept > SAVE_EVERY:
                    so_far().save(checkpoint)
                    kept = time.perf_counter()
    except BaseException:  # Ctrl-C above all
        if checkpoint is not None and len(picks) == len(gains):
            so_far().save(checkpoint)
        raise
    if not picks and (cheapest := price[costs > 0].min()) > budget:
        raise ValueError(f"expected a budget of at least the cheapest example ({cheapest:g}), got {budget:g}: raise it")
    if not picks:
        raise ValueError("expected an example that adds information, got gains of 0 for all that fit: check the features")
    if checkpoint is not None:
        so_far().save(checkpoint)  # the certificate is another pass over the pool
    selection = so_far(float(np.sum(gains)) + slack(state, picks, price, budget))
    if checkpoint is not None:
        selection.save(checkpoint)
    return selection
