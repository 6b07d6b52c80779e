"""What may be asked of a selection: budgets, costs and options, with one clear error for each mistake."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from fisherlib._door import numbers
from fisherlib.features import TokenFeatures


def costs_of(features: TokenFeatures, costs: Sequence[float] | Float[np.ndarray, " N"] | None) -> Float[np.ndarray, " N"]:
    """The costs as float64 [N], by default each example's response tokens. Raises `ValueError` for impossible costs."""
    lengths = features.lengths.numpy().astype(float)
    if costs is None:
        return lengths
    costs = numbers(costs, "costs")
    if costs.shape != lengths.shape:
        raise ValueError(f"expected one cost for each of {len(lengths):,} examples, got shape {costs.shape}")
    if not np.isfinite(costs).all() or (costs < 0).any() or (costs[lengths > 0] == 0).any():
        raise ValueError("expected positive, finite costs (0 only for examples without tokens): check the costs")
    return costs


def check_budget(features: TokenFeatures, costs: np.ndarray, examples: int | None, tokens: float | int | None) -> None:
    """Raise `ValueError` unless exactly one budget is given, positive and no larger than the pool."""
    if len(features) == 0:
        raise ValueError("expected features of at least one example, got none")
    if (examples is None) == (tokens is None):
        raise ValueError(f"expected exactly one of examples= and tokens=, got examples={examples}, tokens={tokens}")
    if examples is not None and not 0 < examples <= len(features):
        raise ValueError(
            f"expected a whole number of examples from 1 to {len(features):,} (the pool), got {examples}: change it"
        )
    if tokens is not None and not 0 < tokens <= costs.sum():
        raise ValueError(
            f"expected a budget from 1 to {costs.sum():,.0f} tokens (the whole pool), got {tokens:,}: change it"
        )


def check_options(
    features, costs, examples, tokens, rule, weighting, dtype, start, stop, batch_size, stochastic, memory
) -> None:
    """Raise `ValueError` for the first argument of `select` that is not what it should be."""
    check_budget(features, costs, examples, tokens)
    for name, value, known in (
        ("rule", rule, ("gain", "gain_per_token", "best")),
        ("dtype", dtype, ("auto", "bfloat16", "float32", "float64")),
    ):
        if value not in known:
            raise ValueError(f"expected {name} to be one of {known}, got {value!r}")
    if rule == "best" and tokens is None:
        raise ValueError("expected a budget of tokens for rule='best', got examples=: with these all rules are rule='gain'")
    if stop is not None and not 0 < stop < 1:
        raise ValueError(f"expected stop, a share of the first pick's gain, between 0 and 1, got {stop!r}: change it")
    if stop is not None and rule == "best":
        raise ValueError("expected rule='gain' or 'gain_per_token' beside stop=, got 'best': its exchanges have no order")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"expected a whole number as batch_size of at least 1, got {batch_size!r}")
    if stochastic is not None and not (examples is not None and 0 < stochastic < 1):
        raise ValueError(f"expected stochastic between 0 and 1, with examples= as the budget, got {stochastic!r}")
    check_memory(memory)
    check_weighting(features, weighting)
    if isinstance(start, TokenFeatures):
        if start.dim != features.dim:
            raise ValueError(f"expected a start of the features' width {features.dim}, got {start.dim}: extract both alike")
    elif start is not None and start.pool_size != len(features):
        raise ValueError(f"expected a start from this pool of {len(features):,}, got one from {start.pool_size:,} examples")


def check_memory(memory: float | int | None) -> None:
    """Raise `ValueError` for gigabytes that are none."""
    if memory is not None and not 0 < memory < np.inf:
        raise ValueError(f"expected a positive, finite number of gigabytes as memory, got {memory!r}: change it")


def check_weighting(features: TokenFeatures, weighting: str) -> None:
    """Raise `ValueError` for an unknown weighting, or one that the features have no weights for, or negative ones."""
    if weighting not in ("none", "trace"):
        raise ValueError(f"expected weighting to be one of ('none', 'trace'), got {weighting!r}")
    weights = features.trace_weights
    if weighting == "trace" and weights is None:
        raise ValueError("expected features with trace_weights for weighting='trace': extract them with extract_features")
    if weighting == "trace" and weights is not None and bool((weights < 0).any()):
        raise ValueError("expected trace_weights of at least 0, got others: extract the features again")
