"""A model that judges is asked, and its reply read: an answer, a tie, or a fault."""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dpo_wrap.errors import ConfigError, one_line
from dpo_wrap.evaluation.win_rate import FIRST, SECOND, TIE
from dpo_wrap.judge.questions import Question

if TYPE_CHECKING:
    from openai import OpenAI

EMPTY, UNCLEAR = "empty reply", "no verdict in the reply"
CONFLICT, CUT = "several verdicts in the reply", "cut off"
FAILED = "request failed"
MALFORMED = "the response is no chat completion"
NO_KEY = "none"
"""What is sent as the key to a server of one's own, which asks for none."""

_STATED = re.compile(r"^[ \t*_#`]*(?:final )?verdict[ \t*_`]*:(.*)$", re.IGNORECASE | re.MULTILINE)
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL | re.IGNORECASE)
_THINKING = "<think>"
_MARKS = " \t\r`*_-=~"
_AROUND = " \t\r*_`\"'.!()[]"
_MEANS = {"1": FIRST, "2": SECOND, "tie": TIE, "answer 1": FIRST, "answer 2": SECOND}
_REFUSING = {401, 403, 404}
_UNREACHABLE = {"ConnectError", "ConnectTimeout"}
_CLIPPED = 200


@dataclass(frozen=True)
class Reply:
    """What came back: a preference (1, 2, 1.5), or None and the fault."""

    preference: float | None
    text: str = ""
    fault: str | None = None
    failed: bool = False
    """Whether there was no reply at all, so that asking again may help."""
    hopeless: bool = False
    """Whether the first request of a run that fails so says that all the others would."""


@dataclass(frozen=True)
class Judge:
    """A model behind an OpenAI-compatible endpoint."""

    client: "OpenAI"
    model: str
    options: dict[str, Any] = field(default_factory=dict)
    """Fields of the request beside model and messages."""

    def ask(self, question: Question) -> Reply:
        """One request, tried again by the client as often as it was told; what fails is a value."""
        import openai

        try:
            completion = self.client.chat.completions.create(
                model=self.model, messages=question.messages, extra_body=self.options
            )
            choice = completion.choices[0]
            text, reason = choice.message.content, choice.finish_reason
            if not isinstance(text, str | None):
                raise TypeError(MALFORMED)
        except openai.APIStatusError as error:
            said = f"status {error.status_code}, {_message(error.body)}"
            return self._failure(said, error.status_code in _REFUSING)
        except openai.APITimeoutError as error:
            return self._failure(one_line(error), type(error.__cause__).__name__ in _UNREACHABLE)
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            return self._failure(one_line(cause), type(cause).__name__ in _UNREACHABLE)
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, LookupError):
            return self._failure(MALFORMED)
        except RecursionError:  # an answer nested without end
            return self._failure(MALFORMED)
        return read_reply(self._without_key(text or ""), reason)

    def _failure(self, said: str, hopeless: bool = False) -> Reply:
        said = self._without_key(said)
        line = " ".join("".join(c if c.isprintable() else " " for c in said).split())
        return Reply(None, fault=f"{FAILED}: {line[:_CLIPPED]}", failed=True, hopeless=hopeless)

    def _without_key(self, said: str) -> str:
        """Some servers repeat the key, which no file shall hold."""
        key = self.client.api_key
        return said if key == NO_KEY else said.replace(key, "[key]")


def read_reply(text: str, finish_reason: str | None = None) -> Reply:
    """The verdict in the reply's last line; a fault where that or another line leaves a doubt.

    Passes: "Both are right, the first is clearer.\\nVerdict: 1". Does not: "Answer 1 is better.",
    "Verdict: 1 or 2", a verdict with more words behind it, one within a model's <think> marks, or
    lines that name different answers. A reply that was cut off has no last line.
    """
    answer = _THOUGHT.sub("", text)
    lines = [line for line in answer.splitlines() if line.strip(_MARKS)]
    stated = [_MEANS.get(said.strip(_AROUND).casefold()) for said in _STATED.findall(answer)]
    named = set(stated) - {None}
    if finish_reason == "length" or _THINKING in answer.casefold():
        fault = CUT
    elif len(named) > 1:
        fault = CONFLICT
    elif stated and stated[-1] is not None and _STATED.match(lines[-1]):
        return Reply(stated[-1], text)
    else:
        fault = UNCLEAR if text.strip() else EMPTY
    return Reply(None, text, fault)


def replies(
    judge: Judge, questions: list[Question], workers: int
) -> Iterator[tuple[Question, Reply]]:
    """The replies as they come; the first question alone, since it may say that none will."""
    first, *rest = questions
    yield first, judge.ask(first)
    pool = ThreadPoolExecutor(workers)
    try:
        asked = {pool.submit(judge.ask, question): question for question in rest}
        for future in as_completed(asked):
            yield asked[future], future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def endpoint(base_url: str | None) -> str | None:
    """Where is asked: the option, else OPENAI_BASE_URL, else None for the client's own default.

    Raises ConfigError for no http address, and where the default would be asked without a key.
    """
    place, url = "--base-url", base_url
    if url is None:
        place, url = "OPENAI_BASE_URL", os.environ.get("OPENAI_BASE_URL") or None
    if url is None:
        if not os.environ.get("OPENAI_API_KEY"):
            raise ConfigError(
                "OPENAI_API_KEY is not set; set it, or name a server of your own: "
                "--base-url http://localhost:8000/v1"
            )
        return None
    if not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s@?#]*)?", url, re.IGNORECASE):
        raise ConfigError(
            f"{place} {url!r} is no address such as http://localhost:8000/v1; a key goes into "
            "OPENAI_API_KEY"
        )
    return url


def connect(base_url: str | None, timeout: float, max_retries: int) -> "OpenAI":
    """The client, with the key of OPENAI_API_KEY. Raises ConfigError where either is not usable."""
    try:
        import openai
    except ImportError:
        raise ConfigError(
            "the package openai, which asks the judge, is not installed; "
            "pip install -r requirements-judge.txt"
        ) from None
    key = os.environ.get("OPENAI_API_KEY", "").strip() or NO_KEY
    if not (key.isascii() and key.isprintable()):
        raise ConfigError("OPENAI_API_KEY holds characters that no key has; set it anew")
    try:
        return openai.OpenAI(
            api_key=key,
            base_url=base_url,
            max_retries=max_retries,
            # A redirect would take the texts to a place that nobody named.
            http_client=openai.DefaultHttpxClient(timeout=timeout, follow_redirects=False),
        )
    except Exception as error:  # of the address, or of a proxy that the environment names
        raise ConfigError(
            f"{base_url or 'the endpoint'} cannot be asked ({one_line(error)}); mend --base-url or "
            "the proxy that the environment names"
        ) from None


def _message(body: Any) -> str:
    """What the server says of a status, without the object around it."""
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body
    return str(body or "and no more")
