"""The picks of a page: why each was chosen, and which of its tokens carried the gain."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset

from fisherlib.features import TokenFeatures
from fisherlib.greedy import Selection
from fisherlib.report.html import as_section, safe
from fisherlib.text import as_stored

Heats = dict[int, tuple[str, list[tuple[str, float | None]]]]  # of a pick: what was asked, and its pieces with their gains
TOP, CUT = 20, 400  # picks that are shown, and letters of each


def stored(rows: Dataset | Sequence[dict]) -> Dataset:
    return as_stored(rows if isinstance(rows, Dataset) else Dataset.from_list(list(rows)))


def text_of(row: dict, number: int) -> str:
    """The text of a row: its turns, its prompt and response, or its text."""
    if row.get("messages") is not None:
        return "\n".join(f"{turn['role']}: {turn['content']}" for turn in row["messages"])
    parts = [row.get(name) for name in ("system", "prompt", "response", "text")]
    if not any(part is not None for part in parts):
        raise ValueError(
            f"row {number}: expected messages, prompt and response, or text, got {sorted(row)}: rename your columns"
        )
    return "\n".join(part for part in parts if part)


def first_picks(selection, features, texts, pool, reasons, heats: Heats) -> str:
    """Why each of the first was picked."""
    shown = selection.indices[:TOP].astype(int)
    like = {} if features is None else _most_like(features, shown)
    items = []
    for k, i in enumerate(shown.tolist()):
        why = f"gain {selection.gains[k]:.2f} nats, {selection.gains[k] / max(selection.costs[k], 1):.3f} per unit of cost"
        why += f"; {pool.lengths[i]:,.0f} {pool.unit}"
        if k in like:
            why += f"; most like pick {like[k][0] + 1} (cosine {like[k][1]:.2f})"
        why += _source(selection, k)
        if reasons is not None:
            one = reasons.chosen[k]
            why += f"; number {one['rank']:,} of the pool by first gain, of which earlier picks took {one['taken']:.0%}"
        said = _shaded(*heats[k]) if k in heats else safe(_cut(texts[i], CUT))
        items.append(f'<li><p class="why">Row {i:,}: {why}.</p><blockquote dir="auto">{said}</blockquote></li>')
    if not items:
        return ""
    note = f"The first {len(items):,} of {len(selection):,}, in the order of the picks. "
    if features is not None:
        note += "Likeness: cosine of the mean token vectors, centred on the pool's, with the picks before."
    if heats:
        note += (
            ' The darker and the thicker underlined, <b class="h4">like this</b>, the more a token added, given those '
            "before it; together they are the gain of the row. Shades are from the least to the most of a row; a pointer "
            "on a token shows its number."
        )
    return as_section("First picks, and why", f"<p>{note}</p><ol>{''.join(items)}</ol>")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + " …"


def _shaded(before: str, spans: list[tuple[str, float | None]]) -> str:
    """The answers of a pick in five shades, from the least that a token added to the most, behind what came `before`.

    About as long as other quotes. What stands between two answers is left out.
    """
    gains = [gain for _, gain in spans if gain is not None]
    low, high, whole = min(gains, default=0.0), max(gains, default=0.0), sum(gains)
    said, room = [f'<span class="no">{safe(_cut(before, CUT // 2))}</span>\n'] if before else [], CUT
    answered = False
    for text, gain in spans:
        if gain is None:
            said += [" … "] if answered else []
            answered = False
            continue
        if room <= 0:
            return "".join([*said, " …"])
        level = min(int(5 * (gain - low) / (high - low)), 4) if high > low else 0
        share = gain / whole if whole > 0 else 0.0
        said.append(f'<span class="h{level}" title="{gain:.3f} nats, {share:.0%} of the gain">{safe(text)}</span>')
        room, answered = room - len(text), True
    return "".join(said).removesuffix(" … ")


def asked_of(row: dict) -> str:
    """What stands before the first answer of a row: its prompt, or its turns so far."""
    if row.get("messages") is not None:
        turns = itertools.takewhile(lambda turn: turn["role"] != "assistant", row["messages"])
        return "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)
    return row.get("prompt") or "" if row.get("response") is not None else ""


def _most_like(features: TokenFeatures, picks: np.ndarray) -> dict[int, tuple[int, float]]:
    """For each pick but the first: the earlier one with the largest cosine of mean features, and the cosine."""
    sums = [part.sum(0, dtype=torch.float64) for part in features.values.split(2**16)]  # never all of it in float64
    centre = torch.stack(sums).sum(0).numpy() / max(len(features.values), 1) if sums else np.zeros(features.dim)
    lengths = features.lengths.numpy()
    means = np.array([features[int(i)].double().mean(0).numpy() - centre if lengths[i] else 0 * centre for i in picks])
    norms = np.linalg.norm(means, axis=1)
    units = means / np.where(norms > 0, norms, 1.0)[:, None]
    known = [k for k in range(len(picks)) if norms[k] > 0]
    found = {}
    for k in known:
        if earlier := [j for j in known if j < k]:
            cosines = units[earlier] @ units[k]
            found[k] = earlier[int(cosines.argmax())], float(cosines.max())
    return found


def _source(selection: Selection, k: int) -> str:
    if selection.provenance is None:
        return ""
    of = selection.provenance[k]
    where = [f"{Path(str(of['file'])).name} line {of['line']}"] if of.get("file") else []
    return "".join(f"; <bdi>{safe(one)}</bdi>" for one in [*where, *([f"id {of['id']}"] if of.get("id") else [])])
