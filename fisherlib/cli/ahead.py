"""`fisherlib forecast`: what a selection will take, measured on a sample of the rows, and a plan that does it."""

import json
import resource
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fisherlib import selectors
from fisherlib._files import explained, replacing
from fisherlib._version import __version__
from fisherlib.cli.choose import check, work_folder
from fisherlib.cli.methods import outputs
from fisherlib.cli.pool import Candidates, apart, bytes_of, candidates, counts, opened, summed_up
from fisherlib.cli.session import Session, digest_of
from fisherlib.features import TokenFeatures, extract_features
from fisherlib.greedy import explain, grown
from fisherlib.model import context_length

_SECONDS = 6.0  # of extraction, about, that the rate is measured on
_ROWS = 512  # at most
_FLAT, _SHARD = 20, 2**27  # bytes: of a token's id, mask and label in one piece with all others, and of a shard


def forecast_command(session: Session, given: dict[str, Any]) -> None:
    """Rows, tokens, disk, memory and seconds of `select` with these arguments; and a plan."""
    plan = Path(given["plan"])
    asked = {name: value for name, value in given.items() if name != "plan"}
    check(asked)
    apart(asked, plan)
    with session.step("load the model"):
        began = time.perf_counter()
        model, tokenizer = opened(session, asked)
        loading = time.perf_counter() - began
    began = time.perf_counter()
    found = candidates(session, asked, tokenizer, context_length(model))
    reading = time.perf_counter() - began
    usable = found.audit.usable
    inputs = sum(found.audit.lengths[i] for i in usable)
    responses = sum(found.audit.responses[i] for i in usable)
    with session.step("measure"):
        sample, rate = measured(model, tokenizer, asked, found, inputs)
    with session.step("choose from the sample"):
        seconds = choosing(found, sample, asked, responses)
    disk = bytes_of(responses, model)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    peak += _FLAT * inputs + _SHARD  # what the extraction of all rows takes beside what is here: their ids are
    free = shutil.disk_usage(_there(work_folder(asked))).free
    total = loading + reading + inputs / rate + seconds
    numbers = {
        "rows": len(found.rows),
        "of_rows": found.read,
        "skipped": counts(found),
        "input_tokens": inputs,
        "response_tokens": responses,
        "disk_bytes": disk,
        "disk_free_bytes": free,
        "peak_memory_bytes": peak,
        "seconds": {
            "read and audit": round(reading + loading, 2),
            "features": round(inputs / rate, 2),
            "select": round(seconds, 2),
            "all": round(total, 2),
        },
        "rates": {"input_tokens_per_second": round(rate, 1), "measured_on_rows": len(sample[0])},
    }
    session.result(summed_up(found))
    session.result(f"tokens: {inputs:,} in all, of which {responses:,} are responses")
    session.result(f"disk: {disk / 1e9:.2f} GB for the features ({free / 1e9:,.1f} GB are free)")
    session.result(f"memory: {peak / 1e9:.1f} GB at the peak")
    session.result(
        f"time: {total:,.0f} s: {reading + loading:,.0f} to read, {inputs / rate:,.0f} for the features, {seconds:,.0f} to "
        f"choose (measured: {rate:,.0f} tokens a second on {len(sample[0])} rows)"
    )
    if disk > free:
        session.partial.append("the features do not fit on the disk: name a --work folder on a larger one")
    said = {"format": 1, "fisherlib": __version__, "arguments": asked, "data": found.data, "forecast": numbers}
    with explained(plan):
        plan.parent.mkdir(parents=True, exist_ok=True)
    with explained(plan), replacing(plan) as scratch:
        scratch.write_text(json.dumps(said | {"digest": digest_of(said)}, indent=1))
    session.result(f"plan: {plan}: fisherlib select --plan {plan} does this")
    session.event("summary", plan=str(plan), **numbers)


def _there(folder: Path) -> Path:
    """The nearest folder above that exists."""
    folder = folder.resolve()
    while not folder.exists():
        folder = folder.parent
    return folder


def measured(
    model: Any, tokenizer: Any, given: dict[str, Any], found: Candidates, inputs: int
) -> tuple[tuple[list[int], TokenFeatures], float]:
    """The features of a random sample of the candidates, and how many tokens go through the model in a second.

    Of two samples, so that what is done once, however many rows there are, is not counted for each.
    """
    order = np.random.default_rng(given["seed"]).permutation(len(found.rows))[:_ROWS].tolist()
    options: dict[str, Any] = {"turns": given["turns"], "too_long": given["too_long"], "progress": False}
    usable = found.audit.usable

    def extract(part: list[int]) -> TokenFeatures:
        encoded = [found.audit.encoded[i] for i in part]
        return extract_features(model, tokenizer, found.rows.select(part), encoded=encoded, **options)

    extract(order[:1])  # libraries load on first use
    size, spent, tokens, before = min(8, len(order)), 0.0, 0, []
    while True:
        before.append((spent, tokens))
        part = sorted(order[:size])
        began = time.perf_counter()
        features = extract(part)
        spent = time.perf_counter() - began
        tokens = sum(found.audit.lengths[usable[i]] for i in part)
        if size == len(order) or (spent > _SECONDS / 3 and len(before) > 1):
            break
        size = min(len(order), max(2 * size, int(size * _SECONDS / 2 / max(spent, 0.01))))
    less, fewer = before[-1]
    once = less - fewer * (spent - less) / max(tokens - fewer, 1)  # a line through both
    return (part, features), tokens / max(spent - min(max(once, 0.0), 0.9 * spent), 1e-6)


def choosing(found: Candidates, sample: tuple[list[int], TokenFeatures], given: dict[str, Any], responses: int) -> float:
    """Seconds that the selection will take, continued from the sample to all rows."""
    part, features = sample
    features, rows = replace(features, provenance=None), found.rows.select(part)
    budget, times = outputs(given)[0][0], len(found.rows) / len(part)
    share = max(budget * float(features.lengths.sum()) / max(responses, 1), float(features.lengths.max()))
    if given["method"] == "fisher":
        _, seconds = grown(
            features, len(found.rows), responses, {"tokens": budget}, rule="best", device=given["device"], progress=False
        )
    else:  # of linear time, beside what is done once
        choose = {"recipe": selectors.recipe, "uniform": selectors.uniform}[given["method"]]
        few, took = max(len(part) // 2, 1), []
        for size in (few, few, len(part)):  # libraries load on first use
            some, budget = features.subset(range(size)), share * size / len(part)
            began = time.perf_counter()
            choose(rows.select(range(size)), some, tokens=max(budget, float(some.lengths.max())))
            took.append(time.perf_counter() - began)
        slope = max(took[2] - took[1], 0.0) / max(len(part) - few, 1)
        seconds = took[2] + slope * (len(found.rows) - len(part))
    if given["reasons"]:
        chosen = selectors.uniform(rows, features, tokens=share)
        began = time.perf_counter()
        explain(features, chosen, device=given["device"])
        seconds += (time.perf_counter() - began) * times
    return seconds
