"""One page about a selection: what was asked and got, what changed, why these rows, and what is lost. No network."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from datasets import Dataset
from jaxtyping import Float

from fisherlib._files import replacing
from fisherlib._types import Tokenizer
from fisherlib._version import __version__
from fisherlib.features import TokenFeatures
from fisherlib.greedy import CODES, Labels, Reasons, Selection, plain_labels
from fisherlib.report.html import PAGE, STYLE, as_section, as_table, bar, of_hundred, percent, safe
from fisherlib.report.picks import TOP, Heats, asked_of, first_picks, stored, text_of
from fisherlib.selectors import near_duplicates
from fisherlib.text import encode, heat

_SHRANK = 0.8  # of its share in the pool: below, a part of the pool counts as lost here


def report(
    selection: Selection,
    rows: Dataset | Sequence[dict],
    features: TokenFeatures | None = None,
    *,
    out: str | Path,
    title: str = "What was selected, and what was left",
    groups: Labels | None = None,
    seen: Dataset | Sequence[dict] | None = None,
    reasons: Reasons | None = None,
    tokenizer: Tokenizer | None = None,
    turns: str = "all",
    max_tokens: int | None = None,
) -> Path:
    """Write one HTML file about `selection` from `rows`, which needs no network and no script; returns its path.

    >>> from fisherlib.report import report
    >>> rows = [{"prompt": f"Name {i}", "response": "one " * (i + 1)} for i in range(4)]
    >>> picks = {"indices": np.array([3, 1]), "gains": np.array([2.0, 0.5]), "costs": np.array([4.0, 2.0])}
    >>> report(fl.Selection(**picks, pool_size=4), rows, out="page.html").name
    'page.html'

    `rows` are all rows of the pool, in its order. `features` adds response tokens (without them, lengths are in letters) and
    for each shown pick the earlier pick that it is most like. `groups`: a label for each row, for the mixture before and
    after. `seen`: rows that a model was trained on already, to say how many picks are near-copies of one. `reasons`: those
    of `fl.explain`, to say why the others were not chosen; with the `tokenizer` (and `turns` and `max_tokens`) of the
    features they also shade each token of a shown pick by what it added, given those before it.
    Time and memory O(letters of the rows), for near-duplicates. Raises `ValueError` for rows, features or groups of
    another pool, and for rows without text.
    """
    rows = stored(rows)
    for name, count in (("rows", len(rows)), ("features", selection.pool_size if features is None else len(features))):
        if count != selection.pool_size:
            raise ValueError(
                f"expected the {name} of the {selection.pool_size:,} examples of the selection's pool, got {count:,}: give "
                "those that the selection was made from"
            )
    pool = _Pool.of(selection, rows, features, None if groups is None else plain_labels(groups, len(rows)))
    texts = [text_of(row, number) for number, row in enumerate(rows)]
    sections = [
        _asked_and_got(selection, pool, rows, texts, seen),
        _mixture(pool),
        _lost(pool),
        _copies(selection, rows),
        _curve(selection),
        first_picks(
            selection, features, texts, pool, reasons, _heats(selection, rows, reasons, tokenizer, turns, max_tokens)
        ),
        "" if reasons is None else _left_out(reasons),
        _cost_and_limits(selection, pool),
    ]
    page = PAGE.format(title=safe(title), style=STYLE, version=safe(__version__), body="\n".join(filter(None, sections)))
    out = Path(out)
    with replacing(out) as scratch:
        scratch.write_text(page, encoding="utf-8", errors="replace")
    return out


def _heats(
    selection: Selection, rows: Dataset, reasons: Reasons | None, tokenizer: Tokenizer | None, turns: str, most: int | None
) -> Heats:
    """Of each shown pick its text in pieces, and what each added."""
    shown = selection.indices[:TOP].tolist()
    if reasons is None or tokenizer is None or not shown:
        return {}
    examples = encode(rows.select(shown), tokenizer, turns=turns, max_tokens=most, too_long="truncate")
    return {
        k: (asked_of(rows[i]), heat(one, tokenizer, reasons.chosen[k]["tokens"]))
        for k, (i, one) in enumerate(zip(shown, examples, strict=True))
    }


@dataclass(frozen=True)
class _Pool:
    """Lengths of all rows in `unit`, which rows were picked, and the ways in which the pool is cut into parts."""

    lengths: Float[np.ndarray, " N"]
    unit: str
    picked: np.ndarray  # [N], whether
    cuts: dict[str, list[tuple[str, np.ndarray]]]  # by name: (part, its rows)

    @classmethod
    def of(cls, selection: Selection, rows: Dataset, features: TokenFeatures | None, labels: list | None) -> "_Pool":
        if features is None:
            lengths, unit = np.array([len(text_of(row, k)) for k, row in enumerate(rows)], dtype=float), "letters"
        else:
            lengths, unit = features.lengths.numpy().astype(float), "response tokens"
        picked = np.zeros(len(rows), dtype=bool)
        picked[selection.indices] = True
        cuts = {} if labels is None else {"group": _by_label(labels)}
        return cls(lengths, unit, picked, cuts | {f"length in {unit}": _by_quartile(lengths)})

    def shares(self, part: np.ndarray) -> tuple[float, float, float, float]:
        """Of a part: its share of all rows, of the pool's length, of the picks, and of the picks' length."""
        before, after = self.lengths.sum(), self.lengths[self.picked].sum()
        both = part & self.picked
        return (
            part.sum() / max(len(part), 1),
            self.lengths[part].sum() / max(before, 1.0),
            both.sum() / max(self.picked.sum(), 1),
            self.lengths[both].sum() / max(after, 1.0),
        )


def _by_label(labels: list) -> list[tuple[str, np.ndarray]]:
    names = np.array([str(label) for label in labels])
    return [(str(name), names == name) for name in dict.fromkeys(names.tolist())]


def _by_quartile(lengths: np.ndarray) -> list[tuple[str, np.ndarray]]:
    ends = np.unique(np.quantile(lengths, [0, 0.25, 0.5, 0.75, 1], method="lower")) if len(lengths) else np.zeros(1)
    if len(ends) == 1:
        return [(f"{ends[0]:,.0f}", np.ones(len(lengths), dtype=bool))]
    parts = []
    for k, (low, high) in enumerate(pairwise(ends)):
        inside = (lengths <= high) & ((lengths > low) if k else True)
        parts.append((f"{low if not k else low + 1:,.0f} to {high:,.0f}", inside))
    return parts


# --- sections ----------------------------------------------------------------------------------------------------------


def _asked_and_got(selection, pool, rows, texts, seen) -> str:
    budget = selection.settings.get("budget", {})
    asked = ", ".join(f"{value:,.15g} {name}" for name, value in budget.items() if value is not None) or "not noted"
    got = pool.lengths[pool.picked].sum()
    table = [
        ("Method", str(selection.settings.get("method", "not noted")), ""),
        ("Rows", f"{len(rows):,} in the pool", f"{len(selection):,} picked ({percent(len(selection), len(rows))})"),
        (f"Sum of {pool.unit}", f"{pool.lengths.sum():,.0f} in the pool", f"{got:,.0f} picked"),
        ("Budget", asked, f"{selection.costs.sum():,.0f} spent" if "tokens" in budget else f"{len(selection):,} examples"),
        ("Rows that cannot be picked", f"{(pool.lengths == 0).sum():,} without {pool.unit}", ""),
    ]
    if selection.certificate is not None:
        floor = np.floor(selection.certificate * 1000) / 10
        table.append(
            ("Certificate", "share of the most information any selection can have", f"at least {of_hundred(floor / 100)}")
        )
    for row in selection.settings.get("groups", ()):
        if row["low"] > 0 or row["high"] is not None:
            most = "" if row["high"] is None else f", at most {row['high']:,.0f}"
            spent = sum(c for c, g in zip(selection.costs, selection.groups or (), strict=True) if g == row["group"])
            table.append((f"Quota of {row['group']}", f"at least {row['low']:,.0f}{most}", f"{spent:,.0f}"))
    if selection.stopped is not None:
        table.append(("Stopped early", str(selection.stopped), ""))
    if seen is not None:
        seen_texts = [text_of(row, number) for number, row in enumerate(stored(seen))]
        both = Dataset.from_dict({"text": [*seen_texts, *(texts[i] for i in selection.indices)]})
        first = near_duplicates(both)
        again = (first[len(seen_texts) :] < len(seen_texts)).sum()
        table.append(("Trained on already", f"{len(seen_texts):,} rows", f"{again:,} picks are near-copies of one"))
    return as_section("Asked and got", as_table(("", "Pool, or asked", "Selection, or got"), table, numbers=False))


def _mixture(pool: _Pool) -> str:
    parts = []
    for name, cut in pool.cuts.items():
        table = []
        for label, part in cut:
            of_rows, of_length, of_picks, of_picked = pool.shares(part)
            share = (bar(of_length), bar(of_picked)) if pool.lengths.sum() else ("–", "–")
            table.append((safe(label), *share, of_hundred(of_rows), of_hundred(of_picks)))
        what = pool.unit.split()[-1]
        head = (name, f"{what} before", f"{what} after", "rows before", "rows after")
        parts.append(as_table(head, table, caption=f"Mixture by {name}", html=True))
    return as_section("Mixture before and after", *parts)


def _lost(pool: _Pool) -> str:
    shrank = []
    for name, cut in pool.cuts.items():
        for label, part in cut:
            _, before, _, after = pool.shares(part)
            if before > 0 and after < _SHRANK * before:
                shrank.append((name, label, before, after))
    said = f"A part of the pool is named here if its share of {pool.unit} fell by more than a fifth. "
    if not shrank:
        return as_section("What you lose here", f"<p>{said}None did.</p>")
    shrank.sort(key=lambda one: one[3] / one[2])
    items = [
        f"<li><bdi>{safe(name)}</bdi>: <b><bdi>{safe(label)}</bdi></b>, from {of_hundred(before)} to {of_hundred(after)}"
        f"{' (nothing is left)' if after == 0 else ''}</li>"
        for name, label, before, after in shrank
    ]
    return as_section("What you lose here", f"<p>{said}</p><ul>{''.join(items)}</ul>")


def _copies(selection: Selection, rows: Dataset) -> str:
    if not len(rows):
        return ""
    first = near_duplicates(rows)
    own = np.arange(len(rows))
    picks = first[selection.indices]
    repeated = len(picks) - len(np.unique(picks))
    sizes = np.bincount(first, minlength=len(rows))
    largest = int(sizes.argmax())
    table = [
        (
            "Rows of the pool that are near-copies of an earlier row",
            f"{(first != own).sum():,}",
            percent((first != own).sum(), len(rows)),
        ),
        (
            "Picks that are near-copies of an earlier row",
            f"{(picks != selection.indices).sum():,}",
            percent((picks != selection.indices).sum(), len(picks)),
        ),
        ("Picks that are near-copies of another pick", f"{repeated:,}", percent(repeated, len(picks))),
    ]
    note = (
        f"<p>The largest family has {sizes[largest]:,} rows; its first is row {largest:,}.</p>" if sizes[largest] > 1 else ""
    )
    said = "<p>Near-copies: rows whose letters, in runs of five, agree to four fifths (Jaccard, MinHash).</p>"
    return as_section("Near-duplicates", as_table(("", "rows", "share"), table), said + note)


def _curve(selection: Selection) -> str:
    if not len(selection):
        return as_section("Gain curve", "<p>There are no picks.</p>")
    by_cost = "tokens" in selection.settings.get("budget", {"tokens": 0})
    x = np.r_[0.0, (selection.costs if by_cost else np.ones(len(selection))).cumsum()]
    y = np.r_[0.0, selection.gains.cumsum()]
    top = max(y.max(), selection.upper_bound or 0.0, 1e-300)
    keep = np.unique(np.linspace(0, len(x) - 1, 400).astype(int))
    left, right, high, low = 44.0, 390.0, 24.0, 200.0

    def at(a, b) -> str:
        return f"{left + (right - left) * a / max(x[-1], 1e-300):.1f},{low - (low - high) * b / top:.1f}"

    knee = selection.knee()
    cx, cy = at(x[knee], y[knee]).split(",")
    unit = "cost, in tokens" if by_cost else "picks"
    share = (
        ""
        if selection.certificate is None
        else f", at least {np.floor(selection.certificate * 1000) / 10:.1f} % of the best"
    )
    gained, paid = y[knee] / max(y[-1], 1e-300), x[knee] / max(x[-1], 1e-300)
    said = (
        f"{y[-1]:,.1f} nats after {len(selection):,} picks{share}. The bend is at pick {knee:,}: {gained:.0%} of the gain "
        f"for {paid:.0%} of the {'cost' if by_cost else 'picks'}."
    )
    bound = ""
    if selection.upper_bound is not None:
        line = at(0, selection.upper_bound).split(",")[1]
        bound = (
            f'<line x1="{left}" x2="{right}" y1="{line}" y2="{line}" stroke="#555" stroke-dasharray="6 4"/>'
            f'<text x="{right}" y="{float(line) - 5:.1f}" text-anchor="end">no selection can have more</text>'
        )
    label_x = min(max(float(cx) + 10, left), right - 110)
    drawing = (
        f'<svg role="img" viewBox="0 0 400 250" style="max-width:560px"><title>Gain curve</title><desc>{safe(said)}</desc>'
        f'<line x1="{left}" x2="{right}" y1="{low}" y2="{low}" stroke="#222"/>'
        f'<line x1="{left}" x2="{left}" y1="{high}" y2="{low}" stroke="#222"/>{bound}'
        f'<polyline fill="none" stroke="#0072B2" stroke-width="3" points="{" ".join(at(x[k], y[k]) for k in keep)}"/>'
        f'<circle cx="{cx}" cy="{cy}" r="6" fill="#B45F06"/>'
        f'<text x="{label_x:.1f}" y="{float(cy) + 22:.1f}" fill="#8a4500">bend: pick {knee:,}</text>'
        f'<text x="{left - 6}" y="{low + 5}" text-anchor="end">0</text>'
        f'<text x="{left - 6}" y="{high + 5}" text-anchor="end">{top:,.0f}</text>'
        f'<text x="{left}" y="{low + 20}">0</text><text x="{right}" y="{low + 20}" text-anchor="end">{x[-1]:,.0f}</text>'
        f'<text x="{(left + right) / 2}" y="{low + 38}" text-anchor="middle">{unit}; upwards: nats</text></svg>'
    )
    return as_section("Gain curve", f"<p>{said}</p>", drawing)


def _left_out(reasons: Reasons) -> str:
    counted = {code: sum(row["reason"] == code for row in reasons.rejected) for code in CODES}
    table = [(words, f"{counted[code]:,}", percent(counted[code], len(reasons.rejected))) for code, words in CODES.items()]
    return as_section(
        "Why the others were not chosen", as_table(("reason", "rows", "share"), [row for row in table if row[1] != "0"])
    )


def _cost_and_limits(selection: Selection, pool: _Pool) -> str:
    table = [
        ("Selection", f"{selection.seconds:,.1f} seconds, {selection.evaluations:,} gains computed"),
        ("An epoch of training on it", f"{pool.lengths[pool.picked].sum():,.0f} {pool.unit}"),
    ]
    limits = (
        "Information is counted at the model that made the features. It is no promise of a lower loss.",
        "Nothing here says whether a row is true, kind or legal to use: read some.",
        "Near-copies are found by their letters. A translation or a paraphrase is none.",
        "The certificate is about information within the budget, not about the trained model.",
    )
    items = "".join(f"<li>{line}</li>" for line in limits)
    return as_section("Cost", as_table(("", ""), table, numbers=False)) + as_section("Limits", f"<ul>{items}</ul>")
