"""16-byte keys of prompts and comparisons that ignore white space and Unicode form.

Every operation runs over a column of texts at once. Two texts are equal where they are equal in
Unicode form NFC with every run of white space as one blank. Nothing of this package is imported.
"""

import json
import re
import unicodedata
from bisect import bisect
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from operator import itemgetter
from typing import Any

import numpy as np
import xxhash

digest = xxhash.xxh3_128_digest
digest_64 = xxhash.xxh3_64_intdigest

_ASCII = bytes(range(128))
_TO_BLANK = bytes(32 if 9 <= c <= 13 or 28 <= c <= 31 else c for c in range(256))
# What str.split takes for white space beyond ASCII, in UTF-8.
_WIDE_BLANK = re.compile(
    rb"\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80"
)
# Characters that may be white space or that NFC may change; searching for them is much faster than
# looking closer. The other ones of Latin, Cyrillic and Chinese are neither.
_UNUSUAL = re.compile(
    rb"\xc2[\x85\xa0]|[\xcc-\xcf\xd2-\xdf\xe0\xe1\xe3\xea-\xf4]|\xe2(?!\x80[\x90-\xa7\xb0-\xbf])"
)
_TO_LOWER = bytes(range(256)).lower()
_NO_LETTERS = bytes(c for c in range(1, 128) if not chr(c).isalnum())
_MANY = 40  # different characters, beyond which one pass for all is faster than one for each

Side = str | list[dict]
CALLS = " with tool_calls"


def _without_extra_blanks(data: bytes) -> bytes:
    """The bytes without blanks that are next to a NUL, an end, or before another blank."""
    codes = np.frombuffer(data + b"\0", np.uint8)
    blank = codes == 32
    extra = np.flatnonzero(blank[:-1] & (blank[1:] | (codes[1:] == 0)))
    if len(extra):
        codes = np.delete(codes, extra)
    starts = np.concatenate(([0], np.flatnonzero(codes == 0)[:-1] + 1))
    leading = starts[codes[starts] == 32]
    if len(leading):
        codes = np.delete(codes, leading)
    return codes[:-1].tobytes()


class Column:
    """One side of many pairs, either all texts or all lists of messages.

    `flat` are the messages of all sides in order, `texts` their contents or the texts, `data` these
    in UTF-8 with a NUL between two of them. `bounds` gives where each side begins and ends.
    """

    def __init__(self, sides: Sequence[Side], role: str):
        self.sides, self._role = sides, role
        self.messages = bool(sides) and not isinstance(sides[0], str)
        self.flat = [message for side in sides for message in side] if self.messages else []
        self.texts = [m["content"] or "" for m in self.flat] if self.messages else sides
        self._joined = "\0".join(self.texts)
        self.data = self._joined.encode()

    @cached_property
    def wide(self) -> bytes:
        """The characters beyond ASCII, without anything between them."""
        return b"" if self._joined.isascii() else self.data.translate(None, _ASCII)

    @cached_property
    def normalized(self) -> list[bytes]:
        """Each text in NFC with every run of white space as one blank, none at either end."""
        if not self.texts:
            return []
        data = self.data
        if _UNUSUAL.search(self.wide):
            if not unicodedata.is_normalized("NFC", self._joined):
                data = unicodedata.normalize("NFC", self._joined).encode()
            data = _WIDE_BLANK.sub(b" ", data)
        return _without_extra_blanks(data.translate(_TO_BLANK)).split(b"\0")

    @cached_property
    def bounds(self) -> list[tuple[int, int]]:
        return [*pairwise(accumulate(map(len, self.sides), initial=0))]

    def _by_side(self, values: Sequence[Any], join: Callable[[Sequence[Any]], Any]) -> list[Any]:
        """One value for each side, from the values of its messages."""
        if len(self.flat) == len(self.sides) and all(self.sides):  # one message each
            return [join((value,)) for value in values]
        return [join(values[start:stop]) for start, stop in self.bounds]

    @cached_property
    def turns(self) -> list[tuple[str, ...]]:
        """The roles of each side; a message that calls tools adds CALLS to its role."""
        roles = [
            m["role"] if len(m) == 2 or not m.get("tool_calls") else m["role"] + CALLS
            for m in self.flat
        ]
        return self._by_side(roles, tuple)

    def owner(self, text: int) -> int:
        """The position of the side that a text belongs to."""
        if not self.messages:
            return text
        return bisect(self.bounds, text, key=itemgetter(1))

    @cached_property
    def digests(self) -> list[bytes]:
        """16 bytes of each side; a text equals the one message of the column's role that holds it.

        A message counts with its role, its normalized content and all its other keys.
        """
        if not self.messages:
            before = f"{self._role}\x1f".encode()
            return [digest(before + text + b"\x1f") for text in self.normalized]
        before = {role: f"{role}\x1f".encode() for role in {m["role"] for m in self.flat}}
        framed = [
            before[message["role"]] + text + (b"\x1f" if len(message) == 2 else _extra(message))
            for message, text in zip(self.flat, self.normalized, strict=True)
        ]
        return [digest(whole) for whole in self._by_side(framed, b"\x1e".join)]

    @cached_property
    def whole(self) -> list[bytes]:
        """The normalized text of each side, that of its messages joined by newlines."""
        if not self.messages:
            return self.normalized
        return self._by_side(self.normalized, b"\n".join)

    @cached_property
    def sizes(self) -> list[int]:
        """The characters of each side."""
        sizes = [*map(len, self.texts)]
        return self._by_side(sizes, sum) if self.messages else sizes


def folded(value: Any) -> Any:
    """The value with each text in it in NFC with every run of white space as one blank."""
    if isinstance(value, str):
        return " ".join(unicodedata.normalize("NFC", value).split())
    if isinstance(value, list):
        return [*map(folded, value)]
    return {k: folded(v) for k, v in value.items()} if isinstance(value, dict) else value


def shown(message: dict) -> tuple[str, str, bytes]:
    """What a chat template can show of a message, the same for equal ones."""
    return message["role"], folded(message["content"] or ""), _extra(message)


def _extra(message: dict) -> bytes:
    """What is hashed of a message after its content."""
    more = ((k, v) for k, v in message.items() if k not in ("role", "content") and v is not None)
    rest = {k: folded(v) for k, v in more}
    return b"\x1f" + (json.dumps(rest, sort_keys=True).encode() if rest else b"")


_NO_EXTRAS = json.dumps([None, None]).encode()


def extras_key(tools: str | None, kwargs: dict | None, annotator: str | None = None) -> bytes:
    """What else of a pair belongs to its key."""
    if tools is None and kwargs is None and annotator is None:
        return _NO_EXTRAS
    extras = [tools, kwargs] if annotator is None else [tools, kwargs, annotator]
    return json.dumps(extras, sort_keys=True).encode()


def comparison_key(prompt: bytes, one: bytes, other: bytes, extras: bytes) -> tuple[bytes, bool]:
    """16 bytes for one comparison whichever way round, and whether `one` comes first in it.

    The first eight bytes are the prompt's, so that sorting brings its pairs together.
    """
    forward = one < other
    answers = one + other if forward else other + one
    return prompt[:8] + digest(prompt + answers + extras)[:8], forward


def prompt_key(prompt: Side) -> bytes:
    """16 bytes that are equal for equal prompts; a text equals one user message."""
    return _digest_of(prompt, "user")


def pair_key(
    prompt: Side,
    chosen: Side,
    rejected: Side,
    tools: str | None = None,
    chat_template_kwargs: dict | None = None,
) -> tuple[bytes, bool]:
    """16 bytes of a comparison whichever answer won, and which way it went."""
    answers = [_digest_of(side, "assistant") for side in (chosen, rejected)]
    return comparison_key(prompt_key(prompt), *answers, extras_key(tools, chat_template_kwargs))


def _digest_of(side: Side, role: str) -> bytes:
    if isinstance(side, str):
        side = side.replace("\0", "\ufffd")
    else:
        side = [m | {"content": (m["content"] or "").replace("\0", "\ufffd")} for m in side]
    return Column([side], role).digests[0]


def near_duplicate_keys(texts: Sequence[bytes]) -> list[int]:
    """8 bytes of each normalized text's letters, digits and the marks on them, without case.

    0 where there are none. Marks count, since words of Hindi or Thai differ by them alone.
    """
    if not texts:
        return []
    data = b"\0".join(texts)
    if not data.isascii():
        text = unicodedata.normalize("NFC", data.decode().casefold())
        wide = set(text.encode().translate(None, _ASCII).decode())
        dropped = {char for char in wide if unicodedata.category(char)[0] not in "LNM"}
        if len(dropped) > _MANY:
            text = text.translate(dict.fromkeys(map(ord, dropped)))
        else:
            for char in dropped:
                text = text.replace(char, "")
        data = text.encode()
    kept = data.translate(_TO_LOWER, _NO_LETTERS).split(b"\0")
    return [digest_64(text) if text else 0 for text in kept]
