"""Ask the language model itself whether an example is worth training on (Sachdeva et al. 2024)."""

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float

from fisherlib._door import checked, numbers
from fisherlib._types import Model, Tokenizer
from fisherlib.features import TokenFeatures
from fisherlib.model import context_length, per_token
from fisherlib.selectors._contract import Ranking, selector
from fisherlib.selectors._text import texts
from fisherlib.text import Encoded

# Our own wording: the paper's was not available to us.
QUESTION = """Here is an example from a collection of texts:

###
{document}
###

Is this example informative and well written, so that a language model would learn something useful from it? \
Answer with one word, yes or no.
Answer:"""
_YES, _NO = (" yes", " Yes", "yes", "Yes"), (" no", " No", "no", "No")


@selector("AskLLM")
def ask_llm(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    model: Model | None = None,
    tokenizer: Tokenizer | None = None,
    scores: Float[np.ndarray, " N"] | None = None,
    **options,
) -> Ranking:
    """The examples with the highest P(yes), lowest index on ties. `seed` is not used.

    `model` and `tokenizer` are needed unless `scores` [N] are given, which `ask_llm_scores` returned before; `options`
    are its options. A small model that was never taught to answer says nearly the same of every example: look at the
    spread of the scores before you trust their order. Source: Sachdeva et al., arXiv 2402.09668; the question is ours.
    """
    asked = options.get("question", QUESTION) if scores is None else "scores given"
    if scores is None:
        if model is None or tokenizer is None:
            raise ValueError("expected a model and its tokenizer to ask, or scores= of ask_llm_scores, got neither")
        scores = ask_llm_scores(rows, model, tokenizer, **options)
    elif options:
        raise ValueError(f"expected no more options beside scores=, got {sorted(options)}: they were for the scoring")
    scores = numbers(scores, "scores")  # unsigned ones have no negatives
    if scores.shape != (len(features),) or not np.isfinite(scores).all():
        raise ValueError(
            f"expected a finite score for each of {len(features):,} examples, got {len(scores):,}: check scores="
        )
    return Ranking(np.argsort(-scores, kind="stable"), {"question": asked})


@checked
def ask_llm_scores(
    rows: Dataset | None,
    model: Model,
    tokenizer: Tokenizer,
    *,
    question: str = QUESTION,
    tokens_per_batch: int = 2048,
    precision: str = "auto",
    progress: bool | None = None,
    padding_side: str = "right",
) -> Float[np.ndarray, " N"]:
    """P(yes) / (P(yes) + P(no)) of the next token after a question about each example: in (0, 1), float64.

    `question` holds `{document}`, where the example's text goes; it is asked in a user's turn if the tokenizer has a chat
    template. Both probabilities are sums over the first tokens of the word with and without a space and a capital, less
    those with which both words may begin (a lone space, with some tokenizers): these do not tell them apart. A document
    that is too long for the model's context is cut at its end until the question fits. The other options are those of
    `fl.extract_features`, and do not change the scores beyond rounding. Time: one forward pass over all texts.
    Raises `ValueError` for rows without text, a tokenizer that begins every form of "yes", or every form of "no", as it
    may begin the other word, a question without `{document}`, or one that is too long by itself.
    """
    if question.count("{document}") != 1:
        raise ValueError("expected {document} once in the question: it marks the place of the example's text")
    yes, no = _answers(tokenizer)
    context = context_length(model)
    # A last token stands in for the answer: the position before it is the one whose prediction is read.
    prompts = [[*_prompt(text, tokenizer, question, context), yes[0]] for text in texts(rows)]
    encoded = [Encoded(ids, [False] * (len(ids) - 1) + [True]) for ids in prompts]

    def says_yes(logits: Float[torch.Tensor, "m V"], _labels) -> Float[torch.Tensor, " m"]:
        margin = (logits[:, yes].logsumexp(1) - logits[:, no].logsumexp(1)).cpu().double()  # MPS has no float64
        return margin.clamp(-36, 36).sigmoid()  # beyond that, 1 - score is lost in float64

    answers = per_token(
        model, encoded, says_yes,
        tokens_per_batch=tokens_per_batch, precision=precision, padding_side=padding_side, progress=progress,
    )  # fmt: skip
    return np.array([float(p[0]) for p in answers])


def _answers(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The tokens that begin a yes, and those that begin a no."""
    yes, no = ({tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in words} for words in (_YES, _NO))
    if yes <= no or no <= yes:
        raise ValueError(
            f"expected 'yes' and 'no' to begin with different tokens, but both begin with token {min(yes & no)}: "
            "choose a model with another tokenizer"
        )
    return sorted(yes - no), sorted(no - yes)


def _prompt(document: str, tokenizer: Tokenizer, question: str, context: int | None) -> list[int]:
    """Token ids of the question about one document, whose end is cut off as far as the context requires."""
    while True:
        text, templated = question.replace("{document}", document), tokenizer.chat_template is not None
        if templated:
            turn = [{"role": "user", "content": text}]
            text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=not templated)["input_ids"]
        if context is None or len(ids) < context:
            return list(ids)
        if not document:
            raise ValueError(f"expected a context of more than {len(ids)} tokens, the question alone, got {context}")
        spans = tokenizer(document, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        keep = len(spans) - (len(ids) - context + 1)
        document = document[: min(spans[keep - 1][1], len(document) - 1)] if keep > 0 else ""
