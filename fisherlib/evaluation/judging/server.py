"""Real judges on this machine: `transformers serve` with a model of yours, and judges that are a rule.

Both speak the same protocol over HTTP as any other endpoint, on the loopback address only.
"""

import contextlib
import http.client
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from fisherlib import assets
from fisherlib._device import computes_bfloat16, resolve
from fisherlib._door import checked
from fisherlib.evaluation.judging.endpoint import Endpoint, JudgeError
from fisherlib.evaluation.judging.pairwise import LENGTHS, shown

_HOST = "127.0.0.1"
_CHILD = Path(__file__).with_name("_child.py")
_LARGEST = 10_000_000  # bytes of a request that a rule is asked
# Words in the names of variables that a child has no business with; a value with a password inside has none either.
_SECRET = re.compile("(^|_)(API)?(KEY|TOKENS?|SECRETS?|PASSW(OR)?D|PASSPHRASE|CREDENTIALS|PAT|AWS)(_|$)", re.IGNORECASE)
_PASSWORD = re.compile(r"://[^/\s]*@")


@contextlib.contextmanager
@checked
def local_server(
    model: str | Path = "smollm2-135m",
    *,
    dtype: str = "auto",
    device: str = "cpu",
    deadline: float = 120.0,
    **options,
) -> Iterator[Endpoint]:
    """Serve a model folder (or a shipped model) with `transformers serve`, and stop it at the end, whatever happens.

    Yields the `Endpoint` (which takes the `options`); its model is called as the folder. Only this endpoint can ask: it has
    a token of its own, and nothing but chat with this model is served. The child process is given no variable that looks
    like a key, a token or a password, and ends when this process does. `dtype`: of the weights, as the server takes it;
    "auto" is bfloat16 where the device has units for it, else float32. Raises `JudgeError` with the server's last lines if
    it does not answer before the `deadline` in seconds, `ValueError` for a folder without a model. Time: some seconds to
    start. Needs the extra `judge`, and an operating system of the Unix kind.
    """
    source = assets.fetch(str(model)) if str(model) in assets.MODELS else Path(model).resolve()
    if not (source / "config.json").is_file():
        raise ValueError(
            f"expected the folder of a model or one of {assets.MODELS}, got {str(model)!r}: it has no config.json"
        )
    if dtype == "auto":
        dtype = "bfloat16" if computes_bfloat16(resolve(device)) else "float32"
    name = Path(model).name
    with tempfile.TemporaryDirectory(prefix="fisherlib-judge-") as scratch, contextlib.ExitStack() as stack:
        _link(source, Path(scratch) / name)
        log = stack.enter_context((Path(scratch) / "log").open("w+b"))
        listener = stack.enter_context(socket.socket())  # bound here, so that nobody else can answer on this port
        listener.bind((_HOST, 0))
        port = listener.getsockname()[1]
        arguments = ["serve", name, "--host", _HOST, "--port", str(port), "--dtype", dtype, "--device", device]
        # In the folder above the model's: so its name is no path, and neither the requests nor the cache hold one.
        child = subprocess.Popen(
            [sys.executable, "-P", str(_CHILD), *arguments],
            cwd=scratch,
            env=_harmless(os.environ) | {"HF_HUB_OFFLINE": "1", "FISHERLIB_LISTENER": str(listener.fileno())},
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            bufsize=0,
        )
        stack.callback(_stop, child)
        listener.close()  # the child has it: with the child, it is gone
        token = secrets.token_hex(32)  # by the pipe: what stands in a command line is no secret
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once: `_wait` says so
            child.stdin.write(token.encode() + b"\n")
        _wait(child, port, token, deadline, log)
        yield Endpoint(f"http://{_HOST}:{port}/v1", name, **options | {"key": token})


def _harmless(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not _SECRET.search(name) and not _PASSWORD.search(value)}


def _link(source: Path, folder: Path) -> None:
    """The model's files, and a generation config under which `temperature` counts: without it, the server ignores it."""
    folder.mkdir()
    for path in source.iterdir():
        if path.name != "generation_config.json":
            (folder / path.name).symlink_to(path)
    original = source / "generation_config.json"
    config = json.loads(original.read_text()) if original.exists() else {}
    (folder / "generation_config.json").write_text(json.dumps(config | {"do_sample": True}))


def _wait(child: subprocess.Popen, port: int, token: str, deadline: float, log) -> None:
    """Until it is our child that answers: only that one knows the token, and lets nobody in without it."""
    until = time.monotonic() + deadline
    while child.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if _health(port, "no token") == 401 and _health(port, token) == 200:
                return
        time.sleep(0.1)
    log.seek(0)
    last = " / ".join(log.read().decode(errors="replace").strip().splitlines()[-4:])
    happened = f"it did not answer in {deadline:g} s" if child.poll() is None else f"it ended with status {child.returncode}"
    raise JudgeError(f"expected `transformers serve` to start, but {happened}; its last lines: {last[-1500:] or 'none'}")


def _health(port: int, token: str) -> int:
    connection = http.client.HTTPConnection(_HOST, port, timeout=5)
    try:
        connection.request("GET", "/health", headers={"Authorization": f"Bearer {token}"})
        return connection.getresponse().status
    finally:
        connection.close()


def _stop(child: subprocess.Popen) -> None:
    child.terminate()
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait(5)
    if child.stdin is not None:
        child.stdin.close()


@contextlib.contextmanager
@checked
def rule_server(rule: Callable[[str, str], str], name: str, **options) -> Iterator[Endpoint]:
    """A judge that is a rule: `rule(a, b)` is what it says of the two texts. It tests the judging, not the texts.

    Yields the `Endpoint` (which takes the `options`). A rule that raises drops the connection, as a server that dies does.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = 60  # for a client that connects and says nothing

        def do_POST(self):
            size = self.headers.get("Content-Length", "")
            if not (size.isascii() and size.isdecimal()):
                return self.send_error(411)
            if len(size) > 12 or int(size) > _LARGEST:
                return self.send_error(413)
            try:
                request = json.loads(self.rfile.read(int(size)))
                model, texts = request["model"], shown(request["messages"][-1]["content"], self.lengths())
            except (ValueError, RecursionError, LookupError, TypeError, AttributeError):  # no question of ours
                return self.send_error(400)
            try:
                said = rule(*texts)
            except Exception:  # whatever a rule raises: the judge is gone
                self.close_connection = True
                return
            choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
            body = {"id": "0", "object": "chat.completion", "created": 0, "model": model, "choices": [choice]}
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def lengths(self) -> tuple[int, int] | None:
            a, _, b = self.headers.get(LENGTHS, "").partition(",")
            return (int(a), int(b)) if b else None

        def log_message(self, *_):  # no line for each request
            pass

    server = ThreadingHTTPServer((_HOST, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Endpoint(f"http://{_HOST}:{server.server_port}/v1", name, **options)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
