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

from fisherlib._version import __version__ as __version__

if TYPE_CHECKING:  # a function of a file of its own name: mypy sees the file first
    from fisherlib import fisher, selectors
    from fisherlib.assets import AssetError
    from fisherlib.evaluation import HeldOut, held_out_nll, paired_difference
    from fisherlib.features import TokenFeatures, compress, extract_features  # type: ignore[no-redef]
    from fisherlib.greedy import Selection, certify, explain, forecast, score_selection, select  # type: ignore[no-redef]
    from fisherlib.model import load_model
    from fisherlib.selectors import recipe  # type: ignore[no-redef]
    from fisherlib.text import MaskAudit, Pool, encode, load_pool
    from fisherlib.training import fine_tune, fit_heads  # type: ignore[no-redef]

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
    "mixtures",
    "fine_tune",
    "objectives",
    "self_play",
    "teacher",
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
# On first use, whatever the name: PyTorch takes seconds to import, and `fisherlib --help` needs none of it.
_NAMES = {
    "assets": ("AssetError",),
    "text": ("load_pool", "Pool", "encode", "MaskAudit"),
    "model": ("load_model",),
    "features": ("extract_features", "TokenFeatures", "compress"),
    "greedy": ("forecast", "select", "Selection", "score_selection", "certify", "explain"),
    "selectors": ("recipe",),
    "training": ("fine_tune", "fit_heads"),
    "evaluation": ("held_out_nll", "HeldOut", "paired_difference"),
}
_WINGS = {name: wing for wing, names in _NAMES.items() for name in names}
# The last two are where committed notebooks look for them.
_ROOMS = {
    **{name: name for name in ("fisher", "mixtures", *_NAMES)},
    "objectives": "training.objectives",
    "self_play": "training.self_play",
    "teacher": "training.teacher",
    "judging": "evaluation.judging",
    "synthetic": "course.synthetic",
    "study": "course.study",
    "plotting": "course.plotting",
    "notebook": "course.notebook",
    "project_files": "text.project_files",
    "information": "greedy.information",
}


def __getattr__(name: str):
    if name in _WINGS:
        found = getattr(importlib.import_module(f"fisherlib.{_WINGS[name]}"), name)
        globals()[name] = found  # the next look is an ordinary one
        return found
    if name in _ROOMS:
        return importlib.import_module(f"fisherlib.{_ROOMS[name]}")
    raise AttributeError(f"module 'fisherlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
