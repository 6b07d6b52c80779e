"""Fine-tuning of the model on a selection, with `transformers.Trainer`."""

import copy
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float

from fisherlib._door import checked, numbers
from fisherlib._quiet import hidden
from fisherlib._types import Model, Tokenizer
from fisherlib.model import all_finite, at_responses, check_run, context_length, output_head, pad
from fisherlib.text import encode
from fisherlib.training.groups import Group, Objective, grouped, has_alternatives, mean_loss
from fisherlib.training.steps import Order, ask, batch_of, equal_token_steps, weighted


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned copy of the model, the loss and the learning rate of each step, and what it cost.

    `response_tokens` are those of the responses, `alternative_tokens` those that an objective compared them with;
    `all_tokens` holds both, and the prompts once for each.
    """

    model: Model
    losses: list[float]
    response_tokens: int
    all_tokens: int
    seconds: float
    learning_rates: list[float]
    alternative_tokens: int = 0

    def __repr__(self) -> str:
        return (
            f"FineTuned({len(self.losses)} steps, {self.response_tokens:,} response tokens of {self.all_tokens:,}, "
            f"loss {self.losses[0]:.3f} to {self.losses[-1]:.3f}, {self.seconds:.1f} s)"
        )


@checked
def fine_tune(
    model: Model,
    tokenizer: Tokenizer | None,
    rows: Dataset | Sequence[Sequence[int]],
    *,
    epochs: int = 1,
    learning_rate: float = 5e-5,
    tokens_per_step: int = 256,
    steps_per_epoch: int | None = None,
    weights: Sequence[float | int] | Float[np.ndarray, " n"] | None = None,
    precision: str = "auto",
    lora_rank: int | None = None,
    order: Order | None = None,
    objective: Objective | None = None,
    schedule: str = "linear",
    warmup: float | int = 0,
    schedule_options: Mapping[str, object] | None = None,
    watch: Callable[[int, Model], None] | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> FineTuned:
    """Fine-tune a copy of the whole model on the response tokens of `rows`; the model that is passed in stays as it was.

    Weights that need no gradient (`requires_grad`) stay what they are.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=99, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    >>> tuned = fl.fine_tune(model, None, [[3, 1, 4, 1, 5], [9, 2, 6]], epochs=2, tokens_per_step=4)
    >>> len(tuned.losses), tuned.response_tokens, tuned.all_tokens
    (4, 12, 16)

    A step holds about `tokens_per_step` response tokens, however long the examples are; to give several selections exactly
    the same number of optimiser steps, name it as `steps_per_epoch`. The loss is the mean over the response tokens of a
    step (our choice: the paper leaves the normalisation open). AdamW, linear decay from `learning_rate` to 0 and no warm-up,
    which would waste the first of a handful of steps. `seed` orders the steps.
    `schedule`, `warmup` (steps, or a share of them below 1) and `schedule_options` go to `transformers` as
    `lr_scheduler_type`, `warmup_steps` and `lr_scheduler_kwargs`: "cosine_with_min_lr" with {"min_lr_rate": 0.1}, for one.
    `weights`: how much each row counts, those of a weighted sample (`Selection.weights`) or of `selectors.meta_weights`. A
    row of weight 0 is left out. A step's loss is the mean over its response tokens of w_i / w times their loss, w being the
    mean of w_i over the response tokens of all rows that are left. So only ratios of weights matter, equal ones change
    nothing, and in a single step a row of weight 2 counts as if it were there twice. Steps are cut by plain tokens, and
    AdamW takes much of the difference between whole steps away. All of this is our choice.
    `lora_rank`: train low-rank updates of all linear layers but the head instead of the weights, merged into the weights
    afterwards (needs the extra `lora`; a larger `learning_rate` suits them, ten times the default: our choice).
    `precision` of the forward passes as in `fl.extract_features`; weights and optimiser are in float32 anyway.
    `watch(step, model)` is called after each step, from 1 on: to measure how the model learns, for one.
    `order`: says which rows each of the `epochs * steps_per_epoch` steps holds, once the model has got there; the optimiser
    and the decay are the same. Not with `weights`.
    `objective`: what to minimise instead, a function of the token log-probabilities of a row's response and of those of its
    `alternatives`, a column of texts or of token ids just as they were sampled; see `fl.objectives`. A step's loss is the
    mean over its rows. A row stays whole, and only its response counts for `tokens_per_step`; so k alternatives need up to
    1 + k times the memory. Not with `weights` or `order`.
    Raises `ValueError` if no token of `rows` counts, if there are more steps than examples, for weights that are not one
    finite number of at least 0 for each row, with one above 0 for a row with response tokens, for a frozen model, for an
    order without a number of steps or with weights, or if it gives rows without response tokens; for token ids outside the
    vocabulary; for alternatives without an objective, or that are empty, too long or neither texts nor ids; for a schedule
    or options that transformers does not know; and, with the step, as soon as a loss or a gradient is NaN or infinite.
    """
    from transformers import Trainer, TrainingArguments, set_seed

    if not torch.is_grad_enabled():
        raise ValueError("expected gradients, which torch.no_grad() or inference_mode() switches off here: call it outside")
    encoded = encode(rows, tokenizer, max_tokens=context_length(model))
    check_run(model, encoded, precision=precision)
    seed = int(seed)  # transformers takes none of NumPy's
    _check_numbers(epochs, learning_rate, tokens_per_step)
    width = output_head(model).weight.shape[1]
    if lora_rank is not None and not 1 <= lora_rank <= width:
        raise ValueError(f"expected a lora_rank from 1 to {width:,}, got {lora_rank}: None trains the weights themselves")
    if order is not None and weights is not None:
        raise ValueError("expected weights or an order, got both: an order decides how often a row is seen")
    if objective is not None and (weights is not None or order is not None):
        raise ValueError(
            "expected an objective, weights or an order, got two of them: put a row's weight into the objective"
        )
    if objective is None and has_alternatives(rows):
        raise ValueError("expected an objective for rows with alternatives, got none: give one, or remove that column")
    if objective is not None:
        groups = grouped(rows, encoded, tokenizer, context_length(model))
        check_run(model, [member for group in groups for member in group.members])
        encoded = list(groups)
    if weights is not None:
        encoded = weighted(encoded, numbers(weights, "weights"))
    if order is None:
        steps = equal_token_steps(encoded, tokens_per_step, seed, steps_per_epoch)
        seen = encoded * epochs
    elif steps_per_epoch is None or steps_per_epoch < 1:
        raise ValueError(f"expected steps_per_epoch of at least 1 beside an order, got {steps_per_epoch}")
    else:
        # Loaders fetch ahead, and an order depends on how the step before went: so it is asked when the step is there.
        steps, seen = [[encoded[0]]] * steps_per_epoch, []

    _check_schedule(schedule, warmup, schedule_options, epochs * len(steps))
    rates: list[float] = []

    class ResponseTrainer(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            rates.append(self.optimizer.param_groups[0]["lr"])  # the log has it only after the step, when it is the next one
            if order is not None:
                batch = ask(order, encoded)
                seen.extend(batch)
                inputs = pad(batch, device=model.device)
            logits, labels = at_responses(model, inputs, precision, compute_logits=True)
            if order is not None:
                right = (logits.argmax(1) == labels).double().cpu().split([sum(e.is_response) for e in batch])
                order.update(np.array([float(r.mean()) for r in right]))
            if objective is not None:
                log_p = -torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
                return mean_loss(objective, log_p, inputs["parts"])
            if "weights" not in inputs:
                return torch.nn.functional.cross_entropy(logits.float(), labels)
            per_token = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
            return (inputs["weights"] * per_token).mean()

        def log(self, logs, *args, **kwargs):  # once a step
            for name, number in (("loss", logs.get("loss", 0.0)), ("norm of the gradient", logs.get("grad_norm", 0.0))):
                if not math.isfinite(number):
                    raise ValueError(_diverged(self.state.global_step, self.state.max_steps, name, number, learning_rate))
            super().log(logs, *args, **kwargs)
            if watch is not None and "loss" in logs:
                watch(self.state.global_step, tuned)

    quiet = hidden(progress)
    began = time.perf_counter()
    tuned = copy.deepcopy(model).float().train()
    if lora_rank is None and not any(weight.requires_grad for weight in tuned.parameters()):
        raise ValueError(
            "expected weights to train, got a model that is frozen: call model.requires_grad_(True), or give lora_rank="
        )
    if lora_rank is not None:
        from peft import LoraConfig, get_peft_model

        set_seed(seed)  # the updates begin at random
        adapted = get_peft_model(tuned, LoraConfig(r=lora_rank, lora_alpha=2 * lora_rank, target_modules="all-linear"))
        tuned = adapted.get_base_model()
    with tempfile.TemporaryDirectory(prefix="fisherlib-") as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=epochs,
            per_device_train_batch_size=1,  # an item is already a whole step
            learning_rate=learning_rate,
            lr_scheduler_type=schedule,
            warmup_steps=warmup,
            lr_scheduler_kwargs=dict(schedule_options or {}),
            logging_steps=1,
            logging_nan_inf_filter=False,  # it would put the mean of the losses before in the place of a NaN
            save_strategy="no",
            report_to=[],
            disable_tqdm=quiet,
            seed=seed,
            use_cpu=model.device.type == "cpu",
            remove_unused_columns=False,
        )
        # Trainer takes the first accelerator that it knows, and spreads each batch over all of its kind: not here.
        arguments._setup_devices = arguments.distributed_state.device = model.device
        arguments._n_gpu = min(arguments.n_gpu, 1)
        trainer = ResponseTrainer(tuned, arguments, train_dataset=steps, data_collator=lambda items: batch_of(items[0]))
        if quiet:
            from transformers import PrinterCallback

            trainer.remove_callback(PrinterCallback)
        trainer.train()
    if lora_rank is not None:
        tuned = adapted.merge_and_unload().requires_grad_(True)
    if lost := next((name for name, weight in tuned.named_parameters() if not all_finite(weight)), None):
        steps_taken = trainer.state.global_step
        raise ValueError(_diverged(steps_taken, steps_taken, f"weight {lost}", "NaN or infinity", learning_rate))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    others = [other for e in seen if isinstance(e, Group) for other in e.alternatives]
    return FineTuned(
        model=tuned.eval(),
        losses=losses,
        response_tokens=sum(sum(e.is_response) for e in seen),
        all_tokens=sum(len(e.input_ids) for e in [*seen, *others]),
        seconds=time.perf_counter() - began,
        learning_rates=rates,
        alternative_tokens=sum(sum(e.is_response) for e in others),
    )


def _check_numbers(epochs: int, learning_rate: float, tokens_per_step: int) -> None:
    """Raise `ValueError` for a number that no training could be run with."""
    if epochs < 1:
        raise ValueError(f"expected at least 1 epoch, got {epochs}")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"expected a positive, finite learning_rate, got {learning_rate}: held_out_nll gives losses alone")
    if tokens_per_step < 1:
        raise ValueError(f"expected tokens_per_step of at least 1, got {tokens_per_step}")


def _check_schedule(name: str, warmup: float | int, options: Mapping[str, object] | None, steps: int) -> None:
    """Raise `ValueError` for a schedule that transformers would refuse, or that needs an evaluation after each step."""
    from transformers import SchedulerType, get_scheduler

    # The last two follow a loss on other data, which is not measured here.
    known = [kind.value for kind in SchedulerType if kind.value not in ("reduce_lr_on_plateau", "greedy")]
    if name not in known:
        raise ValueError(f"expected a schedule among {', '.join(known)}, got {name!r}: they are those of transformers")
    if not 0 <= warmup < math.inf or (warmup >= 1 and warmup != int(warmup)):
        raise ValueError(f"expected a warmup of whole steps, or a share of them below 1, got {warmup}")
    whole = int(warmup) if warmup >= 1 else math.ceil(warmup * steps)
    try:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        get_scheduler(name, optimizer, whole, steps, scheduler_specific_kwargs=dict(options or {}))
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"expected schedule_options that {name!r} of transformers takes, got {dict(options or {})}: {error}"
        ) from error


def _diverged(step: int, steps: int, what: str, number: float | str, learning_rate: float) -> str:
    """That a number of training is not finite, as a message."""
    cure = "lower it" if step > 1 else "lower it, or load the model again: it may be damaged itself"
    return f"step {step} of {steps}: expected a finite {what}, got {number} with learning_rate={learning_rate:g}: {cure}"
