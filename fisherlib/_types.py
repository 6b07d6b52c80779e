"""Names for what comes from transformers, for readers and type checkers. At run time whatever behaves like it will do."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel as Model
    from transformers import PreTrainedTokenizerBase as Tokenizer
else:
    Model = Tokenizer = Any

__all__ = ["Model", "Tokenizer"]
