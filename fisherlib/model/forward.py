"""One loop that runs a model over rows, its head at the response positions only: for features, scores, training, tests."""

import contextlib
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fisherlib._device import fetch, free_bytes, is_accelerator, page_locked
from fisherlib._quiet import progress_bar
from fisherlib._types import Model
from fisherlib.model.head import mixes, output_head, working_precision
from fisherlib.text import Encoded

_Step = TypeVar("_Step")
_FEWEST, _MOST = 2048, 16_384  # tokens of a batch, our choice: enough to hide what Python does for a batch


def batches(
    encoded: Sequence[Encoded], tokens_per_batch: int, padding_side: str, device: str | torch.device
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """Yield `(indices, padded batch)` of at most `tokens_per_batch` tokens, longest rows first; empty rows ride along."""
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i].input_ids))
    ids, is_response, lengths = flat([encoded[i] for i in order])
    begins = np.append(0, lengths.cumsum())
    start = 0
    while start < len(order):
        stop = min(start + max(tokens_per_batch // max(int(lengths[start]), 1), 1), len(order))
        tokens = slice(begins[start], begins[stop])
        yield order[start:stop], _padded(ids[tokens], is_response[tokens], lengths[start:stop], padding_side, device)
        start = stop


def tokens_at_once(model: Model, longest: int) -> int:
    """How many tokens a batch of rows of up to `longest` tokens should hold: 2,048, and more where an accelerator has room.

    There it is the largest power of two, up to 16,384, with which a layer fits into half of the free memory: about 16 bytes
    for each number of the hidden state (five times: as it comes, normed, queries, keys and values) and of the layer's widest
    matrix, and the mask; with eager attention all its scores. As a power of two it hardly ever changes from call to call.
    """
    device = model.device
    if not (is_accelerator(device) and hasattr(torch.get_device_module(device), "mem_get_info")):
        return _FEWEST
    head, config = output_head(model), model.config.get_text_config()
    matrices = [weight.shape for weight in model.parameters() if weight.ndim > 1 and head.out_features not in weight.shape]
    widest = max((max(shape[-2:]) for shape in matrices), default=0)
    heads = getattr(config, "num_attention_heads", 1) if getattr(config, "_attn_implementation", None) == "eager" else 0
    bytes_per_token = 16 * (5 * head.in_features + widest) + longest * (4 + 8 * heads)
    fitting = free_bytes(device) // 2 // bytes_per_token
    return max(min(2 ** (max(fitting, 1).bit_length() - 1), _MOST), _FEWEST)


def one_behind(steps: Iterable[_Step]) -> Iterator[_Step]:
    """Each step only after the next one has been begun: what an accelerator computes is looked at while it computes more."""
    before: list[_Step] = []
    for step in steps:
        yield from before
        before = [step]
    yield from before


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


def flat(examples: Sequence[Encoded]) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, " n"], Int[np.ndarray, " B"]]:
    """The token ids of all examples one after the other, which of them are response tokens, and each example's length."""
    lengths = np.fromiter((len(e.input_ids) for e in examples), np.int64, len(examples))
    ids = np.fromiter(itertools.chain.from_iterable(e.input_ids for e in examples), np.int64, lengths.sum())
    is_response = np.fromiter(itertools.chain.from_iterable(e.is_response for e in examples), bool, lengths.sum())
    return ids, is_response, lengths


def pad(examples: Sequence[Encoded], side: str = "right", device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """One batch: `input_ids`, `attention_mask` and `position_ids` [B, T], and `predicts` [m].

    `predicts` are the positions, counted through the batch's B * T, whose *next* token is a response token: hidden state t
    belongs to label t + 1. They are numbers and no mask, since a GPU must wait before it can say how many a mask selects.
    """
    if side not in ("left", "right"):
        raise ValueError(f"expected padding_side 'left' or 'right', got {side!r}")
    return _padded(*flat(examples), side, device)


def _padded(
    ids: Int[np.ndarray, " n"],
    is_response: Bool[np.ndarray, " n"],
    lengths: Int[np.ndarray, " B"],
    side: str,
    device: str | torch.device,
) -> dict[str, Tensor]:
    """`pad` of what `flat` gives. All tensors are parts of one, so that a single copy goes to the device."""
    B, T, device = len(lengths), max(int(lengths.max()), 1), torch.device(device)
    begins = (T - lengths if side == "left" else np.zeros_like(lengths))[:, None]
    steps, sizes = np.arange(T), lengths[:, None]
    is_real = (begins <= steps) & (steps < begins + sizes)
    place = np.flatnonzero(is_real)  # of each token in the batch, row by row
    counts = is_response.copy()
    counts[(lengths.cumsum() - lengths)[lengths > 0]] = False  # nothing predicts the first token of a row
    predicts = place[counts] - 1
    whole = page_locked(3 * B * T + len(predicts), dtype=torch.int64, device=device)
    input_ids, attention_mask, position_ids = whole.numpy()[: 3 * B * T].reshape(3, B, T)
    input_ids.fill(0)
    input_ids.reshape(-1)[place] = ids
    attention_mask[:] = is_real
    position_ids[:] = (steps - begins).clip(0, (sizes - 1).clip(0))  # left padding must not shift the positions
    whole.numpy()[3 * B * T :] = predicts
    there = whole.to(device, non_blocking=True)
    names = ("input_ids", "attention_mask", "position_ids")
    return dict(zip(names, there[: 3 * B * T].view(3, B, T), strict=True)) | {"predicts": there[3 * B * T :]}


def at_responses(
    model: Model, batch: dict[str, Tensor], precision: str, *, compute_logits: bool
) -> tuple[Float[Tensor, "m _"], Int[Tensor, " m"]]:
    """Run the model on a padded batch, but its output head on no more positions than needed.

    Returns `(states, labels)`, or `(logits, labels)` with `compute_logits`: one row per response token of the batch.
    The head's input is taken by a hook on the head itself, so that no architecture's final norm is applied twice.
    """
    predicts: Int[Tensor, " m"] = batch["predicts"]
    captured: list[Tensor] = []

    def keep_response_positions(_head, inputs):
        states = inputs[0].flatten(0, 1).index_select(0, predicts)
        captured.append(states)
        return (states[None] if compute_logits else inputs[0][:1, :1],)

    hook = model.get_output_embeddings().register_forward_pre_hook(keep_response_positions)
    understood = inspect.signature(model.forward).parameters  # Bloom, for one, has no position_ids
    inputs = {name: tensor for name, tensor in batch.items() if name in understood}
    try:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=mixes(model, precision)):
            output = model(**inputs, use_cache=False)
    finally:
        hook.remove()
    labels = batch["input_ids"].flatten().index_select(0, predicts + 1)  # in the same row: its last token predicts nothing
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

    def computed() -> Iterator[tuple[list[int], Callable[[], Tensor]]]:
        for indices, batch in batches(encoded, tokens_per_batch, padding_side, model.device):
            logits, labels = at_responses(model, batch, precision, compute_logits=True)
            yield indices, fetch(statistic(logits.float(), labels))

    with evaluating(model), progress_bar(len(encoded), progress) as bar:
        for indices, arrived in one_behind(computed()) if is_accelerator(model.device) else computed():
            parts = arrived().double().split([sum(encoded[i].is_response) for i in indices])  # MPS has no float64
            for i, part in zip(indices, parts, strict=True):
                values[i] = part.numpy()
            bar.update(len(indices))
    return values


def nll(logits: Float[Tensor, "m V"], labels: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def is_first_choice(logits: Float[Tensor, "m V"], labels: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
    """1 where greedy decoding would say the label, else 0; of equal logits it says the first."""
    return (logits.argmax(1) == labels).float()
