"""What a run leaves behind: a JSON file per section, a figure, and the tables of benchmarks/README.md made from them."""

import datetime
import functools
import json
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
PACKAGES = (
    "numpy", "torch", "scipy", "scikit-learn", "botorch", "gpytorch", "linear-operator", "submodlib-py", "skmatter",
    "apricot-select", "datasketch", "rensa", "semhash",
)  # fmt: skip
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")  # which arithmetic the processor has, bfloat16 above all
SECTIONS = {  # name -> title of its table, the columns of a row that it shows
    "tokens": ("Token features", ["method", "kind", "seconds", "ratio", "evaluations", "objective", "picks"]),
    "vectors": ("One vector per example", ["method", "kind", "seconds", "fastest", "ratio", "objective", "picks"]),
    "scaling": ("How the time of `fl.select` grows", ["varied", "value", "seconds", "evaluations", "exponent"]),
    "roofline": ("What the machine could do", ["what", "value", "unit"]),
    "memory": (
        "Selection from a memory-mapped file",
        ["features", "gigabytes", "seconds", "anonymous_gb", "resident_gb", "picks"],
    ),
    "copies": (
        "Near-duplicates",
        ["method", "rows", "cpu_seconds", "ratio", "anonymous_gb", "kept", "wrongly_out", "wrongly_in"],
    ),
    "chat": (
        "The command on chat rows",
        ["rows", "d", "method", "step", "forecast", "measured", "unit", "ratio"],
    ),
    "gpu": ("On a GPU", ["what", "value", "unit"]),
}
LOAD = os.getloadavg()[0]  # of the machine before this run: above 0.5 or so, others were using it too
REQUIRED = {"name", "date", "commit", "machine", "versions", "settings", "rows"}


def machine() -> dict:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*: (.*)$", text, re.MULTILINE)
    return {
        "processor": model[1] if model else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "flags": [flag for flag in FLAGS if flags and flag in flags[1].split()],
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_at_start": round(LOAD, 2),
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


@functools.cache  # as it was when the run began
def commit() -> str:
    """The commit that is run, with "-dirty" if files other than a run's own output differ from it."""
    git = ["git", "-C", str(FOLDER.parent)]
    name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, timeout=60).stdout.strip()
    output = [":!benchmarks/results", ":!benchmarks/README.md"]
    difference = [*git, "diff", "--quiet", "HEAD", "--", ".", *output]
    clean = subprocess.run(difference, capture_output=True, timeout=60).returncode == 0
    return name if clean else f"{name}-dirty"


def save(name: str, settings: dict, rows: list[dict], folder: Path, **more) -> dict:
    """Write one section's JSON, print its table, and return what was written."""
    result = {
        "name": name,
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": machine() | more.pop("machine", {}),
        "versions": versions(),
        "settings": settings,
        **more,
        "rows": rows,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{table(result)}\n", flush=True)
    return result


def load(folder: Path = RESULTS) -> dict[str, dict]:
    """The sections that have been run, in their order."""
    found = {name: folder / f"{name}.json" for name in SECTIONS}
    return {name: json.loads(path.read_text()) for name, path in found.items() if path.exists()}


# --- tables ----------------------------------------------------------------------------------------------------------


def table(result: dict) -> str:
    """One section as Markdown: what was run and where, then a row per method."""
    title, columns = SECTIONS[result["name"]]
    m, settings = result["machine"], ", ".join(f"{key} {_cell(value)}" for key, value in result["settings"].items())
    where = f"{m['processor']}, {m['cores']} cores, {m['memory_gb']:g} GB, load {m['load_at_start']:g} at the start"
    if "gpu" in m:
        where += f", {m['gpu']}"
    where += f"; torch {result['versions']['torch']}; {result['date']}, commit `{result['commit']}`"
    lines = [f"### {title}", "", f"{settings}. {where}.", ""]
    lines += [f"| {' | '.join(c.replace('_', ' ') for c in columns)} |", "|" + "---|" * len(columns)]
    for row in result["rows"]:
        if row.get("error"):
            cells = [row[columns[0]], row.get("kind", ""), f"did not run: {row['error']}"]
            cells += [""] * (len(columns) - len(cells))
        else:
            cells = [_cell(row.get(column)) for column in columns]
            if row.get("extrapolated_from"):
                cells[columns.index("seconds")] += f" (extrapolated from {row['extrapolated_from']} picks)"
            if "ratio" in columns and row.get("ratio"):
                cells[columns.index("ratio")] += "x"
        lines.append(f"| {' | '.join(cells)} |")
    if result.get("notes"):
        lines += ["", *(f"- {note}" for note in result["notes"])]
    return "\n".join(lines)


def _cell(value) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.2f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def readme_with_results(text: str, results: dict[str, dict]) -> str:
    """The README with fresh tables between its markers."""
    tables = [table(result) for result in results.values()]
    if "tokens" in results or "vectors" in results:
        tables.insert(0, "![time of each method](results/times.svg)")
    if not tables:
        tables.append("No run on a CPU has been committed yet.")
    if "gpu" not in results:
        tables.append("### On a GPU\n\nNot yet measured on a GPU: `make bench-gpu`, on a machine that has one.")
    pattern = r"(<!-- results -->\n).*?(\n<!-- /results -->)"
    if not re.search(pattern, text, re.DOTALL):
        raise ValueError("expected the markers <!-- results --> and <!-- /results -->, each on its own line")
    return re.sub(pattern, lambda m: m[1] + "\n\n".join(tables) + m[2], text, flags=re.DOTALL)


def refresh(folder: Path) -> None:
    """Draw the figure and, for the committed results, rewrite the README."""
    results = load(folder)
    timed = {name: results[name]["rows"] for name in ("tokens", "vectors") if name in results}
    if timed:
        figure(timed, folder / "times.svg")
    if folder.resolve() == RESULTS.resolve():
        readme = FOLDER / "README.md"
        readme.write_text(readme_with_results(readme.read_text(), results))


# --- the figure ------------------------------------------------------------------------------------------------------


def finding(name: str, rows: list[dict]) -> str:
    """One sentence, computed: our time against the fastest rival that maximises the same objective."""
    ours = next(row for row in rows if row["method"] == "fl.select")
    rivals = [r for r in rows if r["kind"] == "exact" and not r.get("error")]
    where = {"tokens": "Token features", "vectors": "One vector each"}[name]
    if not rivals:
        return f"{where}: fl.select takes {ours['seconds']:.3g} s"
    best = min(rivals, key=lambda row: row["seconds"])
    ratio = best["seconds"] / ours["seconds"]
    than = f"{ratio:.1f}x faster than" if ratio >= 1 else f"{1 / ratio:.1f}x slower than"
    return f"{where}: fl.select is {than}\nits fastest exact rival, {best['method']}"


def figure(timed: dict[str, list[dict]], path: Path) -> None:
    """Seconds of each method on a logarithmic axis, a panel per section, ours in the colour of FisherSFT."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from fisherlib.course import plotting

    plotting.style()
    shown = {name: [row for row in rows if row.get("seconds", 0) > 1e-3] for name, rows in timed.items()}
    heights = [len(rows) + 2 for rows in shown.values()]
    drawn, axes = plt.subplots(
        len(shown), 1, figsize=(plotting.PAGE, 0.32 * sum(heights)), squeeze=False, height_ratios=heights
    )
    for axis, (name, rows) in zip(axes[:, 0], shown.items(), strict=True):
        rows = sorted(rows, key=lambda row: row["seconds"])
        for y, row in enumerate(rows):
            shade = plotting.colour("FisherSFT") if row["kind"] == "ours" else "#B0B0B0"
            hatch = "////" if row.get("extrapolated_from") else None
            axis.barh(y, row["seconds"], color=shade, hatch=hatch, edgecolor="white", lw=0)
            axis.text(row["seconds"] * 1.08, y, f"{row['seconds']:.3g} s", va="center", fontsize=9)
        mark = {"exact": "", "ours": "", "other objective": " *"}
        axis.set_yticks(range(len(rows)), [row["method"] + mark[row["kind"]] for row in rows])
        axis.invert_yaxis()
        axis.set(xscale="log", xlabel="seconds (hatched: extrapolated; *: other objective)")
        axis.set_title(finding(name, timed[name]), x=-0.45)  # above the names too, or it would not fit
        axis.margins(x=0.14)
        axis.grid(axis="y", visible=False)
    plotting.save(drawn, path)
    plt.close(drawn)


if __name__ == "__main__":  # after merging results from two machines: tables and figure anew, nothing is timed
    refresh(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS)
