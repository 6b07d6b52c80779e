"""One model out of several that began as one: the weighted mean of their weights (Nazarov et al. 2025)."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from fisherlib._door import checked, numbers
from fisherlib._types import Model


@checked
def merge(models: Sequence[Model], weights: Sequence[float | int] | Float[np.ndarray, " K"] | None = None) -> Model:
    """A new model whose weights are sum_k w_k theta_k; the models that are passed in stay as they were.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> config = LlamaConfig(vocab_size=99, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    >>> one, two = LlamaForCausalLM(config), LlamaForCausalLM(config)
    >>> theta = fl.merge([one, two]).lm_head.weight
    >>> torch.allclose(theta, (one.lm_head.weight + two.lm_head.weight) / 2)
    True

    `weights` are divided by their sum; None takes all alike. Computed in float64 as theta_1 + sum_k w_k (theta_k - theta_1),
    so equal models merge to themselves to the last bit. Merging is meant for copies of one model that were tuned apart. If
    only a linear head was tuned, the merged logits are the mean of the logits; for whole networks nothing is promised.
    Low-rank updates must be merged into the weights first, as `fl.fine_tune(lora_rank=)` does: the mean of products is not
    the product of means. Source: arXiv 2503.01464; how it chooses the w_k we do not know. Cost: one pass over all weights.
    Raises `ValueError` for no model, for weights that are not one number of at least 0 for each, with one
    above 0, for models of different shapes, and for models with updates that are not merged yet.
    """
    models = list(models)
    if not models:
        raise ValueError("expected at least one model to merge, got none")
    shares = np.ones(len(models)) if weights is None else numbers(weights, "weights")
    if shares.shape != (len(models),) or not np.isfinite(shares).all() or (shares < 0).any() or not shares.sum() > 0:
        raise ValueError(
            f"expected a finite weight of at least 0 for each of {len(models)} models, one above 0, got {shares.tolist()}"
        )
    shares = shares / shares.sum()
    states = [model.state_dict() for model in models]
    for number, state in enumerate(states):
        if apart := next((name for name in state if "lora_" in name), None):
            raise ValueError(
                f"model {number}: expected whole weights, got a low-rank update, {apart}: "
                "merge it into the weights before (merge_and_unload)"
            )
        if {name: w.shape for name, w in state.items()} != {name: w.shape for name, w in states[0].items()}:
            raise ValueError(f"model {number}: expected the weights of model 0, got others: merge copies of one model")
    merged = copy.deepcopy(models[0])
    with torch.no_grad():
        for name, weight in merged.state_dict().items():  # shares memory with the model; of tied ones each name is the same
            if weight.is_floating_point():
                first = states[0][name].double()
                differences = (w * (state[name].to(first) - first) for w, state in zip(shares, states, strict=True))
                weight.copy_(first + sum(differences))
    return merged
