"""Requests to the judge, a model behind an OpenAI-compatible endpoint."""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dpo_wrap.errors import ConfigError, one_line
from dpo_wrap.judge.prompt import Question, read_verdict

if TYPE_CHECKING:
    from openai import OpenAI

FAILED = "request failed"
MALFORMED = "the response is not a chat completion"
NO_KEY = "none"
"""Sent as the key to a server that needs none."""
_REFUSED = {401, 403, 404}
_UNREACHABLE = {"ConnectError", "ConnectTimeout"}
_MAX_DETAIL = 200


@dataclass(frozen=True)
class Reply:
    """A judge's reply: a preference (1, 2, 1.5), or None and the fault."""

    preference: float | None
    text: str = ""
    fault: str | None = None
    fatal: bool = False
    """Whether every other request would fail for the same reason, if this is the first."""

    @property
    def failed(self) -> bool:
        """Whether the request failed, so that repeating it may help."""
        return self.fault is not None and self.fault.startswith(FAILED)


@dataclass(frozen=True)
class Judge:
    """A model behind an OpenAI-compatible endpoint."""

    client: "OpenAI"
    model: str
    options: dict[str, Any] = field(default_factory=dict)
    """Fields of the request besides model and messages."""

    def ask(self, question: Question) -> Reply:
        """Send one request, repeated by the client up to its max_retries; a failure is a Reply."""
        import openai

        try:
            completion = self.client.chat.completions.create(
                model=self.model, messages=question.messages, extra_body=self.options
            )
            choice = completion.choices[0]
            text, reason = choice.message.content or "", choice.finish_reason
            verdict = read_verdict(text, reason)
        except openai.APIStatusError as error:
            detail = f"status {error.status_code}, {_message(error.body)}"
            return self._failure(detail, error.status_code in _REFUSED)
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            detail = one_line(error if isinstance(error, openai.APITimeoutError) else cause)
            return self._failure(detail, type(cause).__name__ in _UNREACHABLE)
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, LookupError):
            return self._failure(MALFORMED)
        except RecursionError:  # a body of deeply nested JSON
            return self._failure(MALFORMED)
        text = self._without_key(text)
        if isinstance(verdict, str):
            return Reply(None, text, fault=verdict)
        return Reply(verdict, text)

    def _failure(self, detail: str, fatal: bool = False) -> Reply:
        detail = "".join(c if c.isprintable() else " " for c in self._without_key(detail))
        line = " ".join(detail.split())[:_MAX_DETAIL]
        return Reply(None, fault=f"{FAILED}: {line}", fatal=fatal)

    def _without_key(self, text: str) -> str:
        """Some servers repeat the key, which must not reach a file."""
        key = self.client.api_key
        return text if key == NO_KEY else text.replace(key, "[key]")


def replies(
    judge: Judge, questions: list[Question], workers: int
) -> Iterator[tuple[Question, Reply]]:
    """The replies in the order of arrival; the first question is asked alone, before the others."""
    first, *rest = questions
    yield first, judge.ask(first)
    pool = ThreadPoolExecutor(workers)
    try:
        asked = {pool.submit(judge.ask, question): question for question in rest}
        for future in as_completed(asked):
            yield asked[future], future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def connect(base_url: str | None, timeout: float, max_retries: int) -> "OpenAI":
    """The client for --base-url, OPENAI_BASE_URL or OpenAI, with the key of OPENAI_API_KEY.

    Raises ConfigError for an unusable address or key, and for OpenAI without a key.
    """
    option, url = "--base-url", base_url
    if url is None:
        option, url = "OPENAI_BASE_URL", os.environ.get("OPENAI_BASE_URL") or None
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if url is None and not key:
        raise ConfigError(
            "OPENAI_API_KEY is not set; set it, or use a server of your own: "
            "--base-url http://localhost:8000/v1"
        )
    address = r"https?://[^\s/@?#]+(/[^\s@?#]*)?"
    if url is not None and not re.fullmatch(address, url, re.IGNORECASE):
        raise ConfigError(
            f"{option} {url!r} is not an address such as http://localhost:8000/v1; set the key in "
            "OPENAI_API_KEY"
        )
    if not (key.isascii() and key.isprintable()):
        raise ConfigError("OPENAI_API_KEY contains characters that are in no key; set it again")
    try:
        import openai
    except ImportError:
        raise ConfigError(
            "the package openai is not installed; pip install -r requirements-judge.txt"
        ) from None
    try:
        return openai.OpenAI(
            api_key=key or NO_KEY,
            base_url=url,
            max_retries=max_retries,
            # A redirect would send the texts to a server that the user did not name.
            http_client=openai.DefaultHttpxClient(timeout=timeout, follow_redirects=False),
        )
    except Exception as error:  # about the address, or a proxy in the environment
        raise ConfigError(
            f"{url or 'the endpoint'}: no client can be made ({one_line(error)}); fix {option} or "
            "the proxy in the environment"
        ) from None


def _message(body: Any) -> str:
    """The message in the body of an error status."""
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body
    return str(body or "no message")
