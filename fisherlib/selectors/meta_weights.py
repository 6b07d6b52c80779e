"""Weights from one look ahead: which examples, trained on a little more, would lower the loss on a target (Ren et al. 2018).

LLMaAA weights its annotated examples so (Zhang et al., arXiv 2310.19596). Here for the output head alone, on frozen
features: there the look ahead is an inner product, exact, and no gradient of an example is ever formed.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fisherlib._door import checked
from fisherlib.features import Matrix, TokenFeatures, check_head, logits_in_blocks


@checked
def meta_weights(
    features: TokenFeatures, target: TokenFeatures | None, head: Matrix, *, loss: str = "sum"
) -> Float[np.ndarray, " N"]:
    """relu of `meta_gradients`, divided by its sum: weights [N] for `fl.fine_tune(weights=)`; all 0 if none is positive.

    Example i weighs as much as the target's loss would fall per unit of it, and nothing if it would rise. With
    `loss="mean"` divide by `features.lengths` (where above 0) before fine-tuning, whose weights multiply each token's loss.
    The paper looks ahead anew at every step, on a batch and with all parameters: these are the weights at the model that
    the features are of. Take the features of what was selected: `features.subset(selection.indices)`.
    """
    useful = np.maximum(meta_gradients(features, target, head, loss=loss), 0)
    return useful / useful.sum() if useful.any() else useful


@checked
def meta_gradients(
    features: TokenFeatures, target: TokenFeatures | None, head: Matrix, *, loss: str = "sum"
) -> Float[np.ndarray, " N"]:
    """<g_target, g_i> [N]: with Theta' = Theta - lr sum_i eps_i g_i, it is -(1/lr) d L_target(Theta') / d eps_i at eps = 0.

    g_i = sum_t (p_t - e_yt) x_t^T is the gradient of example i's loss in the head Theta [V, d] (`head_matrix(model)`), and
    g_target that of the mean loss over all tokens of `target`, features of held-out examples from the same model. `loss` of
    an example: the "sum" over its tokens, as in `fl.fine_tune` (our choice), or the "mean", as in the authors' code. Only
    g_target is formed; an example then costs sum_t (p_t - e_yt)^T g_target x_t. 0 for an example without tokens.

    Exact for a step of SGD, and not for one of Adam, which the authors take as this inner step. A first step of Adam, with
    empty moments, does have the derivative above at eps = 0, times a constant; but it holds only while sum_i eps_i g_i is
    small against Adam's 1e-8, and beyond that each parameter moves by the sign of its gradient. With moments of earlier
    steps each parameter is divided by a scale of its own, and the examples may change their order.

    O(M V d) time for M tokens, O(V d) memory; float32, or float64 where the features are.
    Source: Ren et al., arXiv 1803.09050, as used by Zhang et al., arXiv 2310.19596; the closed form for a head is ours.
    Raises `ValueError` without a target with tokens, without labels, or for a head that does not fit.
    """
    if loss not in ("sum", "mean"):
        raise ValueError(f"expected loss to be one of ('sum', 'mean'), got {loss!r}")
    if target is None or not len(target.values):
        raise ValueError(
            f"expected a target, features of held-out examples with tokens, got {target}: extract them with the same model"
        )
    theta = check_head(features, head)
    aim = torch.zeros_like(theta)
    for errors, X, _ in _errors(target, theta):
        aim += errors.T @ X
    aim /= len(target.values)
    found = torch.empty(len(features.values), dtype=torch.float64)
    for errors, X, tokens in _errors(features, theta):
        found[tokens] = (errors * (X @ aim.T)).sum(1).double()
    return features.sum(found) if loss == "sum" else features.mean(found)


def _errors(features: TokenFeatures, theta: Float[Tensor, "V d"]):
    """Yield `(p - e_y, X, tokens)` of a block of tokens."""
    labels = features.labels
    if labels is None or features.dim != theta.shape[1] or bool((labels < 0).any() or (labels >= len(theta)).any()):
        raise ValueError(
            f"expected features of width {theta.shape[1]} with labels below {len(theta):,}, the rows of the head, "
            f"got {features}{'' if labels is not None else ' without labels'}: extract them with the head's own model"
        )
    for tokens, X, logits in logits_in_blocks(features, theta):
        errors = logits.softmax(1)
        errors[torch.arange(len(X)), labels[tokens].long()] -= 1
        yield errors, X, tokens
