"""Attacks on what is written down: manifests, checkpoints, judges' replies and what is kept of them."""

import contextlib
import gzip
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset

import fisherlib as fl
from tests.attack import things
from tests.attack.folders import INF, NAN, ODD, SHAPES, copied, edit, put, write
from tests.attack.runner import Case, Damage
from tests.attack.texts import DEEP, spoiled

# --- manifests --------------------------------------------------------------------------------------------------------


def sane(selection: fl.Selection) -> bool:
    """Whether what it says can be true, and it can say it."""
    numbers = np.concatenate([selection.gains, selection.costs])
    whole = selection.indices.dtype.kind == "i" and isinstance(selection.pool_size, int)
    share = selection.certificate
    assert repr(selection)
    return bool(whole and np.isfinite(numbers).all() and (selection.costs >= 0).all() and (share is None or 0 <= share <= 1))


def put_first(key: str, value: object, held: dict) -> None:
    held[key][0] = value


# What may not stand in a manifest. Three picks of 12.
WRONG = {
    "indices": (*ODD, [1.9, 2, 3], [1, 1, 2], [12, 1, 2], [[1], [2], [3]], [0], ["1", "2", "3"], [True, False, 2]),
    "gains": (*ODD, [1, 1], [[1.0], [1.0], [1.0]], ["1", "1", "1"], [INF, 1, 1], [9.0, 1.0, 1.0]),
    "costs": (*ODD, [1, 1], ["1", "1", "1"], [INF, 1, 1], [-1, 1, 1]),
    "pool_size": (None, "", "x", "12", -1, 0, 1.5, 12.5, NAN, True, [], {}, [12], {"a": 1}, 2),
    "upper_bound": ("", "x", "3", -1, NAN, INF, -INF, True, [], {}, [1]),
    "evaluations": (None, "", "many", "3", [], {}),
    "seconds": (None, "", "long", "3", [], {}),
    "settings": (None, "", "x", 3, 1.5, True, [], [1]),
    "weights": ("", "x", 3, -1, NAN, [], {}, [1], [0, 1, 1], [-1, 1, 1], [NAN, 1, 1], [INF, 1, 1], ["1", "1", "1"]),
    "objective": ("", "x", 1e9, -1, NAN, INF, [], {}),
    "format": (None, "", "1", 0, 2, 1.5, NAN, [], {}),
}
FIRST = {  # of each list, the first
    "indices": (None, "1", 0.5, NAN, True, -1, 99, 10**30, [], {}),
    "gains": (None, "x", "1", NAN, INF, -INF, [], {}, 1e9),
    "costs": (None, "x", "1", NAN, INF, -1, [], {}),
}


def edits() -> Iterator[tuple[str, Callable[[dict], object]]]:
    """Every change that makes a manifest wrong."""
    for key, values in WRONG.items():
        for value in values:
            yield f"{key} {value!r:.24}", partial(put, key, value)
    for key, values in FIRST.items():
        for value in values:
            yield f"{key}[0] {value!r:.12}", partial(put_first, key, value)
    for key in ("indices", "gains", "costs", "pool_size", "settings", "format"):
        yield f"no {key}", lambda held, key=key: held.pop(key)
    yield "one pick less", lambda held: [held[key].pop() for key in ("indices", "gains", "costs")]


def edited(change: Callable[[dict], object], then: Callable, folder: Path):
    things.selection().save(folder / "s.json")
    edit(folder / "s.json", change)
    return then(folder / "s.json")


def spoil_manifest(name: str, how: str, folder: Path) -> fl.Selection:
    things.selection().save(folder / "s.json")
    write(folder / "s.json", spoiled((folder / "s.json").read_bytes(), how, random.Random(name)))
    return fl.Selection.load(folder / "s.json")


def written(content: str | bytes, then: Callable, folder: Path):
    write(folder / "s.json", content)
    return then(folder / "s.json")


def other_rows(change: Callable[[Dataset], Dataset]) -> dict[str, Callable[[Path], object]]:
    """Whoever takes rows beside features or a selection of them, with the rows changed."""
    features, rows, budget = things.features, things.rows, {"tokens": 60}
    return {
        "to_dataset": lambda folder: things.selection().to_dataset(change(rows())),
        "recipe": lambda folder: fl.recipe(change(rows()), features(), **budget),
        "deduplicated": lambda folder: fl.selectors.deduplicated(change(rows()), features(), **budget),
        "uniform": lambda folder: fl.selectors.uniform(change(rows()), features(), **budget),
    }


ROWS = {
    "shuffled": (lambda rows: rows.shuffle(seed=3), "wrong"),
    "reversed": (lambda rows: rows.select(range(len(rows))[::-1]), "wrong"),
    "edited": (lambda rows: rows.map(lambda row: {"response": row["response"] + "!"}, load_from_cache_file=False), "wrong"),
    "fewer": (lambda rows: rows.select(range(5)), "wrong"),
    "others": (lambda rows: Dataset.from_list(things.TEXTS), "wrong"),
    "with a score": (lambda rows: rows.add_column("score", list(range(len(rows)))), "right"),
    "as they were": (lambda rows: rows.select(range(len(rows))), "right"),
}
PLACES = ("/sys/s.json", "/proc/s.json", "/dev/null/s.json", "x" * 300, "x\0y", "/")


def manifests() -> Iterator[Case]:
    case = partial(Case, "manifests")
    for name, change in edits():
        if name != "one pick less":
            yield case(name, partial(edited, change, fl.Selection.load))
    for shape, content in SHAPES.items():
        yield case(f"file {shape}", partial(written, content, fl.Selection.load))
    for how in ("flip", "zero", "cut", "drop", "insert", "repeat"):
        for k in range(12):
            yield case(f"{how} {k}", partial(spoil_manifest, f"{how} {k}", how), sane)
    for name, value in DEEP.items():
        yield case(f"settings {name}", partial(edited, partial(put, "settings", "HERE"), partial(load_with, value)))
    yield case("as it was", partial(edited, lambda held: None, lambda path: sane(fl.Selection.load(path))), "right")
    yield case("a key more", partial(edited, lambda held: held.update(note="mine"), fl.Selection.load))
    yield case("no bound", partial(edited, partial(put, "upper_bound", None), fl.Selection.load), sane)
    for name, (change, oracle) in ROWS.items():
        for door, call in other_rows(change).items():
            yield case(f"{door}, rows {name}", call, oracle)
    for place in PLACES:
        yield case(f"save {place[:12]!r}", lambda folder, place=place: things.selection().save(place))
        yield case(f"load {place[:12]!r}", lambda folder, place=place: fl.Selection.load(place))
    for name, value in {"1.9": [1.9, 2.0, 3.0], "true": [True, False, True], "texts": ["1", "2"], "twice": [1, 1]}.items():
        yield case(f"score_selection of {name}", lambda folder, value=value: fl.score_selection(things.features(), value))
    yield case(
        "start of 1.9", partial(edited, partial(put_first, "indices", 1.9), lambda path: start(fl.Selection.load(path)))
    )


def load_with(settings: str, path: Path) -> fl.Selection:
    write(path, path.read_text().replace('"HERE"', settings))
    return fl.Selection.load(path)


def start(selection: fl.Selection) -> fl.Selection:
    return fl.select(things.features(), examples=4, start=selection, progress=False)


# --- checkpoints ------------------------------------------------------------------------------------------------------


def go_on(path: Path | str) -> fl.Selection:
    return fl.select(things.features(), examples=3, checkpoint=path, progress=False)


def same_picks(selection: fl.Selection) -> bool:
    return selection.indices.tolist() == things.selection().indices.tolist() and sane(selection)


def make_checkpoint(folder: Path) -> None:
    go_on(folder / "c.json")


def spoil_checkpoint(change: Callable[[dict], object], folder: Path) -> fl.Selection:
    path = copied(make_checkpoint, folder) / "c.json"
    edit(path, change)
    return go_on(path)


def checkpoints() -> Iterator[Case]:
    case = partial(Case, "checkpoints")
    unread = ("upper_bound", "seconds", "evaluations", "weights", "objective")  # of the picks so far: computed anew
    for name, change in edits():
        oracle = same_picks if name.startswith(unread) or name == "one pick less" else "wrong"
        yield case(name, partial(spoil_checkpoint, change), oracle)
    for shape, content in SHAPES.items():
        yield case(f"file {shape}", partial(written, content, go_on))
    for place in PLACES:
        yield case(f"at {place[:12]!r}", lambda folder, place=place: go_on(place))
    for key in ("method", "budget", "rule", "prior", "features", "start", "costs", "pool"):
        for value in (None, "x", 3, [], {}):
            yield case(
                f"settings {key} {value!r}",
                partial(spoil_checkpoint, lambda held, k=key, v=value: put(k, v, held["settings"])),
                same_picks if key == "start" and value is None else "wrong",
            )


# --- judges' replies --------------------------------------------------------------------------------------------------


def reply(content: object = "A", **changes) -> dict:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    return {"id": "0", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]} | changes


def message(value: object) -> dict:
    return reply(choices=[{"index": 0, "finish_reason": "stop", "message": value}])


ANY = (None, "", "A", 3, 1.5, True, [], {}, ["A"], {"a": 1}, 10**30)
BODIES = {  # malformed, each: counted, and never guessed
    **{f"body {value!r:.12}": value for value in ANY},
    **{f"choices {value!r:.12}": reply(choices=value) for value in ANY},
    **{f"choice {value!r:.12}": reply(choices=[value]) for value in ANY},
    **{f"message {value!r:.12}": message(value) for value in ANY},
    **{f"content {value!r:.12}": reply(value) for value in ANY if value != "A"},
    **{f"said {text[:12]!r}": reply(text) for text in ("A B", "a", "A\0", "Ａ", "A" * 1_000_000, "{}", "\ud800", "A\nB")},
}
RAW = {
    "empty": b"",
    "text": b"A",
    "HTML": b"<html>A</html>",
    "not UTF-8": b"\xff\xfe\x00",
    "NaN": b"NaN",
    "cut": json.dumps(reply()).encode()[:-3],
    "two": json.dumps(reply()).encode() * 2,
    "zeros": bytes(1000),
    "random": random.Random(0).randbytes(1000),
    **{name: value.encode() for name, value in DEEP.items()},
    "a deep message": json.dumps(reply()).replace('"A"', DEEP["5,000 deep"]).encode(),
    "a long number": json.dumps(reply()).replace('"created": 0', f'"created": {DEEP["5,000 digits"]}').encode(),
}
NEVER = ("drip of the body", "drip of the headers", "silence")


class Hostile(BaseHTTPRequestHandler):
    """Answers as the first part of the path says."""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.close_connection = True
        with contextlib.suppress(OSError):  # the client has had enough
            ANSWERS[int(self.path.split("/")[1])](self)

    do_GET = do_POST  # what a redirect makes of it

    def say(self, body: bytes, status: int = 200, **headers) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(body)}.items() | headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def dripping(where: str, handler: Hostile) -> None:
    """A byte every tenth of a second, for longer than the limit of a case: each is in time, and the whole is not."""
    body = json.dumps(reply()).encode()
    data = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nX-Padding: {'x' * 150}\r\n".encode()
    if where == "body":
        handler.wfile.write(data + b"\r\n")
        data = body
    for byte in data[:150]:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        time.sleep(0.1)


def elsewhere(handler: Hostile, status: int, host: str) -> None:
    if handler.path.endswith("/there"):
        handler.say(json.dumps(reply()).encode())
    else:
        there = f"http://{host}:{handler.server.server_port}{handler.path}/there"
        handler.say(b"", status, Location=there)


JSON = json.dumps(reply()).encode()
WAYS: dict[str, Callable[[Hostile], object]] = {
    **{name: lambda h, value=value: h.say(json.dumps(value).encode()) for name, value in BODIES.items()},
    **{f"raw {name}": lambda h, body=body: h.say(body) for name, body in RAW.items()},
    "gzip of text": lambda h: h.say(b"A", Content_Encoding="gzip"),
    "gzip, cut": lambda h: h.say(gzip.compress(JSON)[:60], Content_Encoding="gzip"),
    "gzip of much": lambda h: h.say(gzip.compress(json.dumps(reply("A" * 30_000_000)).encode(), 1), Content_Encoding="gzip"),
    "much": lambda h: h.say(json.dumps(reply("A" * 30_000_000)).encode()),
    "a strange encoding": lambda h: h.say(JSON, Content_Encoding="x"),
    "a strange type": lambda h: h.say(JSON[:-5], Content_Type="image/png"),
    "silence": lambda h: time.sleep(3),
    "drip of the body": partial(dripping, "body"),
    "drip of the headers": partial(dripping, "headers"),
    "fewer bytes than said": lambda h: h.say(JSON, Content_Length=len(JSON) + 9),
    "more bytes than said": lambda h: h.say(JSON, Content_Length=9),
    "a length that is none": lambda h: h.say(JSON, Content_Length="x"),
    "a huge length": lambda h: h.say(JSON, Content_Length=10**20),
    "no HTTP": lambda h: h.wfile.write(b"hello\r\n\r\n"),
    "nothing at all": lambda h: None,
    "endless headers": lambda h: h.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X-A: " + b"a" * 3_000_000),
    "a line in a header": lambda h: h.wfile.write(b"HTTP/1.1 200 OK\r\nX\r\n\r\n" + JSON),
    **{
        f"status {code}": lambda h, code=code: h.say(b"no", code)
        for code in (204, 304, 400, 401, 404, 408, 409, 418, 422, 429, 500, 503, 599, 999)
    },
    **{f"error {value!r:.12}": lambda h, value=value: h.say(json.dumps({"error": value}).encode(), 400) for value in ANY},
    "Retry-After 50": lambda h: h.say(b"", 429, Retry_After=50),
    "Retry-After nan": lambda h: h.say(b"", 503, Retry_After="nan"),
    **{f"away, {code}": partial(elsewhere, status=code, host="localhost") for code in (301, 302, 303, 307, 308)},
    "round and round": lambda h: h.say(b"", 307, Location=h.path),
    "to a file": lambda h: h.say(b"", 302, Location="file:///etc/passwd"),
    "to nowhere": lambda h: h.say(b"", 302),
    "as it should be": lambda h: h.say(JSON),
}
ANSWERS = list(WAYS.values())


@cache
def server() -> ThreadingHTTPServer:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    made.daemon_threads, made.block_on_close = True, False
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return made


PAIR = ("the text:", "x", "y", "a text", "another")


def asked(way: str, folder: Path) -> list[str]:
    """What is counted of a pair, both ways round; nothing that is no judgement may be kept."""
    url = f"http://127.0.0.1:{server().server_port}/{list(WAYS).index(way)}"
    endpoint = fl.judging.Endpoint(url, "hostile", timeout=0.3, retries=1 if way.startswith("Retry") else 0)
    table = fl.judging.judge([fl.judging.Pair(0, *PAIR)], endpoint, cache=folder / "c.jsonl", progress=False)
    assert all(len(said) <= 200 for said in table["said"])
    return table["answer"].tolist()


def counted(*answers: str) -> Callable[[list[str]], bool]:
    return lambda table: len(table) == 2 and set(table) <= set(answers)


LOST = counted("malformed", "refused", "timeout")


def lost(way: str, folder: Path) -> bool:
    return LOST(asked(way, folder))


def replies() -> Iterator[Case]:
    case = partial(Case, "judge replies", limit=8.0)
    for way in WAYS:
        if way.startswith(("body", "choice", "message", "content", "said", "raw")):  # a reply of that kind stops no run
            yield case(way, partial(lost, way), "right")
        elif way.startswith("away"):
            yield case(way, partial(asked, way))
        else:
            yield case(way, partial(asked, way), counted("A") if way == "as it should be" else LOST)


# --- judges' caches ---------------------------------------------------------------------------------------------------


def entry(**changes) -> bytes:
    return json.dumps({"key": "0" * 24, "answer": "A", "said": "A", "model": "m"} | changes).encode() + b"\n"


def manifest() -> bytes:
    return json.dumps({"format": 1, "indices": [1], "settings": {}}, indent=1).encode()


FOREIGN = {  # files of somebody else's: refused, and not a byte of them changed
    "a manifest": manifest(),
    "a manifest with a newline": manifest() + b"\n",
    "one line without a newline": b'{"my": "only copy"}',
    "one line": b'{"my": "only copy"}\n',
    "rows": b'{"prompt": "a", "response": "b"}\n' * 3,
    "rows, the last cut": b'{"prompt": "a", "response": "b"}\n' * 3 + b'{"pro',
    "csv": b"prompt,a,b\n1,x,y\n",
    "text": b"my notes",
    "text of lines": b"my\nnotes\n",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(50),
    "zeros": bytes(100),
    "random": random.Random(1).randbytes(500),
    "an array": b"[1, 2]\n",
    "numbers": b"1\n2\n",
    "not UTF-8": b"\xff\xfe\n",
    "ours, then somebody else's": entry() + b'{"my": "only copy"}\n',
    "ours, then text": entry() + b"my notes\n",
    **{
        f"{name}, {ending}": value.encode() + end
        for name, value in DEEP.items()
        for ending, end in (("a line", b"\n"), ("cut", b""))
    },
    **{f"answer {value!r:.12}": entry(answer=value) for value in ("Z", "", "a", None, 3, True, [], {})},
    **{f"said {value!r:.12}": entry(said=value) for value in (None, 3, True, [], {})},
    **{f"key {value!r:.12}": entry(key=value) for value in (None, 3, True, [], {})},
    **{
        f"no {name}": json.dumps({k: v for k, v in json.loads(entry()).items() if k != name}).encode() + b"\n"
        for name in ("key", "answer", "said")
    },
}
OWN = {
    "empty": b"",
    "ours": entry(),
    "ours, the last cut": entry() + entry(key="1" * 24)[:30],
    "a first record, cut": entry()[:30],
}


def judged(pairs: list, cache: Path | str) -> pd.DataFrame:
    url = f"http://127.0.0.1:{server().server_port}/{list(WAYS).index('as it should be')}"
    return fl.judging.judge(pairs, fl.judging.Endpoint(url, "m", timeout=5.0, retries=0), cache=cache, progress=False)


def with_cache(data: bytes, pairs: list, own: bool, folder: Path) -> bool:
    path = folder / "c.jsonl"
    write(path, data)
    try:
        return set(judged(pairs, path)["answer"]) <= {"A"} and path.read_bytes().startswith(data[: data.rfind(b"\n") + 1])
    finally:
        if not own and path.read_bytes() != data:
            raise Damage(f"{len(data)} bytes became {path.read_bytes()[:60]!r}")


def judge_caches() -> Iterator[Case]:
    pair = [fl.judging.Pair(0, *PAIR)]
    for own, files in ((False, FOREIGN), (True, OWN)):
        for name, data in files.items():
            for what, pairs in (("one pair", pair), ("no pair", [])):
                oracle = "right" if own else "wrong"
                yield Case("judge caches", f"{name}, {what}", partial(with_cache, data, pairs, own), oracle)
    for place in PLACES:
        yield Case("judge caches", f"at {place[:12]!r}", lambda folder, place=place: judged(pair, place))
