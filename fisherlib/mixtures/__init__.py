"""Between stages 4 and 5, how much of each source: what to train on when there is more than one."""

from fisherlib.mixtures.replay import replayed

__all__ = ["replayed"]
