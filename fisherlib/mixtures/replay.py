"""Old examples among the new ones, so that a model which goes on learning keeps what it knew."""

from collections.abc import Callable, Sequence

import numpy as np
from datasets import Dataset, concatenate_datasets
from jaxtyping import Int

from fisherlib._door import checked
from fisherlib._types import Tokenizer
from fisherlib.text import encode


@checked
def replayed(
    new: Dataset | Sequence[Sequence[int]],
    old: Dataset | Sequence[Sequence[int]],
    *,
    share: float | int,
    tokens: int,
    tokenizer: Tokenizer | None = None,
    choose: Callable[[int], Sequence[int] | Int[np.ndarray, " k"]] | None = None,
    seed: int = 0,
) -> Dataset | list[Sequence[int]]:
    """Rows with `tokens` response tokens, of which about `share` are old: what `fl.fine_tune` is then given.

    >>> fl.mixtures.replayed([[1, 1, 1]] * 9, [[2, 2, 2]] * 9, share=0.25, tokens=8)
    [[1, 1, 1], [1, 1, 1], [1, 1, 1], [2, 2, 2]]

    New rows come in random order until their part of the budget is met, old ones too, or those that `choose(tokens)` names
    for that many, as positions in `old`: FisherSFT, for one. Each part ends with the last row that fits, so a share is met
    to one row. `new` and `old` are two datasets, or two lists of token ids with `tokenizer=None`. O(rows) encodings.
    Source: replay as in arXiv 2403.08763; to choose what is replayed is our extension.
    Raises `ValueError` for a share outside [0, 1], for a part that has fewer tokens than it is to give, or for positions
    that are not rows, come twice or have more tokens than they were asked for.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"expected a share from 0 to 1, got {share}")
    if tokens < 1:
        raise ValueError(f"expected at least 1 token, got {tokens}")
    again = round(share * tokens)
    rng = np.random.default_rng(seed)
    parts = []
    for name, rows, budget in (("new", new, tokens - again), ("old", old, again)):
        chosen = choose if name == "old" else None
        parts.append(_some(name, rows, budget, tokenizer, chosen, rng) if budget else [])
    if isinstance(new, Dataset) and isinstance(old, Dataset):
        return concatenate_datasets([rows.select(part) for rows, part in zip((new, old), parts, strict=True)])
    return [rows[i] for rows, part in zip((new, old), parts, strict=True) for i in part]


def _some(
    name: str,
    rows: Dataset | Sequence[Sequence[int]],
    budget: int,
    tokenizer: Tokenizer | None,
    choose,
    rng: np.random.Generator,
) -> list[int]:
    """Positions of rows with at most `budget` response tokens, as many as fit one after the other."""
    lengths = np.array([sum(example.is_response) for example in encode(rows, tokenizer)])
    if lengths.sum() < budget:
        raise ValueError(
            f"expected {budget:,} tokens of {name} rows, got {lengths.sum():,}: lower tokens or this part's share, "
            "or go over the rows again with epochs="
        )
    if choose is None:
        order = rng.permutation(len(rows))
        return order[lengths[order].cumsum() <= budget].tolist()
    picks = [int(i) for i in choose(budget)]
    if not all(0 <= i < len(rows) for i in picks) or len(set(picks)) < len(picks) or lengths[picks].sum() > budget:
        raise ValueError(
            f"expected choose({budget:,}) to give different positions in {len(rows):,} {name} rows with that many tokens "
            f"at most, got {len(picks):,} with {lengths[[i for i in picks if 0 <= i < len(rows)]].sum():,}"
        )
    return picks
