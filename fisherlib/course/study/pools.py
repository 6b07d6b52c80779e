"""The pools of the study, drawn anew for each seed, so that a deterministic method is replicated too.

`clean`: dialogues as they come. `redundant`: most are variants of a few, with one to three words of the response replaced.
`imbalanced`: most are dialogues, the rest come from four domains of `fisherlib.text.project_files`; the test is balanced.
`guide`, `guide_redundant`, `code_mix`: the same three kinds of pool from other text, for the confirmation of the recipe.
`project`: all files of a software project at their own rate, and the test at the held-out files' own rate.
`guide_paraphrased`: like `guide_redundant`, but every third word of a variant is another, so that no n-grams are shared.
All sizes are our choice.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from datasets import Dataset

from fisherlib.text import load_pool, project_files

MAJORITY = "dialogue"
POOLS = ("clean", "redundant", "imbalanced")
UNSEEN = ("guide", "guide_redundant", "code_mix")
_MAJORITIES = dict.fromkeys(POOLS, MAJORITY) | {"guide": "guide", "guide_redundant": "guide", "code_mix": "code"}
_MAJORITIES |= {"project": "code", "guide_paraphrased": "guide"}
_RARE = {"imbalanced": tuple(project_files.FILES), "code_mix": (MAJORITY, "guide", "html", "stylesheet")}


@dataclass(frozen=True)
class Sizes:
    """How large the pools are, and what they are made of."""

    pool_examples: int = 800
    test_examples: int = 100  # the imbalanced pool has equally many of each domain
    bases: int = 12  # dialogues that the variants of the redundant pool are made of
    variants: float = 0.89  # their share
    rare: float = 0.05  # the share of the rare domains, together


@dataclass(frozen=True)
class Replicate:
    """One draw of a pool: rows to choose from and to judge by, with the columns `domain` and `base` (-1: no variant)."""

    train: Dataset
    test: Dataset


def draw_pool(pool: str, seed: int, sizes: Sizes) -> Replicate:
    """Draw a pool. No document is on both sides; the test rows differ from seed to seed as well.

    Raises `ValueError` for an unknown pool or one that the text is too short for.
    """
    if pool not in _MAJORITIES:
        raise ValueError(f"expected pool to be one of {tuple(_MAJORITIES)}, got {pool!r}")
    rng = np.random.default_rng([seed, *pool.encode()])
    n, tests, majority = sizes.pool_examples, sizes.test_examples, _MAJORITIES[pool]
    if pool == "project":
        train, test = (_at_their_own_rate(side, k, rng) for side, k in (("train", n), ("test", tests)))
    elif pool not in _RARE:
        train, test = (_draw(side, majority, k, rng) for side, k in (("train", n), ("test", tests)))
        if pool.endswith("redundant"):
            train = _with_variants(train, sizes, rng, _variant)
        if pool.endswith("paraphrased"):
            train = _with_variants(train, sizes, rng, _paraphrase)
    else:
        counts = composition(pool, sizes)
        train = [row for d in counts for row in _draw("train", d, counts[d], rng)]
        test = [row for d in counts for row in _draw("test", d, tests // len(counts), rng)]
    order = rng.permutation(len(train))
    return Replicate(Dataset.from_list([train[i] for i in order]), Dataset.from_list(test))


def with_near_copies(rows: Dataset, share: float, originals: int, seed: int) -> Dataset:
    """As many rows, of which this share are near-copies of the first few: `_variant` of the redundant pool, in random order.

    The column `base` says which of the originals a row is (a near-copy of), -1 for none. Raises `ValueError` for rows
    without a response, and if originals and near-copies are more than there are rows.
    """
    if "response" not in rows.column_names:
        raise ValueError(f"expected rows with a response, got the columns {rows.column_names}: give rows of load_pool")
    rng = np.random.default_rng(seed)
    sizes = Sizes(bases=originals, variants=share)
    mixed = _with_variants([row | {"base": -1} for row in rows.to_list()], sizes, rng, _variant)
    return Dataset.from_list([mixed[i] for i in rng.permutation(len(mixed))])


def composition(pool: str, sizes: Sizes) -> dict[str, int]:
    """How many examples of each domain a pool holds, the majority first.

    Raises `ValueError` for an unknown pool, and for `project`, whose mix is left to chance.
    """
    if pool not in _MAJORITIES or pool == "project":
        raise ValueError(f"expected a pool of a fixed mix, one of {sorted(set(_MAJORITIES) - {'project'})}, got {pool!r}")
    rare = _RARE.get(pool, ())
    each = max(round(sizes.rare * sizes.pool_examples / len(rare)), 1) if rare else 0
    return {_MAJORITIES[pool]: sizes.pool_examples - each * len(rare)} | dict.fromkeys(rare, each)


@cache
def _texts(domain: str) -> dict[str, list[dict]]:
    """All rows of a domain by side, with one set of columns."""
    if domain == MAJORITY:
        pool = load_pool("shakespeare")
        sides = {"train": pool.train.to_list(), "test": pool.test.to_list()}
    else:
        sides = dict(zip(("train", "test"), project_files.chunks(domain), strict=True))
    kept = ("system", "prompt", "response", "document")
    return {side: [{name: row[name] for name in kept} | {"domain": domain, "base": -1} for row in rows]
            for side, rows in sides.items()}  # fmt: skip


def _draw(side: str, domain: str, count: int, rng: np.random.Generator) -> list[dict]:
    rows = _texts(domain)[side]
    if count > len(rows):
        raise ValueError(f"expected at most {len(rows):,} {side} examples of {domain}, got {count:,}: make the pool smaller")
    return [rows[i] for i in rng.choice(len(rows), count, replace=False)]


def _at_their_own_rate(side: str, count: int, rng: np.random.Generator) -> list[dict]:
    """Rows of all files of the project, each row as likely as any other."""
    rows = [row for domain in (*project_files.FILES, *project_files.UNSEEN) for row in _texts(domain)[side]]
    if count > len(rows):
        raise ValueError(
            f"expected at most {len(rows):,} {side} examples of the project, got {count:,}: make the pool smaller"
        )
    return [rows[i] for i in rng.choice(len(rows), count, replace=False)]


def _with_variants(rows: list[dict], sizes: Sizes, rng: np.random.Generator, vary: Callable[..., dict]) -> list[dict]:
    """The first `bases` of the rows, variants of them, and other rows for the rest."""
    copies = round(sizes.variants * len(rows))
    if not sizes.bases + copies <= len(rows):
        raise ValueError(f"expected bases and variants to fit into {len(rows)} examples, got {sizes.bases} and {copies}")
    bases, words = rows[: sizes.bases], [word for row in rows for word in row["response"].split()]
    # The bases count their own variants: base k is row k of the list.
    bases = [row | {"base": k} for k, row in enumerate(bases)]
    varied = [vary(bases[k], words, rng) for k in rng.integers(0, sizes.bases, copies)]
    return [*bases, *varied, *rows[sizes.bases : len(rows) - copies]]


def _variant(row: dict, words: list[str], rng: np.random.Generator) -> dict:
    """One to three words of the response replaced by words of the pool; the spaces between them stay."""
    pieces = re.split(r"(\s+)", row["response"])
    places = np.arange(0, len(pieces), 2)
    for place in rng.choice(places, min(int(rng.integers(1, 4)), len(places)), replace=False):
        pieces[place] = words[rng.integers(len(words))]
    return row | {"response": "".join(pieces)}


def _paraphrase(row: dict, words: list[str], rng: np.random.Generator) -> dict:
    """Every third word of the prompt and of the response replaced by a word of the pool, from a random one on."""
    said = {}
    for side in ("prompt", "response"):
        pieces = re.split(r"(\s+)", row[side])
        for place in range(2 * int(rng.integers(3)), len(pieces), 6):  # every second piece is the space between two words
            pieces[place] = words[rng.integers(len(words))]
        said[side] = "".join(pieces)
    return row | said
