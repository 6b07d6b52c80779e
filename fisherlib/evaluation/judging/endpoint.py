"""Any OpenAI-compatible endpoint as a judge: one question in, one reply out, and the key never leaves this file.

The `openai` client is imported on first use (extra `judge`).
"""

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from urllib.parse import urlsplit

from fisherlib._door import check_fields, check_kinds

MODEL_VARIABLE = "FISHERLIB_JUDGE_MODEL"  # the switch: without it, an OPENAI_API_KEY that lies around is not used
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_DAY = 86_400.0
_BUSY = (408, 409, 429)  # and all from 500: worth another try
_LONGEST_PAUSE = 8.0  # seconds before another try, unless the server asks for more


class JudgeError(RuntimeError):
    """The judge cannot be asked at all: no connection, a wrong key, an unknown model. What is judged already is kept."""


@dataclass(frozen=True)
class Reply:
    """`kind` is "text", "refused", "timeout" or "malformed" (a reply without a text); `text` is what the judge said."""

    kind: str
    text: str = ""


@dataclass(frozen=True)
class _Failed:
    """A try that got no reply: what happened, whether another may help, and the seconds that the server asks us to wait."""

    problem: str
    again: bool = True
    wait: float = 0.0


@dataclass(frozen=True, repr=False)
class Endpoint:
    """Where a judge is asked, and as which model.

    `options` go into each request beside the messages; None leaves one out. The default limits the reply to a few tokens;
    a model that thinks first needs more, and some want {"max_tokens": None, "max_completion_tokens": 2000}.
    `timeout`: seconds for one try, from the connection to the last byte of the reply, however slowly it comes.
    `retries`: more tries, after growing pauses, when one took too long, the connection is lost or the server is too busy.
    The server may ask for longer pauses, up to the timeout: so a question takes at most timeout x (2 retries + 1) seconds.
    A reply may have 1 MB. Redirects are not followed. Raises `ValueError` for an address, key or number that cannot work.
    """

    base_url: str
    model: str
    key: InitVar[str] = "none"  # no field, so that no asdict() holds it; a server of one's own often wants none
    timeout: float = 60.0
    retries: int = 2
    options: Mapping = field(default_factory=dict)

    def __post_init__(self, key: str):
        object.__setattr__(self, "_key", lambda: key)  # a function, so that no vars() holds it
        check_fields(self)
        check_kinds({"key": key}, {"key": str})
        _check_url(self.base_url)
        if not self.model:
            raise ValueError("expected the name of a model to ask, got an empty one")
        if not (key.isascii() and key.isprintable()) or key.split() != [key]:
            raise ValueError(
                "expected a key of printable ASCII characters, got an empty one, a space or others: give only the key"
            )
        if not 0 < self.timeout <= _DAY:
            raise ValueError(f"expected a timeout above 0 and up to a day, got {self.timeout}: give it in seconds")
        if self.retries < 0:
            raise ValueError(f"expected a number of retries, got {self.retries}: 0 is a single try")

    @classmethod
    def from_environment(cls, **options) -> "Endpoint | None":
        """The judge of `FISHERLIB_JUDGE_MODEL`, `OPENAI_BASE_URL` and `OPENAI_API_KEY`, or None if the first is not set.

        `options` are those of the class. Raises `ValueError` if a model is named without a place to ask it.
        """
        model = os.environ.get(MODEL_VARIABLE)
        if not model:
            return None
        url = os.environ.get("OPENAI_BASE_URL")
        if not url:
            raise ValueError(f"expected OPENAI_BASE_URL beside {MODEL_VARIABLE}, got none: set both, or neither")
        return cls(url, model, os.environ.get("OPENAI_API_KEY") or "none", **options)

    @property
    def place(self) -> str:
        """The address: of nothing but a place, so that it can be printed."""
        return self.base_url

    def __repr__(self) -> str:
        return f"Endpoint({self.model!r} at {self.place})"

    def __reduce__(self):
        raise TypeError("an Endpoint is not pickled: its key must not reach a file; make it anew from the environment")

    @cached_property
    def _client(self):
        from fisherlib.evaluation.judging.bounded import BoundedClient

        local = urlsplit(self.base_url).hostname in _LOOPBACK  # no proxy leads to this machine
        return BoundedClient(self.base_url, vars(self)["_key"](), self.timeout, proxies=not local)

    def ask(self, messages: Sequence[Mapping[str, str]], **options) -> Reply:
        """Ask once. Timeouts, refusals and nonsense are replies; what would stop all further questions is a `JudgeError`."""
        request = {"max_tokens": 8} | options | dict(self.options)
        request = {name: value for name, value in request.items() if value is not None}
        for attempt in range(self.retries + 1):
            outcome = self._try(request | {"model": self.model, "messages": list(messages)})
            final = outcome.kind != "timeout" if isinstance(outcome, Reply) else not outcome.again
            if final or attempt == self.retries:
                break
            wait = outcome.wait if isinstance(outcome, _Failed) else 0.0
            time.sleep(min(wait or min(0.5 * 2 ** min(attempt, 9), _LONGEST_PAUSE), self.timeout))
        if isinstance(outcome, Reply):
            return outcome
        # Raised out here, so that it does not carry the client's error, which holds the request with the key in its header.
        raise JudgeError(f"expected {self.model!r} at {self.place} to answer, but {outcome.problem}")

    def _try(self, request: dict) -> Reply | _Failed:
        import openai

        try:
            return self._read(self._client.create(**request))
        except (TimeoutError, openai.APITimeoutError):
            return Reply("timeout")
        except openai.APIStatusError as error:
            status = error.status_code
            if getattr(error, "code", None) == "content_filter":
                return Reply("refused")
            if 300 <= status < 400:
                told = "it sends us to another address, where neither the texts nor the key go: give that one as base_url"
                return _Failed(f"it answers with status {status}: {told}", again=False)
            again = status in _BUSY or status >= 500
            return _Failed(f"it answers with status {status}: {self._line(error)}", again, _seconds(error))
        except openai.APIConnectionError as error:
            return _Failed(f"no connection ({self._line(error)})")
        except openai.OpenAIError as error:
            return _Failed(self._line(error), again=False)

    def _read(self, body: bytes) -> Reply:
        """What a server says is believed in no detail: anything but the expected types is "malformed"."""
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            return Reply("malformed")
        choices = answer.get("choices") if isinstance(answer, dict) else None
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or not isinstance(message, dict):
            return Reply("malformed")
        text, refusal = message.get("content"), message.get("refusal")
        if not isinstance(text, str | None) or not isinstance(refusal, str | None):
            return Reply("malformed")
        said = self._hide(refusal or text or "").encode(errors="replace").decode()  # half a character cannot be saved
        if refusal or choice.get("finish_reason") == "content_filter":
            return Reply("refused", said)
        return Reply("text", said) if said.strip() else Reply("malformed")

    def _hide(self, text: str) -> str:
        """Some servers repeat the key in what they say."""
        key = vars(self)["_key"]()
        return text.replace(key, "[key]") if len(key) > 4 else text

    def _line(self, error: Exception) -> str:
        """The first line of an error; the key is hidden before the line is cut, as half a key would not be found."""
        return next(iter(self._hide(str(error)).strip().splitlines()), type(error).__name__)[:200]


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("expected a base_url such as https://example.org/v1, got none that can be read: check it") from None
    if "@" in parts.netloc or parts.query or parts.fragment:
        place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        raise ValueError(f"expected a base_url of nothing but a place, got a user, password or query at {place!r}: use key=")
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"expected a base_url that begins with http:// or https://, got {url!r}: give the full URL")


def _seconds(error) -> float:
    """What `Retry-After` asks for, if it is a number of seconds."""
    try:
        wait = float(error.response.headers.get("retry-after", ""))
    except ValueError:
        return 0.0
    return wait if math.isfinite(wait) and wait > 0 else 0.0
