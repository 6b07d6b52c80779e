"""The result of a selection: an ordered list of examples, what each added, and how good the whole is."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Int

from fisherlib._door import check_fields, checked
from fisherlib._files import as_json, explained, first_line, replacing
from fisherlib.features import TokenFeatures
from fisherlib.greedy.groups import got_by_group
from fisherlib.text import as_stored, check_same_rows, write_jsonl

FORMAT = 1
_ROUNDING = 1e-6  # how far, relatively, an objective may lie above its bound, or from the sum of its gains


@dataclass(frozen=True, eq=False)  # what holds arrays is compared by them, one by one
class Selection:
    """Examples in the order they were picked.

    `indices` [n] into the pool; `gains` [n], what each pick added to the objective (natural log, so nats); `costs` [n]
    (response tokens unless other costs were given); `objective` = log det(V) - log det(V0); `upper_bound` on the
    objective of *any* selection within the budget, where known; `evaluations` of a gain; `seconds` of selection;
    `settings` that led here; `weights` [n], where the picks are a weighted sample: a sum over the picks with these
    weights is an unbiased estimate of the sum over the pool. `provenance`: for each pick a hash of its row and, where
    known, its id, file and line (`TokenFeatures.provenance`); None for features that were made by hand. `groups`: the label
    of each pick, where `select` was given groups. `==` asks whether two names are of one selection: to compare two, compare
    their `indices`.
    Raises `ValueError` for indices that are no different whole numbers of the pool, gains or costs that are not finite,
    negative costs, and an upper bound below the objective.

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
    provenance: Dataset | None = field(default=None, repr=False)
    groups: tuple | None = field(default=None, repr=False)

    def __post_init__(self):
        check_fields(self)
        for name, value in (("pool_size", self.pool_size), ("evaluations", self.evaluations), ("seconds", self.seconds)):
            if not 0 <= value < np.inf:
                raise ValueError(f"expected {name} of at least 0, and finite, got {value}")
        for name in self._arrays():
            array = np.array(getattr(self, name))  # a copy
            array.setflags(write=False)  # frozen means frozen, and a prefix must not be a door into its parent
            object.__setattr__(self, name, array)
            if array.ndim != 1 or array.dtype.kind not in ("iu" if name == "indices" and array.size else "iuf"):
                raise ValueError(f"expected a list of {'whole ' * (name == 'indices')}numbers as {name}, got {array!r:.100}")
        if not len(self.indices) == len(self.gains) == len(self.costs):
            raise ValueError(f"expected as many gains and costs as the {len(self.indices)} indices")
        if not (np.isfinite(self.gains).all() and np.isfinite(self.costs).all() and (self.costs >= 0).all()):
            raise ValueError("expected finite gains, and finite costs of at least 0, got others: check the selection")
        if self.upper_bound is not None:
            most = self.upper_bound + _ROUNDING * max(abs(self.upper_bound), 1.0)
            if not (np.isfinite(self.upper_bound) and self.objective <= most):
                raise ValueError(
                    f"expected an upper bound of at least {self.objective:g}, what the picks gained, got {self.upper_bound}"
                )
        if self.provenance is not None and len(self.provenance) != len(self):
            raise ValueError(f"expected the provenance of {len(self)} picks, got {len(self.provenance)} rows")
        if self.groups is not None and len(self.groups) != len(self):
            raise ValueError(f"expected the groups of {len(self)} picks, got {len(self.groups)}")
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
        text += "" if self.stopped is None else f", stopped early: {self.stopped}"
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

    @property
    def stopped(self) -> str | None:
        """Why `select(stop=...)` ended before the budget was spent; None where it did not."""
        return self.settings.get("stopped")

    def knee(self) -> int:
        """How many picks there are before the bend of the gain curve: from there on, more costs much and adds little.

        The curve is the gain so far against the cost so far (the picks so far, for a budget of examples). The bend is where
        it is farthest above the straight line from its start to its end: the last pick that gains at least as much for its
        cost as the whole does on average, where gains for their cost fall from pick to pick. The first of equal ones. Our
        rule (extension); a curve that is a straight line bends nowhere, and all picks are before it. Raises `ValueError` for
        a selection without picks.

        >>> falling = {"indices": np.arange(4), "gains": np.array([8.0, 6.0, 1.0, 1.0]), "costs": np.ones(4)}
        >>> fl.Selection(**falling, pool_size=9).knee()
        2
        """
        if not len(self):
            raise ValueError("expected a selection with picks, got none: there is no curve")
        paid = self.costs if "tokens" in self.settings.get("budget", {"tokens": 0}) else np.ones(len(self))
        x, y = (part.cumsum() / max(part.sum(), 1e-300) for part in (paid, self.gains))
        above = y - x
        return int(np.argmax(above >= above.max() - 1e-12)) + 1 if above.max() > 1e-12 else len(self)

    @checked
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
        most = 0.0 if tokens is None else tokens * (1 + 1e-9)  # as in `select`: costs like 0.1 do not add up exactly
        if tokens is not None and not (len(self) and spent[0] <= most and tokens <= spent[-1] * (1 + 1e-9)):
            raise ValueError(f"expected {spent[:1].sum():g} to {spent[-1:].sum():g} tokens, got {tokens}: select more first")
        n = examples if examples is not None else int((spent <= most).sum())
        settings = {**self.settings, "prefix_of": len(self)}
        settings.pop("stopped", None)  # that was said of the whole
        return replace(
            self,
            indices=self.indices[:n],
            gains=self.gains[:n],
            costs=self.costs[:n],
            upper_bound=None,
            weights=None,
            settings=settings,
            provenance=None if self.provenance is None else self.provenance.select(range(n)),
            groups=None if self.groups is None else self.groups[:n],
        )

    @checked
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

    def by_group(self) -> list[dict[str, Any]]:
        """Asked against got: one row for each group of the pool, where `select` was given groups.

        `floor` and `ceiling` (None: without) and what it `got`, in units of the budget; `met`: over no ceiling, and below
        the floor by less than one example of the group; its `share` of what was spent and `share_of_pool`; its `examples`
        and their `cost`. Floors and ceilings are those of the whole selection, also in a prefix of it. Raises `ValueError`
        for a selection without groups.
        """
        if self.groups is None:
            raise ValueError("expected a selection with groups, got one without: give groups= to fl.select")
        paid = self.costs if "tokens" in self.settings["budget"] else np.ones(len(self))
        return got_by_group(self.settings["groups"], self.groups, paid, self.costs)

    @checked
    def to_dataset(self, rows: Dataset) -> Dataset:
        """The chosen rows, in pick order.

        Raises `ValueError` unless `rows` are as many as were selected from and, where the selection knows its rows, the
        picks are the rows that they were.
        """
        if len(rows) != self.pool_size:
            raise ValueError(f"expected the pool of {self.pool_size:,} rows that was selected from, got {len(rows):,} rows")
        check_same_rows(rows, self.provenance, self.indices.tolist())
        return rows.select(self.indices.tolist())

    @checked
    def to_jsonl(self, rows: Dataset, path: str | Path) -> None:
        """Write the chosen rows to a file, in pick order: each line byte for byte as it was in the file it came from.

        Rows that `load_pool` did not read from a `.jsonl` file are written as JSON. An existing file is replaced as a whole.
        Raises `ValueError` as `to_dataset`, and for rows that JSON cannot hold or that were edited since they were read;
        `OSError` if the file cannot be written.
        """
        write_jsonl(self.to_dataset(rows), path)

    @checked
    def save(self, path: str | Path) -> None:
        """Write a JSON manifest; an existing one is replaced as a whole, never half-written.

        The settings become what JSON has for them: keys are text, tuples and arrays are lists, a path is text. Raises
        `ValueError`, and writes nothing, where it has nothing (tuples as keys, two keys with one text), `OSError` if it
        cannot be written.
        """
        path = Path(path)
        left_out = {"provenance", *(["groups"] if self.groups is None else [])}  # as before there were any
        known = {name: value for name, value in vars(self).items() if name not in left_out}
        manifest = {"format": FORMAT, "objective": self.objective, "certificate": self.certificate, **known}
        manifest |= {name: getattr(self, name).tolist() for name in self._arrays()}
        if self.provenance is not None:
            manifest["provenance"] = [{k: v for k, v in row.items() if v is not None} for row in as_stored(self.provenance)]
        manifest = as_json(manifest, "settings")
        manifest["digest"] = _digest(manifest)
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as scratch:
                scratch.write_text(json.dumps(manifest, indent=1))

    @classmethod
    @checked
    def load(cls, path: str | Path) -> "Selection":
        """Read a manifest. Raises `ValueError` if the file is not one, was edited, or says what no selection can be."""
        try:
            manifest = json.loads(Path(path).read_text())
            if manifest["format"] != FORMAT:
                raise ValueError(f"format {manifest['format']}, this version reads format {FORMAT}")
            if manifest.pop("digest", None) not in (None, _digest(manifest)):  # older ones have none
                raise ValueError("it was edited or damaged: its digest is another")
            arrays: dict[str, Any] = {name: np.array(manifest[name]) for name in ("indices", "gains", "costs")}
            arrays |= {
                name: array.astype(float) for name, array in arrays.items() if array.dtype.kind == "i" and name != "indices"
            }
            if not arrays["indices"].size:
                arrays["indices"] = arrays["indices"].astype(np.int64)
            if manifest.get("weights") is not None:  # manifests of before there were any have none
                arrays["weights"] = np.array(manifest["weights"], dtype=np.float64)
            if manifest.get("provenance") is not None:
                columns = ("hash", "id", "file", "line")
                arrays["provenance"] = Dataset.from_dict(
                    {k: [row.get(k) for row in manifest["provenance"]] for k in columns}
                )
            if manifest.get("groups") is not None:
                arrays["groups"] = tuple(manifest["groups"])
            rest = {k: manifest[k] for k in ("pool_size", "upper_bound", "evaluations", "seconds", "settings")}
            loaded = cls(**arrays, **rest)
            for name in ("objective", "certificate"):
                said, found = manifest[name], getattr(loaded, name)
                if (said is None) != (found is None) or (
                    found is not None and abs(said - found) > _ROUNDING * max(abs(found), 1.0)
                ):
                    raise ValueError(f"its {name} is {said}, its picks have {found}")
            return loaded
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            cause = f"it has no {error}" if isinstance(error, KeyError) else first_line(error)
            raise ValueError(f"expected a manifest written by Selection.save, got {path} ({cause}): name another") from error


def provenance_of(features: TokenFeatures, picks: Sequence[int]) -> Dataset | None:
    """What the features know of the rows of these picks."""
    return None if features.provenance is None else features.provenance.select(picks)


def _digest(manifest: dict) -> str:
    """Of all that a manifest says: who edits it by hand makes another selection of it."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]


def _floor_percent(share: float) -> str:
    """A guarantee is rounded down: 0.99987 is "99.98 %", not "99.99 %"."""
    return f"{np.floor(share * 1e4) / 100:.2f} %"
