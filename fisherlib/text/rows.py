"""What *rows* are: a `datasets.Dataset`. Whatever else is given in its place is refused in one sentence."""

from datasets import Dataset

# By name: this wing imports none of those that come after it.
_INSTEAD = {
    "Pool": "give pool.train",
    "DatasetDict": "give one of its splits",
    "TokenFeatures": "rows come before their features",
    "NoneType": "give the dataset",
}


def check_rows(rows: object, *, ids: bool = False) -> None:
    """Raise `ValueError` unless `rows` is a `datasets.Dataset`; with `ids`, lists (of token ids) will do too."""
    kind = type(rows).__name__
    if not isinstance(rows, Dataset) and (not ids or kind in _INSTEAD):
        instead = _INSTEAD.get(kind, "make one with Dataset.from_list")
        raise ValueError(f"expected rows, a datasets.Dataset, got a {kind}: {instead}")
