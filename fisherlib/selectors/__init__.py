"""Every other way to choose examples, one file each, all with the same call:

selector(pool, features, *, examples=... | tokens=..., seed=0) -> Selection
"""

from fisherlib.selectors.longest import longest
from fisherlib.selectors.uniform import uniform

__all__ = ["longest", "uniform"]
