"""One style, five colours with a meaning, and the figures, a file for each notebook. Needs the extra `notebooks`."""

from fisherlib.course.plotting.decided import differences, readings
from fisherlib.course.plotting.engine import batch_sizes, error_estimates, race_times, roofline
from fisherlib.course.plotting.fine_tuning import (
    called,
    coverage,
    forest,
    forest_and_others,
    gaps,
    judged,
    seeds_dance,
    tokens_to_match,
    verdict_table,
    written,
)
from fisherlib.course.plotting.greedy import (
    copies,
    evaluation_raster,
    gain_fields,
    histogram,
    length_scatter,
    missed_optimum,
    misses,
    prior_sweep,
)
from fisherlib.course.plotting.house import COLOURS, GREY, PAGE, colour, save, style
from fisherlib.course.plotting.judging import wins
from fisherlib.course.plotting.keep_learning import forgetting_plane, rates, replay_shares
from fisherlib.course.plotting.known_truth import error_curves, predicted_and_measured, ratios, verdict_map
from fisherlib.course.plotting.living import living
from fisherlib.course.plotting.mixtures import agreement, curves, heat
from fisherlib.course.plotting.movable import movable
from fisherlib.course.plotting.objectives import curve_panels
from fisherlib.course.plotting.picks import living_certificate, living_gains, living_lazy
from fisherlib.course.plotting.quickstart import comparison, draw_by_draw, information_curves, uncertainty_ellipses
from fisherlib.course.plotting.related import overlap, payoff
from fisherlib.course.plotting.self_made import contrast_forest, kept_of_sampled, seeds_and_means
from fisherlib.course.plotting.teaching import hinges, taught
from fisherlib.course.plotting.temperature import living_softmax
from fisherlib.course.plotting.theory import bounds, designs, line_panels, simplex
from fisherlib.course.plotting.why import confirmation, moved, properties, suspects_table

__all__ = [
    "COLOURS",
    "GREY",
    "PAGE",
    "agreement",
    "batch_sizes",
    "bounds",
    "called",
    "colour",
    "comparison",
    "confirmation",
    "contrast_forest",
    "copies",
    "coverage",
    "curve_panels",
    "curves",
    "designs",
    "differences",
    "draw_by_draw",
    "error_curves",
    "error_estimates",
    "evaluation_raster",
    "forest",
    "forest_and_others",
    "forgetting_plane",
    "gain_fields",
    "gaps",
    "heat",
    "hinges",
    "histogram",
    "information_curves",
    "judged",
    "kept_of_sampled",
    "length_scatter",
    "line_panels",
    "living",
    "living_certificate",
    "living_gains",
    "living_lazy",
    "living_softmax",
    "missed_optimum",
    "misses",
    "movable",
    "moved",
    "overlap",
    "payoff",
    "predicted_and_measured",
    "prior_sweep",
    "properties",
    "race_times",
    "rates",
    "ratios",
    "readings",
    "replay_shares",
    "roofline",
    "save",
    "seeds_and_means",
    "seeds_dance",
    "simplex",
    "style",
    "suspects_table",
    "taught",
    "tokens_to_match",
    "uncertainty_ellipses",
    "verdict_map",
    "verdict_table",
    "wins",
    "written",
]
