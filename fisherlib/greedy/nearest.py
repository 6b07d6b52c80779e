"""Which pick an example is most like, and how much like it. (Extension.)"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fisherlib.greedy.blocks import pad
from fisherlib.greedy.information import Information

_COSINES = 2**22  # that are held at a time


class Nearest:
    """The directions of the picks: each one's mean token vector, centred on the mean of the pool's, at length 1."""

    def __init__(self, information: Information, picks: Int[np.ndarray, " n"]):
        """Two passes over the pool at most, O(M d); holds O(n d)."""
        self.information, self.picks = information, picks
        lengths = information.blocks.lengths
        self.silent = torch.from_numpy(lengths[picks] == 0).to(information.device)  # without tokens: like nobody
        total, everyone = torch.zeros(information.features.dim, dtype=torch.float64, device=information.device), 0
        for part, means in _means(information, np.flatnonzero(lengths > 0)):
            total += means.sum(0)
            everyone += len(part)
        self.centre = total / max(everyone, 1)
        self.of_picks = torch.zeros(len(picks), len(self.centre) + 1, dtype=torch.float64, device=information.device)
        for part, means in _means(information, picks):
            self.of_picks[torch.from_numpy(part).to(information.device)] = self._directions(means)

    def _directions(self, means: Float[Tensor, "b d"]) -> Float[Tensor, "b d_plus_1"]:
        """One more coordinate for those that are the centre itself, which are like each other and like nobody else."""
        centred = means - self.centre
        sizes = centred.norm(dim=1, keepdim=True)
        none = sizes <= 1e-6 * means.norm(dim=1, keepdim=True).clamp(min=1e-300)
        return torch.cat([torch.where(none, 0.0, centred / sizes.clamp(min=1e-300)), none.double()], dim=1)

    def among_earlier(self) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """For each pick the number of the nearest earlier one, -1 for the first, and the cosine. O(n^2 d)."""
        n = len(self.picks)
        which, cosine, step = np.full(n, -1), np.zeros(n), max(_COSINES // max(n, 1), 1)
        for begin in range(0, n, step):
            found = self.of_picks[begin : begin + step] @ self.of_picks.T
            later = (
                torch.arange(n, device=found.device) >= torch.arange(begin, begin + len(found), device=found.device)[:, None]
            )
            best = found.masked_fill(later | self.silent, -2.0).max(dim=1)
            which[begin : begin + step] = best.indices.cpu().numpy()
            cosine[begin : begin + step] = best.values.cpu().numpy()
        return _or_none(which, cosine)

    def among_all(self, examples: Int[np.ndarray, " r"]) -> tuple[Int[np.ndarray, " r"], Float[np.ndarray, " r"]]:
        """For each of these examples the number of the nearest pick, -1 if none has tokens, and the cosine. O(r n d)."""
        which, cosine = np.zeros(len(examples), dtype=np.int64), np.zeros(len(examples))
        step = max(_COSINES // len(self.picks), 1)
        for part, means in _means(self.information, examples):
            for some, directions in zip(np.split(part, range(step, len(part), step)), means.split(step), strict=True):
                best = (self._directions(directions) @ self.of_picks.T).masked_fill(self.silent, -2.0).max(dim=1)
                which[some], cosine[some] = best.indices.cpu().numpy(), best.values.cpu().numpy()
        return _or_none(which, cosine)


def _or_none(which: np.ndarray, cosine: np.ndarray) -> tuple[Int[np.ndarray, " r"], Float[np.ndarray, " r"]]:
    """-1 for those that were told of nobody, for which the cosine stands at -2."""
    none = cosine < -1.5
    return np.where(none, -1, which), np.where(none, 0.0, cosine.clip(-1, 1))


def _means(information: Information, examples: np.ndarray) -> Iterator[tuple[np.ndarray, Float[Tensor, "b d"]]]:
    """Positions in `examples`, a part at a time, and the mean token vector of each, 0 without tokens."""
    for part in information.blocks.parts(examples):
        X, place = information.blocks.flat(examples[part], torch.float64)
        lengths = torch.from_numpy(information.blocks.lengths[examples[part]]).to(X.device)
        yield part, pad(X, place).sum(1) / lengths.clamp(min=1)[:, None]


def likeness(
    information: Information,
    gains: Float[np.ndarray, " N"],
    examples: Int[np.ndarray, " r"],
    others: Int[np.ndarray, " r"],
) -> Float[np.ndarray, " r"]:
    """How much of what a copy of each example would take from its gain, the other one takes: 1 for a copy, NaN unknown.

    With I(i; j) = gain_i + gain_j - gain_ij, all under the information matrix as it is: I(i; j) / I(i; i). `gains` [N]: of
    all examples. Unknown where they are so small that their difference has lost its digits. O(T d^2 + T^3) each, in parts
    of bounded memory.
    """
    found = np.full(len(examples), np.nan)
    for part in _pairs(information, examples, others):
        A, B = (information.blocks.padded(some[part], torch.float64) @ information.root for some in (examples, others))
        both, twice = (_log_det(W).cpu().numpy() for W in (torch.cat([A, B], dim=1), 2**0.5 * A))
        one, other = gains[examples[part]], gains[others[part]]
        own = 2 * one - twice
        known = own > 1e-9 * one.clip(min=1e-3)
        found[part[known]] = ((one + other - both) / np.where(known, own, 1.0))[known]
    return found


def _pairs(information: Information, examples: np.ndarray, others: np.ndarray) -> Iterator[np.ndarray]:
    """Positions of pairs of similar length, as many at a time as the memory holds."""
    lengths = information.blocks.lengths
    width, room = lengths[examples] + lengths[others] + 16, information.blocks.plan.part_numbers // information.features.dim
    order = np.argsort(width, kind="stable")
    begin = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - begin) * 2 * width[order[end]] > room:
            yield order[begin:end]
            begin = end


def _log_det(W: Float[Tensor, "b t d"]) -> Float[Tensor, " b"]:
    """log det(I + W W^T) of each."""
    G = W @ W.mT if W.shape[1] <= W.shape[2] else W.mT @ W
    return torch.linalg.slogdet(G + torch.eye(G.shape[1], dtype=G.dtype, device=G.device))[1]
