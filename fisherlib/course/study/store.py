"""The results of a study on disk: a parquet file for each training, and a JSON that says where they come from."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from fisherlib._files import first_line, replacing
from fisherlib.course.study.rows import VERSION, Settings

_ABOUT = "about.json"
_LISTS = {"nll_sums": np.float32, "scored_tokens": np.float32, "log_leverage": np.float32, "token_nll": np.float16}
_MANY = ("token_nll", "log_leverage")


def write(
    table: pd.DataFrame, folder: str | Path, settings: Settings, command: str, *, wanted: int, by_seed: bool = False
) -> list[Path]:
    """Write `TRAINING.parquet` and `about.json` into `folder`; returns their paths. Losses of examples are in float32.

    With `by_seed` it is `TRAINING-SEED.parquet`, and the losses of tokens are kept too, in float16.

    Rows that the folder holds already and the table does not are kept: part of a study may be run alone.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    there = [pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))]
    there = [part[~part["key"].isin(table["key"])] for part in there]
    table = pd.concat([table, *(part for part in there if len(part))], ignore_index=True)
    written = []
    # Losses of tokens are many: a file for each seed then, so that none is too large for a repository.
    by = ["training", "seed"] if by_seed else ["training"]
    for names, part in table.groupby(by, sort=False):
        part = part.dropna(axis="columns", how="all")
        lists = {name: kind for name, kind in _LISTS.items() if name in part and (by_seed or name not in _MANY)}
        part = part.assign(**{c: [np.asarray(v, dtype=kind) for v in part[c]] for c, kind in lists.items()})
        part = part.drop(columns=[name for name in _MANY if name not in lists], errors="ignore")
        path = folder / f"{'-'.join(map(str, names))}.parquet"
        with replacing(path, alone=True) as scratch:
            part.to_parquet(scratch, compression="zstd", index=False)
        written.append(path)
    about = {
        "command": command,
        "finished": datetime.now(UTC).date().isoformat(),
        "rows": len(table),
        "rows_wanted": wanted,
        "hours": round(float(table["seconds"].sum()) / 3600, 2),
        "version": VERSION,
        "settings": {name: value for name, value in asdict(settings).items() if name not in table},  # else: of each row
        **{name: sorted(table[name].unique()) for name in ("machine", "versions", "commit")},
    }
    with replacing(folder / _ABOUT, alone=True) as scratch:
        scratch.write_text(json.dumps(about, indent=1) + "\n")
    return [*written, folder / _ABOUT]


def read(folder: str | Path) -> tuple[pd.DataFrame, dict]:
    """The table of all trainings, and what `about.json` says. Raises `ValueError` if the folder holds no study."""
    folder = Path(folder)
    try:
        about = json.loads((folder / _ABOUT).read_text())
        parts = [pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))]
        return pd.concat(parts, ignore_index=True), about
    except (OSError, ValueError) as error:
        raise ValueError(
            f"expected the results of a study in {folder} ({first_line(error)}): make them with python -m fisherlib.study, "
            "or give a folder of notebooks/results in a clone of the project"
        ) from error


def restore(results: str | Path, folder: str | Path) -> int:
    """Put the rows of a committed study where `run_rows` looks for them; returns how many were missing there.

    So a study goes on where another machine stopped. Losses of examples come back in float32, as they were written.
    """
    place = Path(folder) / "rows"
    place.mkdir(parents=True, exist_ok=True)
    restored = 0
    for table in Path(results).glob("*.parquet"):
        for record in pd.read_parquet(table).to_dict("records"):
            path = place / f"{record['key']}.json"
            if not path.exists():
                values = {name: v.tolist() if hasattr(v, "tolist") else v for name, v in record.items()}
                with replacing(path, alone=True) as scratch:
                    scratch.write_text(json.dumps({name: v for name, v in values.items() if v is not None and v == v}))
                restored += 1
    return restored
