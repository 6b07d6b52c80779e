"""Continuations of held-out prompts: what a reader, or a judge, sees of a model."""

import math

import torch
from datasets import Dataset

from fisherlib._device import is_accelerator
from fisherlib._door import checked
from fisherlib._quiet import progress_bar
from fisherlib._types import Model, Tokenizer
from fisherlib.model.forward import batches, check_run, context_length, evaluating
from fisherlib.text import Encoded, as_stored, encode


@checked
def prompt_ids(rows: Dataset, tokenizer: Tokenizer) -> list[list[int]]:
    """Token ids of each row up to its (last) response: the very tokens that precede it in training.

    They are cut from what `fl.encode` makes, not tokenized again. Raises `ValueError` for rows without a prompt.
    """
    prompts, rows = [], as_stored(rows)
    for number, (example, row) in enumerate(zip(encode(rows, tokenizer), rows, strict=True)):
        start = len(example.input_ids) - 1
        while start > 0 and not example.is_response[start]:  # what follows the response
            start -= 1
        while start > 0 and example.is_response[start - 1]:
            start -= 1
        if start < 1 or (row.get("prompt") is None and row.get("messages") is None):
            raise ValueError(f"row {number}: expected a prompt to continue, got a text alone: give 'prompt' and 'response'")
        prompts.append(example.input_ids[:start])
    return prompts


@checked
def continuations(
    model: Model,
    tokenizer: Tokenizer,
    rows: Dataset,
    *,
    max_new_tokens: int = 40,
    temperature: float = 0.7,
    seed: int = 0,
    tokens_per_batch: int = 4096,
    progress: bool | None = None,
) -> list[str]:
    """What the model says in place of each row's response, without the prompt and without spaces around it.

    Ends at the end of the turn, as the model was trained to, or after `max_new_tokens`. `temperature` 0 takes the most
    likely token each time; all settings are our choice. The same `seed`, rows and batches give the same texts, and the
    generator of the caller is left as it was. Raises `ValueError` for rows without a prompt or too long for the model, and
    for token ids outside its vocabulary.
    Cost: `max_new_tokens` forward passes over each batch, with the keys and values of the past kept.
    """
    ids = continuation_ids(
        model,
        tokenizer,
        rows,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        tokens_per_batch=tokens_per_batch,
        progress=progress,
    )
    stops = _stops(model, tokenizer)
    return [tokenizer.decode([i for i in one if i not in stops], skip_special_tokens=True).strip() for one in ids]


@checked
def continuation_ids(
    model: Model,
    tokenizer: Tokenizer,
    rows: Dataset,
    *,
    max_new_tokens: int = 40,
    temperature: float | int = 1.0,
    seed: int = 0,
    tokens_per_batch: int = 4096,
    progress: bool | None = None,
) -> list[list[int]]:
    """The token ids of what the model says in place of each row's response, just as they were sampled.

    With the token that ended it, or without one where it was cut after `max_new_tokens`. So at temperature 1 each has the
    very probability that the model gives it. Text that is stripped, ended by a template and encoded anew has another. These
    are what an objective needs as `alternatives`. All else is as for `continuations`, errors and cost too.
    """
    if max_new_tokens < 1 or not 0 <= temperature < math.inf:
        raise ValueError(
            "expected max_new_tokens of at least 1 and a finite temperature of at least 0, "
            f"got {max_new_tokens} and {temperature}"
        )
    if not 0 <= seed < 2**63:
        raise ValueError(f"expected a seed from 0 to 2^63 - 1, got {seed}")
    prompts = prompt_ids(rows, tokenizer)
    longest, context = max(map(len, prompts)) + max_new_tokens, context_length(model)
    if context is not None and longest > context:
        raise ValueError(
            f"expected prompt and continuation within {context:,} tokens (the model's context), got {longest:,}"
        )
    encoded = [Encoded(ids, [False] * len(ids)) for ids in prompts]
    check_run(model, encoded, tokens_per_batch=tokens_per_batch)
    temperature = float(temperature)  # transformers takes none of NumPy's
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {"do_sample": False}
    )
    stops = sorted(_stops(model, tokenizer))
    said: list[list[int]] = [[] for _ in prompts]
    devices = [model.device] if is_accelerator(model.device) else []  # whose generators are given back
    kind = model.device.type if devices else None
    forked = torch.random.fork_rng(devices, device_type=kind)
    with evaluating(model), forked, progress_bar(len(prompts), progress) as bar:
        torch.manual_seed(seed)
        for indices, batch in batches(encoded, tokens_per_batch, "left", model.device):
            new = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=max_new_tokens,
                eos_token_id=stops,
                pad_token_id=stops[0],
                **sampling,
            )[:, batch["input_ids"].shape[1] :]
            for i, ids in zip(indices, new.tolist(), strict=True):
                end = next((k for k, token in enumerate(ids, start=1) if token in stops), len(ids))
                said[i] = ids[:end]
            bar.update(len(indices))
    return said


def _stops(model: Model, tokenizer: Tokenizer) -> set[int]:
    """The tokens that end a text or a turn. Raises `ValueError` if there is none."""
    ends = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
    if not ends:
        raise ValueError(
            "expected a tokenizer or a model that knows its end-of-text token, got neither: set tokenizer.eos_token"
        )
    return ends
