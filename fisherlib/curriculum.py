"""A door: notebook 07 imports from `fisherlib.curriculum`. The room is `fisherlib.training.curriculum`."""

import sys

from fisherlib.training import curriculum

sys.modules[__name__] = curriculum
