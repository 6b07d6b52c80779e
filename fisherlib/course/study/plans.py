"""Which rows notebook 05b is made of: one thing changed at a time, candidates of the recipe, and its confirmation.

All of it is our choice. Rows that the study has already are not run again.
"""

from dataclasses import replace

from fisherlib.course.study.arms import EARLIER, REFERENCE
from fisherlib.course.study.methods import NEIGHBOURS, QUOTAS, RECIPES, RELATED, VARIANTS
from fisherlib.course.study.pools import POOLS, UNSEEN, Sizes
from fisherlib.course.study.profiles import PROFILES
from fisherlib.course.study.rows import Row, Settings

Part = tuple[Settings, list[Row]]
LAYERS = (10, 20)  # of 30
REGIMES = ((1, 5e-5), (6, 5e-5), (2, 1.5e-4), (6, 1.5e-4))  # epochs and learning rate: from underfitting to overfitting
BUDGETS = (1000, 4000, 8000)
NEW_SEEDS = (5, 6, 7, 8, 9, 10)  # of the confirmation
_PAIR = (REFERENCE, "fisher_per_token")


def _ablations() -> list[Part]:
    study = PROFILES["full"]

    def rows(methods: tuple[str, ...], tokens: int) -> list[Row]:
        return [Row("clean", "full", method, seed, tokens) for seed in study.seeds for method in methods]

    changed = (*_PAIR, "fisher_weighted", *VARIANTS, *(f"{EARLIER}{k}" for k in LAYERS))
    regimes = [replace(study.settings, epochs=epochs, learning_rate=rate) for epochs, rate in REGIMES]
    return [
        (study.settings, rows(changed, study.tokens)),
        *((settings, rows(_PAIR, study.tokens)) for settings in regimes),
        *((study.settings, rows(_PAIR, tokens)) for tokens in BUDGETS),
    ]


def _recipes() -> list[Part]:
    """The candidates of `fl.recipe`, on the pools that it is chosen on."""
    study = PROFILES["full"]
    methods = (*_PAIR, *RECIPES)
    rows = [Row(p, "full", method, seed, study.tokens) for method in methods for p in POOLS for seed in study.seeds]
    return [(study.settings, rows)]


def _confirmation() -> list[Part]:
    """`fl.recipe` on pools of text that nobody looked at before, with new seeds: see the protocol beside the results."""
    study = PROFILES["full"]
    kinds = {pool: study.settings for pool in UNSEEN}
    kinds["guide_redundant"] = replace(study.settings, sizes=Sizes(bases=24, variants=0.8))
    return [
        (settings, [Row(pool, "full", method, seed, study.tokens) for seed in NEW_SEEDS for method in methods])
        for methods in ((REFERENCE, "recipe"), (_PAIR[1],))  # the question first; FisherSFT is there to be looked at
        for pool, settings in kinds.items()
    ]


def _related() -> list[Part]:
    """The selection methods of related papers and of known packages, on the three pools of the study."""
    study = PROFILES["full"]
    methods = (*_PAIR, "recipe", *RELATED, *NEIGHBOURS)
    rows = [Row(p, "full", method, seed, study.tokens) for seed in study.seeds for p in POOLS for method in methods]
    return [(study.settings, rows)]


def _quotas() -> list[Part]:
    """Are FisherSFT's quotas worth anything, and does design buy the worst case? Asked in `results/05c_quotas`."""
    study = PROFILES["full"]

    def settings(epochs: int = study.settings.epochs, **sizes) -> Settings:
        # float32: its rows are made in many sittings, and the machine of the next may have no units for bfloat16
        return replace(study.settings, sizes=Sizes(test_examples=200, **sizes), epochs=epochs, precision="float32")

    def rows(pool: str, seed: int, methods: tuple[str, ...]) -> list[Row]:
        return [Row(pool, "full", method, seed, study.tokens) for method in methods]

    coupled = tuple(method for method in QUOTAS if method != "minhash_oracle")
    everyone = (REFERENCE, *coupled, "fisher_per_token", "fisher_weighted")
    parts = []
    for seed in range(20, 32):
        parts.append((settings(), rows("guide", seed, (*everyone, "recipe"))))
        parts.append((settings(bases=24, variants=0.8), rows("guide_redundant", seed, everyone)))
        parts += [(settings(), rows(pool, seed, (*everyone, "minhash_oracle"))) for pool in ("code_mix", "project")]
    unseen = (REFERENCE, "minhash_uniform", "fisher_per_token", "fisher_weighted", "minhash_fisher", "semhash")
    for seed in range(20, 26):
        parts.append((settings(bases=24, variants=0.8), rows("guide_paraphrased", seed, unseen)))
    for seed in range(20, 26):
        for share in (0.0, 0.1, 0.2, 0.4, 0.8):
            parts.append((settings(bases=160, variants=share), rows("guide_redundant", seed, unseen[:3])))
    for seed in range(20, 26):
        parts += [(settings(epochs=epochs), rows("guide", seed, unseen[:4])) for epochs in (1, 4, 6)]  # 2: above
    return parts


PLANS: dict[str, list[Part]] = {
    "ablations": _ablations(),
    "recipes": _recipes(),
    "confirmation": _confirmation(),
    "related": _related(),
    "quotas": _quotas(),
}
