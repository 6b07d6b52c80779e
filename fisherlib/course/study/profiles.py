"""Which rows are run: the sizes, seeds, budgets and arms of each profile, the most telling rows first."""

from collections.abc import Iterator
from dataclasses import dataclass

from fisherlib.course.study.arms import ALL, NONE, REFERENCE
from fisherlib.course.study.methods import ARMS
from fisherlib.course.study.pools import POOLS, Sizes
from fisherlib.course.study.rows import Row, Settings

# The arms of the leads; the others are controls and baselines, and come after them.
CORE = (REFERENCE, "fisher_gain", "fisher_per_token", "fisher_weighted", "longest", "dedup_uniform", "dedup_fisher")
BY_EXAMPLES = (REFERENCE, "fisher_gain", "longest")  # what a budget of examples is shown with
ONE_POOL = ("ask_llm", "farthest_point", "sentence_optimal")  # fully fine-tuned in the first pool only, to save time


@dataclass(frozen=True)
class Profile:
    """All of it our choice. `tokens` is the budget of full fine-tuning, `curve` those of uniform picks beside it."""

    settings: Settings
    seeds: tuple[int, ...]
    tokens: int
    curve: tuple[int, ...]
    head_budgets: tuple[int, ...]
    examples: int  # a budget of examples: what the methods are given when examples are counted
    everything: int  # rows of full fine-tuning on all the data, which is what costs most
    pools: tuple[str, ...] = POOLS
    methods: tuple[str, ...] = tuple(m for m in ARMS if m != ALL)

    def rows(self) -> list[Row]:
        """Without repetition, in the order in which they are run."""
        return list(dict.fromkeys(row for row in self._rows() if self._makes_sense(row)))

    def _makes_sense(self, row: Row) -> bool:
        """Without copies, dedup is uniform or FisherSFT again; without its copies, the redundant pool is soon used up.

        To ask the model about every example takes longer than to fine-tune on the picks: it is asked about one pool.
        """
        if row.method.startswith("dedup"):
            return row.pool == "redundant" and row.tokens <= self.tokens
        if row.method == "ask_llm" or (row.method in ONE_POOL and row.training == "full"):
            return row.pool == self.pools[0]
        return True

    def _rows(self) -> Iterator[Row]:
        draws = [(pool, seed) for seed in self.seeds for pool in self.pools]
        core = [m for m in self.methods if m in CORE]
        for pool, seed in draws:  # the leads
            yield Row(pool, "full", NONE, seed)
            yield from (Row(pool, "full", m, seed, self.tokens) for m in core)
        for pool, seed in draws:  # heads take no time
            for training, methods in (("head", self.methods), ("head_weak", core), ("head_update", self.methods)):
                yield Row(pool, training, ALL, seed)
                yield from (Row(pool, training, m, seed, t) for t in self.head_budgets for m in methods)
                yield from (Row(pool, training, m, seed, examples=self.examples) for m in methods if m in BY_EXAMPLES)
            yield Row(pool, "head_update", NONE, seed)
        for pool, seed in draws:  # the other arms
            yield from (Row(pool, "full", m, seed, self.tokens) for m in self.methods)
        for pool, seed in draws:  # how many tokens does uniform need to match?
            yield from (Row(pool, "full", REFERENCE, seed, t) for t in self.curve)
        for seed in self.seeds:  # what length does: equal examples
            yield from (Row(self.pools[0], "full", m, seed, examples=self.examples) for m in BY_EXAMPLES)
        for pool, seed in draws[: self.everything]:
            yield Row(pool, "full", ALL, seed)


def papermill_command(row: Row, profile: str) -> str:
    """The command that runs one row again, in notebook 05, and compares it with the committed table."""
    unit = "examples" if row.examples else "tokens"
    values = {"profile": profile, "pool": row.pool, "train": row.training, "methods": row.method, "seed": row.seed}
    values |= {"budget": row.examples or row.tokens, "unit": unit}
    options = " ".join(f"-p {name} {value}" for name, value in values.items())
    return f".venv/bin/papermill notebooks/05_fine_tuning.ipynb out.ipynb -k python3 {options}"


PROFILES = {
    "smoke": Profile(
        Settings(Sizes(40, 10, bases=3, variants=0.7, rare=0.2), epochs=1, tokens_per_step=64, classes=50, precision="auto"),
        seeds=(0, 1), tokens=150, curve=(75,), head_budgets=(150, 300), examples=5, everything=0,
    ),
    "demo": Profile(
        Settings(Sizes(pool_examples=200, test_examples=40, variants=0.8), precision="auto"),
        seeds=(0,), tokens=800, curve=(), head_budgets=(800,), examples=20, everything=0,
    ),
    "full": Profile(
        Settings(),
        seeds=(0, 1, 2, 3, 4), tokens=2000, curve=(500, 1000, 4000), head_budgets=(500, 1000, 2000, 4000, 8000),
        examples=60, everything=1,
    ),
    "gpu": Profile(  # a larger model is given as a folder or an id: --model
        Settings(Sizes(pool_examples=5000, test_examples=500, variants=0.8), device="cuda"),
        seeds=tuple(range(10)), tokens=20_000, curve=(5_000, 10_000, 50_000), head_budgets=(1_000, 4_000, 16_000, 50_000),
        examples=600, everything=30,
    ),
}  # fmt: skip
