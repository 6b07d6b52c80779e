"""Real judges on this machine: `transformers serve` with a model of yours, and judges that are a rule.

Both speak the same protocol over HTTP as any other endpoint, on the loopback address only.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from fisherlib import assets
from fisherlib._device import computes_bfloat16, resolve
from fisherlib.evaluation.judging.endpoint import Endpoint, JudgeError
from fisherlib.evaluation.judging.pairwise import shown

_HOST = "127.0.0.1"
# The child ends when its standard input does: so it does not outlive a kernel that is killed.
_COMMAND = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
from transformers.cli.transformers import main
main()
"""


@contextlib.contextmanager
def local_server(
    model: str | Path = "smollm2-135m",
    *,
    dtype: str = "auto",
    device: str = "cpu",
    deadline: float = 120.0,
    **options,
) -> Iterator[Endpoint]:
    """Serve a model folder (or a shipped model) with `transformers serve`, and stop it at the end, whatever happens.

    Yields the `Endpoint` (which takes the `options`); its model is called as the folder. The child process is not given
    your `OPENAI_API_KEY`. `dtype`: of the weights, as the server takes it; "auto" is bfloat16 where the device has units for
    it, else float32. Raises `JudgeError` with the server's last lines if it does not answer before the `deadline` in
    seconds, `ValueError` for a folder without a model. Time: some seconds to start. Needs the extra `judge`.
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
        with socket.socket() as probe:  # a port that is free now
            probe.bind((_HOST, 0))
            port = probe.getsockname()[1]
        arguments = ["serve", name, "--host", _HOST, "--port", str(port), "--dtype", dtype, "--device", device]
        environment = {k: v for k, v in os.environ.items() if k != "OPENAI_API_KEY"} | {"HF_HUB_OFFLINE": "1"}
        # In the folder above the model's: so its name is no path, and neither the requests nor the cache hold one.
        child = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, *arguments],
            cwd=scratch,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
        stack.callback(_stop, child)
        _wait(child, f"http://{_HOST}:{port}/health", deadline, log)
        yield Endpoint(f"http://{_HOST}:{port}/v1", name, **options)


def _link(source: Path, folder: Path) -> None:
    """The model's files, and a generation config under which `temperature` counts: without it, the server ignores it."""
    folder.mkdir()
    for path in source.iterdir():
        if path.name != "generation_config.json":
            (folder / path.name).symlink_to(path)
    original = source / "generation_config.json"
    config = json.loads(original.read_text()) if original.exists() else {}
    (folder / "generation_config.json").write_text(json.dumps(config | {"do_sample": True}))


def _wait(child: subprocess.Popen, url: str, deadline: float, log) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy leads to this machine
    until = time.monotonic() + deadline
    while child.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError, urllib.error.URLError):
            opener.open(url, timeout=5).close()
            return
        time.sleep(0.1)
    log.seek(0)
    last = " / ".join(log.read().decode(errors="replace").strip().splitlines()[-4:])
    happened = f"it did not answer in {deadline:g} s" if child.poll() is None else f"it ended with status {child.returncode}"
    raise JudgeError(f"expected `transformers serve` to start, but {happened}; its last lines: {last[-1500:] or 'none'}")


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
def rule_server(rule: Callable[[str, str], str], name: str, **options) -> Iterator[Endpoint]:
    """A judge that is a rule: `rule(a, b)` is what it says of the two texts. It tests the judging, not the texts.

    Yields the `Endpoint` (which takes the `options`). A rule that raises drops the connection, as a server that dies does.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = 60  # for a client that connects and says nothing

        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                said = rule(*shown(request["messages"][-1]["content"]))
            except Exception:  # whatever a rule raises: the judge is gone
                self.close_connection = True
                return
            choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
            body = {"id": "0", "object": "chat.completion", "created": 0, "model": request["model"], "choices": [choice]}
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

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
