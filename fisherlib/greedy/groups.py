"""Labels that put examples into groups, and what each group holds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

Labels = Sequence[Any] | Shaped[np.ndarray, " N"] | Shaped[Tensor, " N"]


def plain_labels(groups: Labels, n: int) -> list:
    """The label of each of `n` examples, as a plain value: a text, a number or None.

    Raises `ValueError` for another number of labels, and for labels that make no groups.
    """
    labels = groups.tolist() if hasattr(groups, "tolist") else list(groups)
    found = len(labels) if isinstance(labels, list) else 1  # a tensor of one number is no list of one
    if found != n or not isinstance(labels, list):
        raise ValueError(f"expected a label for each of {n:,} examples, got {found:,}: change groups=")
    labels = [_label(i, label) for i, label in enumerate(labels)]
    named: dict[str, Any] = {}
    for label in labels:
        if (other := named.setdefault(str(label), label)) != label:  # what is noted of a group is noted by its name
            raise ValueError(f"expected labels of different names, got {other!r} and {label!r}: change groups=")
    return labels


def _label(i: int, label: Any) -> Any:
    """Raise `ValueError` unless it is a value that examples can have in common; numbers of NumPy and torch as Python's."""
    try:
        plain = label.item() if hasattr(label, "item") else label
        hash(plain)
        same = bool(plain == plain)
    except (TypeError, ValueError, RuntimeError):  # a list; more than one number; pandas' NA
        same = False
    if not same:
        raise ValueError(
            f"row {i}: expected a label of a group, a text or a number, or None, got {label!r:.60}: change groups="
        )
    return plain


def share_of(labels: Sequence[Any], price: np.ndarray) -> dict[Any, float]:
    """What each group costs in all, the groups in the order of their labels (as they come, if these have none)."""
    held: dict[Any, float] = {}
    for label, cost in zip(labels, price.tolist(), strict=True):
        if label is not None:
            held[label] = held.get(label, 0.0) + cost
    try:
        return dict(sorted(held.items()))
    except TypeError:
        return held


def got_by_group(rows: Sequence[dict], labels: Sequence[Any], paid: np.ndarray, costs: np.ndarray) -> list[dict[str, Any]]:
    """What each group got, beside what was asked of it.

    `rows`: the groups as `Quotas.rows` has them; of each pick its label, its price in units of the budget, and its cost.
    """
    of = np.array([[row["group"] for row in rows].index(label) for label in labels], dtype=np.int64)
    all_of_it, pool, made = max(float(paid.sum()), 1e-300), max(sum(row["pool"] for row in rows), 1e-300), []
    for g, row in enumerate(rows):
        got = float(paid[of == g].sum())
        short, most = max(row["low"] - got, 0.0), np.inf if row["high"] is None else row["high"]
        slack = 1e-9 * max(row["low"], got)
        made.append(
            {
                "group": row["group"],
                "floor": row["low"],
                "ceiling": row["high"],
                "got": got,
                "met": bool((short <= slack or short < row["longest"]) and got <= most + slack),
                "share": got / all_of_it,
                "share_of_pool": row["pool"] / pool,
                "examples": int((of == g).sum()),
                "cost": float(costs[of == g].sum()),
            }
        )
    return made
