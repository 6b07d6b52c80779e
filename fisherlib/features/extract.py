"""Extracting token features: the vectors that the language model's output head multiplies.

FisherSFT linearises a language model at its last layer: with the head `Theta` [L, d], the next token after a prefix is
a softmax regression on the prefix's pre-logit vector `x` [d] (paper, section 2). This module collects those vectors.
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from tqdm.auto import tqdm

from fisherlib._device import fetch, is_accelerator
from fisherlib._door import checked
from fisherlib._quiet import progress_bar
from fisherlib._signals import interruptible
from fisherlib._types import Model, Tokenizer
from fisherlib.features import folder as feature_folder
from fisherlib.features.source import source_of
from fisherlib.features.token_features import TokenFeatures
from fisherlib.model import (
    all_finite,
    at_responses,
    batches,
    check_run,
    context_length,
    evaluating,
    flat,
    head_scale,
    mixes,
    one_behind,
    output_head,
    tokens_at_once,
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
    tokens_per_batch: int | str = "auto",
    precision: str = "auto",
    padding_side: str = "right",
    dtype: torch.dtype | None = None,
    turns: str = "all",
    too_long: str = "error",
    encoded: Sequence[Encoded] | None = None,
    progress: bool | None = None,
) -> TokenFeatures:
    """The pre-logit vector at the position that predicts each response token, for every row.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=99, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    >>> features = fl.extract_features(model, None, [[3, 1, 4, 1, 5], [9, 2, 6]])
    >>> features.values.shape, features.lengths  # nothing precedes the first token of a row: it has no vector
    (torch.Size([6, 16]), tensor([4, 2]))

    `rows`: a dataset (see `fisherlib.text`), or lists of token ids with `tokenizer=None`. `tokens_per_batch` bounds
    memory and does not change the result beyond rounding; "auto" is 2,048, and on an accelerator up to 16,384, as its free
    memory allows. Nor does `padding_side`, for models that heed the attention mask and positions (RWKV heeds neither: leave
    it at "right"). `precision` of the forward pass: "bfloat16", "float32" or "auto", which is bfloat16 where the device has
    units for it. `progress`: None shows a bar in a terminal only. Runs where the model is (CPU, CUDA or MPS); the result is
    on the CPU.
    `dtype`: of the stored values. None is float32, but on an accelerator the half precision that the model computes with,
    if it does: float16 for weights of float16, else bfloat16. A token takes d numbers of 4 bytes, or of 2 in half precision,
    and 16 bytes for its weight, loss and label: a million tokens of d = 2,048 are 8.2 GB, or 4.1.
    `turns` and `too_long`: which answers count, and what becomes of rows that are longer than the model's context, as
    `fl.encode` has them; `info["cut"]` lists such rows, each with the tokens that it had. `encoded`: what `fl.encode` made
    of these rows, with the same options, if that was done before.
    `out_dir`: a folder to write the features to, a shard of examples at a time, for a pool that does not fit into memory
    or a run that may be interrupted (Ctrl-C, SIGTERM, a kill). Called again with the same arguments it goes on after the
    last whole shard, or just opens what is complete. What is there is read once and compared with the checksums of what was
    written, about 1 GB/s; from a damaged shard on it is computed again. (`TokenFeatures.load` opens a folder without
    reading it.) The result is mapped from the folder; memory is bounded by a shard, beside the token ids. `provenance` of
    the result says where each row came from, if `rows` is a dataset.
    If the head has a bias a 1 is appended to each vector, and if the model scales its logits so are the vectors, such
    that the logits are always a product of one matrix with what is returned.
    Raises `ValueError` for a model whose logits are no linear function of its head's input (soft-capping), rows that
    are longer than the model's context (unless `too_long` says otherwise), token ids outside its vocabulary, rows without
    any response token, features that
    are not finite or that `dtype` cannot hold, or an `out_dir` that holds something else or that another process is writing
    to; `OSError` if the disk is full or cannot be written to (what is done is kept).
    Time: one forward pass over all tokens. Source: paper, section 2; the per-token statistics are an extension.
    """
    if dtype is not None and dtype not in feature_folder.FLOATS:
        raise ValueError(
            f"expected features of one of the dtypes bfloat16, float16, float32, float64, got {dtype}: change dtype="
        )
    if encoded is None:
        encoded = encode(rows, tokenizer, max_tokens=context_length(model), turns=turns, too_long=too_long)
    if len(encoded) != len(rows):
        raise ValueError(f"expected encoded= to be of the {len(rows):,} rows, got {len(encoded):,}: encode the same rows")
    if isinstance(tokens_per_batch, str) and tokens_per_batch != "auto":
        raise ValueError(f"expected tokens_per_batch of at least 1, or 'auto', got {tokens_per_batch!r}: change it")
    tokens = 1 if isinstance(tokens_per_batch, str) else tokens_per_batch
    check_run(model, encoded, tokens_per_batch=tokens, precision=precision, padding_side=padding_side)
    precision = working_precision(precision, model.device)  # what a folder remembers must not depend on where it is read
    dtype = dtype or _working_dtype(model, precision)
    ids, is_response, lengths = flat(encoded)
    offsets, labels = _offsets(is_response, lengths), torch.from_numpy(ids[is_response])
    source, of = source_of(model, tokenizer, encoded, precision), provenance(rows) if isinstance(rows, Dataset) else None
    if cut := [[i, example.cut_from] for i, example in enumerate(encoded) if example.cut_from]:
        source["cut"] = {"rule": too_long, "rows": cut}
    settings: dict[str, Any] = {
        "tokens_per_batch": tokens_at_once(model, int(lengths.max())) if tokens_per_batch == "auto" else tokens,
        "precision": precision,
        "padding_side": padding_side,
        "dtype": dtype,
    }
    if out_dir is None:
        scale = head_scale(model, encoded)
        lost = "nothing is kept: give out_dir=, a folder, to go on from there next time"
        with evaluating(model), progress_bar(len(encoded), progress) as bar, interruptible(lambda: lost):
            columns: dict[str, Any] = next(_columns(model, encoded, offsets, [(0, len(encoded))], scale, bar, **settings))
        return TokenFeatures(**columns, labels=labels, offsets=offsets, info=source | {"logit_scale": scale}, provenance=of)
    folder = Path(out_dir)
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
            shown = progress_bar(len(encoded), progress, info["done"])
            with evaluating(model), shown as bar, interruptible(lambda: _kept(folder)):
                found = _columns(model, encoded, offsets, shards, scale, bar, **settings)
                for (start, stop), columns in zip(shards, found, strict=True):
                    whose = slice(int(offsets[start]), int(offsets[stop]))
                    writer.append(columns | {"labels": labels[whose]}, stop - start)
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


def _working_dtype(model: Model, precision: str) -> torch.dtype:
    """What features are stored in unless the caller says: half precision where an accelerator computes with that."""
    if not is_accelerator(model.device):
        return torch.float32
    if model.dtype in (torch.bfloat16, torch.float16):
        return model.dtype
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def _columns(
    model: Model,
    encoded: Sequence[Encoded],
    offsets: Int[Tensor, " N_plus_1"],
    shards: Sequence[tuple[int, int]],
    scale: float,
    bar: tqdm,
    *,
    tokens_per_batch,
    precision,
    padding_side,
    dtype,
) -> Iterator[dict[str, Tensor]]:
    """Of each shard of examples what is computed of its tokens, in their order: `values` [M, d], and two columns [M].

    Raises `ValueError` for what is not finite.
    """
    d = _dim(model)

    def computed() -> Iterator[tuple[list[int], Callable[[], Tensor]]]:
        for start, stop in shards:
            for indices, batch in batches(encoded[start:stop], tokens_per_batch, padding_side, model.device):
                yield [start + i for i in indices], fetch(_computed(model, batch, scale, precision, dtype))

    found = one_behind(computed()) if is_accelerator(model.device) else computed()
    for start, stop in shards:
        first, M = int(offsets[start]), int(offsets[stop] - offsets[start])
        with torch.inference_mode(False):  # what the caller gets is an ordinary tensor
            columns = {"values": torch.empty(M, d, dtype=dtype)}
            columns |= {name: torch.empty(M) for name in ("trace_weights", "nll")}
        missing = stop - start
        while missing:
            indices, arrived = next(found)
            packed, at = arrived(), torch.tensor(indices)
            counts = offsets[at + 1] - offsets[at]
            begins = (offsets[at] - (counts.cumsum(0) - counts)).repeat_interleave(counts)
            rows = begins + torch.arange(len(packed))  # in the pool
            weights, nll, largest = _numbers(packed[:, d:])
            for name, column in (("values", largest.to(dtype)), ("trace_weights", weights), ("nll", nll)):
                if not all_finite(column):
                    bad = int(torch.nonzero(~column.isfinite())[0])
                    owner = int(torch.searchsorted(offsets, rows[bad], right=True)) - 1
                    raise ValueError(_not_finite(owner, name, float((largest if name == "values" else column)[bad]), dtype))
            values, there = columns["values"], packed[:, :d]
            if dtype.itemsize == 2 and d % 2 == 0:  # PyTorch puts number by number: two at once take half the time
                values, there = values.view(torch.int32), there.view(torch.int32)
            for column, part in ((values, there), (columns["trace_weights"], weights), (columns["nll"], nll)):
                column[rows - first] = part
            missing -= len(indices)
            bar.update(len(indices))
        yield columns


def _computed(
    model: Model, batch: dict[str, Tensor], scale: float, precision: str, dtype: torch.dtype
) -> Shaped[Tensor, "m _"]:
    """Of each response token of a batch the values, and behind them what `_numbers` takes out: a single tensor to copy.

    The third number is the largest of the row, by amount, before it is stored: NaN or infinite if any of them is.
    """
    head = output_head(model)
    states, labels = at_responses(model, batch, precision, compute_logits=False)
    x = states.float() * scale
    weights, nll = _head_statistics(head, x, labels, scale, precision)
    if head.bias is not None:
        x = torch.cat([x, torch.full_like(x[:, :1], scale)], dim=1)
    largest = torch.maximum(x.amax(dim=1), -x.amin(dim=1))  # on a CPU ten times as fast as the norm that it is
    numbers = torch.stack([weights, nll, largest], dim=1)
    return torch.cat([x.to(dtype), numbers.to(torch.promote_types(dtype, torch.float32)).view(dtype)], dim=1)


def _numbers(packed: Shaped[Tensor, "m _"]) -> tuple[Float[Tensor, " m"], ...]:
    """The three numbers of each token, in float32 or wider: two of bfloat16 hold the bits of one of float32."""
    wide = torch.promote_types(packed.dtype, torch.float32)
    return packed.clone(memory_format=torch.contiguous_format).view(wide).float().unbind(1)


def _not_finite(row: int, name: str, computed: float, dtype: torch.dtype) -> str:
    """Why a token cannot be stored, as a message: the model's own NaN, or a number that the dtype cannot hold."""
    if math.isfinite(computed):
        return (
            f"row {row}: expected features within {dtype} (up to {torch.finfo(dtype).max:,.0f}), got {computed:,.0f}: "
            "give dtype=torch.bfloat16 or torch.float32"
        )
    what = "features" if name == "values" else name
    return f"row {row}: expected finite {what}, got NaN or infinity: the model has diverged, or give precision='float32'"


def _offsets(is_response: Bool[np.ndarray, " n"], lengths: Int[np.ndarray, " N"]) -> Int[Tensor, " N_plus_1"]:
    before = np.append(0, is_response.cumsum())  # response tokens before each token
    return torch.from_numpy(before[np.append(0, lengths.cumsum())])


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


def _dim(model: Model) -> int:
    """Width of a feature: the head's input, and one more for the head's bias."""
    head = output_head(model)
    return head.weight.shape[1] + (head.bias is not None)


def _head_statistics(
    head: torch.nn.Linear, x: Float[Tensor, "m d"], labels: Int[Tensor, " m"], scale: float, precision: str
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Per token the trace weight `1 - ||p||^2` and the negative log-likelihood, a slice of tokens at a time."""
    step = max(_LOGIT_ELEMENTS // head.weight.shape[0], 1)
    slices = zip(x.split(step), labels.split(step), strict=True)
    found = [_slice_statistics(head, part, targets, scale, precision) for part, targets in slices]
    weights, nll = zip(*found, strict=True)
    return torch.cat(weights), torch.cat(nll)


def _slice_statistics(
    head: torch.nn.Linear, x: Float[Tensor, "m d"], labels: Int[Tensor, " m"], scale: float, precision: str
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    with torch.autocast(x.device.type, torch.bfloat16, enabled=mixes(head.weight, precision)):
        log_p = torch.nn.functional.linear(x.to(head.weight.dtype), head.weight)
    log_p = log_p.float()  # one name for all: of a slice no more than two copies are there at once
    if head.bias is not None:
        log_p += scale * head.bias.float()
    log_p = torch.log_softmax(log_p, dim=-1)
    nll = -log_p.gather(1, labels[:, None])[:, 0]
    return (1 - log_p.exp_().square_().sum(1)).clamp(min=0), nll
