"""A client for servers that need not be honest: each try ends, a reply has a size, nothing is sent on. Needs `openai`."""

import contextlib
import inspect
import queue
import ssl
import threading
import time
import zlib

import openai

LIMIT = 1_000_000  # bytes of a reply, unpacked: a judge that thinks aloud needs a hundredth of it


class BoundedClient:
    """Asks for chat completions at one place, each within `timeout` seconds, however slowly the server sends."""

    def __init__(self, base_url: str, key: str, timeout: float, *, proxies: bool):
        self._timeout = timeout
        options: dict = {"trust_env": proxies}
        if not proxies and base_url.startswith("http://"):  # nothing is encrypted: spare the reading of all certificates
            options["verify"] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # and this one trusts nobody
        self._new = lambda: openai.OpenAI(
            base_url=base_url, api_key=key, timeout=timeout, max_retries=0, http_client=_Http(timeout, **options)
        )
        self._idle: list[openai.OpenAI] = [self._new()]
        self._idle[0].chat.completions.with_raw_response  # noqa: B018 (this imports: not in the first question's time)

    def create(self, **request) -> bytes:
        """The body of the reply, empty if it is too large. Raises `TimeoutError`, and what the `openai` client raises.

        The timeouts of the client are for one read each: a byte a second is never too late for them. So a thread does the
        work, and whoever is too late has its connection closed. No question shares a connection with another at work.
        """
        try:
            client = self._idle.pop()
        except IndexError:  # all are at work, or there is none yet
            client = self._new()
        outcomes: queue.SimpleQueue = queue.SimpleQueue()
        with contextlib.ExitStack() as unless_done:
            unless_done.callback(client.close)
            threading.Thread(target=_work, args=(client, request, outcomes), daemon=True).start()
            try:
                body, error = outcomes.get(timeout=self._timeout)
            except queue.Empty:
                raise TimeoutError from None
            unless_done.pop_all()
        self._idle.append(client)
        if error is not None:
            raise error
        return body


def _work(client: openai.OpenAI, request: dict, outcomes: queue.SimpleQueue) -> None:
    try:
        ask = client.chat.completions.with_raw_response.create
        known = inspect.signature(client.chat.completions.create).parameters
        beyond = {name: value for name, value in request.items() if name not in known}
        request = {name: value for name, value in request.items() if name in known}
        outcomes.put((ask(**request, extra_body=beyond or None).content, None))
    except Exception as error:  # of any kind: it is raised again where somebody waits for it
        outcomes.put((b"", error))


class _Http(openai.DefaultHttpxClient):
    """Reads at most `LIMIT` bytes and stops soon after the timeout; follows no redirect, so that no text goes elsewhere."""

    def __init__(self, timeout: float, **options):
        super().__init__(timeout=timeout, **options)
        self._patience = timeout

    def send(self, request, **options):
        until = time.monotonic() + self._patience
        request.headers["Accept-Encoding"] = "identity"
        response = super().send(request, **options | {"stream": True, "follow_redirects": False})
        try:
            body = _read(response, until)
        finally:
            response.close()
        wait = {name: value for name, value in response.headers.items() if name.lower() == "retry-after"}
        return type(response)(response.status_code, headers=wait, content=body, request=request)


def _read(response, until: float) -> bytes:
    size = response.headers.get("content-length", "0")
    if len(size) > 12 or not size.isdecimal() or int(size) > LIMIT:
        return b""
    raw = bytearray()
    for chunk in response.iter_raw():
        raw += chunk
        if len(raw) > LIMIT or time.monotonic() > until:
            return b""
    if response.headers.get("content-encoding", "identity") == "identity":
        return bytes(raw)
    try:  # packed, though we asked for it plain: gzip or zlib, and no more of it than the limit
        body = zlib.decompressobj(zlib.MAX_WBITS + 32).decompress(raw, LIMIT + 1)
    except zlib.error:
        return b""
    return body if len(body) <= LIMIT else b""
