"""HTML and SVG from the inside out: whatever is not markup already is escaped.

tag("p", "1 < 2", class_="small") is <p class="small">1 &lt; 2</p>
"""

import html
import re
from typing import Any

# NUL, the other controls that no page may hold, and halves of a character that no file can.
UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class Markup(str):
    """Text that is markup already."""


def text(value: Any) -> Markup:
    """The value as text that means nothing to a browser."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(UNWRITABLE.sub("\ufffd", str(value))))


def tag(name: str, *inside: Any, **attributes: Any) -> Markup:
    """An element; `class_` stands for class and `text_anchor` for text-anchor."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items()
    )
    return Markup(f"<{name}{given}>{joined(*inside)}</{name}>")


def joined(*parts: Any) -> Markup:
    """The parts one after the other."""
    return Markup("".join(map(text, parts)))
