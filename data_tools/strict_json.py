"""JSON with one meaning: no duplicate keys, no NaN, no number out of range, bounded nesting.

jiter refuses all of these but infinite numbers. Its limits are 4,300 digits of a whole number and
some 200 levels of nesting.
"""

import re
from typing import Any

import jiter

from data_tools.record import BadRecord

_INFINITE = (float("inf"), float("-inf"))
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def loads(source: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises BadRecord: `bad_encoding` for a lone surrogate, `nul_byte` for an escaped NUL, and
    `bad_json` for everything else.
    """
    try:
        value = jiter.from_json(source, catch_duplicate_keys=True, allow_inf_nan=False)
    except ValueError as error:
        raise _fault(str(error)) from None
    if _is_infinite(value):
        raise BadRecord("bad_json", "a number is too large; fix the record or remove it")
    if b"\\u0000" in source and _NUL.search(source):
        raise BadRecord("nul_byte", "a string holds a NUL character (\\u0000); remove it")
    return value


def _fault(message: str) -> BadRecord:
    if message.startswith(("unexpected end of hex escape", "lone leading surrogate")):
        return BadRecord(
            "bad_encoding",
            "a string holds a lone surrogate (\\ud800 to \\udfff), which is no text; write the "
            "character itself or both halves of the pair",
        )
    message = message.replace(" at line 1 column ", " at byte ").replace(
        " at line ", " at its line "
    )
    return BadRecord("bad_json", f"this is not valid JSON: {message}; fix the record or remove it")


def _is_infinite(value: Any) -> bool:
    found = [value]
    for item in found:
        kind = type(item)
        if kind is dict:
            found += item.values()
        elif kind is list:
            found += item
        elif kind is float and item in _INFINITE:
            return True
    return False
