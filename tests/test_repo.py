"""The promises of the repository: environment, constraints, README, structure."""

import ast
import re
import subprocess
import tomllib

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import fisherlib as fl
from fisherlib.assets import ROOT, _pins
from fisherlib.notebook import readme_with_tables

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PUBLIC = [
    "AssetError", "HeldOut", "MaskAudit", "Pool", "Selection", "TokenFeatures", "certify", "compress", "encode",
    "extract_features", "fine_tune", "fisher", "fit_heads", "forecast", "held_out_nll", "judging", "load_model", "load_pool",
    "notebook", "paired_difference", "plotting", "recipe", "score_selection", "select", "selectors", "study",
    "synthetic",
]  # fmt: skip


def constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in lines if line)}


def test_the_public_names_are_these_and_exist():
    assert fl.__all__ == PUBLIC
    assert all(getattr(fl, name).__doc__ for name in PUBLIC)


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
    assert set(PROJECT["optional-dependencies"]) == {"bench", "judge", "lora", "neighbours", "notebooks", "test"}


def test_readme_commands_exist_and_its_tables_are_fresh():
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", readme, re.MULTILINE)) <= targets
    assert {"setup", "quickstart", "test", "lab", "lint", "notebooks"} <= targets
    assert readme_with_tables(readme) == readme, "stale tables: run make notebooks"
    links = re.findall(r"\]\(((?!http)[^)]+)\)", readme)
    assert links and all((ROOT / link).exists() for link in links)


def test_the_first_screen_is_a_sentence_a_figure_and_two_commands():
    first = (ROOT / "README.md").read_text().split("```")[1]
    assert re.findall(r"^make \w+", first, re.MULTILINE) == ["make quickstart", "make test"]


def test_pins_are_whole_and_nothing_large_or_secret_is_committed():
    for pin in _pins().values():
        assert re.fullmatch("[0-9a-f]{64}", pin["sha256"]) and pin["size"] > 0 and pin["members"] and pin["licence"]
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        assert not name.startswith("data/cache/")
        assert not (ROOT / name).exists() or (ROOT / name).stat().st_size < 800_000, name


def imports_of(path):
    tree = ast.parse(path.read_text())
    found = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return {m.removeprefix("fisherlib.").split(".")[0] for m in found if m.startswith("fisherlib.")} | (
        {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "fisherlib"
            for alias in node.names
        }
    )


def test_data_flows_one_way():
    allowed = {
        "assets": set(),
        "shakespeare": {"assets"},
        "project_files": {"assets"},
        "data": {"assets", "shakespeare"},
        "feature_folder": {"assets"},
        "token_features": {"feature_folder"},
        "features": {"data", "feature_folder", "token_features"},
        "selection": set(),
        "blocks": {"token_features"},
        "information": {"blocks", "token_features"},
        "one_token": {"blocks", "information", "token_features"},
        "race": {"information"},
        "arguments": {"token_features"},
        "greedy": {"arguments", "features", "information", "one_token", "race", "selection", "token_features"},
        "compress": {"token_features"},
        "forecast": {"arguments", "blocks", "greedy", "token_features"},
        "fisher": set(),
        "selectors": {"arguments", "data", "features", "greedy", "judging", "selection", "selectors", "token_features"},
        "recipe": {"greedy", "selection", "selectors", "token_features"},
        "synthetic": {"fisher", "selection", "synthetic", "token_features"},
        "finetune": {"data", "features"},
        "heads": {"evaluate", "token_features"},
        "curriculum": set(),
        "evaluate": {"data", "features", "token_features"},
        "judging": {"assets", "data", "features", "judging"},
        "plotting": {"plotting", "selection"},
        "study": {
            "assets",
            "data",
            "evaluate",
            "features",
            "finetune",
            "greedy",
            "heads",
            "project_files",
            "recipe",
            "selection",
            "selectors",
            "study",
            "token_features",
        },
        "notebook": {"assets", "notebook", "plotting"},
    }
    files = {p.stem: [p] for p in (ROOT / "fisherlib").glob("*.py") if p.stem != "__init__"}
    for folder in ("judging", "notebook", "plotting", "selectors", "study", "synthetic"):
        files[folder] = list((ROOT / "fisherlib" / folder).glob("*.py"))
    assert set(files) == set(allowed)
    for room, paths in files.items():
        assert set().union(*map(imports_of, paths)) <= allowed[room], room
