"""The output head on frozen features: a matrix, and the logits of all tokens a block at a time."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fisherlib.features.token_features import TokenFeatures

Matrix = Float[Tensor, "V d"] | Float[np.ndarray, "V d"]
_LOGITS_AT_ONCE = 2**24  # 64 MB in float32


def check_head(features: TokenFeatures, head: Matrix | None) -> Float[Tensor, "V d"]:
    """The head where the features are, in the precision to compute in: float64 if they are in it, else float32.

    It is a number and not a parameter: `model.lm_head.weight` will do, and no gradient is kept of what is computed.
    Raises `ValueError` for no matrix, one of another width than the features, or values that are not finite.
    """
    if head is None:
        raise ValueError("expected the output head, a matrix [V, d], got None: give head=head_matrix(model)")
    theta = torch.as_tensor(head).detach().to(features.values.device)
    if theta.ndim != 2 or theta.shape[1] != features.dim:
        raise ValueError(f"expected a head [V, {features.dim}] for features of that width, got {list(theta.shape)}")
    if not torch.isfinite(theta).all():
        raise ValueError("expected a finite head, got NaN or infinity: choose a model that has not diverged")
    return theta.to(torch.float64 if features.values.dtype == torch.float64 else torch.float32)


def logits_in_blocks(
    features: TokenFeatures, head: Float[Tensor, "V d"]
) -> Iterator[tuple[slice, Float[Tensor, "m d"], Float[Tensor, "m V"]]]:
    """Yield `(tokens, X, logits)` until all tokens were seen: O(V) memory for each of a bounded number of tokens.

    Raises `ValueError` for features that are not finite.
    """
    features.check_whole()
    step = max(_LOGITS_AT_ONCE // len(head), 1)
    for begin in range(0, len(features.values), step):
        tokens = slice(begin, min(begin + step, len(features.values)))
        X = features.values[tokens].to(head.dtype)
        if not torch.isfinite(X).all():
            raise ValueError("expected finite features, got NaN or infinity: extract the features again")
        yield tokens, X, X @ head.T
        features.release()
