"""Token features: the vectors that the language model's output head multiplies.

FisherSFT linearises a language model at its last layer: with the head `Theta` [L, d], the next token after a prefix is
a softmax regression on the prefix's pre-logit vector `x` [d] (paper, section 2). This module collects those vectors.
"""

import inspect
import json
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from fisherlib.assets import first_line
from fisherlib.data import Encoded, encode

Indices = Sequence[int] | Int[np.ndarray, " n"]  # of examples
_LOGIT_ELEMENTS = 2**26  # logits computed at once: 256 MB in float32, whatever the length of a batch


@dataclass(frozen=True)
class TokenFeatures:
    """The features of all response tokens of `N` examples, ragged: example `i` is rows `offsets[i]:offsets[i+1]`.

    `values` [M, d]; `offsets` [N+1]; per token, where known: `trace_weights` [M] (`1 - ||p||^2`, the trace of the
    softmax covariance), `nll` [M] (natural log) and `labels` [M] (the token that was to be predicted). `info` says where
    they come from.
    """

    values: Float[Tensor, "M d"]
    offsets: Int[Tensor, " N_plus_1"]
    trace_weights: Float[Tensor, " M"] | None = None
    nll: Float[Tensor, " M"] | None = None
    labels: Int[Tensor, " M"] | None = None
    info: dict = field(default_factory=dict)

    def __post_init__(self):
        rows, steps = len(self.values), self.offsets.diff()
        if len(self.offsets) < 1 or self.offsets[0] != 0 or self.offsets[-1] != rows or bool((steps < 0).any()):
            raise ValueError(f"expected offsets that rise from 0 to {rows:,}, the number of tokens, got {self.offsets}")
        for name in _PER_TOKEN:
            if (column := getattr(self, name)) is not None and len(column) != rows:
                raise ValueError(f"expected one of {name} for each of {rows:,} tokens, got {len(column):,}")

    @classmethod
    def from_list(cls, blocks: Sequence, **per_token) -> "TokenFeatures":
        """From one `[T_i, d]` tensor or array per example (empty ones allowed). Raises `ValueError` if the widths differ."""
        blocks = [torch.as_tensor(block) for block in blocks]
        if not blocks:
            raise ValueError("expected at least one example, got an empty list")
        widths = {tuple(block.shape[1:]) for block in blocks}
        if len(widths) > 1 or any(block.ndim != 2 for block in blocks):
            raise ValueError(f"expected matrices [T_i, d] of one width d, got shapes {[tuple(b.shape) for b in blocks[:5]]}")
        lengths = torch.tensor([0, *(len(block) for block in blocks)])
        return cls(torch.cat(blocks), lengths.cumsum(0), **per_token)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int | np.integer) -> Float[Tensor, "T d"]:
        if not 0 <= i < len(self):
            raise IndexError(f"example {i} of {len(self)}")
        return self.values[int(self.offsets[i]) : int(self.offsets[i + 1])]

    def __repr__(self) -> str:
        return f"TokenFeatures({len(self):,} examples, {len(self.values):,} tokens, d={self.dim}, {self.values.dtype})"

    @property
    def lengths(self) -> Int[Tensor, " N"]:
        return self.offsets.diff()

    @property
    def dim(self) -> int:
        return self.values.shape[1]

    def subset(self, indices: Indices) -> "TokenFeatures":
        """The features of some examples, in the given order. Raises `IndexError` for one that does not exist."""
        if bad := [int(i) for i in indices if not 0 <= i < len(self)]:
            raise IndexError(f"example {bad[0]} of {len(self)}")
        spans = [torch.arange(int(self.offsets[i]), int(self.offsets[i + 1])) for i in indices]
        rows = torch.cat(spans) if spans else torch.empty(0, dtype=torch.long)
        lengths = torch.tensor([0, *(len(span) for span in spans)])
        per_token = {name: None if (t := getattr(self, name)) is None else t[rows] for name in _PER_TOKEN}
        return TokenFeatures(self.values[rows], lengths.cumsum(0), **per_token, info=self.info)

    def save(self, folder: str | Path) -> None:
        """Write `values.bin`, `tokens.pt` and `info.json` to a new folder; complete or absent, never half-written."""
        folder = Path(folder)
        if folder.exists():
            raise ValueError(f"expected a folder that does not exist yet, got {folder}: remove it or choose another")
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        try:
            values = self.values.contiguous()
            values.view(torch.uint8).numpy().tofile(scratch / "values.bin")
            torch.save(
                {"offsets": self.offsets, **{name: getattr(self, name) for name in _PER_TOKEN}}, scratch / "tokens.pt"
            )
            layout = {"dtype": str(values.dtype).removeprefix("torch."), "shape": list(values.shape), "info": self.info}
            (scratch / "info.json").write_text(json.dumps(layout, indent=1))
            scratch.chmod(0o755)
            os.replace(scratch, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    @classmethod
    def load(cls, folder: str | Path) -> "TokenFeatures":
        """Open a saved folder; the values are memory-mapped, not read. Raises `ValueError` if it is not whole."""
        folder = Path(folder)
        try:
            layout = json.loads((folder / "info.json").read_text())
            dtype, shape = getattr(torch, layout["dtype"]), layout["shape"]
            size = (folder / "values.bin").stat().st_size
            tokens = torch.load(folder / "tokens.pt", weights_only=True)
        except (OSError, ValueError, KeyError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            what = f"expected a folder written by TokenFeatures.save, got {folder}"
            raise ValueError(f"{what} ({first_line(error)}): extract again") from error
        if size != shape[0] * shape[1] * dtype.itemsize:
            raise ValueError(
                f"{folder}/values.bin: expected {shape} of {layout['dtype']}, got {size:,} bytes: extract again"
            )
        count = shape[0] * shape[1]
        values = (
            torch.from_file(str(folder / "values.bin"), shared=False, size=count, dtype=dtype) if count else torch.empty(0)
        )
        return cls(values.view(*shape).to(dtype), **tokens, info=layout["info"])


_PER_TOKEN = ("trace_weights", "nll", "labels")


def extract_features(
    model,
    tokenizer,
    rows: Dataset | Sequence[Sequence[int]],
    *,
    tokens_per_batch: int = 2048,
    precision: str = "bfloat16",
    padding_side: str = "right",
    dtype: torch.dtype = torch.float32,
    progress: bool | None = None,
) -> TokenFeatures:
    """The pre-logit vector at the position that predicts each response token, for every row.

    `rows`: a dataset (see `fisherlib.data`), or lists of token ids with `tokenizer=None`. `tokens_per_batch` bounds
    memory and does not change the result beyond rounding. `precision` of the forward pass: "bfloat16" or "float32".
    `dtype`: of the stored values. `progress`: None shows a bar in a terminal only. Runs where the model is (CPU, CUDA or
    MPS); the result is on the CPU.
    If the head has a bias a 1 is appended to each vector, and if the model scales its logits so are the vectors, such
    that the logits are always a product of one matrix with what is returned.
    Raises `ValueError` for a model whose logits are no linear function of its head's input (soft-capping), rows that
    are longer than the model's context, or rows without any response token.
    Time: one forward pass over all tokens. Source: paper, section 2; the per-token statistics are an extension.
    """
    if not dtype.is_floating_point:
        raise ValueError(f"expected a floating-point dtype to store features in, got {dtype}")
    encoded = encode(rows, tokenizer, max_tokens=context_length(model))
    scale = head_scale(model, encoded)
    blocks: list = [None] * len(encoded)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for indices, batch in batches(encoded, tokens_per_batch, padding_side, model.device, progress):
                states, labels = at_responses(model, batch, precision, compute_logits=False)
                x = states.float() * scale
                statistics = _head_statistics(model.get_output_embeddings(), x, labels, scale, precision)
                if model.get_output_embeddings().bias is not None:
                    x = torch.cat([x, torch.full_like(x[:, :1], scale)], dim=1)
                counts = [sum(encoded[i].is_response) for i in indices]
                columns = [column.cpu().split(counts) for column in (x.to(dtype), *statistics, labels)]
                for i, *block in zip(indices, *columns, strict=True):
                    blocks[i] = [part.clone() for part in block]  # a view would keep its whole batch alive
    finally:
        model.train(was_training)
    values, weights, nll, labels = zip(*blocks, strict=True)
    info = {"model": model.config.name_or_path, "precision": precision, "logit_scale": scale}
    return TokenFeatures.from_list(
        values, trace_weights=torch.cat(weights), nll=torch.cat(nll), labels=torch.cat(labels), info=info
    )


# --- running the model at the response positions only (used for features, for training and for evaluation) ------------


def batches(
    encoded: Sequence[Encoded], tokens_per_batch: int, padding_side: str, device, progress: bool | None = None
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """Yield `(indices, padded batch)` of at most `tokens_per_batch` tokens, longest rows first; empty rows ride along."""
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i].input_ids))
    with tqdm(total=len(encoded), unit="example", disable=hidden(progress), mininterval=1) as bar:
        start = 0
        while start < len(order):
            width = max(len(encoded[order[start]].input_ids), 1)
            indices = order[start : start + max(tokens_per_batch // width, 1)]
            yield indices, pad([encoded[i] for i in indices], padding_side, device)
            start += len(indices)
            bar.update(len(indices))


def hidden(progress: bool | None) -> bool:
    """For tqdm's `disable`: None, the default, shows a bar in a terminal and nothing in a notebook's saved output."""
    return not sys.stderr.isatty() if progress is None else not progress


def context_length(model) -> int | None:
    """The most tokens that the model's configuration allows in a sequence, if it says."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def pad(examples: Sequence[Encoded], side: str = "right", device="cpu") -> dict[str, Tensor]:
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
    model, batch: dict[str, Tensor], precision: str, *, compute_logits: bool
) -> tuple[Float[Tensor, "m _"], Int[Tensor, " m"]]:
    """Run the model on a padded batch, but its output head on no more positions than needed.

    Returns `(states, labels)`, or `(logits, labels)` with `compute_logits`: one row per response token of the batch.
    The head's input is taken by a hook on the head itself, so that no architecture's final norm is applied twice.
    """
    if precision not in ("bfloat16", "float32"):
        raise ValueError(f"expected precision 'bfloat16' or 'float32', got {precision!r}")
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
        with torch.autocast(model.device.type, torch.bfloat16, enabled=_mixes(model, precision)):
            output = model(**inputs, use_cache=False)
    finally:
        hook.remove()
    labels = batch["input_ids"].roll(-1, dims=1)[predicts]  # the roll never wraps: a last position predicts nothing
    return (output.logits[0] if compute_logits else captured[0]), labels


def _mixes(weights, precision: str) -> bool:
    """Whether to compute in bfloat16 over float32 weights; weights of half precision are computed with as they are."""
    return precision == "bfloat16" and weights.dtype == torch.float32


def head_scale(model, encoded: Sequence[Encoded]) -> float:
    """The factor between `head(x)` and the model's logits (1 for most models), checked on a real example.

    Raises `ValueError` if no factor fits: then the logits are not linear in `x`, and the theory does not apply.
    """
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    if cap:
        raise ValueError(
            f"expected logits that are linear in the last hidden state, but {model.config.model_type} caps them at {cap}: "
            "its Fisher information has another form; choose a model without logit soft-capping"
        )
    head = model.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear):
        raise ValueError(f"expected a linear output head, got {type(head).__name__}: choose a causal language model")
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
    scale = float((logits * product).sum() / (product * product).sum())
    error = float((logits - scale * product).abs().max() / logits.abs().max())
    if not error < 2e-2:  # also catches NaN; bfloat16 weights round to 2^-8
        raise ValueError(
            f"expected logits = scale * head(x), but they differ by {error:.1%} for {model.config.model_type}: "
            "this architecture transforms its logits in a way that fisherlib cannot represent"
        )
    return 1.0 if abs(scale - 1) < 1e-3 else scale


def _head_statistics(
    head: torch.nn.Linear, x: Float[Tensor, "m d"], labels: Int[Tensor, " m"], scale: float, precision: str
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Per token the trace weight `1 - ||p||^2` and the negative log-likelihood, a slice of tokens at a time."""
    weights, nll = [], []
    step = max(_LOGIT_ELEMENTS // head.weight.shape[0], 1)
    for rows, targets in zip(x.split(step), labels.split(step), strict=True):
        with torch.autocast(x.device.type, torch.bfloat16, enabled=_mixes(head.weight, precision)):
            logits = torch.nn.functional.linear(rows.to(head.weight.dtype), head.weight)
        log_p = logits.float()
        if head.bias is not None:
            log_p += scale * head.bias.float()
        log_p = torch.log_softmax(log_p, dim=-1)
        nll.append(-log_p.gather(1, targets[:, None])[:, 0])
        weights.append((1 - log_p.exp_().square_().sum(1)).clamp(min=0))
    return (torch.cat(weights), torch.cat(nll)) if weights else (x.new_empty(0), x.new_empty(0))
