"""The promises of the repository: environment, constraints, README, structure."""

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import fisherlib as fl
from fisherlib.assets import ROOT, _pins
from fisherlib.course.notebook import readme_with_tables

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PUBLIC = [  # in the order of the line
    "load_pool", "Pool", "encode", "MaskAudit", "load_model", "AssetError", "extract_features", "TokenFeatures", "compress",
    "forecast", "select", "Selection", "score_selection", "certify", "explain", "selectors", "recipe", "mixtures",
    "fine_tune", "objectives", "self_play", "rejection", "teacher", "fit_heads", "merge", "held_out_nll", "HeldOut",
    "paired_difference", "decisions", "judging", "fisher", "synthetic", "study", "plotting", "notebook",
]  # fmt: skip


def constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in lines if line)}


def test_the_public_names_are_these_and_exist():
    assert fl.__all__ == PUBLIC and dir(fl) == sorted(PUBLIC)
    assert all(getattr(fl, name).__doc__ for name in PUBLIC)


def test_what_takes_a_second_to_import_comes_on_first_use_and_not_inside_a_call_that_is_timed():
    code = (
        "import sys, fisherlib as fl\n"
        "late = ('sklearn', 'scipy.stats')\n"
        "assert not [name for name in late if name in sys.modules]\n"
        "fl.selectors, fl.recipe\n"
        "assert 'sklearn.cluster' in sys.modules and fl.recipe is fl.selectors.recipe"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_dependency_is_pinned_within_its_range():
    pinned = constraints()
    wanted = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]
    for requirement in map(Requirement, wanted):
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_conda_installs_the_same_and_pins_only_python():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert [re.split("[<>=]", name)[0] for name in conda] == ["python", "pip"] and conda[1] == "pip"
    assert pip == {"pip": ["-c constraints.txt", "-e .[judge,notebooks,test]"]}
    extras = {"bench", "gpu", "judge", "lora", "neighbours", "notebooks", "rejection", "test"}
    assert set(PROJECT["optional-dependencies"]) == extras


def test_the_citation_is_of_this_version_and_names_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what the format asks for
    assert citation["version"] == fl.__version__ and citation["license"] == PROJECT["license"]
    (paper,) = citation["references"]
    assert paper["title"] in (ROOT / "README.md").read_text() and (paper["start"], paper["end"]) == (12924, 12943)
    assert {"type", "title", "authors"} <= set(paper) and len(paper["authors"]) == 6


def test_readme_commands_exist_and_its_tables_are_fresh():
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", readme, re.MULTILINE)) <= targets
    assert {"setup", "quickstart", "test", "test-fast", "lab", "lint", "notebooks"} <= targets
    assert readme_with_tables(readme) == readme, "stale tables: run make notebooks"
    links = re.findall(r"\]\(((?!http)[^)]+)\)", readme)
    headings = {f"#{name.lower().replace(' ', '-')}" for name in re.findall(r"^#+ (.+)", readme, re.MULTILINE)}
    assert links and all(link in headings or (ROOT / link).exists() for link in links)


def test_the_first_screen_says_what_was_found_then_takes_your_data():
    """Who reads no further knows what the tool does, when it helps, whom it harms, and what to type."""
    screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:60])
    found, _, after = screen.partition("<!-- /found -->")
    assert len(re.findall(r"^- \*\*", found, re.MULTILINE)) == 3 and "```" not in found
    choose, commands = re.findall(r"```bash\n(.*?)```", after, re.DOTALL)
    assert re.search(r"^fisherlib select my\.jsonl .*--tokens \d+ --out \S+$", choose, re.MULTILINE)
    assert re.findall(r"^make \w+", commands, re.MULTILINE) == ["make quickstart", "make test"]
    head = re.search(r"<!-- pays -->\n(.*)\n", screen)[1]
    assert all(name in head for name in ("uniform", "MinHash + uniform", "FisherSFT", "recipe", "majority alone"))
    assert "<!-- /pays -->" in screen


def test_no_result_in_readme_is_typed_by_hand():
    readme = (ROOT / "README.md").read_text()
    prose = re.sub(r"<!-- (\w+) -->.*?<!-- /\1 -->|```.*?```|`[^`]*`|\]\([^)]*\)", "", readme, flags=re.DOTALL)
    assert set(re.findall(r"[\d.]*\d+\.\d+|\d+ ?%", prose)) <= {"95 %", "3.11", "2505.14826", "2.0"}


def test_the_readme_of_the_tests_names_every_file():
    named = re.findall(r"`((?:\w+/)?test_\w+\.py)`", (ROOT / "tests" / "README.md").read_text())
    there = sorted(path.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py"))
    assert sorted(set(named)) == there


def test_the_workflow_of_a_fork_runs_what_we_run_on_pythons_that_we_support():
    (job,) = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())["jobs"].values()
    assert any(step.get("run", "").startswith("make test ") for step in job["steps"])
    oldest, *_ = sorted(map(Version, job["strategy"]["matrix"]["python"]))
    assert PROJECT["requires-python"] == f">={oldest}" and 0 < job["timeout-minutes"] <= 60


def test_pins_are_whole_and_nothing_large_or_secret_is_committed():
    for pin in _pins().values():
        assert re.fullmatch("[0-9a-f]{64}", pin["sha256"]) and pin["size"] > 0 and pin["members"] and pin["licence"]
    command = ["git", "ls-files", "-z"]
    tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    for name in filter(None, tracked.split("\0")):
        assert not name.startswith("data/cache/")
        assert not (ROOT / name).exists() or (ROOT / name).stat().st_size < 800_000, name


# Which wing may import which. What stands beside `__init__` in the root is for everybody.
SMALL = {"fisher", "assets", "_files", "_quiet", "_version", "_device", "_door", "_signals", "_types"}
WINGS = {
    "text": set(),
    "model": {"text"},
    "features": {"model", "text"},
    "greedy": {"features", "text"},
    "selectors": {"greedy", "features", "model", "text"},
    "mixtures": {"text", "model", "features", "greedy", "selectors", "evaluation", "training"},
    "evaluation": {"text", "model", "features", "greedy"},
    "training": {"text", "model", "features", "greedy", "evaluation"},
    "report": {"text", "model", "features", "greedy", "selectors", "evaluation", "training"},
    "cli": {"text", "model", "features", "greedy", "selectors", "evaluation", "training", "report", "course"},
    "course": {"text", "model", "features", "greedy", "selectors", "mixtures", "evaluation", "training"},
}
DOORS = {"study", "notebook", "curriculum", "__main__"}  # of committed protocols into the course, and `python -m fisherlib`
PACKAGE = ROOT / "fisherlib"


def imports_of(path):
    """Every module of the house that a file imports, deferred imports counted, as (module, names)."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it goes"
            found.append((node.module, [alias.name for alias in node.names]))
    return [(module, names) for module, names in found if module.split(".")[0] == "fisherlib"]


def wing_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def test_the_house_has_these_wings_and_no_other_rooms():
    entries = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert entries <= set(WINGS) | SMALL | DOORS | {"__init__"} and set(WINGS) <= entries


def test_data_flows_one_way():
    """No import runs up, and a wing is entered by its door: what its `__init__` names, or a package or module of its own."""
    for path in PACKAGE.rglob("*.py"):
        here = wing_of(path)
        if here in DOORS or path == PACKAGE / "__init__.py":
            continue
        for module, names in imports_of(path):
            if module == "fisherlib":
                assert here in ("course", "cli") or set(names) <= SMALL, f"{path}: {names} through the package's face"
                continue
            _, there, *inside = module.split(".")
            if there in SMALL or there == here:
                assert here not in ("fisher", "_files", "_quiet", "_version", "_device", "_door", "_signals", "_types"), (
                    f"{path} imports {module}"
                )
                continue
            assert here not in SMALL, f"{path} is for everybody, and imports {module}"
            assert there in WINGS[here], f"{path} imports {module}, which is not below it"
            private = [part for part in [*inside, *names] if part.startswith("_") and part != "__main__"]
            assert not private, f"{path} reaches past the door of {module}"
            past = here == "course" or (here, there) == ("cli", "course") or inside == ["judging"]
            assert not inside or past, f"{path} reaches past the door of {there}"


def test_no_circle_of_files():
    """Each file after those that it imports."""
    files = {".".join(("fisherlib", *p.relative_to(PACKAGE).with_suffix("").parts)): p for p in PACKAGE.rglob("*.py")}
    files = {name.removesuffix(".__init__"): path for name, path in files.items()}
    graph = {
        name: {
            source
            for module, names in imports_of(path)
            for source in ([f"{module}.{n}" for n in names if f"{module}.{n}" in files] or [module])
        }
        for name, path in files.items()
        if name != "fisherlib"
    }
    for name in graph:
        graph[name] -= {"fisherlib", name}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError
