"""What is installed from a wheel works without its clone: README's snippet, the cache, and what is said of the notebooks."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fisherlib.assets import ROOT, cache_dir

pytestmark = pytest.mark.slow
MINUTES = 60
SMALLER = {"range(300)": "range(20)", "tokens=1_000": "tokens=200"}  # of README's snippet: so that it takes seconds
NO_NETWORK = """
import socket

def refused(*_):
    raise OSError("this test has no network")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refused
"""
AFTERWARDS = """
import json, os, platformdirs
from fisherlib import assets
chosen = assets.cache_dir()
del os.environ["FISHERLIB_CACHE"]
try:
    fl.study.store.read(fl.notebook.NOTEBOOKS / "results" / "05_fine_tuning")
except ValueError as error:
    study = str(error)
print(json.dumps({
    "package": fl.__file__,
    "chosen": str(chosen),
    "cache": str(assets.cache_dir()),
    "of_the_user": str(platformdirs.user_cache_path("fisherlib", appauthor=False)),
    "picks": len(selection),
    "rows": len(subset),
    "kept": len(kept),
    "study": study,
    "commit": fl.study.rows.origin("cpu")["commit"],
}))
"""


def run(*command, cwd, env, minutes=5):
    return subprocess.run(
        [str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=minutes * MINUTES
    )


@pytest.fixture(scope="module")
def environment():
    """Ours, with every way to the network shut."""
    nowhere = "http://127.0.0.1:9"
    closed = {name: nowhere for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")}
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "PIP_NO_INDEX": "1", "PIP_INDEX_URL": f"{nowhere}/simple"}
    shut = {"PIP_EXTRA_INDEX_URL": "", "PIP_CONFIG_FILE": os.devnull, "no_proxy": "", "NO_PROXY": ""}
    return os.environ | closed | offline | shut


@pytest.fixture(scope="module")
def wheel(environment, tmp_path_factory):
    """The wheel of what git knows and what is new, as of a clean checkout."""
    folder = tmp_path_factory.mktemp("checkout")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    tracked = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True, timeout=MINUTES).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():  # it may be deleted and not committed yet
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    build = ["-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist"]
    built = run(sys.executable, *build, cwd=folder, env=environment)
    assert built.returncode == 0, built.stdout + built.stderr
    (found,) = (folder / "dist").iterdir()
    return found


@pytest.fixture(scope="module")
def installed(wheel, environment, tmp_path_factory):
    """The folder that it is installed into, and the environment in which that stands before our dependencies."""
    target = tmp_path_factory.mktemp("installed") / "site"
    done = run(
        sys.executable, "-m", "pip", "install", "--no-deps", "--target", target, wheel, cwd=target.parent, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target, environment | {"PYTHONPATH": str(target), "FISHERLIB_CACHE": str(cache_dir())}


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entries,) = (archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    assert "fisherlib = fisherlib.cli:main" in entries
    assert {name.split("/")[0] for name in names} == {"fisherlib", wheel.name.rsplit("-", 3)[0] + ".dist-info"}
    data = {"fisherlib/assets.toml", "fisherlib/py.typed"}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "fisherlib").rglob("*.py")}
    assert {name for name in names if name.startswith("fisherlib/")} == sources | data


def snippet_after(words):
    return re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text().partition(f"\n{words}\n")[2], re.DOTALL)[1]


def test_readme_s_snippet_chooses_from_a_file_of_one_s_own(installed, tmp_path):
    snippet = snippet_after("Your own data in Python:")
    assert snippet.count("tokens=3_000") == 2
    rows = [{"prompt": f"What comes after {i}?", "response": f"After {i} comes {i + 1}.", "id": i} for i in range(20)]
    (tmp_path / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "snippet.py").write_text(NO_NETWORK + snippet.replace("tokens=3_000", "tokens=40"))
    done = run(sys.executable, "snippet.py", cwd=tmp_path, env=installed[1])
    assert done.returncode == 0, done.stderr
    subset = [json.loads(line) for line in (tmp_path / "subset.jsonl").read_text().splitlines()]
    assert 0 < len(subset) < 20 and all(row in rows for row in subset)


def test_readme_s_snippet_runs_from_the_wheel_elsewhere(installed, tmp_path):
    target, environment = installed
    snippet = snippet_after("The shipped text and model, step by step:")
    for long, short in SMALLER.items():
        assert long in snippet
        snippet = snippet.replace(long, short)
    (tmp_path / "snippet.py").write_text(NO_NETWORK + snippet + AFTERWARDS)
    done = run(sys.executable, "snippet.py", cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert Path(found["package"]) == target / "fisherlib" / "__init__.py"
    assert Path(found["chosen"]) == cache_dir()  # FISHERLIB_CACHE, as before
    assert found["cache"] == found["of_the_user"] and not Path(found["cache"]).is_relative_to(target)
    assert 0 < found["picks"] == found["rows"] <= 20 and found["kept"] > 0
    assert len(json.loads((tmp_path / "selection.json").read_text())["indices"]) == found["picks"]
    assert "in a clone of the project" in found["study"] and "\n" not in found["study"]
    assert found["commit"] == "unknown"  # even if the package lies in the repository of another project
    assert not list(target.glob("data*")), "the wheel wrote beside its own package"


def test_the_command_is_there_and_sends_notebooks_to_a_clone(installed, tmp_path):
    target, environment = installed
    fisherlib = target / "bin" / "fisherlib"
    assert run(fisherlib, "--version", cwd=tmp_path, env=environment).stdout.startswith("fisherlib ")
    done = run(fisherlib, "notebook", "00_quickstart", cwd=tmp_path, env=environment)
    assert done.returncode == 1 and re.fullmatch(r"fisherlib: expected a clone of the project, .*\n", done.stderr)


@pytest.mark.parametrize("command", [["quickstart"], ["run", "00_quickstart", "--profile", "smoke"], ["build"]])
def test_the_notebooks_are_in_the_clone_says_the_wheel(installed, tmp_path, command):
    _, environment = installed
    done = run(sys.executable, "-m", "fisherlib.notebook", *command, cwd=tmp_path, env=environment)
    assert done.returncode == 1 and not done.stdout and not list(tmp_path.iterdir())
    assert re.fullmatch(r"fisherlib: expected a clone of the project, .*: clone the project and run this .*\n", done.stderr)


def test_a_profile_is_of_the_clone_too(installed, tmp_path):
    _, environment = installed
    call = "import fisherlib as fl; fl.notebook.run('n.ipynb', 'o.ipynb', profile='smoke')"
    done = run(sys.executable, "-c", call, cwd=tmp_path, env=environment)
    assert done.stderr.splitlines()[-1].startswith("ValueError: expected a clone of the project")
