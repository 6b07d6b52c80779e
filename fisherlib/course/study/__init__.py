"""A fair study: which examples are worth fine-tuning on, at equal tokens and equal steps, with intervals.

`pools` draws what there is to choose from, `methods` is the table of who chooses, `heads` and `fisherlib.fine_tune` train,
`rows` runs one configuration, `runs` many, `profiles` says which, and `plans` those of notebook 05b; `store` keeps
the results, `statistics` turns them into differences with intervals, `verdicts` reads those of all notebooks together,
`claims` and `why` make tables of them. The studies of notebooks 08 to 12 are modules of their own, run by `resumed`; what
their rows say is read by `kept`, `objective_answers`, `taught`, `mixtures`, `self_made_claims` and `decided`, and `systems`
makes README's table of all of it. `python -m fisherlib.study --help` runs it; notebook 05 teaches it.
"""

from fisherlib.course.study import claims, objective_answers, statistics, store, verdicts, why
from fisherlib.course.study.methods import ARMS, METHODS, RELATED, SCORES, VARIANTS, Method, choose, title
from fisherlib.course.study.pools import POOLS, Sizes, draw_pool, with_near_copies
from fisherlib.course.study.profiles import PROFILES, Profile, papermill_command
from fisherlib.course.study.rows import Bench, Row, Settings, run_row
from fisherlib.course.study.runs import run_rows
from fisherlib.selectors import neighbours
from fisherlib.training import heads

__all__ = [
    "ARMS",
    "METHODS",
    "POOLS",
    "PROFILES",
    "RELATED",
    "SCORES",
    "VARIANTS",
    "Bench",
    "Method",
    "Profile",
    "Row",
    "Settings",
    "Sizes",
    "choose",
    "claims",
    "draw_pool",
    "heads",
    "neighbours",
    "objective_answers",
    "papermill_command",
    "run_row",
    "run_rows",
    "statistics",
    "store",
    "title",
    "verdicts",
    "why",
    "with_near_copies",
]
