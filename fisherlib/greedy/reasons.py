"""Why each example was chosen, and why each of the others was not. (Extension.)"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fisherlib._door import checked
from fisherlib.features import TokenFeatures
from fisherlib.greedy.checks import check_weighting, costs_of
from fisherlib.greedy.groups import Labels, plain_labels
from fisherlib.greedy.information import TIE, Information
from fisherlib.greedy.nearest import Nearest, likeness
from fisherlib.greedy.selection import Selection

CODES = {  # of rejected examples, in the order in which they are looked for
    "no_tokens": "it has no response tokens",
    "duplicate": "a pick is nearly the same",
    "stopped": "it would have been next, or later: the selection stopped before",
    "below": "it gains no more than the last pick did",
    "quota": "its group was full, or the rest was reserved for the floors of others",
    "too_long": "it is too long for what was left of the budget",
    "passed_over": "it would gain more than the last pick did: it was left to chance, to an exchange or to another method",
}
_COPY, _COSINE = 0.9, 0.95  # from where on, in both, an example is a duplicate of a pick
_CLOSE = 0.8  # the cosine from where on it is worth a look how much of a copy a rejected example is


@dataclass(frozen=True, eq=False)
class Reasons:
    """`chosen` [n], in the order of the picks, and `rejected` [N - n], in the order of the pool: dicts for JSON."""

    chosen: list[dict[str, Any]]
    rejected: list[dict[str, Any]]

    def __repr__(self) -> str:
        counted = {code: sum(row["reason"] == code for row in self.rejected) for code in CODES}
        said = ", ".join(f"{count:,} {code}" for code, count in counted.items() if count)
        return f"{len(self.chosen):,} chosen; {len(self.rejected):,} rejected" + (f": {said}" if said else "")


@checked
def explain(
    features: TokenFeatures,
    selection: Selection,
    *,
    costs: Sequence[float] | Float[np.ndarray, " N"] | None = None,
    prior: float | int | Float[Tensor, "d d"] | Float[np.ndarray, "d d"] | None = None,
    weighting: str | None = None,
    groups: Labels | None = None,
    device: str | torch.device = "auto",
    memory: float | int | None = None,
) -> Reasons:
    """Why each example was chosen, and why each of the others was not.

    >>> features = fl.TokenFeatures.from_list([np.array(x) for x in ([[3.0, 0], [0, 1]], [[3.0, 0], [0, 1]], [[0, 2.0]])])
    >>> reasons = fl.explain(features, fl.select(features, examples=2))
    >>> [(row["pick"], row["index"], round(row["gain"], 2)) for row in reasons.chosen]
    [(1, 0, 3.0), (2, 2, 1.1)]
    >>> [round(x, 2) for x in reasons.chosen[0]["tokens"]]  # of the 3 nats, the first token brought log(1 + 3^2)
    [2.3, 0.69]
    >>> [(row["index"], row["reason"], row["nearest"]) for row in reasons.rejected]
    [(1, 'duplicate', 0)]

    Every row has its `index`, its `first_gain` (what it would have added first of all) and its `rank` by that (1: the
    largest). It names the pick that it is most like, of those before it: `nearest`, its index; `nearest_pick`, its place
    (from 1; None where there is none); `cosine` of their mean token vectors, centred on the pool's; and `copy`, how much of
    what a copy of the example would take from its gain that pick takes (1 for a copy; None where gains are too small, and
    for rejected ones of a cosine below 0.8).

    A chosen one has its place, `pick`; its `gain`, and `gain_per_token`, at its turn; `taken`, the share of its first gain
    that earlier picks took; and `tokens`: what each of its tokens added, given those before it. They sum to the gain.
    A rejected one has `gain`, what it would add now, and a `reason`, the first of `fisherlib.greedy.CODES` that holds:
    no_tokens; duplicate (copy of at least 0.9 and cosine of at least 0.95); stopped (it fits, but `stop` ended the
    selection); below (its score, the gain or the gain per token as the rule has it, is no higher than that of any pick at
    its turn); quota; too_long; passed_over (by chance, by an exchange, or by another method than `select`). With "best"
    scores are per token.

    `prior` and `weighting` are those of the selection's settings, or 1 and "none"; a matrix has to be given again, and after
    `start=features` that of `with_seen`. `groups` and `costs`: as `select` got them.
    Four passes over the pool, O(M d^2), O(N n d) for the cosines and O(n T d^2) for the picks; memory as `select`, and the
    rows. Raises `ValueError` for a selection from another pool, or whose picks gain something else under this prior and
    weighting, and for groups or costs that are missing.
    """
    features.check_whole()
    picks = selection.indices.astype(np.int64)
    paid, labels = _paid_by(features, selection, costs, groups)
    prior, weighting = _prior_of(selection, prior), weighting or selection.settings.get("weighting", "none")
    check_weighting(features, weighting)
    state = Information(features, prior, weighting, device, None if memory is None else int(memory * 1e9))
    everyone, lengths = np.arange(len(features)), features.lengths.numpy()
    first = state.exact(everyone)
    rank = np.empty(len(features), dtype=np.int64)
    rank[np.argsort(-first, kind="stable")] = everyone + 1
    rest = np.setdiff1d(everyone, picks)
    nearest = Nearest(state, picks)
    of_picks, of_rest = nearest.among_earlier(), nearest.among_all(rest)
    copies = np.full(len(features), np.nan)
    later, some = (of_picks[0] >= 0) & (lengths[picks] > 0), (of_rest[1] >= _CLOSE) & (lengths[rest] > 0)
    copies[picks[later]] = likeness(state, first, picks[later], picks[of_picks[0][later]])
    copies[rest[some]] = likeness(state, first, rest[some], picks[of_rest[0][some]])

    def common(i: int, place: int, cosine: float) -> dict[str, Any]:
        known = place >= 0 and lengths[i] > 0
        return {
            "index": i,
            "first_gain": float(first[i]),
            "rank": int(rank[i]),
            "nearest": int(picks[place]) if known else None,
            "nearest_pick": place + 1 if known else None,
            "cosine": cosine if known else None,
            "copy": float(copies[i]) if known and np.isfinite(copies[i]) else None,
            **({} if labels is None else {"group": labels[i]}),
        }

    chosen = []
    for k, i in enumerate(picks.tolist()):
        gain, shares = float(state.exact([i])[0]), _of_tokens(state, i)
        chosen.append(
            {
                "pick": k + 1,
                **common(i, int(of_picks[0][k]), float(of_picks[1][k])),
                "gain": gain,
                "gain_per_token": gain / max(int(lengths[i]), 1),
                "taken": 1 - gain / float(first[i]) if first[i] > 0 else 0.0,
                "tokens": shares,
            }
        )
        state.add(i)
    gains = np.array([row["gain"] for row in chosen])
    if not np.allclose(gains, selection.gains, rtol=1e-6, atol=1e-9):
        raise ValueError(
            "expected the features, prior and weighting that the picks gained by, got others: give prior= and weighting=, "
            "or make it theirs with fl.certify"
        )
    remaining = state.exact(rest)
    codes = _codes(selection, paid, labels, rest, remaining, lengths, copies[rest], of_rest[1])
    rejected = [
        {**common(i, place, cosine), "gain": gain, "reason": code}
        for i, place, cosine, gain, code in zip(*(x.tolist() for x in (rest, *of_rest, remaining)), codes, strict=True)
    ]
    return Reasons(chosen, rejected)


def _prior_of(selection: Selection, given):
    """The prior that is given, or else that of the selection's settings."""
    said = selection.settings.get("prior", 1.0)
    if given is None and ("seen" in selection.settings or not isinstance(said, float | int)):
        raise ValueError("expected the prior of the selection, a matrix, got none: give prior= (after a start: with_seen)")
    return said if given is None else given


def _paid_by(features: TokenFeatures, selection: Selection, costs, groups) -> tuple[np.ndarray, list | None]:
    """The costs [N] and the labels of all examples. Raises `ValueError` if they cannot be the selection's."""
    if selection.pool_size != len(features) or not len(selection):
        raise ValueError(
            f"expected a selection from this pool of {len(features):,}, got {len(selection)} picks from "
            f"{selection.pool_size:,}"
        )
    paid = costs_of(features, costs)
    if not np.allclose(paid[selection.indices], selection.costs):
        raise ValueError("expected the costs that the picks were paid with, got others: give costs=, those of all examples")
    bound = any(row["low"] > 0 or row["high"] is not None for row in selection.settings.get("groups", ()))
    if groups is None and bound:
        raise ValueError("expected the groups that the quotas of this selection are of, got none: give groups=")
    labels = None if groups is None else plain_labels(groups, len(features))
    if labels and selection.groups and [labels[i] for i in selection.indices] != list(selection.groups):
        raise ValueError("expected the groups that the selection was made with, got others: give groups= as then")
    return paid, labels


def _of_tokens(state: Information, i: int) -> list[float]:
    """What each token of an example adds, given the picks and the tokens before it: log C_tt^2 with I + W W^T = C C^T."""
    W = state.blocks.padded([i], torch.float64)[0][: state.blocks.lengths[i]] @ state.root
    C = torch.linalg.cholesky(W @ W.T + torch.eye(len(W), dtype=W.dtype, device=W.device))
    return (2 * C.diagonal().log()).clamp(min=0).tolist()


def _codes(
    selection: Selection,
    paid: np.ndarray,
    labels: list | None,
    rest: np.ndarray,
    remaining: np.ndarray,
    lengths: np.ndarray,
    copies: np.ndarray,
    cosines: np.ndarray,
) -> list[str]:
    """The first reason that holds for each of the rest."""
    picks, settings = selection.indices, selection.settings
    asked = settings.get("budget", {"examples": len(picks)})
    by_tokens, per_token = "tokens" in asked, settings.get("rule") in ("gain_per_token", "best")
    price = paid if by_tokens else np.ones(len(paid))
    amount = float(asked["tokens"] if by_tokens else asked.get("examples", len(picks)))
    left = amount * (1 + TIE) - price[picks].sum()
    divisor = np.where(paid > 0, paid, 1.0) if per_token else np.ones(len(paid))
    low = float((selection.gains / divisor[picks]).min()) * (1 + TIE)
    room, floors = np.full(len(paid), np.inf), False
    if labels is not None:
        for row in settings.get("groups", ()):
            mine = np.array([label == row["group"] for label in labels])
            most = np.inf if row["high"] is None else row["high"]
            room[mine] = most + TIE * amount - price[picks[mine[picks]]].sum()
            floors = floors or row["low"] > 0
    below, fits, full = remaining / divisor[rest] <= low, price[rest] <= left, price[rest] > room[rest]
    held = {  # who else may be out, and why
        "no_tokens": lengths[rest] == 0,
        "duplicate": (np.nan_to_num(copies) >= _COPY) & (cosines >= _COSINE),
        "stopped": fits & ~full & (selection.stopped is not None),
        "below": below,
        "quota": full | (floors & fits),
        "too_long": ~fits & by_tokens & ("rule" in settings),
    }
    which = np.select(list(held.values()), np.arange(len(held)), default=len(held))
    return [list(CODES)[k] for k in which]
