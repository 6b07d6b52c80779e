"""What to do when nothing is known of the pool: information says where to look, chance says which."""

from dataclasses import replace

from datasets import Dataset

from fisherlib.features import TokenFeatures
from fisherlib.greedy import Selection, select
from fisherlib.selectors._contract import selector
from fisherlib.selectors.deduplicated import deduplicated
from fisherlib.selectors.in_clusters import in_clusters


@selector("recipe")
def recipe(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    examples: int | None,
    tokens: float | int | None,
    seed: int,
) -> Selection:
    """Near-duplicates out, then a random choice inside each of eight clusters, with the share that FisherSFT spends there.

    The three parts, each for a failing of another: copies teach nothing new; FisherSFT finds the neighbourhoods that the
    rest of the pool does not stand for; and inside a neighbourhood chance takes what is typical of it, where FisherSFT takes
    what is odd. Made of `selectors.deduplicated`, `selectors.in_clusters` and `select`, for other choices of each.
    Indices are those of the whole pool. Source: extension; chosen and confirmed as notebook 05b tells.
    A budget beyond what is left without near-duplicates takes all of that, and then near-duplicates at random.
    Cost: near-duplicates O(characters), k-means, and one `select` by gain per token. Raises `ValueError` for rows without
    text, and for another number of rows than the features are of.
    """

    def informative(_, kept: TokenFeatures, *, seed: int, **budget) -> Selection:
        return select(kept, rule="gain_per_token", **budget)

    parts = {"threshold": 0.5, "refill": True, "then": in_clusters, "like": informative}
    chosen = deduplicated(rows, features, examples=examples, tokens=tokens, seed=seed, **parts)
    return replace(chosen, settings=chosen.settings | {"method": "recipe"})
