"""One side of a pair, text or messages: what every room asks of it."""

import unicodedata

from data_tools.record import Message, Side


def as_messages(side: Side, role: str) -> list[Message]:
    """A text as the one message that it stands for; messages as they are."""
    return [{"role": role, "content": side}] if isinstance(side, str) else side


def texts(side: Side) -> list[str]:
    """The text, or the contents of the messages that have one."""
    if isinstance(side, str):
        return [side]
    return [message["content"] for message in side if message["content"] is not None]


def size(side: Side) -> int:
    """Characters of text in a side."""
    return sum(map(len, texts(side)))


def fold(text: str) -> str:
    """The text as keys see it: Unicode form NFC, every run of white space one blank."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split())
