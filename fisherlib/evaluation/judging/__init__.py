"""Judging what models write: generate, compare in pairs, and know first what the judge can tell.

`generate` continues held-out prompts, `endpoint` asks any OpenAI-compatible judge, `server` starts one on this machine,
`pairwise` asks about two texts in both orders, `outcomes` measures the judge's biases and makes win rates and Bradley-Terry
scores of judgements, `numbers` is a judge without a server. Needs the extra `judge`; notebook 06 teaches it.
"""

from fisherlib.evaluation.judging.endpoint import Endpoint, JudgeError, Reply
from fisherlib.evaluation.judging.numbers import CharacterModel
from fisherlib.evaluation.judging.outcomes import (
    Share,
    bradley_terry,
    bradley_terry_scores,
    counts,
    length_bias,
    order_agreement,
    position_bias,
    scores,
    share,
    win_rates,
)
from fisherlib.evaluation.judging.pairwise import Pair, all_pairs, judge
from fisherlib.evaluation.judging.server import local_server, rule_server
from fisherlib.model import continuation_ids, continuations, prompt_ids

__all__ = [
    "CharacterModel",
    "Endpoint",
    "JudgeError",
    "Pair",
    "Reply",
    "Share",
    "all_pairs",
    "bradley_terry",
    "bradley_terry_scores",
    "continuation_ids",
    "continuations",
    "counts",
    "judge",
    "length_bias",
    "local_server",
    "order_agreement",
    "position_bias",
    "prompt_ids",
    "rule_server",
    "scores",
    "share",
    "win_rates",
]
