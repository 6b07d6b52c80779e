"""The result of a selection: an ordered list of examples, what each added, and how good the whole is."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Int

from fisherlib._files import plain, replacing
from fisherlib.text import check_rows

FORMAT = 1


@dataclass(frozen=True)
class Selection:
    """Examples in the order they were picked.

    `indices` [n] into the pool; `gains` [n], what each pick added to the objective (natural log, so nats); `costs` [n]
    (response tokens unless other costs were given); `objective` = log det(V) - log det(V0); `upper_bound` on the
    objective of *any* selection within the budget, where known; `evaluations` of a gain; `seconds` of selection;
    `settings` that led here; `weights` [n], where the picks are a weighted sample: a sum over the picks with these
    weights is an unbiased estimate of the sum over the pool.

    >>> picks = {"indices": np.array([7, 2, 5]), "gains": np.array([2.0, 1.5, 0.5]), "costs": np.array([3.0, 1.0, 2.0])}
    >>> selection = fl.Selection(**picks, pool_size=10, upper_bound=5.0)
    >>> len(selection), selection.objective, selection.certificate
    (3, 4.0, 0.8)
    >>> selection.prefix(tokens=4).indices
    array([7, 2])
    """

    indices: np.ndarray
    gains: np.ndarray
    costs: np.ndarray
    pool_size: int
    upper_bound: float | None = None
    evaluations: int = 0
    seconds: float = 0.0
    settings: dict = field(default_factory=dict)
    weights: np.ndarray | None = None

    def __post_init__(self):
        for name in self._arrays():
            array = getattr(self, name).copy()
            array.setflags(write=False)  # frozen means frozen, and a prefix must not be a door into its parent
            object.__setattr__(self, name, array)
        if not len(self.indices) == len(self.gains) == len(self.costs):
            raise ValueError(f"expected as many gains and costs as the {len(self.indices)} indices")
        if self.weights is not None and not (len(self.weights) == len(self) and (self.weights > 0).all()):
            raise ValueError(f"expected a positive weight for each of the {len(self.indices)} indices, got {self.weights}")
        if len(np.unique(self.indices)) < len(self.indices) or not all(0 <= i < self.pool_size for i in self.indices):
            raise ValueError(f"expected different indices from 0 to {self.pool_size - 1}, got {self.indices.tolist()[:20]}")

    def __len__(self) -> int:
        return len(self.indices)

    def _arrays(self) -> tuple[str, ...]:
        return ("indices", "gains", "costs") if self.weights is None else ("indices", "gains", "costs", "weights")

    def __repr__(self) -> str:
        text = (
            f"{self.settings.get('method', 'selection')}: {len(self):,} of {self.pool_size:,} examples, "
            f"cost {self.costs.sum():,.0f}, information {self.objective:,.1f} nats"
        )
        if self.certificate is not None:
            text += f", at least {_floor_percent(self.certificate)} of the best possible"
        return f"{text} ({self.evaluations:,} gain evaluations, {self.seconds:.2f} s)"

    @property
    def objective(self) -> float:
        return float(self.gains.sum())

    @property
    def certificate(self) -> float | None:
        """Objective divided by its upper bound: this selection reaches at least that share of the optimum."""
        if self.upper_bound is None:
            return None
        return 1.0 if self.upper_bound <= self.objective else self.objective / self.upper_bound

    def prefix(self, *, examples: int | None = None, tokens: float | int | None = None) -> "Selection":
        """The first picks: `examples` of them, or as many as cost at most `tokens`. Gives no certificate of its own.

        It has no weights either: those of a weighted sample are for the whole of it.

        Raises `ValueError` unless exactly one budget is given and it lies within this selection.
        """
        if (examples is None) == (tokens is None):
            raise ValueError(f"expected exactly one of examples= and tokens=, got examples={examples}, tokens={tokens}")
        spent = self.costs.cumsum()
        if examples is not None and not 0 < examples <= len(self):
            raise ValueError(f"expected 1 to {len(self)} examples, got {examples}: select more first")
        if tokens is not None and not (len(self) and spent[0] <= tokens <= spent[-1]):
            raise ValueError(f"expected {spent[:1].sum():g} to {spent[-1:].sum():g} tokens, got {tokens}: select more first")
        n = examples if examples is not None else int((spent <= tokens).sum())
        settings = {**self.settings, "prefix_of": len(self)}
        return replace(
            self,
            indices=self.indices[:n],
            gains=self.gains[:n],
            costs=self.costs[:n],
            upper_bound=None,
            weights=None,
            settings=settings,
        )

    def of_subset(self, kept: Sequence[int] | Int[np.ndarray, " k"], pool_size: int) -> "Selection":
        """The same picks in the pool of `pool_size` examples that `kept` are of, if this selection is among these.

        The upper bound is for choices among them, so it is dropped. Raises `ValueError` if they are not as many as this
        selection was made from.

        >>> among = fl.Selection(indices=np.array([2, 0]), gains=np.ones(2), costs=np.ones(2), pool_size=3)
        >>> among.of_subset([4, 5, 9], pool_size=10).indices
        array([9, 4])
        """
        if len(kept) != self.pool_size:
            raise ValueError(f"expected the {self.pool_size:,} examples that were selected from, got {len(kept):,}")
        return replace(self, indices=np.asarray(kept)[self.indices], pool_size=pool_size, upper_bound=None)

    def to_dataset(self, rows: Dataset) -> Dataset:
        """The chosen rows, in pick order. Raises `ValueError` unless `rows` are as many as were selected from."""
        check_rows(rows)
        if len(rows) != self.pool_size:
            raise ValueError(f"expected the pool of {self.pool_size:,} rows that was selected from, got {len(rows):,} rows")
        return rows.select(self.indices.tolist())

    def save(self, path: str | Path) -> None:
        """Write a JSON manifest; an existing one is replaced as a whole, never half-written."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        manifest = {"format": FORMAT, "objective": self.objective, "certificate": self.certificate, **asdict(self)}
        manifest |= {name: getattr(self, name).tolist() for name in self._arrays()}
        with replacing(path) as scratch:
            scratch.write_text(json.dumps(manifest, indent=1, default=plain))

    @classmethod
    def load(cls, path: str | Path) -> "Selection":
        """Read a manifest. Raises `ValueError` if the file is not one."""
        try:
            manifest = json.loads(Path(path).read_text())
            if manifest["format"] != FORMAT:
                raise ValueError(f"format {manifest['format']}, this version reads format {FORMAT}")
            arrays: dict[str, Any] = {
                "indices": np.array(manifest["indices"], dtype=np.int64),
                "gains": np.array(manifest["gains"], dtype=np.float64),
                "costs": np.array(manifest["costs"], dtype=np.float64),
            }
            if manifest.get("weights") is not None:  # manifests of before there were any have none
                arrays["weights"] = np.array(manifest["weights"], dtype=np.float64)
            rest = {k: manifest[k] for k in ("pool_size", "upper_bound", "evaluations", "seconds", "settings")}
            return cls(**arrays, **rest)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"expected a manifest written by Selection.save, got {path} ({error})") from error


def _floor_percent(share: float) -> str:
    """A guarantee is rounded down: 0.99987 is "99.98 %", not "99.99 %"."""
    return f"{np.floor(share * 1e4) / 100:.2f} %"
