"""A judge that needs no server: an exact number about a text. It sees one thing only, and is blind to all others.

Source: extension.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

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
