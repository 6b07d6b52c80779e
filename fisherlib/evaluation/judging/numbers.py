"""Judges that need no server: exact numbers about a text. Each sees one thing only, and is blind to all others.

Words are runs of letters and digits in lower case; an n-gram is n of them in a row. Source: extension.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from fisherlib._door import checked


class CharacterModel:
    """A character n-gram model with Witten-Bell smoothing: how expected is a text, in nats per character?

    After a history h, a character c has p(c | h) = (count(hc) + types(h) p(c | h')) / (count(h) + types(h)), with `types(h)`
    the number of different characters seen after h and h' the history without its first character; below the empty history
    all characters are equally likely. Characters that the fitted texts lack share one symbol.
    Raises `ValueError` for an order below 1 or texts without a character.
    """

    unknown = "\0"

    @checked
    def __init__(self, texts: Sequence[str], *, order: int = 5):
        if order < 1 or not any(texts):
            raise ValueError(f"expected an order of at least 1 and some text, got order {order} and {len(texts)} texts")
        self.order = order
        self.alphabet = sorted({*"".join(texts), self.unknown})
        self._after: dict[str, Counter] = defaultdict(Counter)
        for text in texts:
            for i, c in enumerate(text):
                for n in range(min(order - 1, i) + 1):
                    self._after[text[i - n : i]][c] += 1
        self._totals = {h: sum(seen.values()) for h, seen in self._after.items()}

    def probability(self, c: str, history: str) -> float:
        """p(c | history), of which the last `order` - 1 characters count; over `alphabet` it sums to one."""
        p, history = 1 / len(self.alphabet), history[max(len(history) - self.order + 1, 0) :]
        for n in range(len(history) + 1):
            seen = self._after.get(history[len(history) - n :])
            if seen is None:
                break
            h = history[len(history) - n :]
            p = (seen[c] + len(seen) * p) / (self._totals[h] + len(seen))
        return p

    @checked
    def nats(self, text: str) -> float:
        """Mean surprise per character; NaN for an empty text, which has none."""
        known = set(self.alphabet)
        text = "".join(c if c in known else self.unknown for c in text)
        surprise = [-np.log(self.probability(c, text[max(i - self.order + 1, 0) : i])) for i, c in enumerate(text)]
        return float(np.mean(surprise)) if surprise else float("nan")


class DomainClassifier:
    """Which kind of text is it? Character n-grams and a logistic regression, with its own held-out `accuracy`.

    `train` and `test` hold the texts of each domain. Classes count equally, however many texts they have.
    """

    @checked
    def __init__(self, train: Mapping[str, Sequence[str]], test: Mapping[str, Sequence[str]], *, seed: int = 0):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import balanced_accuracy_score
        from sklearn.pipeline import make_pipeline

        if set(train) != set(test) or len(train) < 2 or not all([*train.values(), *test.values()]):
            raise ValueError(f"expected texts of the same two or more domains, got {sorted(train)} and {sorted(test)}")
        self._pipeline = make_pipeline(
            TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3), sublinear_tf=True),
            LogisticRegression(C=10.0, class_weight="balanced", max_iter=1000, random_state=seed),
        )
        self._pipeline.fit(*_labelled(train))
        texts, labels = _labelled(test)
        self.accuracy = float(balanced_accuracy_score(labels, self._pipeline.predict(texts)))

    def probability(self, texts: Sequence[str], domain: str) -> Float[np.ndarray, " N"]:
        """P(domain) of each text."""
        return self._pipeline.predict_proba(list(texts))[:, list(self._pipeline.classes_).index(domain)]


def _labelled(domains: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str]]:
    return [t for texts in domains.values() for t in texts], [domain for domain, texts in domains.items() for _ in texts]


def words(text: str) -> list[str]:
    """The words of a text; an apostrophe inside a word belongs to it."""
    return re.findall(r"[a-z0-9]+(?:'[a-z0-9]+)*", text.lower().replace("’", "'"))


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """All runs of n words, in order."""
    w = words(text)
    return [tuple(w[i : i + n]) for i in range(len(w) - n + 1)]


@checked
def distinct(texts: Sequence[str], n: int = 2) -> float:
    """Different n-grams over all n-grams of all the texts: 1 never repeats, NaN without any. Longer texts have less."""
    found = [gram for text in texts for gram in ngrams(text, n)]
    return len(set(found)) / len(found) if found else float("nan")


@checked
def self_repetition(text: str, n: int = 2) -> float:
    """The share of a text's n-grams that it said before; 0 for a text without any."""
    found = ngrams(text, n)
    return 1 - len(set(found)) / len(found) if found else 0.0


@checked
def copied(text: str, sources: Sequence[str], n: int = 3) -> float:
    """The share of a text's n-grams that occur in the sources; 0 for a text without any."""
    there = {gram for source in sources for gram in ngrams(source, n)}
    found = ngrams(text, n)
    return sum(gram in there for gram in found) / len(found) if found else 0.0


@checked
def longest_copy(text: str, sources: Sequence[str]) -> int:
    """The most words in a row that the text shares with one of the sources."""
    n = 0
    while len(grams := set(ngrams(text, n + 1))) and any(grams & set(ngrams(source, n + 1)) for source in sources):
        n += 1
    return n
