"""Names for what comes from transformers, for readers and type checkers. At run time whatever behaves like it will do."""

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from transformers import PreTrainedModel as Model
    from transformers import PreTrainedTokenizerBase as Tokenizer
else:

    @runtime_checkable
    class Model(Protocol):
        config: Any

        def get_output_embeddings(self): ...

    @runtime_checkable
    class Tokenizer(Protocol):
        is_fast: bool

        def __call__(self, *args, **kwargs): ...


__all__ = ["Model", "Tokenizer"]
