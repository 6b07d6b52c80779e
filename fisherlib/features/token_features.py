"""`TokenFeatures`: one matrix of token vectors per example, in memory or mapped from disk."""

import mmap
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float, Int
from torch import Tensor

from fisherlib._door import check_fields, checked
from fisherlib._files import as_json, first_line
from fisherlib.features import folder as feature_folder
from fisherlib.features.folder import COLUMNS

Indices = Sequence[int] | Int[np.ndarray, " n"]  # of examples


@dataclass(frozen=True, eq=False)  # a pool is itself: equal values would be a pass over all of them
class TokenFeatures:
    """The features of all response tokens of `N` examples, ragged: example `i` is rows `offsets[i]:offsets[i+1]`.

    `values` [M, d]; `offsets` [N+1]; per token, where known: `trace_weights` [M] (`1 - ||p||^2`, the trace of the
    softmax covariance), `nll` [M] (natural log) and `labels` [M] (the token that was to be predicted). `info` says where
    they come from. `maps` are the files that the tensors are mapped from: read those tensors, do not write to them.
    `provenance` [N]: of each example's row the `hash`, `id`, `file` and `line`, where the rows were a dataset.
    `features[i]` [T_i, d] is example i, counted from the end if negative. Tensors that need a gradient come in without it.
    Raises `ValueError` for values of width 0 or complex ones, offsets that do not rise from 0 to M, labels that are no whole
    numbers, and columns of another length.

    >>> features = fl.TokenFeatures.from_list([torch.ones(2, 3), torch.zeros(0, 3), torch.ones(4, 3)])
    >>> features
    TokenFeatures(3 examples, 6 tokens, d=3, torch.float32)
    >>> features.values.shape, features.offsets.tolist(), features.lengths.tolist()
    (torch.Size([6, 3]), [0, 2, 2, 6], [2, 0, 4])
    >>> features[2].shape, features.subset([2, 0]).offsets.tolist()
    (torch.Size([4, 3]), [0, 4, 6])
    """

    values: Float[Tensor, "M d"]
    offsets: Int[Tensor, " N_plus_1"]
    trace_weights: Float[Tensor, " M"] | None = None
    nll: Float[Tensor, " M"] | None = None
    labels: Int[Tensor, " M"] | None = None
    info: dict = field(default_factory=dict)
    maps: list[mmap.mmap] = field(default_factory=list, repr=False)
    provenance: Dataset | None = field(default=None, repr=False)

    def __post_init__(self):
        check_fields(self)
        if self.values.ndim != 2 or self.values.shape[1] == 0:
            raise ValueError(
                f"expected values [M, d] with d of at least 1, got shape {list(self.values.shape)}: check the features"
            )
        if self.values.layout != torch.strided:
            raise ValueError(f"expected dense values, got {self.values.layout}: give values.to_dense()")
        for name in ("offsets", "labels"):
            if (whole := getattr(self, name)) is not None and (whole.ndim != 1 or whole.is_floating_point()):
                got = f"{whole.dtype} of shape {list(whole.shape)}"
                raise ValueError(f"expected a list of whole numbers as {name}, got {got}: convert them")
        as_json(self.info, "info")  # a selection's settings and its file will hold it
        if self.offsets.dtype != torch.int64:  # differences of unsigned ones never fall
            object.__setattr__(self, "offsets", self.offsets.to(torch.int64))
        rows, steps = len(self.values), self.offsets.diff()
        if len(self.offsets) < 1 or self.offsets[0] != 0 or self.offsets[-1] != rows or bool((steps < 0).any()):
            raise ValueError(f"expected offsets that rise from 0 to {rows:,}, the number of tokens, got {self.offsets}")
        for name in COLUMNS:
            if (column := getattr(self, name)) is not None and column.shape != (rows,):
                raise ValueError(f"expected one of {name} for each of {rows:,} tokens, got shape {tuple(column.shape)}")
        if self.provenance is not None and len(self.provenance) != len(self):
            raise ValueError(
                f"expected provenance of each of {len(self):,} examples, got that of {len(self.provenance):,}: "
                "give fisherlib.text.provenance of the same rows"
            )

    @classmethod
    @checked
    def from_list(cls, blocks: Sequence, **per_token) -> "TokenFeatures":
        """From one `[T_i, d]` tensor or array per example (empty ones allowed), in the widest of their dtypes.

        Raises `ValueError` if the widths differ, or for a block of anything but real numbers.
        """
        blocks = [_block(i, block) for i, block in enumerate(blocks)]
        if not blocks:
            raise ValueError("expected at least one example, got an empty list")
        widths = {tuple(block.shape[1:]) for block in blocks}
        if len(widths) > 1 or any(block.ndim != 2 for block in blocks):
            shapes = [tuple(b.shape) for b in blocks[:5]]
            raise ValueError(
                f"expected matrices [T_i, d] of one width d, got shapes {shapes}: give one matrix for each example"
            )
        if any(block.is_floating_point() for block in blocks):  # of float16 and a whole number torch would make float16
            blocks = [block if block.is_floating_point() else block.double() for block in blocks]
        lengths = torch.tensor([0, *(len(block) for block in blocks)])
        return cls(torch.cat(blocks), lengths.cumsum(0), **per_token)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @checked
    def __getitem__(self, i: int | np.integer) -> Float[Tensor, "T d"]:
        if not -len(self) <= i < len(self):
            raise IndexError(f"example {i} of {len(self)}")
        i = int(i) % len(self)
        return self.values[int(self.offsets[i]) : int(self.offsets[i + 1])]

    def __repr__(self) -> str:
        return f"TokenFeatures({len(self):,} examples, {len(self.values):,} tokens, d={self.dim}, {self.values.dtype})"

    @property
    def lengths(self) -> Int[Tensor, " N"]:
        return self.offsets.diff()

    @property
    def dim(self) -> int:
        return self.values.shape[1]

    @checked
    def column(self, name: str) -> Tensor:
        """`trace_weights`, `nll` or `labels` [M]. Raises `ValueError` where it is not known."""
        if name not in COLUMNS:
            raise ValueError(f"expected one of the columns {COLUMNS}, got {name!r}")
        self.check_whole()
        column = getattr(self, name)
        if column is None:
            raise ValueError(f"expected features with {name}, got none: extract them with extract_features")
        return column

    @checked
    def subset(self, indices: Indices) -> "TokenFeatures":
        """The features of some examples, in the given order, in memory. Raises `IndexError` for one that does not exist."""
        given = np.asarray(indices)
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            got = given.dtype if given.ndim == 1 else f"shape {given.shape}"
            raise ValueError(f"expected indices as a list of whole numbers, got {got}: use np.flatnonzero for a mask")
        if len(bad := given[(given < 0) | (given >= len(self))]):
            raise IndexError(f"example {bad[0]} of {len(self)}")
        self.check_whole()
        chosen = torch.from_numpy(given.astype(np.int64))
        lengths = self.lengths[chosen]
        offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))  # of the new blocks; the old ones begin elsewhere
        rows = torch.arange(int(offsets[-1])) + torch.repeat_interleave(self.offsets[chosen] - offsets[:-1], lengths)
        per_token: dict[str, Any] = {name: None if (t := getattr(self, name)) is None else t[rows] for name in COLUMNS}
        info = {name: value for name, value in self.info.items() if name != "rows"}  # the fingerprint is of other rows
        of = None if self.provenance is None else self.provenance.select(chosen.tolist())
        return TokenFeatures(self.values[rows], offsets, **per_token, info=info, provenance=of)

    @checked
    def sum(self, x: Float[Tensor, " M"] | Float[np.ndarray, " M"]) -> Float[np.ndarray, " N"]:
        """Of one number for each token, such as `nll`: the sum over each example's tokens, in float64; 0 without tokens.

        One after the other, so the last bit does not depend on the machine. Raises `ValueError` for another number of them.
        """
        x = torch.as_tensor(x).to("cpu", torch.float64).numpy()
        if x.shape != (len(self.values),):
            raise ValueError(f"expected a number for each of {len(self.values):,} tokens, got shape {x.shape}: check them")
        owner = np.repeat(np.arange(len(self)), self.lengths.numpy())
        return np.bincount(owner, x, len(self)).astype(np.float64)  # of no token at all it counts in integers

    @checked
    def mean(self, x: Float[Tensor, " M"] | Float[np.ndarray, " M"]) -> Float[np.ndarray, " N"]:
        """The same as a mean over each example's tokens; 0 without tokens."""
        return self.sum(x) / np.maximum(self.lengths.numpy(), 1)

    @checked
    def save(self, folder: str | Path) -> None:
        """Write a new folder, in the format of `fisherlib.features.folder`; complete or absent, never half-written.

        Raises `ValueError` if the folder exists, `OSError` if the disk is full or cannot be written to.
        """
        folder = Path(folder)
        self.check_whole()
        if folder.exists():
            raise ValueError(f"expected a folder that does not exist yet, got {folder}: remove it or choose another")
        columns = {name: column for name in ("values", *COLUMNS) if (column := getattr(self, name)) is not None}
        dtypes = {name: column.dtype for name, column in columns.items() if name != "values"}
        info = feature_folder.describe(self.values.dtype, self.dim, self.offsets, dtypes, self.info)
        with feature_folder.explain_disk_errors(folder, "nothing was kept"):
            folder.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        try:
            writer = feature_folder.Writer(scratch, info, self.offsets, self.provenance, shown=folder)
            writer.append(columns, len(self))
            with feature_folder.explain_disk_errors(folder, "nothing was kept"):
                scratch.chmod(0o755)  # the temporary folder was private
                os.replace(scratch, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    @classmethod
    @checked
    def load(cls, folder: str | Path, *, verify: bool = False) -> "TokenFeatures":
        """Open a folder that `save` or `extract_features` wrote. Its files are memory-mapped, not read.

        Sizes, and the offsets, are always compared with what was written. `verify` reads all else too and compares it, at
        about 1 GB/s if the disk is no slower: for a folder that was copied, or whose disk is not trusted.
        Raises `ValueError` if a file is missing, of the wrong size or not what was written, if the extraction is not
        complete yet, or with `verify` for a folder of an older version, which has nothing to compare with.
        """
        tensors, rows, maps, info = feature_folder.open_folder(Path(folder), verify=verify)
        return cls(**tensors, info=info["source"], maps=maps, provenance=rows)

    def check_whole(self) -> None:
        """Raise `ValueError` if a file that the values are mapped from was cut since: call it before a pass over them.

        The system ends a process that reads a mapped page which its file no longer has (SIGBUS), without a word. This asks
        for the sizes of the open files only, some microseconds. It cannot help against a file that is cut during the pass,
        nor see bytes that changed: for these `load(folder, verify=True)`. Values in memory are always whole.
        """
        feature_folder.check_maps(self.maps)

    def release(self) -> None:
        """Give the memory of what has been read of a mapped file back to the system; values in memory stay where they are.

        Pages that were read count as this process's memory until the system needs it for others. Who walks through a
        file larger than memory calls this after each chunk; what is touched again is read again.
        """
        feature_folder.release(self.maps)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"maps": []}  # a copy (pickle, deepcopy) holds the values themselves


def _block(i: int, block: Any) -> Tensor:
    """The tensor of one example. Raises `ValueError` for what holds anything but real numbers."""
    try:
        if isinstance(block, np.ma.MaskedArray):
            raise ValueError("a mask, which would be lost")
        if not isinstance(block, Tensor) and hasattr(block, "__array__"):
            array = np.asarray(block)
            # Torch takes no other byte order, no negative strides, and warns of what it could not write to.
            block = np.require(array, array.dtype.newbyteorder("="), ["C", "W"])
        block = torch.as_tensor(block).detach()
        if block.is_complex() or block.dtype == torch.bool:
            raise ValueError(f"{block.dtype}")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"block {i}: expected a matrix [T, d] of real numbers, got others ({first_line(error)}): convert it"
        ) from error
    return block
