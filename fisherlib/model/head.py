"""The output head of a language model: a matrix Theta [V, d], and the logits as a product with it."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fisherlib._device import computes_bfloat16
from fisherlib._door import checked
from fisherlib._types import Model
from fisherlib.text import Encoded


def working_precision(precision: str, device: torch.device) -> str:
    """Which of "bfloat16" and "float32"; for "auto" the quicker one here. Raises `ValueError` for any other name."""
    if precision not in ("auto", "bfloat16", "float32"):
        raise ValueError(f"expected precision 'auto', 'bfloat16' or 'float32', got {precision!r}")
    if precision == "auto":
        return "bfloat16" if computes_bfloat16(device) else "float32"
    return precision


def mixes(weights: Model | Tensor, precision: str) -> bool:
    """Whether to compute in bfloat16 over float32 weights; weights of half precision are computed with as they are."""
    return working_precision(precision, weights.device) == "bfloat16" and weights.dtype == torch.float32


def output_head(model: Model) -> torch.nn.Linear:
    """The module that makes logits of hidden states. Raises `ValueError` if it is not linear."""
    head = model.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear):
        raise ValueError(f"expected a linear output head, got {type(head).__name__}: choose a causal language model")
    return head


def head_scale(model: Model, encoded: Sequence[Encoded]) -> float:
    """The factor between `head(x)` and the model's logits (1 for most models), checked on a real example.

    Raises `ValueError` if no factor fits: then the logits are not linear in `x`, and the theory does not apply. Also for
    logits that are NaN or infinite.
    """
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    if cap:
        raise ValueError(
            f"expected logits that are linear in the last hidden state, but {model.config.model_type} caps them at {cap}: "
            "its Fisher information has another form; choose a model without logit soft-capping"
        )
    head = output_head(model)
    shortest = min((e for e in encoded if any(e.is_response)), key=lambda e: len(e.input_ids))
    captured: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _head, inputs: captured.append(inputs[0]))
    try:
        with torch.inference_mode():
            ids = torch.tensor([shortest.input_ids], device=model.device)
            logits = model(input_ids=ids, use_cache=False).logits.cpu().double()  # on the CPU: MPS has no float64
            product = head(captured[0]).cpu().double()
    finally:
        hook.remove()
    if not torch.isfinite(logits).all():
        raise ValueError("expected finite logits, got NaN or infinity: the model has diverged, load another one")
    scale = float((logits * product).sum() / (product * product).sum())
    error = float((logits - scale * product).abs().max() / logits.abs().max())
    if not error < 2e-2:  # also catches NaN; bfloat16 weights round to 2^-8
        raise ValueError(
            f"expected logits = scale * head(x), but they differ by {error:.1%} for {model.config.model_type}: "
            "this architecture transforms its logits in a way that fisherlib cannot represent"
        )
    return 1.0 if abs(scale - 1) < 1e-3 else scale


@checked
def head_matrix(model: Model) -> Float[Tensor, "V d"]:
    """Theta: the logits at a token are Theta x, where x is its row of `fl.extract_features`. With a bias, [W, b].

    A copy of the weights as float32 on the CPU. Raises `ValueError` if the head is not linear.
    """
    head = output_head(model)
    parts = [head.weight] if head.bias is None else [head.weight, head.bias[:, None]]
    return torch.cat([part.detach().float().cpu() for part in parts], dim=1)
