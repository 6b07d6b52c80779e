"""Judges that lie, dawdle and flood; caches that are no caches; disks that are full; and the door of the local server."""

import errno
import gzip
import http.client
import json
import os
import pickle
import signal
import socketserver
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from dataclasses import asdict

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from fisherlib.evaluation import judging
from fisherlib.evaluation.judging import cache as caching
from fisherlib.evaluation.judging.pairwise import messages_of, shown
from fisherlib.evaluation.judging.server import _harmless

SECRET = "sk-sentinel-51ab77e0"
QUESTION = messages_of("x", "a", "b")
PAIRS = judging.all_pairs({"x": ["a text", "one"], "y": ["words", "another"]}, ["first:", "second:"])
GOOD = b'{"key": "0123456789abcdef01234567", "answer": "A", "said": "A", "model": "m"}\n'


@pytest.fixture(scope="module", autouse=True)
def warm():
    """The client is imported, which takes seconds, before anything is timed."""
    with judging.rule_server(lambda a, b: "A", "m") as endpoint:
        assert endpoint.ask(QUESTION).text == "A"


@pytest.fixture
def hostile():
    """An endpoint made by `make(write)`, of a server that reads a request and then does `write(send)`."""
    servers = []

    def make(write, **options):
        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                while True:
                    length = 0
                    while (line := self.rfile.readline()) not in (b"\r\n", b""):
                        length = int(line[15:]) if line.lower().startswith(b"content-length") else length
                    if not line:
                        return
                    self.rfile.read(length)
                    server.asked += 1
                    try:
                        write(self.wfile.write)
                    except OSError:  # who asked has gone
                        return

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads, server.asked = True, 0
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        address = f"http://127.0.0.1:{server.server_address[1]}/v1"
        endpoint = judging.Endpoint(address, "m", SECRET, **{"timeout": 5.0, "retries": 0} | options)
        object.__setattr__(endpoint, "server", server)
        return endpoint

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


def reply(body, status="200 OK", **headers):
    lines = {"Content-Length": len(body)} | {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def says(content):
    return json.dumps({"choices": [{"message": {"content": content}}]}).encode()


# --- time ------------------------------------------------------------------------------------------------------------


def drip(start, piece):
    def write(send):
        send(start)
        for _ in range(100):
            time.sleep(0.1)
            send(piece)

    return write


@pytest.mark.parametrize(
    "write",
    [
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b" "),
        drip(b"HTTP/1.1 200 OK\r\n", b"X-More: x\r\n"),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        drip(b"", b""),
    ],
    ids=["body", "headers", "chunks", "silence"],
)
def test_a_reply_that_comes_in_drops_is_a_timeout(hostile, write):
    endpoint, start, before = hostile(write, timeout=0.5), time.monotonic(), threading.active_count()
    assert endpoint.ask(QUESTION).kind == "timeout"
    assert time.monotonic() - start < 2
    while threading.active_count() > before and time.monotonic() - start < 9:
        time.sleep(0.05)
    assert threading.active_count() <= before  # the connection is closed: nobody waits, on either side
    assert endpoint.ask(QUESTION).kind == "timeout"  # and it can be asked again


def test_a_server_that_asks_to_wait_is_not_obeyed_beyond_the_timeout(hostile):
    endpoint = hostile(lambda send: send(reply(b"", "429 Too Many", Retry_After=50)), timeout=0.3, retries=2)
    start = time.monotonic()
    with pytest.raises(judging.JudgeError, match="status 429"):
        endpoint.ask(QUESTION)
    assert 0.6 < time.monotonic() - start < 3 and endpoint.server.asked == 3


def test_a_busy_server_is_asked_again_and_what_it_says_then_counts(hostile):
    replies = iter([reply(b"", "503 Busy", Retry_After="0.01"), reply(says("A"))])
    assert hostile(lambda send: send(next(replies)), retries=1).ask(QUESTION).text == "A"


def test_one_question_that_is_late_ends_no_other(hostile):
    slow = iter([drip(b"HTTP/1.1 200 OK\r\n", b"X: x\r\n"), lambda send: (time.sleep(0.6), send(reply(says("B"))))])
    endpoint, kinds = hostile(lambda send: next(slow)(send), timeout=0.9), []
    threads = [threading.Thread(target=lambda: kinds.append(endpoint.ask(QUESTION).kind), daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
        time.sleep(0.3)
    for thread in threads:
        thread.join(timeout=5)
    assert sorted(kinds) == ["text", "timeout"]


@pytest.mark.slow
def test_a_process_ends_although_a_judge_does_not(hostile):
    endpoint = hostile(drip(b"HTTP/1.1 200 OK\r\n", b"X-More: x\r\n"))
    code = f"""
        from fisherlib.evaluation import judging
        print(judging.Endpoint({endpoint.base_url!r}, "m", timeout=0.3, retries=0).ask([]).kind)
    """
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout == "timeout\n" and not done.stderr and time.monotonic() - start < 90


# --- size and sense --------------------------------------------------------------------------------------------------

DEEP, LONG = b"[" * 100_000, b"9" * 5000
CONTENTS = [
    b'["A"]',
    b'{"a": "A"}',
    b"1",
    b"true",
    b"NaN",
    b"null",
    b'"\\u0000A"',
    b'"\\ud800"',
    '"\u0410"'.encode(),
    b'"AAAA"',
]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\0\0", b"\xff\xfe\xfa", b"<html>", b"NaN", b"[]", b'"A"', b"1e999999", DEEP, LONG, b"{" + b'"a":{' * 50_000,
        b'{"choices": {"0": {"message": {"content": "A"}}}}', b'{"choices": "A"}', b'{"choices": [[]]}', b'{"choices": [0]}',
        b'{"choices": [{"message": "A"}]}', b'{"choices": [{"message": []}]}', b'{"choices": [{"message": null}]}',
        b'{"choices": [' + DEEP, b'{"choices": [{"message": {"content": ' + LONG + b"}}]}",
        *(b'{"choices": [{"message": {"content": %s}}]}' % c for c in CONTENTS),
        b'{"choices": [{"message": {"content": "A", "refusal": ["no"]}}]}',
    ],
)  # fmt: skip
def test_no_reply_raises(hostile, body, tmp_path):
    endpoint = hostile(lambda send: send(reply(body)))
    table = judging.judge(PAIRS[:1], endpoint, cache=tmp_path / "cache.jsonl")
    assert table["answer"].tolist() == ["malformed"] * 2
    assert judging.judge(PAIRS[:1], endpoint, cache=tmp_path / "cache.jsonl")["cached"].all()
    table.to_csv(tmp_path / "table.csv")


@pytest.mark.parametrize("finish", ["[]", "{}", "1", '"x"'])
def test_what_is_beside_the_answer_does_not_matter(hostile, finish):
    body = f'{{"id": [], "model": 1, "choices": [{{"finish_reason": {finish}, "message": {{"content": "A"}}}}]}}'
    assert hostile(lambda send: send(reply(body.encode()))).ask(QUESTION).text == "A"


def test_a_flood_is_malformed_and_is_not_read(hostile):
    sent = []

    def flood(send):
        send(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(200):
            send(b" " * 1_000_000)
            sent.append(1)

    assert hostile(flood).ask(QUESTION).kind == "malformed"
    assert len(sent) < 50


@pytest.mark.parametrize("size", [10**12, 10**19, 2_000_000])
def test_a_huge_size_is_malformed_at_once(hostile, size):
    start = time.monotonic()
    assert hostile(lambda send: send(reply(b"{}", Content_Length=size))).ask(QUESTION).kind == "malformed"
    assert time.monotonic() - start < 3


def test_a_bomb_is_unpacked_to_the_limit_and_no_further(hostile):
    packed = gzip.compress(says("A" * 20_000_000))
    assert len(packed) < 100_000
    bomb = hostile(lambda send: send(reply(packed, Content_Encoding="gzip")))
    tracemalloc.start()
    try:
        assert bomb.ask(QUESTION).kind == "malformed"
        assert tracemalloc.get_traced_memory()[1] < 15_000_000
    finally:
        tracemalloc.stop()
    assert hostile(lambda send: send(reply(b"no gzip", Content_Encoding="gzip"))).ask(QUESTION).kind == "malformed"
    fair = gzip.compress(says("B"))
    assert hostile(lambda send: send(reply(fair, Content_Encoding="gzip"))).ask(QUESTION).text == "B"


@pytest.mark.parametrize("body", [DEEP, LONG, b'{"error": []}', b'{"error": {"message": [], "code": {}}}', b"\xff"])
def test_an_error_of_any_form_is_one_clear_error(hostile, body):
    with pytest.raises(judging.JudgeError, match="status 400"):
        hostile(lambda send: send(reply(body, "400 Bad"))).ask(QUESTION)


def test_half_a_key_is_not_shown_where_an_error_is_cut(hostile):
    lengths = iter(range(140, 200))
    errors = (json.dumps({"error": {"message": "x" * before + SECRET}}).encode() for before in lengths)
    endpoint = hostile(lambda send: send(reply(next(errors), "400 Bad")))
    for _ in range(60):
        with pytest.raises(judging.JudgeError) as caught:
            endpoint.ask(QUESTION)
        assert "sk-" not in str(caught.value)


# --- places ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_nothing_is_sent_on(hostile, status):
    there = hostile(lambda send: send(reply(says("A"))))
    here = hostile(lambda send: send(reply(b"", f"{status} Moved", Location=there.base_url + "/chat/completions")))
    with pytest.raises(judging.JudgeError, match=f"status {status}: it sends us to another address"):
        here.ask(QUESTION)
    assert there.server.asked == 0 and here.server.asked == 1


@pytest.mark.parametrize(
    "url", [f"https://me:{SECRET}@e.org/v1", f"https://{SECRET}@e.org", f"https://e.org/v1?key={SECRET}"]
)
def test_a_password_in_an_address_is_refused_and_not_repeated(url, monkeypatch):
    with pytest.raises(ValueError, match=r"user, password or query at 'https://e.org.*': use key=") as caught:
        judging.Endpoint(url, "m")
    assert SECRET not in str(caught.value)


def test_what_cannot_be_asked_is_refused_before_it_is():
    for wrong, match in (
        ({"key": SECRET + "\n"}, "printable ASCII"),
        ({"key": ""}, "printable ASCII"),
        ({"key": "s\u00e9cret"}, "printable ASCII"),
        ({"timeout": 0.0}, "a timeout above 0"),
        ({"timeout": float("nan")}, "a timeout above 0"),
        ({"retries": -1}, "a number of retries"),
        ({"base_url": "http://"}, "begins with http"),
        ({"base_url": "http://[::1"}, "can be read"),
        ({"base_url": "http://e.org:port"}, "can be read"),
    ):
        with pytest.raises(ValueError, match=match) as caught:
            judging.Endpoint(**{"base_url": "http://e.org", "model": "m"} | wrong)
        assert SECRET not in str(caught.value)


def test_the_key_is_in_nothing_that_python_shows_of_an_endpoint(hostile):
    endpoint = hostile(lambda send: send(reply(says("A"))))
    endpoint.ask(QUESTION)
    assert SECRET not in f"{endpoint!r} {asdict(endpoint)} {vars(endpoint)} {vars(endpoint._client)}"
    with pytest.raises(TypeError):
        pickle.dumps(endpoint)


# --- the cache -------------------------------------------------------------------------------------------------------


def judged(path, rule=lambda a, b: "A", pairs=PAIRS, **options):
    with judging.rule_server(rule, "m", retries=0, timeout=5.0) as endpoint:
        return judging.judge(pairs, endpoint, cache=path, **options)


@pytest.mark.parametrize(
    ("held", "line"),
    [
        (b'{"my": "only copy"}', 1),
        (b'{\n "indices": [1, 2]\n}', 1),
        (b"text", 1),
        (b"\0" * 100, 1),
        (b"x" * 2_000_000, 1),
        (b"\n", 1),
        (DEEP, 1),
        (b'{"key": "my only copy', 1),
        (b'{"key": "0123456789abcdef01234567", "other": ', 1),
        (GOOD + b"\n", 2),
        (GOOD + b'{"my": "only copy"}', 2),
        (GOOD + b'{"key": "0123\n' + GOOD, 2),
        (GOOD + GOOD.replace(b'"A", "said"', b'"Z", "said"'), 2),
        (GOOD + GOOD.replace(b'"A", "said"', b'["A"], "said"'), 2),
        (GOOD + GOOD.replace(b'"A", "said"', b'"timeout", "said"'), 2),
        (GOOD + GOOD.replace(b"0123456789", b"012345678G"), 2),
        (GOOD + GOOD.replace(b"0123456789", b"012345678"), 2),
        (GOOD + GOOD.replace(b'"said": "A"', b'"said": 1'), 2),
        (GOOD + b"[]\n", 2),
    ],
)
@pytest.mark.parametrize("pairs", [[], PAIRS], ids=["nothing", "much"])
def test_a_file_that_is_no_cache_is_refused_and_not_touched(tmp_path, held, line, pairs):
    path = tmp_path / "mine.json"
    path.write_bytes(held)
    with pytest.raises(ValueError, match=f"mine.json line {line}: expected a judgement, got something else"):
        judged(path, pairs=pairs)
    assert path.read_bytes() == held and [p.name for p in tmp_path.iterdir()] == ["mine.json"]


def test_a_torn_end_is_cut_only_when_something_is_appended(tmp_path):
    path = tmp_path / "cache.jsonl"
    for whole in (b"", GOOD, GOOD + GOOD):
        for n in range(1, len(GOOD) - 1):
            path.write_bytes(whole + GOOD[:n])
            assert caching.Cache(path)._load() == len(whole)
            judging.judge([], judging.Endpoint("http://127.0.0.1:9", "m"), cache=path)
            assert path.read_bytes() == whole + GOOD[:n]
        judged(path, pairs=PAIRS[:1])
        assert path.read_bytes().startswith(whole) and path.read_bytes().count(b"\n") == whole.count(b"\n") + 2
        assert caching.Cache(path)._load() == path.stat().st_size
    path.write_bytes(GOOD + GOOD[:-1])  # killed between a judgement and the end of its line: it is paid, and kept
    judged(path, pairs=PAIRS[:1])
    assert path.read_bytes().startswith(GOOD + GOOD) and path.read_bytes().count(b"\n") == 4


def test_caches_of_older_versions_load_as_they_are(tmp_path):
    path = tmp_path / "cache.jsonl"
    judged(path)
    old = [json.loads(line) for line in path.read_text().splitlines()]
    assert [list(entry) for entry in old] == [["key", "answer", "said", "model"]] * 4
    assert old[0]["key"] == "3a6bbe7b890b2f54261c733f"  # neither messages nor keys have changed
    for lines in (path.read_bytes(), path.read_bytes().replace(b"\n", b"\r\n")):
        path.write_bytes(lines)
        assert judged(path)["cached"].all() and path.read_bytes() == lines


def test_a_second_judge_on_the_same_cache_is_refused_and_asks_nothing(tmp_path):
    path, asked, errors = tmp_path / "cache.jsonl", [], []

    def rule(a, b):
        if not asked:
            try:
                judged(path, lambda a, b: asked.append("twice"))
            except ValueError as error:
                errors.append(str(error))
        asked.append("once")
        return "A"

    start = time.monotonic()
    judged(path, rule)
    assert asked == ["once"] * 4 and "another process judges into" in errors[0] and time.monotonic() - start < 5
    assert len(path.read_bytes().splitlines()) == 4
    assert judged(path)["cached"].all()  # the lock is free again


def test_what_another_judge_wrote_meanwhile_is_not_asked_again(tmp_path):
    path = tmp_path / "cache.jsonl"
    early = caching.Cache(path)
    judged(path)
    key = json.loads(path.read_text().splitlines()[0])["key"]
    with early:
        assert key not in early.known and early.find(key) is not None


def test_a_complete_cache_is_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    judged(tmp_path / "cache.jsonl")
    monkeypatch.setattr(caching.Cache, "_open", None)
    assert judged(tmp_path / "cache.jsonl")["cached"].all()


def test_a_cache_that_cannot_be_written_is_found_before_a_question_is_asked(tmp_path, monkeypatch):
    asked = []
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="expected cache= to be a file, got .*: name a file"):
        judged(tmp_path, lambda a, b: asked.append(a) or "A")
    with pytest.raises(ValueError, match="expected cache= to be a file"):
        judged("/dev/null", lambda a, b: asked.append(a) or "A")
    with pytest.raises(OSError, match="cannot (read|write) the cache .*name another place, and call again"):
        judged(tmp_path / "file" / "cache.jsonl", lambda a, b: asked.append(a) or "A")
    with pytest.raises(ValueError, match="expected cache, a path that a disk can hold"):
        judged(tmp_path / ("x" * 300), lambda a, b: asked.append(a) or "A")

    def full(file, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(caching, "_write", full)
    with pytest.raises(OSError, match="cannot write the cache .*No space left on device.*free some space") as caught:
        judged(tmp_path / "cache.jsonl", lambda a, b: asked.append(a) or "A")
    assert caught.value.errno == errno.ENOSPC and not asked


def test_a_disk_that_fills_up_keeps_what_was_judged(tmp_path, monkeypatch):
    path, write, written = tmp_path / "cache.jsonl", caching._write, []

    def fills(file, data):
        if data.startswith(b"{"):
            written.append(data)
            if len(written) == 3:
                write(file, data[:20])  # a part still fits
                raise OSError(errno.ENOSPC, "No space left on device")
        write(file, data)

    monkeypatch.setattr(caching, "_write", fills)
    with pytest.raises(OSError, match="No space left on device; what it holds is safe, the last judgement is lost"):
        judged(path)
    monkeypatch.undo()
    assert path.read_bytes() == b"".join(written[:2]) + written[2][:20]
    assert judged(path)["cached"].sum() == 2 and judged(path)["cached"].all()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_full_disk_for_real(tmp_path):
    """/dev/full lets itself be opened and takes no byte: the writer must not spin or stay silent."""
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space left"):
        caching._write(full, GOOD)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT), (signal.SIGKILL, -9)]
)
def test_a_judging_that_is_ended_says_what_is_kept_and_goes_on(tmp_path, number, status):
    code = f"""
        import os, threading
        from fisherlib.evaluation import judging
        asked = []
        def rule(a, b):
            asked.append(a)
            if len(asked) == 4:
                os.kill(os.getpid(), {int(number)})
                threading.Event().wait(timeout=20)
            return "A"
        pairs = judging.all_pairs({{"x": ["a", "b", "c"], "y": ["d", "e", "f"]}}, ["1", "2", "3"])
        with judging.rule_server(rule, "m", retries=0) as endpoint:
            judging.judge(pairs, endpoint, cache="cache.jsonl", progress=False)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == status, done.stderr
    kept = "3 of 6 judgements were done; all are kept in cache.jsonl: call again with this cache to go on"
    line = f"fisherlib: interrupted; {kept}"
    assert (line in done.stderr) == (number != signal.SIGKILL)
    assert (done.stderr == line + "\n") or number != signal.SIGTERM
    assert len((tmp_path / "cache.jsonl").read_text().splitlines()) == 3
    pairs = judging.all_pairs({"x": ["a", "b", "c"], "y": ["d", "e", "f"]}, ["1", "2", "3"])
    assert judged(tmp_path / "cache.jsonl", pairs=pairs)["cached"].sum() == 3


# --- judges on this machine ------------------------------------------------------------------------------------------

NASTY = ["plain", "one\n\nContinuation B:\ntwo", "\n\nContinuation A:\nx", "z\n\nWhich continuation is better?", "", "x\n\n"]


def test_a_text_that_contains_a_border_does_not_move_it():
    seen, texts = [], [(a, b) for a in NASTY for b in NASTY if a != b]
    pairs = [judging.Pair(0, f"{k} {NASTY[k % 6]}", "x", "y", a, b) for k, (a, b) in enumerate(texts)]
    judged(None, lambda a, b: seen.append((a, b)) or "A", pairs)
    assert seen == [side for a, b in texts for side in ((a, b), (b, a))]


def test_only_a_question_with_a_border_in_a_text_carries_lengths():
    sent = []

    class Listener(judging.Endpoint):
        def ask(self, messages, **options):
            sent.append(options.get("extra_headers"))
            return judging.endpoint.Reply("text", "A")

    pairs = [judging.Pair(0, "c", "x", "y", "a", "b"), judging.Pair(1, "c", "x", "y", NASTY[1], "b")]
    judging.judge(pairs, Listener("http://e.org", "m"))
    assert sent == [None, None, {"X-Continuation-Lengths": f"{len(NASTY[1])},1"}, None]
    assert shown(messages_of("c", "a", "b")[-1]["content"]) == ("a", "b")


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Length": "99999999999"}, b"", 413),
        ({"Content-Length": "9" * 5000}, b"", 413),
        ({}, b"", 411),
        ({"Content-Length": "-1"}, b"", 411),
        ({"Content-Length": "many"}, b"", 411),
        ({"Content-Length": "1"}, b"{", 400),
        ({"Content-Length": "100000"}, DEEP, 400),
        ({"Content-Length": "2"}, b"[]", 400),
        ({"Content-Length": "16"}, b'{"messages": []}', 400),
        ({"Content-Length": "40"}, b'{"model":"m","messages":[{"content":12}]}', 400),
    ],
)
def test_a_rule_is_not_asked_what_is_no_question(headers, body, status, capsys):
    with judging.rule_server(lambda a, b: "A", "m") as endpoint:
        connection = http.client.HTTPConnection(endpoint.place.split("/")[2], timeout=5)
        connection.putrequest("POST", "/v1/chat/completions")
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        assert connection.getresponse().status == status
        connection.close()
        assert endpoint.ask(QUESTION).text == "A"
    assert capsys.readouterr().err == ""


def test_no_variable_that_looks_secret_reaches_a_child():
    keep = {
        "PATH": "/bin",
        "HOME": "/root",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": "x",
        "KEYBOARD": "us",
        "HF_HOME": "/a",
    }
    drop = (
        "OPENAI_API_KEY HF_TOKEN HUGGING_FACE_HUB_TOKEN WANDB_API_KEY MY_SECRET AWS_SESSION_TOKEN AWS_PROFILE "
        "github_token DB_PASSWORD GOOGLE_APPLICATION_CREDENTIALS"
    )
    urls = {"DATABASE_URL": "postgres://me:pw@host/db", "HTTPS_PROXY": "http://me:pw@proxy:1"}
    assert _harmless(keep | dict.fromkeys(drop.split(), SECRET) | urls) == keep


@pytest.fixture(scope="module")
def tiny(real, tmp_path_factory):
    """The folder of a random model with the shipped tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    config = LlamaConfig(vocab_size=len(real[1]), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                         num_attention_heads=2, max_position_embeddings=1024, eos_token_id=real[1].eos_token_id)  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    real[1].save_pretrained(folder)
    return folder


def status_of(place, method, path, token, body=None):
    connection = http.client.HTTPConnection(place.split("/")[2], timeout=30)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token is not None else {})
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    try:
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.slow
def test_the_local_server_lets_nobody_else_in(tiny, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    before = servers()  # another test's, perhaps
    with judging.local_server(tiny, retries=0) as endpoint:
        token = vars(endpoint)["_key"]()
        assert len(token) == 64 and endpoint.ask(QUESTION).kind in ("text", "malformed")
        chat = {"model": "tiny", "messages": QUESTION, "max_tokens": 1}
        paths = [("GET", path) for path in ("/health", "/docs", "/openapi.json", "/v1/models", "/")]
        paths += [("POST", f"/v1/{path}") for path in ("chat/completions", "completions", "responses", "systemone")]
        paths += [("POST", "/load_model"), ("POST", "/reset"), ("DELETE", "/v1/chat/completions")]
        for method, path in paths:
            for wrong in (None, "", token[:-1], token + "0", "none"):
                assert status_of(endpoint.place, method, path, wrong, chat) == 401, path
            if (method, path) not in (("GET", "/health"), ("POST", "/v1/chat/completions")):
                assert status_of(endpoint.place, method, path, token, {"model": "/etc"}) == 404
        assert status_of(endpoint.place, "GET", "/health", token) == 200
        assert status_of(endpoint.place, "POST", "/v1/chat/completions", token, chat) == 200
        assert status_of(endpoint.place, "POST", "/v1/chat/completions", token, chat | {"model": "/etc"}) in (400, 403, 404)
        (child,) = servers() - before
        assert token.encode() not in command_of(child)
        with open(f"/proc/{child}/environ", "rb") as file:
            environment = file.read()
        assert SECRET.encode() not in environment and token.encode() not in environment


def servers():
    here = [p for p in os.listdir("/proc") if p.isdigit() and parent_of(p) == os.getpid()]
    return {int(p) for p in here if b"serve" in command_of(p)}


def command_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def parent_of(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return None


@pytest.mark.slow
def test_the_local_server_is_gone_when_its_parent_is_killed(tiny):
    code = f"""
        import sys, time
        from fisherlib.evaluation import judging
        with judging.local_server({str(tiny)!r}) as endpoint:
            print(endpoint.place, flush=True)
            time.sleep(100)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    try:
        place = parent.stdout.readline().strip()
        assert status_of(place, "GET", "/health", None) == 401
    finally:
        parent.kill()
        parent.communicate(timeout=30)
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            status_of(place, "GET", "/health", None)
        except OSError:
            break
        time.sleep(0.1)
    with pytest.raises(OSError):
        status_of(place, "GET", "/health", None)
