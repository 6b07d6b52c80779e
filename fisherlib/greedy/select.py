"""Exact lazy greedy maximisation of the log-determinant of the information matrix.

The objective of a set S of examples, with X_i [T_i, d] the token features of example i (paper, section 3):

    f(S) = log det V - log det V0,    V = V0 + sum_{i in S} X_i^T X_i
    gain_i = f(S + i) - f(S) = log det(I + X_i V^-1 X_i^T)

f is monotone and submodular: gains only shrink as S grows. So a gain computed earlier is an upper bound, and at each pick
only the examples whose old gain could still win are evaluated again (paper, algorithm 2).

Gains are *screened* in a low precision with an estimate of their rounding error, and *decided* in float64: a screened gain
can rule an example out, never choose it. The estimate is four standard errors of roundings that are taken as independent: a
pool can be made that beats it. In float32 the answer was the float64 greedy's in every test of ours, whatever the batch
size and the device. In bfloat16 equal numbers round alike, and pools of features of 0 and 1 beat it. With
`dtype="float64"` nothing is screened, and the answer is so without any assumption.
"""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fisherlib._door import checked, numbers
from fisherlib._signals import interruptible
from fisherlib.features import TokenFeatures
from fisherlib.greedy.best import improve
from fisherlib.greedy.budget import Budget
from fisherlib.greedy.checkpoint import Checkpoint, digest, of_pool
from fisherlib.greedy.checks import check_options, costs_of
from fisherlib.greedy.engine import Engine
from fisherlib.greedy.groups import Labels
from fisherlib.greedy.information import TIE, Information
from fisherlib.greedy.one_token import OneToken
from fisherlib.greedy.quotas import quotas_of
from fisherlib.greedy.race import Race
from fisherlib.greedy.run import Run
from fisherlib.greedy.screen import screen_of
from fisherlib.greedy.seen import with_seen
from fisherlib.greedy.selection import Selection
from fisherlib.greedy.small_pool import SmallPool


@checked
def select(
    features: TokenFeatures,
    *,
    examples: int | None = None,
    tokens: float | int | None = None,
    costs: Sequence[float] | Float[np.ndarray, " N"] | None = None,
    rule: str = "gain",
    weighting: str = "none",
    prior: float | int | Float[Tensor, "d d"] | Float[np.ndarray, "d d"] = 1.0,
    start: Selection | TokenFeatures | None = None,
    stop: float | int | None = None,
    groups: Labels | None = None,
    quotas: Mapping | str | None = None,
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

    >>> X = torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0], [3.0, 0.1, 0.0]])  # [M, d]: 4 tokens
    >>> features = fl.TokenFeatures.from_list([X[:2], X[2:3], X[3:]])  # 3 examples, of 2, 1 and 1 tokens
    >>> selection = fl.select(features, examples=2)
    >>> selection.indices, selection.gains.shape  # the third is nearly the first's first token again
    (array([0, 1]), (2,))
    >>> fl.select(features, tokens=2, rule="gain_per_token").indices  # what they cost: response tokens
    array([2, 1])

    *What to choose.* Give exactly one budget: `examples`, or `tokens` (in units of `costs` [N], by default each example's
    response tokens; picking goes on with what still fits). `rule`: "gain" picks the largest gain, "gain_per_token" the
    largest gain / cost, and "best", for token budgets, takes the better of the two and improves it by exchanges: it never
    gathers less than either, and, without quotas, at least 31 % of the most that the budget can buy
    (`fisherlib.greedy.best`), for the price of both and of the exchanges. `weighting`: "trace" multiplies each token's x x^T
    by 1 - ||p||^2 (extension). `prior`: sigma0^2, or a matrix V0 [d, d] of what is already known. `start`: an earlier
    selection to continue, whose picks count towards the budget, or the features of what was trained on already, which count
    as known (`with_seen`) and cost nothing.

    *Under which conditions.* `groups` [N]: a label for each example; the selection then says what each group got
    (`Selection.by_group`). `quotas`: what each may get, {label: bound}. A bound is a share of the budget (0.2), a whole
    number of tokens or examples (200), or a floor and a ceiling of these ((0.1, 0.3); None for none); "pool" is each group's
    own share of the pool. A ceiling is never passed, and a floor is met to within one example of its group; of a budget of
    examples, a share is met to the example below or above. `fisherlib.greedy.quotas` says how, and `quota_price` what they
    cost. `stop`: a share of the first pick's gain (per token with "gain_per_token"). Picking ends before one that would gain
    less, but for what floors still need, and the selection says so (`Selection.stopped`).

    *How to compute.* `device`: "auto" (CUDA where there is one, else the CPU) or the name of any device that PyTorch knows
    and that has float64. `dtype` of the screening: "bfloat16", "float32", "float64" (no screening) or "auto", the quickest
    of the device; `batch_size` examples or more are screened at once (by default 32, on an accelerator 2,048). The error of
    a screen is an estimate, as if roundings were independent. In bfloat16 those of equal numbers are not: from features of 0
    and 1, picks were seen that are not quite the best. With "float64" nothing is screened. `memory`: gigabytes to work with
    beside features that are in memory; by default half of what is free (four fifths of a GPU's). `progress`: None shows a
    bar in a terminal only.

    *Very large pools.* `stochastic`: an epsilon from 0 to 1: each pick looks at (N / n) log(1 / epsilon) random examples
    with tokens only (drawn with `seed`), and is worth 1 - 1/e - epsilon of the optimum in expectation (Mirzasoleiman et al.
    2015; needs `examples`). The certificate holds for such a selection too.

    *To survive a kill.* `checkpoint`: a file that keeps the picks so far, twice a minute and when interrupted (by Ctrl-C or
    SIGTERM); the same call goes on from there. In the end it is the manifest of the whole. (Features are compared by their
    lengths, a sample of their values, and what the picks gain.)

    Returns a `Selection` whose certificate is a bound that holds for this very selection (see `upper_bound`); with quotas it
    compares with the best without them.
    Ties go to the lowest index. Examples without tokens gain 0 and are picked last, under a token budget never.
    Time O(evaluations * T d^2 + picks * T d^2); memory O(d^2 + N d + a batch), wherever the features are: in memory, on the
    device, or mapped from a disk (`TokenFeatures.load`). Source: paper, algorithms 1 and 2; token budgets, gain per token,
    weighting, screening and certificate are extensions.
    Raises `ValueError` for features that are none, a budget that is missing, doubled, no number, not positive or larger than
    the pool, for quotas of groups that are not there or that the pool or the budget cannot fill, for features or a prior
    that are not finite, for too little memory, for an unknown option or device, for a file of features that was cut, and for
    a checkpoint of another selection; `OSError` for a checkpoint that cannot be written.
    """
    began = time.perf_counter()
    features.check_whole()
    costs = costs_of(features, costs)
    if isinstance(prior, np.ndarray):
        prior = numbers(prior, "prior")
    elif isinstance(prior, Tensor) and prior.layout != torch.strided:
        prior = prior.to_dense()
    check_options(features, costs, examples, tokens, rule, weighting, dtype, start, stop, batch_size, stochastic, memory)
    seen, start = (start, None) if isinstance(start, TokenFeatures) else (None, start)
    room = None if memory is None else int(memory * 1e9)
    budget = Budget(costs, examples, tokens)
    bounds = quotas_of(groups, quotas, budget.price, budget.amount, budget.unit)
    of_group = None if bounds is None else bounds.group
    settings = {
        "method": "FisherSFT" if weighting == "none" else "FisherSFT, trace-weighted",
        "budget": budget.asked,
        "rule": rule,
        "weighting": weighting,
        "prior": float(prior) if np.ndim(prior) == 0 else f"matrix {digest(prior)}",
        **({"stochastic": stochastic, "seed": seed} if stochastic is not None else {}),
        **({} if seen is None else {"seen": {"examples": len(seen), "tokens": len(seen.values), "pool": of_pool(seen)}}),
        **({} if stop is None else {"stop": float(stop)}),
        **({"groups": bounds.rows(), "groups_of": digest(bounds.group)} if bounds is not None else {}),
        "features": features.info,
    }
    if seen is not None:
        prior = with_seen(seen, prior, weighting)

    def run(by: str, file: Checkpoint, first: Sequence[int]) -> Run:
        """All picks by one rule, after those of the file, or else after these."""
        divisor = np.where(costs > 0, costs, 1.0) if by == "gain_per_token" else np.ones(len(features))
        budget = Budget(costs, examples, tokens, bounds)
        engine: Engine
        if stochastic is None and OneToken.fits(features, device, dtype, room):
            engine = OneToken(features, prior, weighting, divisor, budget.price, of_group)
        elif stochastic is None and batch_size is None and SmallPool.fits(features, device, dtype, room):
            engine = SmallPool(Information(features, prior, weighting, device), divisor, budget.price, of_group)
        else:
            sampled = None if stochastic is None else math.ceil(len(features) / budget.amount * math.log(1 / stochastic))
            information = Information(features, prior, weighting, device, room)
            screen = screen_of(information, dtype)
            engine = Race(information, screen, divisor, budget.price, batch_size, sampled, seed, of_group)
        saved = file.load()
        made = Run(features, engine, budget, costs, file.settings, saved, began)
        with interruptible(lambda: file.kept(made.picks)):
            made.begin(first if saved is None else saved.indices.tolist())
            if saved is not None:
                file.check(saved, made.gains, costs[made.picks])
            made.to_the_end(file, progress)
            file.save(made.selection())  # the certificate is another pass over the pool
        return made

    file, first = Checkpoint(checkpoint, settings, features, costs, start), [] if start is None else start.indices.tolist()
    if bounds is not None and first:
        spent = bounds.spent(budget.price, first)
        bounds.check_start(spent, budget.left - spent.sum())
    parts: list[Checkpoint] = []

    def better_and_exchanged() -> tuple[list[int], int]:
        """The better of both rules after exchanges, and the evaluations that it took. No engine outlives its part of it."""
        both = [run(part.settings["rule"], part, first).selection() for part in parts]
        gain, per_token = (selection.objective for selection in both)
        picks = both[per_token > gain * (1 + TIE)].indices.tolist()
        budget, exact = Budget(costs, examples, tokens, bounds), Information(features, prior, weighting, device, room)
        for i in picks:
            budget.take(i)
            exact.add(i)
        picks = improve(exact, picks, len(first), budget)
        return picks, exact.evaluations + sum(selection.evaluations for selection in both)

    evaluated = 0
    if rule == "best" and not file.exists():
        for by in ("gain", "gain_per_token"):
            parts.append(Checkpoint(file.beside(by), settings | {"rule": by}, features, costs, start))
        first, evaluated = better_and_exchanged()
    made = run("gain" if rule == "best" else rule, file, first)
    made.evaluations += evaluated
    selection = made.selection(certified=True)
    file.save(selection)
    for part in parts:
        part.remove()
    return selection
