"""16 bytes that stand for a prompt or a comparison, whatever its white space and Unicode form."""

import json

import xxhash

from data_tools.record import Judged, Pair, Rated, Side
from data_tools.side import as_messages, fold

_FRAME = "{role}\x1f{text}\x1f{extra}"
NO_EXTRAS = json.dumps([None, None]).encode()
"""What is hashed for the extras of a pair that has none."""


def prompt_key(prompt: Side) -> bytes:
    """16 bytes that are equal for prompts equal but for Unicode form and white space.

    A text and the one user message that holds it have the same key.
    """
    return _key(_canonical(prompt, "user"))


def pair_key(pair: Pair, prompt: bytes) -> tuple[bytes, bool]:
    """16 bytes for one comparison whichever way it went, and which way it went.

    The first eight are the prompt's own, so that its pairs stand together when keys are sorted.
    Where every judgement is its own pair, its annotator is part of the key.
    """
    extras = [pair.tools, pair.chat_template_kwargs]
    if pair.annotator is not None:
        extras.append(pair.annotator)
    key, forward = _comparison(prompt, pair.chosen, pair.rejected, extras)
    return prompt[:8] + key[:8], forward


def judged_key(judged: Judged) -> tuple[bytes, bool]:
    """The same for a comparison that is not decided yet, and in which order it was shown."""
    extras = [judged.tools, judged.chat_template_kwargs]
    return _comparison(prompt_key(judged.prompt), judged.first, judged.second, extras)


def rated_key(rated: Rated) -> bytes:
    """16 bytes that are equal for the answers that can be compared with each other."""
    extras = json.dumps([rated.tools, rated.chat_template_kwargs], sort_keys=True)
    return _key(prompt_key(rated.prompt) + extras.encode())


def framed(role: str) -> tuple[bytes, bytes]:
    """What stands before and after a folded text where it is hashed as a message of this role."""
    before, after = _FRAME.format(role=role, text="\0", extra="").encode().split(b"\0")
    return before, after


def _comparison(prompt: bytes, first: Side, second: Side, extras: list) -> tuple[bytes, bool]:
    one = _key(_canonical(first, "assistant"))
    other = _key(_canonical(second, "assistant"))
    forward = one < other
    answers = one + other if forward else other + one
    return _key(prompt + answers + json.dumps(extras, sort_keys=True).encode()), forward


def _key(data: bytes) -> bytes:
    return xxhash.xxh3_128_digest(data)


def _canonical(side: Side, role: str) -> bytes:
    parts = []
    for message in as_messages(side, role):
        rest = {k: v for k, v in message.items() if k not in ("role", "content") and v is not None}
        extra = json.dumps(rest, sort_keys=True) if rest else ""
        text = fold(message["content"] or "")
        parts.append(_FRAME.format(role=message["role"], text=text, extra=extra))
    return "\x1e".join(parts).encode()
