"""fisherlib: choose the fine-tuning examples that teach a language model the most (FisherSFT, arXiv 2505.14826).

>>> import fisherlib as fl
>>> pool = fl.load_pool("shakespeare")
>>> model, tokenizer = fl.load_model("smollm2-135m")
>>> features = fl.extract_features(model, tokenizer, pool.train)      # ragged [M, d]
>>> selection = fl.select(features, tokens=6_000, rule="best")
>>> subset = selection.to_dataset(pool.train)
"""

import importlib
from typing import TYPE_CHECKING

from fisherlib import fisher
from fisherlib._version import __version__ as __version__
from fisherlib.assets import AssetError
from fisherlib.evaluation import HeldOut, held_out_nll, paired_difference
from fisherlib.features import TokenFeatures, compress, extract_features
from fisherlib.greedy import Selection, certify, explain, forecast, score_selection, select
from fisherlib.model import load_model
from fisherlib.text import MaskAudit, Pool, encode, load_pool
from fisherlib.training import fine_tune, fit_heads

if TYPE_CHECKING:
    from fisherlib import selectors
    from fisherlib.selectors import recipe

# In the order of the line: text, model, features, selection, training, evaluation; then the mathematics and the course.
__all__ = [
    "load_pool",
    "Pool",
    "encode",
    "MaskAudit",
    "load_model",
    "AssetError",
    "extract_features",
    "TokenFeatures",
    "compress",
    "forecast",
    "select",
    "Selection",
    "score_selection",
    "certify",
    "explain",
    "selectors",
    "recipe",
    "fine_tune",
    "fit_heads",
    "held_out_nll",
    "HeldOut",
    "paired_difference",
    "judging",
    "fisher",
    "synthetic",
    "study",
    "plotting",
    "notebook",
]
# On first use: they need extras, take a second to import (scikit-learn, of the selectors), or are the course's own. The last
# two are where committed notebooks look for them.
_ROOMS = {
    "selectors": "selectors",
    "judging": "evaluation.judging",
    "synthetic": "course.synthetic",
    "study": "course.study",
    "plotting": "course.plotting",
    "notebook": "course.notebook",
    "project_files": "text.project_files",
    "information": "greedy.information",
}


def __getattr__(name: str):
    if name in _ROOMS:
        return importlib.import_module(f"fisherlib.{_ROOMS[name]}")
    if name == "recipe":
        return importlib.import_module("fisherlib.selectors").recipe
    raise AttributeError(f"module 'fisherlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
