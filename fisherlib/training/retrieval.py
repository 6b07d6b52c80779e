"""Find the piece of text that answers a question: a cheap search first, then a trained second look at what it found."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Bool, Float, Int

from fisherlib._door import checked
from fisherlib._types import Model, Tokenizer
from fisherlib.evaluation import held_out_nll


@checked
def retrieve(
    chunks: Sequence[str], questions: Sequence[str], *, top: int = 5
) -> tuple[Int[np.ndarray, "Q K"], Float[np.ndarray, "Q K"]]:
    """The `top` chunks of each question by TF-IDF, best first, and their scores in [0, 1].

    >>> from fisherlib.training.retrieval import retrieve
    >>> found, scores = retrieve(["the cat sat", "a dog ran", "one dog and a cat"], ["where sat the cat?"], top=2)
    >>> found, scores.shape
    (array([[0, 2]]), (1, 2))

    A chunk and a question are vectors: a word counts the more often it is there and the fewer chunks have it; common English
    words do not count; the score is the cosine. Equal scores: the lowest number first. Source: the retriever's kind is our
    choice (scikit-learn's TfidfVectorizer); arXiv 2503.01464 names none that we could read. Cost: O(Q x chunks).
    Raises `ValueError` for less than one chunk to find, or more than there are, and for chunks without any word.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    if not 1 <= top <= len(chunks):
        raise ValueError(f"expected a top from 1 to {len(chunks):,}, the number of chunks, got {top}")
    vectorizer = TfidfVectorizer(stop_words="english")
    try:
        of_chunks = vectorizer.fit_transform(chunks)
    except ValueError as error:
        raise ValueError(f"expected chunks with words in them, got none ({error}): check the chunks") from None
    scores = (vectorizer.transform(questions) @ of_chunks.T).toarray()
    found = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return found, np.take_along_axis(scores, found, axis=1)


@checked
def question_log_p(
    model: Model, tokenizer: Tokenizer, chunks: Sequence[str], questions: Sequence[str], **options
) -> Float[np.ndarray, " n"]:
    """Mean log-probability of each question's tokens after its chunk: high if the chunk makes the model expect the question.

    `options` are those of `fl.held_out_nll`. Source: our choice. Cost: one pass over all chunks and questions.
    """
    rows = [
        {"prompt": f"{chunk}\n\nQuestion: ", "response": question} for chunk, question in zip(chunks, questions, strict=True)
    ]
    loss = held_out_nll(model, tokenizer, Dataset.from_list(rows), **options)
    return -loss.nll_sums / loss.tokens


@dataclass(frozen=True)
class ChunkReranker:
    """A trained second look: the chance that a retrieved chunk answers its question.

    Logistic regression (scikit-learn's, its default ridge) on three standardised numbers: the search's score, log rank, and
    the question's log-probability after the chunk minus the mean of that over the question's candidates. What the re-ranker
    of arXiv 2503.01464 looks at and how it is trained we do not know: all of this is our choice.
    """

    classifier: Any

    @classmethod
    @checked
    def fit(
        cls, scores: Float[np.ndarray, "Q K"], log_p: Float[np.ndarray, "Q K"], relevant: Bool[np.ndarray, "Q K"]
    ) -> "ChunkReranker":
        """Of questions whose right chunks are known. Raises `ValueError` unless some candidates are right and some wrong."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        if relevant.all() or not relevant.any():
            raise ValueError(
                f"expected right and wrong candidates to learn from, got {relevant.sum()} right of {relevant.size}"
            )
        classifier = make_pipeline(StandardScaler(), LogisticRegression())
        return cls(classifier.fit(_inputs(scores, log_p), relevant.ravel()))

    @checked
    def chances(self, scores: Float[np.ndarray, "Q K"], log_p: Float[np.ndarray, "Q K"]) -> Float[np.ndarray, "Q K"]:
        """Of each candidate, that it answers its question. The best of a question is its row's largest."""
        return self.classifier.predict_proba(_inputs(scores, log_p))[:, 1].reshape(scores.shape)


def _inputs(scores: Float[np.ndarray, "Q K"], log_p: Float[np.ndarray, "Q K"]) -> Float[np.ndarray, "n 3"]:
    if scores.shape != log_p.shape or not (np.isfinite(scores).all() and np.isfinite(log_p).all()):
        raise ValueError(f"expected finite scores and log_p of one shape, got {scores.shape} and {log_p.shape}: check both")
    rank = np.broadcast_to(np.log1p(np.arange(scores.shape[1])), scores.shape)
    return np.stack([scores, rank, log_p - log_p.mean(1, keepdims=True)], axis=2).reshape(-1, 3)
