"""One row of the study: a configuration in, numbers out, the same numbers in any process of the same machine."""

import copy
import hashlib
import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from jaxtyping import Float

from fisherlib._files import replacing
from fisherlib._types import Model
from fisherlib.course.study.arms import ALL, EARLIER, NONE
from fisherlib.course.study.methods import SCORES, choose
from fisherlib.course.study.origin import origin
from fisherlib.course.study.pools import Sizes, draw_pool
from fisherlib.evaluation import HeldOut, held_out_nll
from fisherlib.features import TokenFeatures, extract_features
from fisherlib.greedy import Selection, score_selection
from fisherlib.model import load_model
from fisherlib.selectors import head_matrix
from fisherlib.training import fine_tune, head_frame, heads

VERSION = 1  # raise it with any change of the code that changes a number: rows of another version are not reused
TRAININGS = ("head", "head_weak", "head_update", "full", "lora")
_LORA = {"lora_rank": 16, "learning_rate": 5e-4}  # our choice


@dataclass(frozen=True)
class Settings:
    """What all rows of a profile share. All of it is our choice."""

    sizes: Sizes = field(default_factory=Sizes)
    model: str = "smollm2-135m"
    device: str = "cpu"  # or an accelerator, "cuda" for one
    precision: str = "bfloat16"  # named, not "auto": rows of two machines are compared
    epochs: int = 2
    learning_rate: float = 5e-5
    tokens_per_step: int = 256  # of a budget of tokens: all arms take round(budget / this) steps in an epoch
    examples_per_step: int = 8  # of a budget of examples
    classes: int = 200
    dimensions: int = 64
    # Of the heads: from scratch, the best for uniform picks, and a weak one that lets them overfit; and of the update.
    head_ridge: float = 10.0
    head_weak_ridge: float = 1.0
    head_update_ridge: float = 100.0


@dataclass(frozen=True)
class Row:
    """A configuration. One of `tokens` and `examples` is the budget; both are 0 for no fine-tuning and for all the data."""

    pool: str
    training: str
    method: str
    seed: int
    tokens: int = 0
    examples: int = 0

    def __post_init__(self):
        if self.training not in TRAININGS:
            raise ValueError(f"expected training to be one of {TRAININGS}, got {self.training!r}")
        if (self.tokens > 0) + (self.examples > 0) != (self.method not in (NONE, ALL)):
            raise ValueError(
                f"expected one budget (none for {NONE} and {ALL}), got tokens={self.tokens}, examples={self.examples} "
                f"for {self.method}"
            )
        if self.method == NONE and self.training in ("head", "head_weak"):
            raise ValueError("expected something to fit a head from scratch to, got no fine-tuning: choose another training")

    @property
    def budget(self) -> dict[str, int]:
        return {"tokens": self.tokens} if self.tokens else {"examples": self.examples} if self.examples else {}


def key(row: Row, settings: Settings) -> str:
    """What a row is filed under: a hash of everything that decides its numbers."""
    shared = asdict(settings)
    if shared["precision"] == "bfloat16":
        del shared["precision"]  # rows are filed as they were before it could be chosen
    decides = json.dumps([VERSION, asdict(row), shared], sort_keys=True)
    return hashlib.sha256(decides.encode()).hexdigest()[:16]


@dataclass
class Bench:
    """What rows share while they run: the model, and the pool, features and reference heads of the latest pool and seed."""

    settings: Settings
    folder: Path  # features are kept in it
    model: Any = None
    tokenizer: Any = None
    drawn: tuple[str, int] | None = None
    made: dict = field(default_factory=dict)

    def load(self, pool: str, seed: int) -> None:
        """Draw a pool and extract its features, or open those of an earlier run."""
        if self.drawn == (pool, seed):
            return
        if self.model is None:
            self.model, self.tokenizer = load_model(self.settings.model)
            self.model.to(self.settings.device)
        self.drawn, self.made = None, {}
        self.replicate = draw_pool(pool, seed, self.settings.sizes)
        of = self.settings
        shape = json.dumps([VERSION, asdict(of.sizes), of.model, of.device, of.precision])
        self.place = self.folder / "features" / f"{pool}-{seed}-{hashlib.sha256(shape.encode()).hexdigest()[:8]}"
        self.features, self.test_features = (
            self.extract(self.model, rows, side)
            for side, rows in (("train", self.replicate.train), ("test", self.replicate.test))
        )
        self.drawn = (pool, seed)

    def extract(self, model: Model, rows: Dataset, name: str) -> TokenFeatures:
        options: dict[str, Any] = {"precision": self.settings.precision, "progress": False}
        return extract_features(model, self.tokenizer, rows, out_dir=self.place / name, **options)

    def selection(self, row: Row) -> Selection:
        """The picks of a row, made once for all trainings."""
        wanted = (row.method, row.tokens, row.examples)
        if wanted not in self.made and row.method.startswith(EARLIER):
            early = self.early_features(row.method)
            chosen = choose("fisher_per_token", self.replicate.train, early, seed=row.seed, **row.budget)
            self.made[wanted] = score_selection(self.features, chosen.indices, seconds=chosen.seconds)
        if wanted not in self.made:
            more: dict[str, Any] = {}
            if row.method == "length_matched":
                more["like"] = self.selection(replace(row, method="fisher_per_token"))
            elif row.method == "minhash_oracle":
                more["wanted"] = self.test_mix()
            elif row.method in SCORES:
                more["scores"] = self.scores(row.method)
            self.made[wanted] = choose(row.method, self.replicate.train, self.features, seed=row.seed, **row.budget, **more)
        return self.made[wanted]

    def test_mix(self) -> dict[str, float]:
        """The response tokens of each domain in the test."""
        lengths = pd.Series(self.test_features.lengths.numpy().astype(float))
        return lengths.groupby(np.array(self.replicate.test["domain"])).sum().to_dict()

    def log_leverage(self, chosen: Selection) -> Float[np.ndarray, " N"]:
        """What the picks leave unknown of each test example: the mean over its tokens of log x^T V^-1 x, V0 = I."""
        X = self.features.subset(chosen.indices).values.double()
        test = self.test_features.values.double()
        V = torch.eye(test.shape[1], dtype=torch.float64) + X.T @ X
        leverage = (test * torch.linalg.solve(V, test.T).T).sum(1).log().numpy()
        ends = self.test_features.offsets.numpy()
        return np.array([part.mean() for part in np.split(leverage, ends[1:-1])])

    def early_features(self, method: str) -> TokenFeatures:
        """The pool's features after some of the layers only, through the final norm (the *logit lens*)."""
        layers, short = int(method.removeprefix(EARLIER)), copy.deepcopy(self.model)
        decoder = short.get_decoder()
        if layers >= len(decoder.layers):
            raise ValueError(f"expected a layer before the last of {len(decoder.layers)}, got {method}: name a lower one")
        decoder.layers = decoder.layers[:layers]
        short.config.num_hidden_layers = layers
        return self.extract(short, self.replicate.train, method)

    def scores(self, method: str) -> np.ndarray:
        """What the model says of each example, for the methods that choose by it; kept beside the features."""
        name, compute = SCORES[method]
        path = self.place / f"{name}.npy"
        if not path.exists():
            scores = compute(self.replicate.train, self.features, self.model, self.tokenizer, self.settings.precision)
            with replacing(path, alone=True) as scratch, scratch.open("wb") as file:
                np.save(file, scores)
        return np.load(path)

    def reference(self, training: str) -> tuple[heads.Tokens, heads.Tokens, np.ndarray]:
        """The pool's and the test's tokens for heads, and the head of the full pool."""
        if training not in self.made:
            settings, pretrained = self.settings, None
            if training == "head_update":
                pretrained = head_matrix(self.model)
            frame = head_frame(self.features, classes=settings.classes, dimensions=settings.dimensions)
            pool, test = (frame.tokens(part, pretrained) for part in (self.features, self.test_features))
            self.made[training] = pool, test, heads.fit_head(pool, ridge=self.ridge(training))
        return self.made[training]

    def ridge(self, training: str) -> float:
        return getattr(self.settings, f"{training}_ridge")


def run_row(row: Row, bench: Bench) -> dict:
    """The numbers of one row. Raises `ValueError` for an unknown pool or method, and what a method or a training raises."""
    began = time.perf_counter()
    bench.load(row.pool, row.seed)
    chosen = None if row.method == NONE else bench.selection(row)
    ready = time.perf_counter()
    held_out, numbers = (_tuned if row.training in ("full", "lora") else _head)(row, chosen, bench)
    trained = time.perf_counter()
    if not np.isfinite(held_out.nll_sums).all():
        raise ValueError(f"expected finite losses, got NaN or infinity for {row}: an arm diverged; lower the learning rate")
    domains = pd.Series(bench.replicate.train["domain"])
    if chosen is not None:
        spent = {
            "information": chosen.objective,
            "chosen_examples": len(chosen),
            "chosen_tokens": int(chosen.costs.sum()),
            "selection_seconds": chosen.seconds,
            "majority_share": float((domains.iloc[chosen.indices] == domains.mode()[0]).mean()),
        }
    else:
        spent = {"information": 0.0, "chosen_examples": 0, "chosen_tokens": 0, "selection_seconds": 0.0}
    return {
        "key": key(row, bench.settings),
        **asdict(row),
        "nll": held_out.nll,
        **numbers,
        **spent,
        "seconds": trained - began,
        "training_seconds": trained - ready,
        "pool_tokens": len(bench.features.values),
        "nll_sums": held_out.nll_sums.tolist(),
        "scored_tokens": held_out.tokens.tolist(),
        "domains": list(bench.replicate.test["domain"]),
        **({"token_nll": held_out.token_nll.tolist()} if held_out.token_nll is not None else {}),
        **({"log_leverage": bench.log_leverage(chosen).tolist()} if chosen is not None else {}),
        **origin(bench.settings.device),
    }


def _tuned(row: Row, chosen: Selection | None, bench: Bench) -> tuple[HeldOut, dict]:
    """Fine-tuning of all weights or of low-rank updates at equal steps, and the held-out loss."""
    if chosen is None:
        return HeldOut.from_features(bench.test_features), {"steps": 0}
    settings, test = bench.settings, bench.replicate.test
    steps = row.tokens / settings.tokens_per_step if row.tokens else row.examples / settings.examples_per_step
    options: dict[str, Any] = {"learning_rate": settings.learning_rate} if row.training == "full" else _LORA
    tuned = fine_tune(
        bench.model,
        bench.tokenizer,
        chosen.to_dataset(bench.replicate.train),
        epochs=settings.epochs,
        **options,
        tokens_per_step=settings.tokens_per_step,
        steps_per_epoch=max(round(steps), 1) if row.budget else None,
        precision=settings.precision,
        seed=row.seed,
        progress=False,
    )
    numbers = {"steps": len(tuned.losses), "trained_tokens": tuned.response_tokens, "trained_all_tokens": tuned.all_tokens}
    return held_out_nll(tuned.model, bench.tokenizer, test, precision=settings.precision, progress=False), numbers


def _head(row: Row, chosen: Selection | None, bench: Bench) -> tuple[HeldOut, dict]:
    """A head on frozen features: its held-out loss, and how far it is from the head of the full pool."""
    pool, test, reference = bench.reference(row.training)
    if chosen is None:
        D = np.zeros_like(reference)
    elif row.method == ALL:
        D = reference
    else:
        D = heads.fit_head(pool.of(chosen.indices), ridge=bench.ridge(row.training))
    worst, mean = heads.logit_errors(pool, D, reference)
    scored = np.bincount(test.owner, minlength=test.examples).astype(float)
    numbers = {"kl": heads.kl(test, D, reference), "max_logit_error": worst, "mean_logit_error": mean}
    return HeldOut(heads.nll_sums(test, D), scored), numbers
