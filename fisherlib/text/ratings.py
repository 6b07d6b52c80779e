"""Sentences that people have rated: what is the right number when there is no right word?

The sentences are customers' reviews of products, collected by Hu and Liu (2004) and cut into sentences, each rated by twenty
people or more, by Hutto and Gilbert (2014). They are read as text; nothing beside them in the archive is run or imported.
"""

import ast
from dataclasses import dataclass

from fisherlib import assets

SCALE = tuple(range(1, 10))  # the raters' own, -4 to 4, shifted by 5: so each number is a single digit


@dataclass(frozen=True)
class Rated:
    """A sentence, the review that it is from, and what each rater said, from 1 (very negative) over 5 to 9."""

    sentence: str
    review: str
    ratings: tuple[int, ...]

    @property
    def mean(self) -> float:
        return sum(self.ratings) / len(self.ratings)


def rated_sentences(*, shortest: int = 4, longest: int = 25) -> list[Rated]:
    """The sentences of `shortest` to `longest` words, in the order of the file, without repetitions.

    The raters' numbers -4 to 4 are shifted by 5. Raises `AssetError` if the file cannot be fetched.
    """
    folder = assets.fetch("rated-sentences")
    texts = {}
    for line in _lines(folder / "amazonReviewSnippets_GroundTruth.txt"):
        name, _, text = line.split("\t", 2)
        texts[name] = " ".join(text.split())
    found: dict[str, Rated] = {}
    for line in _lines(folder / "amazonReviewSnippets_anonDataRatings.txt"):
        name, _, _, numbers = line.split("\t", 3)
        ratings = tuple(int(number) + 5 for number in ast.literal_eval(numbers))
        if shortest <= len(texts[name].split()) <= longest:
            found.setdefault(texts[name].lower(), Rated(texts[name], name.partition("_")[0], ratings))
    return list(found.values())


def _lines(path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines() if line.strip()]
