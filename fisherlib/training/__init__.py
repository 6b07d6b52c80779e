"""Stage 5, the fine-tuned model: fine-tuning on equal steps, orders of the data, softmax heads on frozen features."""

from fisherlib.training import heads, objectives, self_play, teacher
from fisherlib.training.curriculum import ClusterOrder, ThompsonCurriculum
from fisherlib.training.fine_tune import FineTuned, fine_tune
from fisherlib.training.groups import Objective
from fisherlib.training.heads import Head, HeadFrame, fit_heads, head_frame
from fisherlib.training.steps import Order, equal_token_steps

__all__ = [
    "ClusterOrder",
    "FineTuned",
    "Head",
    "HeadFrame",
    "Objective",
    "Order",
    "ThompsonCurriculum",
    "equal_token_steps",
    "fine_tune",
    "fit_heads",
    "head_frame",
    "heads",
    "objectives",
    "self_play",
    "teacher",
]
