"""fisherlib: choose the fine-tuning examples that teach a language model the most (FisherSFT, arXiv 2505.14826).

>>> import fisherlib as fl
>>> pool = fl.load_pool("shakespeare")
>>> model, tokenizer = fl.load_model("smollm2-135m")
>>> features = fl.extract_features(model, tokenizer, pool.train)      # ragged [M, d]
>>> selection = fl.select(features, tokens=6_000, rule="gain_per_token")
>>> subset = selection.to_dataset(pool.train)
"""

import importlib

from fisherlib import fisher, selectors, synthetic
from fisherlib.assets import AssetError, load_model
from fisherlib.compress import compress
from fisherlib.data import MaskAudit, Pool, encode, load_pool
from fisherlib.evaluate import HeldOut, held_out_nll, paired_difference
from fisherlib.features import extract_features
from fisherlib.finetune import fine_tune
from fisherlib.forecast import forecast
from fisherlib.greedy import certify, score_selection, select
from fisherlib.heads import fit_heads
from fisherlib.recipe import recipe
from fisherlib.selection import Selection
from fisherlib.token_features import TokenFeatures

__all__ = [
    "AssetError",
    "HeldOut",
    "MaskAudit",
    "Pool",
    "Selection",
    "TokenFeatures",
    "certify",
    "compress",
    "encode",
    "extract_features",
    "fine_tune",
    "fisher",
    "fit_heads",
    "forecast",
    "held_out_nll",
    "judging",
    "load_model",
    "load_pool",
    "notebook",
    "paired_difference",
    "plotting",
    "recipe",
    "score_selection",
    "select",
    "selectors",
    "study",
    "synthetic",
]
__version__ = "0.1.0"


def __getattr__(name: str):
    # On first use: they need extras.
    if name in ("judging", "notebook", "plotting", "study"):
        return importlib.import_module(f"fisherlib.{name}")
    raise AttributeError(f"module 'fisherlib' has no attribute {name!r}")
