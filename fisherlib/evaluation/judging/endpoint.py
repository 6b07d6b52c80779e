"""Any OpenAI-compatible endpoint as a judge: one question in, one reply out, and the key never leaves this file.

The `openai` client is imported on first use (extra `judge`).
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from urllib.parse import urlsplit

from fisherlib._files import first_line

MODEL_VARIABLE = "FISHERLIB_JUDGE_MODEL"  # the switch: without it, an OPENAI_API_KEY that lies around is not used
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class JudgeError(RuntimeError):
    """The judge cannot be asked at all: no connection, a wrong key, an unknown model. What is judged already is kept."""


@dataclass(frozen=True)
class Reply:
    """`kind` is "text", "refused", "timeout" or "malformed" (a reply without a text); `text` is what the judge said."""

    kind: str
    text: str = ""


@dataclass(frozen=True, repr=False)
class Endpoint:
    """Where a judge is asked, and as which model.

    `options` go into each request beside the messages; None leaves one out. The default limits the reply to a few tokens;
    a model that thinks first needs more, and some want {"max_tokens": None, "max_completion_tokens": 2000}.
    `retries`: of the client, with growing pauses, after a timeout, a lost connection or a server that is too busy.
    """

    base_url: str
    model: str
    key: InitVar[str] = "none"  # no field, so that no asdict() holds it; a server of one's own often wants none
    timeout: float = 60.0
    retries: int = 2
    options: Mapping = field(default_factory=dict)

    def __post_init__(self, key: str):
        object.__setattr__(self, "_key", key)
        if urlsplit(self.base_url).scheme not in ("http", "https"):
            raise ValueError(
                f"expected a base_url that begins with http:// or https://, got {self.place!r}: give the full URL"
            )
        if not self.model:
            raise ValueError("expected the name of a model to ask, got an empty one")

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
        """The address without a user, a password or a query in it."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def __repr__(self) -> str:
        return f"Endpoint({self.model!r} at {self.place})"

    def __reduce__(self):
        raise TypeError("an Endpoint is not pickled: its key must not reach a file; make it anew from the environment")

    @cached_property
    def _client(self):
        import openai

        local = urlsplit(self.base_url).hostname in _LOOPBACK  # no proxy leads to this machine
        return openai.OpenAI(
            base_url=self.base_url,
            api_key=vars(self)["_key"],
            timeout=self.timeout,
            max_retries=self.retries,
            http_client=openai.DefaultHttpxClient(trust_env=not local),
        )

    def ask(self, messages: Sequence[Mapping[str, str]], **options) -> Reply:
        """Ask once. Timeouts and refusals are replies; what would stop every further question is a `JudgeError`."""
        import openai

        request = {"max_tokens": 8} | options | dict(self.options)
        try:
            answer = self._client.chat.completions.create(
                model=self.model, messages=list(messages), **{name: v for name, v in request.items() if v is not None}
            )
        except openai.APITimeoutError:
            return Reply("timeout")
        except (openai.APIResponseValidationError, json.JSONDecodeError, UnicodeDecodeError):
            return Reply("malformed")
        except openai.APIStatusError as error:
            if getattr(error, "code", None) == "content_filter":
                return Reply("refused")
            problem = f"it answers with status {error.status_code}: {self._hide(first_line(error))}"
        except openai.APIConnectionError as error:
            problem = f"no connection ({self._hide(first_line(error))})"
        except openai.OpenAIError as error:
            problem = self._hide(first_line(error))
        else:
            return self._read(answer)
        # Raised out here, so that it does not carry the client's error, which holds the request with the key in its header.
        raise JudgeError(f"expected {self.model!r} at {self.place} to answer, but {problem}")

    def _read(self, answer) -> Reply:
        choices = getattr(answer, "choices", None)
        if not isinstance(choices, list) or not choices or (message := getattr(choices[0], "message", None)) is None:
            return Reply("malformed")
        text = message.content if isinstance(message.content, str) else ""
        refusal = getattr(message, "refusal", None)
        if refusal or choices[0].finish_reason == "content_filter":
            return Reply("refused", self._hide(str(refusal or text)))
        return Reply("text", self._hide(text)) if text.strip() else Reply("malformed")

    def _hide(self, text: str) -> str:
        """Some servers repeat the key in what they say."""
        key = vars(self)["_key"]
        return text.replace(key, "[key]") if len(key) > 4 else text
