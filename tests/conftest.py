"""What all tests share. Who starts the workers reads it too, and waits: nothing that takes seconds is imported for that."""

import copy
import gc
import os
import signal
import sys
from collections import Counter
from itertools import chain, groupby

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # several workers share the cores; their kernels and children inherit it
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)

# Begun in the background of a script, all would ignore Ctrl-C, and so would the children that tests send it to.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# jsonschema, which nbformat imports, does without it: its grammars take seconds to build, for a check that nobody asks for.
sys.modules.setdefault("rfc3987_syntax", None)
gc.disable()  # while modules are imported: what they make stays, and is searched for garbage again and again

SLOW_SECONDS = 900  # for a test that is marked slow, where pyproject.toml gives the others less

# Why a test may be skipped, and how many at most. tests/README.md says it in words; any other skip fails the run.
EXPLAINED = {
    "needs a CUDA device": 1,
    "comes with the bench extra": 3,
    "could not import 'skmatter": 1,
    "could not import 'triton": 1,
    "needs the history of the repository": 2,
    "needs node": 1,
    "needs Chromium": 16,
    "needs a small file system of its own": 5,
    "reads /proc": 4,
}
_skipped: list[str] = []


def unexplained(reasons: list[str]) -> list[str]:
    """The reasons of skips that are not explained above, or are given more often than that."""
    found = Counter(next((known for known in EXPLAINED if known in reason), reason) for reason in reasons)
    return [f"{reason} ({count} times)" for reason, count in found.items() if count > EXPLAINED.get(reason, 0)]


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


def is_slow(item) -> bool:
    return item.get_closest_marker("slow") is not None


def slow_ones_first(items: list) -> list:
    """In each half of the list, slow tests first, and of these the notebooks.

    Two workers begin with a half each; who is done takes from the end of the other's. So what is left at the end is short,
    and both end together. Of a file, the tests stay together; only notebooks, which share nothing, alternate.
    """
    slow, others = [item for item in items if is_slow(item)], [item for item in items if not is_slow(item)]
    runs = [[item] for item in slow if item.path.parent.name == "notebooks"]
    files = [list(group) for path, group in groupby(slow, lambda item: item.path) if path.parent.name != "notebooks"]
    first, second = (list(chain.from_iterable(runs[k::2] + files[k::2])) for k in (0, 1))
    here = max(len(items) // 2 - len(first), 0)
    return [*first, *others[:here], *second, *others[here:]]


def pytest_collection_modifyitems(items):
    if "PYTEST_XDIST_WORKER" in os.environ:
        items[:] = slow_ones_first(items)
    for item in filter(is_slow, items):
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))


def pytest_runtest_logreport(report):
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(report.longrepr[2])


def pytest_sessionfinish(session):
    if unexplained(_skipped) and not hasattr(session.config, "workerinput"):  # the one who counts for all workers
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    for reason in unexplained(_skipped):
        terminalreporter.write_line(f"FAILED a skip that tests/conftest.py does not explain: {reason}", red=True)


@pytest.fixture
def as_a_user(monkeypatch):
    """Without the checks of annotations, which only tests have: what is refused is refused by the library itself."""
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def tiny():
    """A random Llama: 97 tokens, 16 dimensions, untied head."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        initializer_range=0.5,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def real():
    """The shipped model and its tokenizer."""
    import fisherlib as fl

    return fl.load_model("smollm2-135m")


@pytest.fixture(scope="session")
def plays():
    import fisherlib as fl

    return fl.load_pool("shakespeare")


@pytest.fixture
def ids():
    import torch

    generator = torch.Generator().manual_seed(1)
    lengths = [7, 3, 12, 5, 1, 9, 0, 12]
    return [torch.randint(1, 97, (n,), generator=generator).tolist() for n in lengths]


@pytest.fixture
def device():
    """The pretend accelerator, and what it counts."""
    from tests.pretend import accelerator

    with accelerator() as present:
        yield present


@pytest.fixture
def twin(tiny, device):
    """`tiny`, on that device."""
    return copy.deepcopy(tiny).to("pretend")
