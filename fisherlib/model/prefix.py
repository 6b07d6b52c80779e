"""Rows that begin alike, as all after the same demonstrations do: their common beginning is computed once."""

import copy
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fisherlib._types import Model
from fisherlib.model.forward import at_responses, batches
from fisherlib.model.head import mixes
from fisherlib.text import Encoded

_WORTH = 16  # tokens: a shorter beginning is not worth a pass of its own


def common_beginning(encoded: Sequence[Encoded]) -> int:
    """How many tokens all rows begin with, at least two of each left over and no response token among them."""
    common = min(len(one.input_ids) for one in encoded) - 2
    first = encoded[0].input_ids
    for one in encoded:
        if True in one.is_response:
            common = min(common, one.is_response.index(True) - 1)
        common = next((k for k in range(max(common, 0)) if one.input_ids[k] != first[k]), common)
    return max(common, 0)


def after_beginning(
    model: Model, encoded: Sequence[Encoded], *, tokens_per_batch: int, precision: str
) -> Iterator[tuple[list[int], Float[Tensor, "m V"], Int[Tensor, " m"]]]:
    """`(indices, logits, labels)` at the response tokens of each batch of rows, as `at_responses` has them.

    Their common beginning runs through the model once, and its keys and values serve all batches; without one that is worth
    it, or with a cache of another kind than transformers' dynamic one, each row runs as a whole. The logits are the same up
    to rounding. Cost: one pass over the beginning and one over all that follows it.
    """
    from transformers import DynamicCache

    common = common_beginning(encoded) if len(encoded) > 1 else 0
    past = _past(model, encoded[0].input_ids[:common], precision) if common >= _WORTH else None
    if type(past) is not DynamicCache:
        past, common = None, 0
    rest = [Encoded(one.input_ids[common:], one.is_response[common:]) for one in encoded]
    for indices, batch in batches(rest, tokens_per_batch, "right", model.device):
        if past is not None:
            before = batch["attention_mask"].new_ones(len(indices), common)
            cache = copy.deepcopy(past)
            cache.batch_repeat_interleave(len(indices))
            batch["attention_mask"] = torch.cat([before, batch["attention_mask"]], dim=1)
            batch["position_ids"] = batch["position_ids"] + common
            batch["past_key_values"] = cache
        logits, labels = at_responses(model, batch, precision, compute_logits=True)
        yield indices, logits.float(), labels


def _past(model: Model, ids: Sequence[int], precision: str):
    """The keys and values of one text; its head is not run."""
    with torch.autocast(model.device.type, torch.bfloat16, enabled=mixes(model, precision)):
        body = getattr(model, model.base_model_prefix)
        return body(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=True).past_key_values
