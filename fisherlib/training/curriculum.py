"""Which cluster the next training step learns from: a bandit that goes where the model fails (SPaRFT, Do et al. 2025).

>>> from transformers import LlamaConfig, LlamaForCausalLM
>>> from fisherlib.training import ClusterOrder
>>> model = LlamaForCausalLM(LlamaConfig(vocab_size=99, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
>>> order = ClusterOrder(np.array([0, 0, 1]), examples_per_step=2)  # the cluster of each row
>>> tuned = fl.fine_tune(model, None, [[3, 1, 4], [1, 5, 9], [2, 6, 5]], order=order, steps_per_epoch=5)
>>> int(order.curriculum.counts.sum())  # steps, by cluster
5
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int


class ThompsonCurriculum:
    """Gaussian Thompson sampling of the arm with the lowest mean reward, the hardest one.

    `next` draws mu_k ~ N(-mean_k, scale^2 / (n_k + 1)) for each arm k and returns the argmax; `update` counts a reward.
    An arm that was never tried has mean 0: with rewards from 0 to 1 it counts as the hardest. `scale`, by default the
    largest standard deviation that such a reward can have, is our choice. For rewards whose means stay as they are, the
    share of the hardest arm tends to 1. That is the trap too: an arm that nothing can be learned from has reward 0 for ever,
    and once the others have more, it is chosen for ever. Source: Do et al., arXiv 2508.05015; the variance is as we
    remember it. Raises `ValueError` for less than one arm, or a scale that is not positive.
    """

    def __init__(self, arms: int, *, scale: float | int = 0.5, seed: int = 0):
        if arms < 1:
            raise ValueError(f"expected at least one arm, got {arms}")
        if not 0 < scale < np.inf:
            raise ValueError(f"expected a positive scale, got {scale}")
        self.scale = scale
        self.counts = np.zeros(arms, dtype=np.int64)
        self.means = np.zeros(arms)
        self.chosen: list[int] = []
        self.rewards: list[float] = []
        self._rng = np.random.default_rng(seed)

    def next(self) -> int:
        """The arm to try now. Changes nothing but the state of the random numbers."""
        return int(self._rng.normal(-self.means, self.scale / np.sqrt(self.counts + 1)).argmax())

    def update(self, arm: int, reward: float | int) -> None:
        """Count what an arm has brought. Raises `ValueError` for an arm that does not exist, or a reward outside [0, 1]."""
        if not 0 <= arm < len(self.counts):
            raise ValueError(f"expected an arm from 0 to {len(self.counts) - 1}, got {arm}")
        if not 0 <= reward <= 1:
            raise ValueError(f"expected a reward from 0 to 1, got {reward}: scale it")
        self.counts[arm] += 1
        self.means[arm] += (reward - self.means[arm]) / self.counts[arm]
        self.chosen.append(arm)
        self.rewards.append(float(reward))


class ClusterOrder:
    """An order of the data for `fl.fine_tune(order=)`: each step is a batch of the cluster that a curriculum chooses.

    `labels` [N]: the cluster of each row, below 0 for rows to leave out (`selectors.sparft_clusters(features)` of the
    picks); `clusters` are those that occur, in the order of the arms. A cluster's rows come in a random order, again and
    again. The reward of a step is measured before it, in the same forward pass: the mean over its rows of the share of
    response tokens that the model finds likeliest; with `solved`, the share of rows whose token accuracy is above that.
    Source: extension; the paper trains by GRPO with the rate of solved problems as the reward.
    Raises `ValueError` if no row has a cluster, or for less than one example per step.
    """

    def __init__(
        self,
        labels: Sequence[int] | Int[np.ndarray, " N"],
        *,
        examples_per_step: int = 8,
        solved: float | int | None = None,
        scale: float | int = 0.5,
        seed: int = 0,
    ):
        labels = np.asarray(labels)
        self.clusters = np.unique(labels[labels >= 0])
        if not len(self.clusters):
            raise ValueError(f"expected a cluster of at least 0 for some row, got none in {len(labels)} rows")
        if examples_per_step < 1:
            raise ValueError(f"expected at least one example per step, got {examples_per_step}")
        self.curriculum = ThompsonCurriculum(len(self.clusters), scale=scale, seed=seed)
        self.examples_per_step, self.solved = examples_per_step, solved
        self._rng = np.random.default_rng([seed, 1])
        self._members = [np.flatnonzero(labels == cluster) for cluster in self.clusters]
        self._waiting: list[list[int]] = [[] for _ in self.clusters]
        self._arm: int | None = None

    def next(self) -> list[int]:
        """The rows of the next step: `examples_per_step` different ones, or the whole cluster if it has fewer."""
        self._arm = self.curriculum.next()
        members, waiting = self._members[self._arm], self._waiting[self._arm]
        rows: list[int] = []
        while len(rows) < min(self.examples_per_step, len(members)):
            if not waiting:  # a new round, in which those that are in this batch come last
                waiting += sorted(self._rng.permutation(members).tolist(), key=lambda i: i not in rows)
            rows.append(waiting.pop())
        return rows

    def update(self, accuracy: Float[np.ndarray, " b"]) -> None:
        """Reward the cluster of the last step by the token accuracy of each of its rows."""
        if self._arm is None:
            raise ValueError("expected a step before its reward: call next first")
        good = accuracy if self.solved is None else accuracy > self.solved
        self.curriculum.update(self._arm, float(np.mean(good)))
        self._arm = None  # one reward a step
