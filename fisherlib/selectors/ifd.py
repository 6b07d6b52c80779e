"""Instruction-following difficulty: how much of its loss a response keeps when the prompt is read first (Li et al. 2024)."""

from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Float, Int

from fisherlib._door import checked
from fisherlib._types import Model, Tokenizer
from fisherlib.features import TokenFeatures
from fisherlib.model import context_length, nll, per_token
from fisherlib.selectors._contract import Ranking, selector
from fisherlib.selectors._pooled import centred, clusters
from fisherlib.selectors._scored import mean, scores_for
from fisherlib.selectors._text import exchanges
from fisherlib.text import Encoded, encode


@selector("IFD")
def ifd(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    model: Model | None = None,
    tokenizer: Tokenizer | None = None,
    scores: Float[np.ndarray, " N"] | None = None,
    **options,
) -> Ranking:
    """The examples with the highest score of at most 1; lowest index on ties. `seed` is not used.

    `model` and `tokenizer` are needed unless `scores` [N] are given, which `ifd_scores` returned before; `options` are its
    options (to give it `features=`, call it yourself). An example with a score above 1 is harder with its prompt than
    without, so the two do not belong together: the authors drop it. Here a budget is met, so these come last, the lowest
    first (our choice); `examples` of at most (scores <= 1).sum() takes none of them.
    Source: Li et al., arXiv 2308.12032.
    """
    ratio = options.get("ratio", "loss") if scores is None else "scores given"
    scores = scores_for(ifd_scores, rows, features, model, tokenizer, scores, options)
    # Falling up to 1, then rising: NaN, which only examples without tokens have, sorts last.
    order = np.lexsort((np.where(scores <= 1, -scores, scores), ~(scores <= 1)))
    return Ranking(order, {"ratio": ratio})


@checked
def ifd_scores(
    rows: Dataset | None,
    model: Model,
    tokenizer: Tokenizer,
    *,
    ratio: str = "loss",
    opening: str | None = None,
    features: TokenFeatures | None = None,
    tokens_per_batch: int = 1024,
    precision: str = "auto",
    progress: bool | None = None,
) -> Float[np.ndarray, " N"]:
    """Mean loss of the response after its prompt, divided by its mean loss alone [N]; NaN without response tokens.

    `ratio`: "loss", or "perplexity" for the ratio of exp(mean loss). Both are at most 1 for the same examples, but rank
    them differently: one compares the two losses by their quotient, the other by their difference. Alone means after
    `opening`, by default what the chat template writes before an answer, or without a template the token that begins or
    ends a text. The very same response tokens are scored both times, so a response that owes nothing to what precedes it
    has a score of 1.
    `features`: of these rows from this very model, whose `nll` then saves the pass with the prompts (checked on four rows).
    Any model will do as `model`: a smaller one is cheap and nearly as good (Superfiltering, which takes the ratio of
    perplexities); one that was tuned on the examples of `ifd_warm_up` first is the authors' pre-experienced model.
    Cost: two forward passes over the responses, one of them over the prompts too; the rest as in `fl.held_out_nll`.
    Source: Li et al., arXiv 2308.12032, where the response alone follows "### Response:"; the default opening is our choice.
    Raises `ValueError` for rows without a prompt or with several responses, an unknown ratio, or an empty opening.
    """
    if ratio not in ("loss", "perplexity"):
        raise ValueError(f"expected ratio to be one of ('loss', 'perplexity'), got {ratio!r}")
    exchanges(rows)  # every row has one prompt and one response
    after = encode(rows, tokenizer, max_tokens=context_length(model))
    alone = _without_prompts(after, _opening(after, tokenizer, opening))
    settings: dict[str, Any] = {"tokens_per_batch": tokens_per_batch, "precision": precision, "progress": progress}
    if features is None:
        with_prompt = np.array([mean(x) for x in per_token(model, after, nll, **settings)])
    else:
        with_prompt = _mean_nll(features, after)
        few = sorted(np.flatnonzero(np.isfinite(with_prompt)), key=lambda i: len(after[i].input_ids))[:4]
        for i, values in zip(few, per_token(model, [after[i] for i in few], nll, **settings), strict=True):
            if not abs(mean(values) - with_prompt[i]) < 0.05 * (1 + mean(values)):  # more than bfloat16 rounds
                raise ValueError(
                    f"expected features of this model, but row {i} has a mean nll of {with_prompt[i]:.3f} there and "
                    f"{mean(values):.3f} here: extract them with this model, or leave features= out"
                )
    without = np.array([mean(x) for x in per_token(model, alone, nll, **settings)])
    if ratio == "perplexity":
        return np.exp(with_prompt - without)
    with np.errstate(divide="ignore", invalid="ignore"):
        # A response that costs nothing either way owes nothing to its prompt.
        return np.where((with_prompt == 0) & (without == 0), 1.0, with_prompt / without)


def _opening(rows: list[Encoded], tokenizer: Tokenizer, opening: str | None) -> list[int]:
    """The token ids before a response that stands alone. They begin with the token that begins every row, if one does."""
    begins = next(row.input_ids[0] for row in rows if row.input_ids)
    ids, bos = [], tokenizer.bos_token_id
    if opening is None and tokenizer.chat_template is not None:
        turn = [{"role": "user", "content": "?"}]
        asked, ready = (tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=g) for g in (False, True))
        opening = ready.removeprefix(asked) if ready.startswith(asked) else ""
    if opening:
        ids = list(tokenizer(opening, add_special_tokens=False)["input_ids"])
    if begins == bos and ids[:1] != [bos]:
        ids = [bos, *ids]
    ids = ids or [token for token in (bos, tokenizer.eos_token_id) if token is not None][:1]
    if not ids:
        raise ValueError("expected an opening of at least one token, got none: give opening=, for instance a line break")
    return ids


def _without_prompts(rows: list[Encoded], opening: list[int]) -> list[Encoded]:
    """The same response tokens, after the opening instead of the prompt."""
    bare = []
    for row in rows:
        response = [token for token, counts in zip(row.input_ids, row.is_response, strict=True) if counts]
        bare.append(Encoded([*opening, *response], [False] * len(opening) + [True] * len(response)))
    return bare


def _mean_nll(features: TokenFeatures, rows: list[Encoded]) -> Float[np.ndarray, " N"]:
    if features.nll is None or features.lengths.tolist() != [sum(row.is_response) for row in rows]:
        raise ValueError(
            f"expected features with nll of these {len(rows):,} rows, token by token, got {features}: "
            "extract them from the same rows, or leave features= out"
        )
    parts = features.nll.double().split(features.lengths.tolist())
    return np.array([mean(part.numpy()) for part in parts])


@checked
def ifd_warm_up(
    features: TokenFeatures,
    *,
    n_clusters: int = 100,
    per_cluster: int = 10,
    spread: Float[np.ndarray, " N"] | None = None,
    seed: int = 0,
) -> Int[np.ndarray, " n"]:
    """Examples for the brief tuning that comes before scoring: `per_cluster` of the middle half of each k-means cluster.

        warm = fl.fine_tune(model, tokenizer, rows.select(ifd_warm_up(features)))        # one epoch
        chosen = ifd(rows, features, tokens=6_000, model=warm.model, tokenizer=tokenizer)

    k-means runs on the centred means of the examples' token vectors, with `n_clusters` clusters, or as many as there are
    examples with tokens. The middle half lies between the quartiles of `spread` [N] inside the cluster, counted in ranks so
    that it is never empty; of these, `per_cluster` are drawn with `seed`, or all if they are fewer. By cluster, then index.
    `spread` is by default the distance to the centre (our choice; the authors' code takes the perplexity of the prompt).
    The 100 clusters and 10 examples are the authors'; a small pool wants fewer. Cost: k-means, O(N k d) an iteration.
    """
    if n_clusters < 1 or per_cluster < 1:
        raise ValueError(f"expected n_clusters and per_cluster of at least 1, got {n_clusters} and {per_cluster}")
    if spread is not None and len(spread) != len(features):
        raise ValueError(f"expected a spread for each of {len(features):,} examples, got {len(spread):,}")
    ids, X = centred(features)
    labels, distances = clusters(X, min(n_clusters, len(ids)), seed)
    by = distances if spread is None else np.asarray(spread, dtype=float)[ids]
    rng = np.random.default_rng(seed)
    chosen = []
    for cluster in np.unique(labels):
        members = np.flatnonzero(labels == cluster)
        members = members[np.argsort(by[members], kind="stable")]
        middle = members[len(members) // 4 : -(-3 * len(members) // 4)]
        chosen.append(np.sort(rng.permutation(middle)[:per_cluster]))
    return ids[np.concatenate(chosen)]
