"""Extracting token features: the vectors that the language model's output head multiplies.

FisherSFT linearises a language model at its last layer: with the head `Theta` [L, d], the next token after a prefix is
a softmax regression on the prefix's pre-logit vector `x` [d] (paper, section 2). This module collects those vectors.
"""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from fisherlib._door import checked
from fisherlib._quiet import progress_bar
from fisherlib._signals import interruptible
from fisherlib._types import Model, Tokenizer
from fisherlib.features import folder as feature_folder
from fisherlib.features.token_features import TokenFeatures
from fisherlib.model import (
    all_finite,
    at_responses,
    batches,
    check_run,
    context_length,
    evaluating,
    head_scale,
    mixes,
    output_head,
    working_precision,
)
from fisherlib.text import Encoded, encode, provenance

_COLUMNS = {"trace_weights": torch.float32, "nll": torch.float32, "labels": torch.int64}
_SHARD_BYTES, _SHARD_EXAMPLES = 2**26, 1024  # what an interrupted extraction loses at most
_LOGIT_ELEMENTS = 2**26  # logits computed at once: 256 MB in float32, whatever the length of a batch


@checked
def extract_features(
    model: Model,
    tokenizer: Tokenizer | None,
    rows: Dataset | Sequence[Sequence[int]],
    *,
    out_dir: str | Path | None = None,
    tokens_per_batch: int = 2048,
    precision: str = "auto",
    padding_side: str = "right",
    dtype: torch.dtype = torch.float32,
    progress: bool | None = None,
) -> TokenFeatures:
    """The pre-logit vector at the position that predicts each response token, for every row.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=99, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    >>> features = fl.extract_features(model, None, [[3, 1, 4, 1, 5], [9, 2, 6]])
    >>> features.values.shape, features.lengths  # nothing precedes the first token of a row: it has no vector
    (torch.Size([6, 16]), tensor([4, 2]))

    `rows`: a dataset (see `fisherlib.text`), or lists of token ids with `tokenizer=None`. `tokens_per_batch` bounds
    memory and does not change the result beyond rounding; nor does `padding_side`, for models that heed the attention mask
    and positions (RWKV heeds neither: leave it at "right"). `precision` of the forward pass: "bfloat16", "float32" or
    "auto", which is bfloat16 where the device has units for it. `dtype`: of the stored values. `progress`: None shows a
    bar in a terminal only. Runs where the model is (CPU, CUDA or MPS); the result is on the CPU.
    `out_dir`: a folder to write the features to, a shard of examples at a time, for a pool that does not fit into memory
    or a run that may be interrupted (Ctrl-C, SIGTERM, a kill). Called again with the same arguments it goes on after the
    last whole shard, or just opens what is complete. What is there is read once and compared with the checksums of what was
    written, about 1 GB/s; from a damaged shard on it is computed again. (`TokenFeatures.load` opens a folder without
    reading it.) The result is mapped from the folder; memory is bounded by a shard, beside the token ids. `provenance` of
    the result says where each row came from, if `rows` is a dataset.
    If the head has a bias a 1 is appended to each vector, and if the model scales its logits so are the vectors, such
    that the logits are always a product of one matrix with what is returned.
    Raises `ValueError` for a model whose logits are no linear function of its head's input (soft-capping), rows that
    are longer than the model's context, token ids outside its vocabulary, rows without any response token, features that
    are not finite or that `dtype` cannot hold, or an `out_dir` that holds something else or that another process is writing
    to; `OSError` if the disk is full or cannot be written to (what is done is kept).
    Time: one forward pass over all tokens. Source: paper, section 2; the per-token statistics are an extension.
    """
    if dtype not in feature_folder.FLOATS:
        raise ValueError(
            f"expected features of one of the dtypes bfloat16, float16, float32, float64, got {dtype}: change dtype="
        )
    encoded = encode(rows, tokenizer, max_tokens=context_length(model))
    check_run(model, encoded, tokens_per_batch=tokens_per_batch, precision=precision, padding_side=padding_side)
    precision = working_precision(precision, model.device)  # what a folder remembers must not depend on where it is read
    source, of = _source(model, tokenizer, encoded, precision), provenance(rows) if isinstance(rows, Dataset) else None
    settings: dict[str, Any] = {
        "tokens_per_batch": tokens_per_batch,
        "precision": precision,
        "padding_side": padding_side,
        "dtype": dtype,
    }
    if out_dir is None:
        scale = head_scale(model, encoded)
        lost = "nothing is kept: give out_dir=, a folder, to go on from there next time"
        with progress_bar(len(encoded), progress) as bar, interruptible(lambda: lost):
            columns: dict[str, Any] = _columns(model, encoded, scale, bar, **settings)
        return TokenFeatures(**columns, offsets=_offsets(encoded), info=source | {"logit_scale": scale}, provenance=of)
    folder, offsets = Path(out_dir), _offsets(encoded)
    wanted = feature_folder.describe(dtype, _dim(model), offsets, _COLUMNS, source)
    info = feature_folder.find(folder, wanted, offsets)
    if info["done"] < len(encoded) or feature_folder.whole(folder, info, offsets) < len(encoded):
        with feature_folder.locked(folder):
            info = feature_folder.find(folder, wanted, offsets)  # again: only under the lock does it stay as it is
            whole = feature_folder.whole(folder, info, offsets)
            shards = [shard for shard in _shards(offsets, info["dim"] * dtype.itemsize) if shard[1] > whole]
            if whole < info["done"]:
                again = "a file is not what was written, computing again from there"
                print(f"fisherlib: {folder}, example {whole:,}: {again}", file=sys.stderr)
            info["done"] = shards[0][0] if shards else len(encoded)  # a shard that is there in part is computed again
            scale = info["source"].get("logit_scale") or head_scale(model, encoded)  # one for all shards, to the last bit
            info["source"]["logit_scale"] = scale
            writer = feature_folder.Writer(folder, info, offsets, of)
            with progress_bar(len(encoded), progress, info["done"]) as bar, interruptible(lambda: _kept(folder)):
                for start, stop in shards:
                    writer.append(_columns(model, encoded[start:stop], scale, bar, start, **settings), stop - start)
    features = TokenFeatures.load(folder)
    if not torch.equal(features.offsets, offsets):
        raise ValueError(
            f"expected the offsets of these rows in {folder}/offsets.npy, got others: it is damaged, extract again elsewhere"
        )
    return dataclasses.replace(features, provenance=of)  # of the rows that were given: an older folder knows of none


def _kept(folder: Path) -> str:
    info = feature_folder.read_info(folder)  # what is on the disk: a signal may come between it and what the writer knows
    done, N = info["done"], info["examples"]
    return f"{done:,} of {N:,} examples are in {folder}: call extract_features again with the same out_dir to go on"


def _columns(
    model: Model,
    encoded: Sequence[Encoded],
    scale: float,
    bar: tqdm,
    first: int = 0,
    *,
    tokens_per_batch,
    precision,
    padding_side,
    dtype,
) -> dict[str, Tensor]:
    """What is stored of each response token, in the order of the examples: `values` [M, d] and the columns [M].

    `first`: the number of the first row, for messages. Raises `ValueError` for what is not finite.
    """
    offsets, head = _offsets(encoded), model.get_output_embeddings()
    M = int(offsets[-1])
    columns = {name: torch.empty(M, dtype=kind) for name, kind in _COLUMNS.items()}
    columns["values"] = torch.empty(M, _dim(model), dtype=dtype)
    with evaluating(model):
        for indices, batch in batches(encoded, tokens_per_batch, padding_side, model.device):
            states, labels = at_responses(model, batch, precision, compute_logits=False)
            x = states.float() * scale
            weights, nll = _head_statistics(head, x, labels, scale, precision)
            if head.bias is not None:
                x = torch.cat([x, torch.full_like(x[:, :1], scale)], dim=1)
            rows = torch.cat([torch.arange(int(offsets[i]), int(offsets[i + 1])) for i in indices])
            batch_columns = {"values": x, "trace_weights": weights, "nll": nll, "labels": labels}
            for name, part in batch_columns.items():
                stored = part.to(columns[name].dtype).cpu()
                if not all_finite(stored):
                    bad = int(torch.nonzero(~stored.reshape(len(stored), -1).isfinite().all(1))[0])
                    owner = int(torch.searchsorted(offsets, rows[bad], right=True)) - 1
                    raise ValueError(_not_finite(first + owner, name, part[bad], dtype))
                columns[name][rows] = stored
            bar.update(len(indices))
    return columns


def _not_finite(row: int, name: str, computed: Tensor, dtype: torch.dtype) -> str:
    """Why a token cannot be stored, as a message: the model's own NaN, or a number that the dtype cannot hold."""
    if torch.isfinite(computed).all():
        largest = float(computed.abs().max())
        return (
            f"row {row}: expected features within {dtype} (up to {torch.finfo(dtype).max:,.0f}), got {largest:,.0f}: "
            "give dtype=torch.bfloat16 or torch.float32"
        )
    what = "features" if name == "values" else name
    return f"row {row}: expected finite {what}, got NaN or infinity: the model has diverged, or give precision='float32'"


def _offsets(encoded: Sequence[Encoded]) -> Int[Tensor, " N_plus_1"]:
    return torch.tensor([0, *(sum(e.is_response) for e in encoded)]).cumsum(0)


def _shards(offsets: Int[Tensor, " N_plus_1"], row_bytes: int) -> list[tuple[int, int]]:
    """Consecutive examples as (start, stop): at most `_SHARD_EXAMPLES` and `_SHARD_BYTES` of values, but at least one.

    They are always cut from the start of the pool, so that a run that was interrupted has the batches of one that was not.
    """
    shards, start = [], 0
    while start < len(offsets) - 1:
        fitting = int(torch.searchsorted(offsets, int(offsets[start]) + _SHARD_BYTES // row_bytes, right=True)) - 1
        stop = min(max(fitting, start + 1), start + _SHARD_EXAMPLES, len(offsets) - 1)
        shards.append((start, stop))
        start = stop
    return shards


def _source(model: Model, tokenizer: Tokenizer | None, encoded: Sequence[Encoded], precision: str) -> dict:
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
    ids = hashlib.sha256()
    for example in encoded:
        ids.update(np.array([len(example.input_ids), *example.input_ids], dtype="<i8").tobytes())
        ids.update(np.array(example.is_response, dtype=np.uint8).tobytes())
    template = getattr(tokenizer, "chat_template", None)
    return {
        "model": model.config.name_or_path,
        "model_weights": _sampled(state),
        "model_positions": hashlib.sha256((_sampled(buffers) + rope).encode()).hexdigest(),
        "chat_template": template and hashlib.sha256(str(template).encode()).hexdigest(),
        "precision": precision,
        "rows": ids.hexdigest(),
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


def _dim(model: Model) -> int:
    """Width of a feature: the head's input, and one more for the head's bias."""
    head = output_head(model)
    return head.weight.shape[1] + (head.bias is not None)


def _head_statistics(
    head: torch.nn.Linear, x: Float[Tensor, "m d"], labels: Int[Tensor, " m"], scale: float, precision: str
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Per token the trace weight `1 - ||p||^2` and the negative log-likelihood, a slice of tokens at a time."""
    weights, nll = [], []
    step = max(_LOGIT_ELEMENTS // head.weight.shape[0], 1)
    for rows, targets in zip(x.split(step), labels.split(step), strict=True):
        with torch.autocast(x.device.type, torch.bfloat16, enabled=mixes(head.weight, precision)):
            logits = torch.nn.functional.linear(rows.to(head.weight.dtype), head.weight)
        log_p = logits.float()
        if head.bias is not None:
            log_p += scale * head.bias.float()
        log_p = torch.log_softmax(log_p, dim=-1)
        nll.append(-log_p.gather(1, targets[:, None])[:, 0])
        weights.append((1 - log_p.exp_().square_().sum(1)).clamp(min=0))
    return (torch.cat(weights), torch.cat(nll)) if weights else (x.new_empty(0), x.new_empty(0))
