"""Loading a causal language model and its tokenizer."""

from pathlib import Path

from fisherlib._files import first_line
from fisherlib._quiet import quiet_transformers
from fisherlib._types import Model, Tokenizer
from fisherlib.assets import MODELS, fetch


def load_model(name: str | Path = "smollm2-135m", *, dtype: str = "float32") -> tuple[Model, Tokenizer]:
    """Load a causal language model and its tokenizer.

    `name`: a shipped model ("smollm2-135m"), a folder, or a transformers model id. `dtype`: of the weights; keep
    float32 for fine-tuning (what runs a model computes in bfloat16 over them where the device has units for it).
    Returns `(model, tokenizer)`, the model in eval mode on the CPU.
    Raises `ValueError` if it is no causal LM or cannot be loaded, `AssetError` if the shipped model cannot be fetched.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    name = str(name)
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"expected dtype 'float32', 'bfloat16' or 'float16', got {dtype!r}")
    source = str(fetch(name)) if name in MODELS else name
    # A model id has at most one slash; what has more, or starts like a path, was meant as a folder.
    if not Path(source).is_dir() and (source.count("/") > 1 or source.startswith((".", "/", "~"))):
        raise ValueError(f"expected a model id, a folder or one of {MODELS}, got {name!r}: no such folder; check the path")
    with quiet_transformers():
        try:
            config = AutoConfig.from_pretrained(source)
            causal = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
            if config.architectures and not causal.intersection(config.architectures):
                raise ValueError(f"its architecture is {config.architectures[0]}")
            model = AutoModelForCausalLM.from_pretrained(source, dtype=getattr(torch, dtype))
            tokenizer = AutoTokenizer.from_pretrained(source)
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(
                f"expected a causal language model, could not load {name!r} ({first_line(error)}): "
                f"give a folder that holds one, an id that is reachable from here, or one of {MODELS}"
            ) from error
    model.config._name_or_path = name  # what was asked for, not where it happens to be cached
    return model.eval(), tokenizer
