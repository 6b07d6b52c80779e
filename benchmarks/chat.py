"""A large pool that nobody has to download: chat rows of chained words, and small random models that read them.

Each response is a chain of words of the training plays, in which a word follows another as often as it does there. So
n-grams are as common as in real text, and only the near-copies are alike.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import fisherlib as fl
from benchmarks import report

WORDS = 118  # of a response on average: 200 tokens
COPIES, CHANGED = 0.3, 30  # the share of near-copies; each has up to so many other words than its original
_VOCABULARY = 2048
_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def rows(n: int, seed: int = 0) -> tuple[list[dict], np.ndarray]:
    """Rows of `messages`, and of each the row that it is a near-copy of, -1 for none."""
    rng = np.random.default_rng(seed)
    words = np.array(_words())
    kinds, said = np.unique(words, return_inverse=True)
    order = np.argsort(said[:-1], kind="stable")  # where each word stands, one word after the other
    first = np.searchsorted(said[:-1][order], np.arange(len(kinds) + 1))
    longest = WORDS * 3 // 2
    chains = np.empty((n, longest), dtype=int)
    chains[:, 0] = said[rng.integers(len(said) - 1, size=n)]
    for t in range(1, longest):
        begin, end = first[chains[:, t - 1]], first[chains[:, t - 1] + 1]
        place = np.minimum(begin + (rng.random(n) * (end - begin)).astype(int), len(order) - 1)
        chains[:, t] = said[order[place] + 1]
    lengths = rng.integers(WORDS // 2, longest, size=n, endpoint=True)
    copied = rng.random(n) < COPIES
    copied[0] = False
    source = np.full(n, -1)
    for i in np.flatnonzero(copied):
        source[i] = _original(copied, int(i), rng)
        chains[i], lengths[i] = chains[source[i]], lengths[source[i]]
        places = rng.choice(lengths[i], rng.integers(1, CHANGED, endpoint=True), replace=False)
        chains[i, places] = rng.integers(len(kinds), size=len(places))
    asked = kinds[chains[:, :2]]
    return [
        {
            "messages": [
                {"role": "user", "content": f"Go on from: {asked[i, 0]} {asked[i, 1]}"},
                {"role": "assistant", "content": " ".join(kinds[chains[i, : lengths[i]]])},
            ]
        }
        for i in range(n)
    ], source


def _original(copied: np.ndarray, i: int, rng: np.random.Generator) -> int:
    while copied[at := int(rng.integers(i))]:
        pass
    return at


def _words() -> list[str]:
    return " ".join(row["response"] for row in fl.load_pool("shakespeare").train).split()


def write(path: Path, n: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows(n)[0]:
            file.write(json.dumps(row) + "\n")


def model(folder: Path, d: int) -> None:
    """A folder with a random Llama of one layer and width `d`, and a tokenizer of 2,048 pieces with a chat template."""
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer, bare.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    specials = ["<|user|>", "<|assistant|>", "<|end|>"]
    learner = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bare.train_from_iterator([" ".join(_words())], learner)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<|end|>", additional_special_tokens=specials[:2])
    tokenizer.chat_template = _TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=d,
        intermediate_size=2 * d,
        num_hidden_layers=1,
        num_attention_heads=d // 32,
        num_key_value_heads=d // 32,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def section(options) -> None:
    """`fisherlib forecast`, then `fisherlib select`, each in a process of its own, and how far one was from the other.

    Of a run with "forecast" at its end, the first only.
    """
    rows = []
    with tempfile.TemporaryDirectory(prefix="fisherlib-bench-", dir=options.scratch) as scratch:
        for n, d, method, *more in options.chat:
            data, reader = Path(scratch) / f"{n}.jsonl", Path(scratch) / f"model-{d}"
            if not data.exists():
                write(data, int(n))
            if not reader.exists():
                model(reader, int(d))
            rows += _compared(Path(scratch) / f"{n}-{d}-{method}", data, reader, int(n), int(d), method, not more, options)
    notes = [
        f"A budget of {options.budget:,} response tokens. Memory is the process's own at its peak (anonymous); pages of "
        "mapped files, which the system takes back when it needs memory, are not in it. The forecast counts all.",
    ]
    report.save("chat", {"budget": options.budget, "threads": options.threads}, rows, options.results, notes=notes)


def _compared(folder: Path, data: Path, reader: Path, n: int, d: int, method: str, both: bool, options) -> list[dict]:
    folder.mkdir()
    plan, out = folder / "plan.json", folder / "subset.jsonl"
    given = [str(data), "-m", str(reader), "-t", str(options.budget), "-o", str(out), "--method", method, "--device", "cpu"]
    _, _, took = _command(["forecast", *given, "--plan", str(plan)], options)
    said = json.loads(plan.read_text())["forecast"]
    found: dict[str, float | None] = dict.fromkeys(("features", "choose", "all", "memory", "with mapped pages", "disk"))
    if both:
        found["memory"], found["with mapped pages"], found["all"] = _command(["select", *given], options)
        steps = {step["name"]: step["seconds"] for step in json.loads((folder / "subset.run.json").read_text())["steps"]}
        found["features"] = steps["features"]
        found["choose"] = sum(value for name, value in steps.items() if name.startswith("select"))
        found["disk"] = sum(file.stat().st_size for file in (folder / "subset.work" / "features").iterdir()) / 1e9
    seconds, peak = said["seconds"], said["peak_memory_bytes"] / 1e9
    pairs = {
        "features": (seconds["features"], found["features"], "s"),
        "choose": (seconds["select"], found["choose"], "s"),
        "all": (seconds["all"], found["all"], "s"),
        "memory": (peak, found["memory"], "GB"),
        "with mapped pages": (peak, found["with mapped pages"], "GB"),
        "disk": (said["disk_bytes"] / 1e9, found["disk"], "GB"),
        "the forecast itself": (None, took, "s"),
    }
    about = {"rows": n, "d": d, "method": method, "response_tokens": said["response_tokens"]}
    return [
        about
        | {
            "step": step,
            "forecast": ahead,
            "measured": then,
            "unit": unit,
            "ratio": ahead / then if ahead and then else None,
        }
        for step, (ahead, then, unit) in pairs.items()
    ]


def _command(arguments: list[str], options) -> tuple[float, float, float]:
    """Run the command. Returns its peak of anonymous memory and of all that was resident, in GB, and its seconds."""
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    began, own, whole = time.perf_counter(), 0.0, 0.0
    process = subprocess.Popen(
        [sys.executable, "-c", "from fisherlib.cli import main; main()", *arguments],
        cwd=report.FOLDER.parent,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and time.perf_counter() - began < 7200:
        try:
            text = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        sizes = {line.split(":")[0]: line.split()[1] for line in text.splitlines() if line.startswith(("RssAnon", "VmHWM"))}
        own, whole = max(own, int(sizes.get("RssAnon", 0)) * 1024 / 1e9), max(whole, int(sizes.get("VmHWM", 0)) * 1024 / 1e9)
        time.sleep(0.05)
    _, said = process.communicate(timeout=60)
    if process.returncode:
        raise RuntimeError(f"{arguments[0]}: exit status {process.returncode}: {said.strip().splitlines()[-1][:300]}")
    return own, whole, time.perf_counter() - began
