"""Loading a causal language model and its tokenizer."""

import re
from pathlib import Path
from typing import Any

import torch

from fisherlib._device import computes_bfloat16, is_accelerator, resolve
from fisherlib._door import checked
from fisherlib._files import first_line
from fisherlib._quiet import quiet_transformers
from fisherlib._types import Model, Tokenizer
from fisherlib.assets import MODELS, fetch
from fisherlib.model.forward import all_finite


@checked
def load_model(
    name: str | Path = "smollm2-135m", *, dtype: str = "float32", device: str | torch.device = "cpu"
) -> tuple[Model, Tokenizer]:
    """Load a causal language model and its tokenizer.

    `name`: a shipped model ("smollm2-135m"), a folder, or a transformers model id. `device`: where the weights go, without a
    copy of the whole on the CPU; "auto" is a GPU if there is one. `dtype`: of the weights, "float32", "bfloat16", "float16",
    or "auto", which is bfloat16 on an accelerator that computes it and else float32, always so on a CPU. Keep float32 for
    fine-tuning (what runs a model computes in bfloat16 over them where the device has units for it).
    Returns `(model, tokenizer)`, the model in eval mode.
    Raises `ValueError` for a device that is not there, if it is no causal LM or cannot be loaded, if some of its weights are
    missing, of another shape than its config says, or not finite, or if it needs code of its own, which is never run;
    `AssetError` if the shipped model cannot be fetched.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    name = str(name)
    if dtype not in ("auto", "float32", "bfloat16", "float16"):
        raise ValueError(f"expected dtype 'float32', 'bfloat16', 'float16' or 'auto', got {dtype!r}")
    place = resolve(device)
    if dtype == "auto":  # a CPU with units for bfloat16 uses them over float32 weights, whose gradients are not rounded
        dtype = "bfloat16" if is_accelerator(place) and computes_bfloat16(place) else "float32"
    straight: dict[str, Any] = {} if place.type == "cpu" else {"device_map": {"": place}}
    source = _source_of(name)
    with quiet_transformers():
        try:
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
            causal = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
            if config.architectures and not causal.intersection(config.architectures):
                raise ValueError(f"its architecture is {config.architectures[0]}")
            model, found = AutoModelForCausalLM.from_pretrained(
                source,
                dtype=getattr(torch, dtype),
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                **straight,
            )
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            _check_weights(model, found)
        except Exception as error:  # files of others: transformers, torch and safetensors raise many kinds
            own_code = "trust_remote_code" in str(error)  # what transformers says to do cannot be done here
            cause = "it needs code of its own, which is not run here" if own_code else first_line(error)
            raise ValueError(
                f"expected a causal language model, could not load {name!r} ({cause}): "
                f"give a folder that holds one, an id that is reachable from here, or one of {MODELS}"
            ) from error
    model.config._name_or_path = name  # what was asked for, not where it happens to be cached
    return model.eval(), tokenizer


@checked
def load_tokenizer(name: str | Path = "smollm2-135m") -> tuple[Tokenizer, int | None]:
    """The tokenizer of a model and the context that its configuration allows, without the weights: to look at masks.

    Raises `ValueError` if they cannot be loaded, `AssetError` if the shipped model cannot be fetched.
    """
    from transformers import AutoConfig, AutoTokenizer

    source = _source_of(str(name))
    with quiet_transformers():
        try:
            config = AutoConfig.from_pretrained(source, trust_remote_code=False).get_text_config()
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        except Exception as error:  # files of others, as above
            raise ValueError(
                f"expected a model with a tokenizer, could not load that of {str(name)!r} ({first_line(error)}): "
                f"give a folder that holds one, an id that is reachable from here, or one of {MODELS}"
            ) from error
    return tokenizer, getattr(config, "max_position_embeddings", None)


def weights_of(name: str | Path) -> int | None:
    """The bytes of the weights in a folder, before they are loaded; None for a model that is no folder."""
    folder = Path(name)
    sizes = [path.stat().st_size for path in folder.glob("*.safetensors")] if folder.is_dir() else []
    return sum(sizes) or None


def _source_of(name: str) -> str:
    """A folder or an id. Raises `ValueError` for a folder that is not there."""
    source = str(fetch(name)) if name in MODELS else name
    # A model id has at most one slash; what has more, or starts like a path, was meant as a folder.
    if not Path(source).is_dir() and (source.count("/") > 1 or source.startswith((".", "/", "~"))):
        raise ValueError(f"expected a model id, a folder or one of {MODELS}, got {name!r}: no such folder; check the path")
    return source


def _check_weights(model: Model, found: dict) -> None:
    """Raise `ValueError` unless every weight came out of the files, as it should be: transformers draws what is missing.

    A head that is tied to the embeddings is not missing: transformers has taken it from the list.
    """
    if found["missing_keys"]:
        missing = sorted(found["missing_keys"])
        raise ValueError(f"its files lack {len(missing):,} of the weights that its config says, like {missing[0]}")
    expected = {_numberless(name) for name in model.state_dict()}
    if beyond := sorted(name for name in found["unexpected_keys"] if _numberless(name) in expected):
        raise ValueError(f"its files hold layers that its config does not count, like {beyond[0]}")
    if getattr(model.config.get_text_config(), "num_hidden_layers", 1) < 1:
        raise ValueError("its config counts no layers")
    if found["mismatched_keys"]:
        weight, there, wanted = min(found["mismatched_keys"])
        raise ValueError(f"{weight} has shape {list(there)} in its files, {list(wanted)} by its config")
    for weight, tensor in model.named_parameters():  # tied ones once
        if not all_finite(tensor):
            raise ValueError(f"{weight} has NaN or infinity as {str(tensor.dtype).removeprefix('torch.')}")


def _numberless(name: str) -> str:
    return re.sub(r"\d+", "#", name)
