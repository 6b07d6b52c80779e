"""What decides the features of a pool, as fingerprints: a folder of features remembers it."""

import hashlib
import itertools
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fisherlib._types import Model, Tokenizer
from fisherlib.model import flat
from fisherlib.text import Encoded


def source_of(model: Model, tokenizer: Tokenizer | None, encoded: Sequence[Encoded], precision: str) -> dict:
    """What decides the features, as a few fingerprints: enough to tell whether another call would give the same.

    Of the weights it takes about a thousand numbers spread over each tensor, bit by bit: cheap for any model, and no step
    of training leaves all of them as they were. Positions are no weights: they are in buffers that no file of weights
    holds, and in the configuration. Every token id and every response mask counts.
    """
    state, config = model.state_dict(), model.config.get_text_config().to_dict()
    buffers = {name: tensor for name, tensor in model.named_buffers() if name not in state}
    rope = json.dumps(
        {name: value for name, value in config.items() if name.startswith("rope")}, sort_keys=True, default=str
    )
    digest = hashlib.sha256()
    ids, is_response, lengths = flat(encoded)
    ids, lengths, ends = ids.astype("<i8", copy=False), lengths.astype("<i8", copy=False), [0, *lengths.cumsum().tolist()]
    for number, (start, stop) in enumerate(itertools.pairwise(ends)):
        for part in (lengths[number : number + 1], ids[start:stop], is_response[start:stop]):
            digest.update(part.tobytes())
    template = getattr(tokenizer, "chat_template", None)
    return {
        "model": model.config.name_or_path,
        "model_weights": _sampled(state),
        "model_positions": hashlib.sha256((_sampled(buffers) + rope).encode()).hexdigest(),
        "chat_template": template and hashlib.sha256(str(template).encode()).hexdigest(),
        "precision": precision,
        "rows": digest.hexdigest(),
    }


def _sampled(tensors: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.is_meta:  # weights that accelerate keeps elsewhere cannot be seen here
            continue
        flat = tensor.flatten()
        sample = flat[:: max(len(flat) // 1024, 1)].cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode() + sample.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
