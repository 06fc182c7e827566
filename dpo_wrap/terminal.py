"""What every command prints goes through here: no control characters, no secrets, any encoding."""

import contextlib
import os
import re
import sys
from typing import Any, TextIO
from unicodedata import category

# Access tokens of the Hub, of OpenAI and of GitHub, and the credentials in a URL.
SECRET = re.compile(r"\b(?:hf_[A-Za-z0-9]{16}|sk-[\w-]{16}|ghp_\w{16})[\w-]*|(?<=://)[^/\s@]+(?=@)")
SECRET_NAME = re.compile(r"tok|secret|passw|api.?key|auth|credential", re.IGNORECASE)
"""A part of the names of keys whose values are shown in no message; it may be mistyped."""


def show(*lines: Any, file: TextIO | None = None) -> None:
    """Print the lines, by default to standard output, which may be closed."""
    for line in lines:
        text = printable(str(line))
        stream = sys.stdout if file is None else file
        encoding = getattr(stream, "encoding", None) or "utf-8"
        try:
            print(text.encode(encoding, "backslashreplace").decode(encoding), file=file, flush=True)
        except BrokenPipeError:  # the reader is gone, as with `| head`, and the command goes on
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def printable(text: str) -> str:
    """The text without secrets, and with control and invisible characters as escapes.

    Tabs and line ends are kept.
    """
    text = masked(text)
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or not _is_control(c) else ascii(c)[1:-1] for c in text)


def masked(text: str) -> str:
    """The text with `***` in place of access tokens."""
    return SECRET.sub("***", text)


def _is_control(character: str) -> bool:
    return category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
