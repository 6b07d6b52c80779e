"""Near-duplicates by one method, in a process of its own, as JSON: `python -m benchmarks.copies METHOD FILE`.

`exact` compares all pairs of the first rows, and says what the others should have found there.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from datasets import Dataset

from benchmarks import chat, report
from benchmarks.memory import Peak, status
from fisherlib.selectors import near_duplicates

THRESHOLD, SHINGLE = 0.5, 5  # those of the recipe
CHECKED = 4000  # rows that are compared pair by pair


def ours(texts: list[str]) -> np.ndarray:
    return near_duplicates(Dataset.from_dict({"text": texts}), threshold=THRESHOLD)


def datasketch(texts: list[str]) -> np.ndarray:
    """What `near_duplicates` was when the rows of the study were made."""
    from fisherlib.course.study.copies import first_of_group

    rows = Dataset.from_dict({"response": texts})
    return first_of_group(rows, threshold=THRESHOLD, seed=0)


def rensa_checked(texts: list[str]) -> np.ndarray:
    """Ours, with sketches by rensa."""
    import rensa

    def sketch(documents, shingle, seed):
        parts = []
        for begin in range(0, len(documents), 1000):  # the n-grams of all would fill the memory
            sets = [list(_shingles(document)) for document in documents[begin : begin + 1000]]
            parts.append(np.array(rensa.RMinHash.digests_from_token_sets(sets, 512, seed), dtype=np.uint32))
        return np.concatenate(parts)

    module = __import__("fisherlib.selectors.deduplicated", fromlist=["sketch"])
    module.sketch = sketch
    return ours(texts)


def rensa(texts: list[str]) -> np.ndarray:
    """As its page shows it: what is alike is what the sketches say."""
    from rensa import RMinHashDeduplicator

    found = RMinHashDeduplicator(threshold=THRESHOLD, num_perm=128, use_lsh=True)
    kept = found.add_pairs((str(i), list(_shingles(text))) for i, text in enumerate(texts))
    return np.where(kept, np.arange(len(texts)), -1)


def semhash(texts: list[str]) -> np.ndarray:
    """The cosine of hashed n-grams, since the model of meanings that it would fetch is on a hub. 2J/(1 + J) for J."""
    from semhash import SemHash
    from sklearn.feature_extraction.text import HashingVectorizer

    vectors = HashingVectorizer(analyzer="char", ngram_range=(SHINGLE, SHINGLE), n_features=512, lowercase=False)
    X = np.concatenate(
        [vectors.transform(texts[i : i + 1000]).toarray().astype(np.float32) for i in range(0, len(texts), 1000)]
    )
    records = [{"row": str(i)} for i in range(len(texts))]
    index = SemHash.from_embeddings(X, records, model=None, columns=["row"])
    kept = [int(row["row"]) for row in index.self_deduplicate(2 * THRESHOLD / (1 + THRESHOLD)).selected]
    groups = np.full(len(texts), -1)
    groups[kept] = kept
    return groups


def exact(texts: list[str]) -> np.ndarray:
    from scipy.sparse import csr_matrix

    numbers: dict[str, int] = {}
    sets = [[numbers.setdefault(gram, len(numbers)) for gram in _shingles(text)] for text in texts]
    ends = np.cumsum([0, *map(len, sets)])
    X = csr_matrix((np.ones(ends[-1], dtype=np.float32), np.concatenate(sets), ends), shape=(len(sets), len(numbers)))
    groups, size, columns = np.arange(len(texts)), np.diff(ends), X.T.tocsr()
    for begin in range(0, len(texts), 500):
        for i, both in enumerate((X[begin : begin + 500] @ columns).toarray(), start=begin):
            alike = both[:i] / (size[:i] + size[i] - both[:i]) >= THRESHOLD
            near = np.flatnonzero(alike & (groups[:i] == np.arange(i)))
            groups[i] = near[0] if len(near) else i
    return groups


def section(options) -> None:
    """Each method on the same rows, in a process of its own; ours on five times as many too."""
    n, rows = options.rows, []
    with tempfile.TemporaryDirectory(prefix="fisherlib-bench-", dir=options.scratch) as scratch:
        file, more = Path(scratch) / "rows.jsonl", Path(scratch) / "more.jsonl"
        chat.write(file, n)
        chat.write(more, 5 * n)
        right = set(_run("exact", file)["kept"])
        for name, (_, title, package) in METHODS.items():
            row = {"method": title, "package": package, "rows": n} | _run(name, file)
            if not row.get("error"):
                first = set(row.pop("first"))
                row |= {"wrongly_out": len(right - first), "wrongly_in": len(first - right)}
                row["ratio"] = row["cpu_seconds"] / (rows[0]["cpu_seconds"] if rows else row["cpu_seconds"])
            rows.append(row)
            print(f"  {title}: {row.get('error') or row['cpu_seconds']}", flush=True)
        whole = _run("ours", more)
        whole.pop("first", None)
        rows.append({"method": METHODS["ours"][1], "package": "numpy", "rows": 5 * n} | whole)
    notes = [
        f"*Out* and *in* are wrong where comparing all pairs of the first {min(CHECKED, n):,} rows says otherwise. Seconds "
        "are of the processor, which other work on the machine changes less.",
        f"Character {SHINGLE}-grams, Jaccard similarity of at least {THRESHOLD}; {chat.COPIES:.0%} of the rows are "
        f"near-copies, in which up to {chat.CHANGED} words are others.",
    ]
    report.save("copies", {"threshold": THRESHOLD, "shingle": SHINGLE}, rows, options.results, notes=notes)


def _run(method: str, file: Path) -> dict:
    command = [sys.executable, "-m", "benchmarks.copies", method, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=report.FOLDER.parent, timeout=3600)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no word"])[-1][:160]}
    return json.loads(done.stdout.splitlines()[-1])


def _shingles(text: str) -> set[str]:
    return {text[i : i + SHINGLE] for i in range(max(len(text) - SHINGLE + 1, 1))}


METHODS = {
    "ours": (ours, "fl.selectors.near_duplicates", "numpy"),
    "datasketch": (datasketch, "datasketch, pairs checked", "datasketch"),
    "rensa_checked": (rensa_checked, "rensa's sketches, our bands, pairs checked", "rensa"),
    "rensa": (rensa, "rensa, its deduplicator", "rensa"),
    "semhash": (semhash, "semhash, of hashed n-grams", "semhash"),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("method", choices=[*METHODS, "exact"])
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    texts = [
        "\n".join(turn["content"] for turn in json.loads(line)["messages"])
        for line in options.file.read_text(encoding="utf-8").splitlines()
    ]
    if options.method == "exact":
        print(json.dumps({"kept": _kept(exact(texts[:CHECKED]))}))
        return
    find = METHODS[options.method][0]
    find(texts[:50])  # libraries load on first use
    before, peak = status("RssAnon"), Peak()
    peak.start()
    began, used = time.perf_counter(), time.process_time()
    groups = find(texts)
    seconds, used = time.perf_counter() - began, time.process_time() - used
    peak.done.set()
    peak.join(timeout=5)
    kept = _kept(groups)
    result = {"seconds": seconds, "cpu_seconds": used, "anonymous_gb": max(peak.highest - before, 0.0), "kept": len(kept)}
    print(json.dumps(result | {"first": [i for i in kept if i < CHECKED]}), flush=True)
    os._exit(0)


def _kept(groups: np.ndarray) -> list[int]:
    return np.flatnonzero(groups == np.arange(len(groups))).tolist()


if __name__ == "__main__":
    main()
