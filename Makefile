# Two doors: `make quickstart` shows the method at work, `make test` proves that it works. Everything else serves them.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready
# Spinning OpenMP threads make a small shared machine many times slower; nothing needs a model hub after the assets are cached.
export OMP_WAIT_POLICY := PASSIVE
# Training allocates and frees gigabytes a step: huge pages, and memory kept between steps, spare it the page faults.
export GLIBC_TUNABLES := glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=2147483648:glibc.malloc.trim_threshold=8589934592
RUN := HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 $(BIN)/python

.PHONY: setup assets quickstart test test-fast notebooks lab lint bench bench-gpu study clean

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fisherlib needs Python 3.11 or newer, got %d.%d: try make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[judge,notebooks,test]'
	@$(BIN)/python -m compileall -qq -j 0 -x /tests/ .venv/lib || true  # on all cores; pip has one. A few files are for other Pythons
	@touch $@

setup: $(STAMP)

assets: setup
	@$(BIN)/python -P fisherlib/assets.py  # as a script, which is quick when all is there; -P: its folder shadows no module

quickstart: assets
	@$(RUN) -m fisherlib.notebook quickstart

# Two workers of one thread each (tests/conftest.py) beat one of two. worksteal: neighbours share what was made for a file, and
# who is done takes over half of what the other has left, so the notebooks spread. (After a worker that died, loadfile and
# loadgroup of pytest-xdist 3.8 wait for ever.)
PYTEST := $(RUN) -m pytest -n 2 --dist worksteal

test: lint assets
	$(PYTEST)

# Without the checks of every call against its annotations (addopts), which take half of the time of small tests.
test-fast: assets
	$(PYTEST) -o addopts=-q -m "not slow"

notebooks: assets
	$(RUN) -m fisherlib.notebook build

lab: assets
	$(BIN)/python -m jupyter lab --notebook-dir notebooks

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --no-error-summary

# The peers come only when someone benchmarks. skmatter without its dependencies: it asks for an older scikit-learn than ours
# and runs with ours.
.venv/.bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps skmatter
	@touch $@

# Hours; may be killed and started again, it goes on where it was. `make study PROFILE=gpu` where there is one.
PROFILE ?= full
study: assets
	$(RUN) -m fisherlib.study --profile $(PROFILE) --folder runs/study --results notebooks/results/05_fine_tuning

bench: assets .venv/.bench
	$(RUN) -m benchmarks.bench

bench-gpu: setup
	$(RUN) -m benchmarks.gpu

clean:
	rm -rf .venv runs .mypy_cache .pytest_cache .ruff_cache .hypothesis
