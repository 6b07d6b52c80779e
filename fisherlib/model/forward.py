"""One loop that runs a model over rows, its head at the response positions only: for features, scores, training, tests."""

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fisherlib._quiet import progress_bar
from fisherlib._types import Model
from fisherlib.model.head import mixes, working_precision
from fisherlib.text import Encoded


def batches(
    encoded: Sequence[Encoded], tokens_per_batch: int, padding_side: str, device: str | torch.device
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """Yield `(indices, padded batch)` of at most `tokens_per_batch` tokens, longest rows first; empty rows ride along."""
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i].input_ids))
    start = 0
    while start < len(order):
        width = max(len(encoded[order[start]].input_ids), 1)
        indices = order[start : start + max(tokens_per_batch // width, 1)]
        yield indices, pad([encoded[i] for i in indices], padding_side, device)
        start += len(indices)


def check_run(
    model: Model,
    encoded: Sequence[Encoded],
    *,
    tokens_per_batch: int = 1,
    precision: str = "auto",
    padding_side: str = "right",
) -> None:
    """Raise `ValueError` for what a run over these rows would fail at midway: settings, and ids outside the vocabulary."""
    if not tokens_per_batch >= 1:
        raise ValueError(f"expected tokens_per_batch of at least 1, got {tokens_per_batch}")
    if padding_side not in ("left", "right"):
        raise ValueError(f"expected padding_side 'left' or 'right', got {padding_side!r}")
    working_precision(precision, model.device)
    if model.get_output_embeddings() is None:
        raise ValueError(f"expected a causal language model, got {type(model).__name__}, without a head: use fl.load_model")
    for name, module in model.named_modules():
        if getattr(module, "is_decoder", True) is False or getattr(model.config, "causal", True) is False:
            raise ValueError(
                f"expected a causal language model, got {type(model).__name__} whose tokens see what follows them: "
                "give one with is_decoder=True"
            )
        # RoBERTa and its kin
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            raise ValueError("expected a model that counts positions from 0, got one that begins at its padding token")
    sizes = (
        getattr(model.get_input_embeddings(), "num_embeddings", None),
        getattr(model.get_output_embeddings(), "out_features", None),
    )
    known = min((size for size in sizes if size is not None), default=math.inf)
    for number, example in enumerate(encoded):
        ids = example.input_ids
        if ids and not (min(ids) >= 0 and max(ids) < known):
            bad = next(i for i in ids if not 0 <= i < known)
            raise ValueError(
                f"row {number}: expected token ids from 0 to {known - 1:,} (the model's vocabulary), got {bad:,}: "
                "give the tokenizer of this model"
            )


def all_finite(tensor: Tensor) -> bool:
    """Whether there is no NaN or infinity in it: in one pass and without a copy, 20 times as fast as `torch.isfinite`."""
    if tensor.numel() == 0 or tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return True  # what a quantized model packs into bytes has no NaN
    return all(math.isfinite(end) for end in tensor.detach().aminmax())


def context_length(model: Model) -> int | None:
    """The most tokens that the model's configuration allows in a sequence, if it says."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def pad(examples: Sequence[Encoded], side: str = "right", device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """One batch: `input_ids`, `attention_mask`, `position_ids` and `predicts`, all [B, T].

    `predicts[b, t]` marks the positions whose *next* token is a response token: hidden state t belongs to label t + 1.
    """
    if side not in ("left", "right"):
        raise ValueError(f"expected padding_side 'left' or 'right', got {side!r}")
    width = max(max(len(e.input_ids) for e in examples), 1)
    shape = (len(examples), width)
    ids, real, predicts = torch.zeros(shape, dtype=torch.long), torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    for b, example in enumerate(examples):
        n = len(example.input_ids)
        start = width - n if side == "left" else 0
        ids[b, start : start + n] = torch.tensor(example.input_ids, dtype=torch.long)
        real[b, start : start + n] = 1
        predicts[b, start : start + max(n - 1, 0)] = torch.tensor(example.is_response[1:], dtype=torch.bool)
    positions = (real.cumsum(1) - 1).clamp(min=0)  # left padding must not shift the positions
    batch = {"input_ids": ids, "attention_mask": real.long(), "position_ids": positions.long(), "predicts": predicts}
    return {name: tensor.to(device) for name, tensor in batch.items()}


def at_responses(
    model: Model, batch: dict[str, Tensor], precision: str, *, compute_logits: bool
) -> tuple[Float[Tensor, "m _"], Int[Tensor, " m"]]:
    """Run the model on a padded batch, but its output head on no more positions than needed.

    Returns `(states, labels)`, or `(logits, labels)` with `compute_logits`: one row per response token of the batch.
    The head's input is taken by a hook on the head itself, so that no architecture's final norm is applied twice.
    """
    predicts: Bool[Tensor, "B T"] = batch["predicts"]
    captured: list[Tensor] = []

    def keep_response_positions(_head, inputs):
        states = inputs[0][predicts]
        captured.append(states)
        return (states[None] if compute_logits else inputs[0][:, :1],)

    hook = model.get_output_embeddings().register_forward_pre_hook(keep_response_positions)
    understood = inspect.signature(model.forward).parameters  # Bloom, for one, has no position_ids
    inputs = {name: tensor for name, tensor in batch.items() if name in understood}
    try:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=mixes(model, precision)):
            output = model(**inputs, use_cache=False)
    finally:
        hook.remove()
    labels = batch["input_ids"].roll(-1, dims=1)[predicts]  # the roll never wraps: a last position predicts nothing
    return (output.logits[0] if compute_logits else captured[0]), labels


@contextlib.contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """In eval mode and without gradients inside; afterwards, and after an error, the model is in the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


Statistic = Callable[[Float[Tensor, "m V"], Int[Tensor, " m"]], Float[Tensor, " m"]]


def per_token(
    model: Model,
    encoded: Sequence[Encoded],
    statistic: Statistic,
    *,
    tokens_per_batch: int,
    precision: str,
    padding_side: str = "right",
    progress: bool | None,
) -> list[Float[np.ndarray, " T"]]:
    """`statistic(logits, labels)` at the response tokens of each example: float64, in the order of the examples.

    One forward pass over all tokens; memory O(tokens_per_batch x vocabulary). The model is left as it was.
    Raises `ValueError` for token ids outside the vocabulary, before anything is computed, and for settings that are none.
    """
    check_run(model, encoded, tokens_per_batch=tokens_per_batch, precision=precision, padding_side=padding_side)
    values: list[np.ndarray] = [np.empty(0)] * len(encoded)
    with evaluating(model), progress_bar(len(encoded), progress) as bar:
        for indices, batch in batches(encoded, tokens_per_batch, padding_side, model.device):
            logits, labels = at_responses(model, batch, precision, compute_logits=True)
            found = statistic(logits.float(), labels).cpu().double()  # MPS has no float64
            parts = found.split([sum(encoded[i].is_response) for i in indices])
            for i, part in zip(indices, parts, strict=True):
                values[i] = part.numpy()
            bar.update(len(indices))
    return values


def nll(logits: Float[Tensor, "m V"], labels: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def is_first_choice(logits: Float[Tensor, "m V"], labels: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
    """1 where greedy decoding would say the label, else 0; of equal logits it says the first."""
    return (logits.argmax(1) == labels).float()
