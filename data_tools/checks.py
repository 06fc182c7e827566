"""What a pair must be to be trained on, and what is odd but kept; over a block of pairs at once.

Each check yields the position of every pair that fails and why; its name is the reason that a
reject gets. A warning notes what may be wrong: some are found in one pair (`pair_warnings`),
some only over the whole dataset (`share_warnings`, and `shards.alike_across_splits`).
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files

from data_tools.keys import CALLS, Column


@dataclass(frozen=True)
class Limits:
    """What the user asked to leave out: pairs over `max_chars` characters, and some sources."""

    max_chars: int | None = None
    excluded: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PairColumns:
    """The sides of a block of pairs, and the `source` of each pair."""

    prompt: Column
    chosen: Column
    rejected: Column
    sources: Sequence[str]


Failures = Iterator[tuple[int, str]]
_WORDS = ("image", "video", "audio")
_MEDIA = [f"<{name}>" for word in _WORDS for name in (word, word.title(), word.upper())]
_PLACEHOLDER = re.compile(
    r"^[ \t]*(<(?:image|video|audio)>)(?:[ \t]*<(?:image|video|audio)>)*[ \t]*\r?$",
    re.MULTILINE | re.IGNORECASE,
)


def check(pairs: PairColumns, limits: Limits) -> dict[int, tuple[str, str]]:
    """The reason and detail of each pair that fails, by position; the first check counts."""
    failed: dict[int, tuple[str, str]] = {}
    for find in CHECKS:
        for position, detail in find(pairs, limits):
            failed.setdefault(position, (find.__name__, detail))
    return failed


def bad_roles(pairs: PairColumns, limits: Limits) -> Failures:
    """Turns must alternate after the system turn, and both answers end with the assistant."""
    if not pairs.prompt.messages:
        return
    for name, answers in (("chosen", pairs.chosen), ("rejected", pairs.rejected)):
        orders = [*zip(pairs.prompt.turns, answers.turns, strict=True)]
        wrong = {turns: detail for turns in set(orders) if (detail := _order(*turns))}
        for position, turns in enumerate(orders if wrong else ()):
            if turns in wrong:
                yield position, f"{wrong[turns]} ({name}); fix the turns or remove the record"


def empty_prompt(pairs: PairColumns, limits: Limits) -> Failures:
    for position in _without_text(pairs.prompt, ("system", "developer")):
        yield position, "the prompt is empty; write the question or remove the record"


def empty_response(pairs: PairColumns, limits: Limits) -> Failures:
    for name, column in (("chosen", pairs.chosen), ("rejected", pairs.rejected)):
        for position in _without_text(column):
            side = column.sides[position]
            if not column.messages or not any(message.get("tool_calls") for message in side):
                yield position, f"the {name} answer is empty; write it or remove the record"


def identical_pair(pairs: PairColumns, limits: Limits) -> Failures:
    answers = zip(pairs.chosen.digests, pairs.rejected.digests, strict=True)
    detail = "chosen equals rejected except for white space; remove the record or fix the label"
    for position, (chosen, rejected) in enumerate(answers):
        if chosen == rejected:
            yield position, detail


def overlong(pairs: PairColumns, limits: Limits) -> Failures:
    if limits.max_chars is None:
        return
    sizes = zip(pairs.prompt.sizes, pairs.chosen.sizes, pairs.rejected.sizes, strict=True)
    for position, (prompt, chosen, rejected) in enumerate(sizes):
        if (size := prompt + max(chosen, rejected)) > limits.max_chars:
            detail = f"prompt and longer answer have {size:,} characters"
            fix = "shorten or remove the record, or raise the limit"
            yield position, f"{detail}; --max-chars is {limits.max_chars}; {fix}"


def excluded(pairs: PairColumns, limits: Limits) -> Failures:
    for position, source in enumerate(pairs.sources) if limits.excluded else ():
        if source in limits.excluded:
            yield position, f"{source} is listed in --exclude-rows"


def wrong_type(pairs: PairColumns, limits: Limits) -> Failures:
    """A line with nothing but a placeholder such as <image> means media, which no pair can hold."""
    for column in (pairs.prompt, pairs.chosen, pairs.rejected):
        for at, text in enumerate(column.texts) if b"<" in column.data else ():
            if "<" not in text or not any(hint in text for hint in _MEDIA):
                continue
            if found := _PLACEHOLDER.search(text):
                detail = f"{found[1]} on a line of its own means media, which cannot be"
                yield column.owner(at), f"{detail} trained on here; remove the record"


CHECKS = (wrong_type, bad_roles, empty_prompt, empty_response, identical_pair, overlong, excluded)


def _without_text(column: Column, ignored: tuple[str, ...] = ()) -> Iterator[int]:
    """The sides without text, not counting messages of the roles `ignored` if one begins them."""
    normalized = column.normalized
    if not column.messages:
        yield from (position for position, text in enumerate(normalized) if not text)
        return
    for position, (start, stop) in enumerate(column.bounds):
        side, texts = column.sides[position], normalized[start:stop]
        if side and side[0]["role"] in ignored:
            texts = [t for m, t in zip(side, texts, strict=True) if m["role"] not in ignored]
        if not any(texts):
            yield position


_FOLLOWS = {
    "": {"system", "developer", "user"},
    "system": {"user"},
    "developer": {"user"},
    "user": {"assistant"},
    "assistant": {"user"},
    "tool": {"assistant", "tool", "user"},
}


def _order(prompt: tuple[str, ...], answer: tuple[str, ...]) -> str:
    """What is wrong with the order of the roles; empty where it is right."""
    before, calls = "", False
    for number, turn in enumerate((*prompt, *answer), start=1):
        role = turn.removesuffix(CALLS)
        if role not in _FOLLOWS or not role:
            known = ", ".join(name for name in _FOLLOWS if name)
            return f"turn {number} has the role {role!r}; known are {known}"
        if role not in _FOLLOWS[before] and not (calls and role == "tool"):
            return f"turn {number} is from {role} after {before or 'nothing'}"
        if number == len(prompt) + 1 and role != "assistant":
            return f"the answer begins with {role}"
        before, calls = role, role == "assistant" and turn != role
    if before != "assistant" or not answer:
        return f"the last turn is from {before or 'nobody'}, not from the assistant"
    return ""


WARNINGS = {
    "html": "HTML tags or entities",
    "replacement_character": "U+FFFD, where a character was lost in decoding",
    "mojibake": "text decoded in the wrong encoding, such as Ã© for é",
    "spreadsheet_error": "an error of a spreadsheet, such as #NAME?, instead of a text",
    "cell_limit": "texts of 32,767 characters, where a spreadsheet may have cut them off",
    "zero_width": "zero-width characters, which are invisible",
    "template_tokens": "a chat template's special tokens as text",
    "page_residue": "text that a chat page showed around the answer",
    "judge_residue": "a judge's prompt or verdict",
    "prompt_repeated": "both answers begin with their prompt, as in some records only",
    "unread_context": "columns that are not read, though they may belong to the prompt",
    "alike_across_splits": "test prompts that equal one in train except for case and punctuation",
    "first_answer_bias": "one position wins far more often than the other",
    "length_bias": "one length, longer or shorter, wins far more often than the other",
}

_TOKENS = json.loads(files(__package__).joinpath("template_tokens.json").read_text("utf-8"))
TEMPLATE_TOKENS = tuple(" ".join(_TOKENS.values()).split())
"""Exact texts; the file has them by the model family whose chat template uses them."""


def _any_of(tokens: tuple[str, ...]) -> str:
    """A pattern of exact texts; shared beginnings are written once, which is faster."""
    tails: dict[str, list[str]] = {}
    for token in tokens:
        tails.setdefault(token[:2], []).append(re.escape(token[2:]))
    return "|".join(f"{re.escape(head)}(?:{'|'.join(rest)})" for head, rest in tails.items())


# A pattern is searched only in texts that contain one of its hints; most texts contain none.
# No pattern can match at more than a few lengths from one position, so none is quadratic.
_PATTERNS = {
    "html": (
        ("<", "&"),
        r"</?(?:p|br|div|span|a|li|ul|ol|b|i|em|strong|table|tr|td)\b[^<>]*>|&[a-z]{2,6};",
    ),
    "replacement_character": (("\ufffd",), "\ufffd"),
    "mojibake": (("â€", "Ã"), "â€[\x80-\xbf™œ“”˜¦–—]|Ã[\xa1-\xba\xbc-\xbf]"),
    "spreadsheet_error": (("#",), r"\A\s*#(?:NAME\?|REF!|VALUE!|DIV/0!|N/A|NULL!|NUM!)\s*\Z"),
    "zero_width": (("\u200b", "\u200c", "\u2060", "\ufeff"), "[\u200b\u200c\u2060\ufeff]"),
    "template_tokens": (("<", "["), _any_of(TEMPLATE_TOKENS)),
    "page_residue": (
        ("NETWORK ERROR DUE", "$MODERATION$ YOUR INPUT", "Regenerate response", "Copy code", "▌"),
        r"NETWORK ERROR DUE TO HIGH TRAFFIC"
        r"|\$MODERATION\$ YOUR INPUT VIOLATES OUR CONTENT MODERATION GUIDELINES"
        r"|^[ \t]*(?:Regenerate response|Copy code)[ \t]*\r?$"
        r"|▌\s*\Z",
    ),
    "judge_residue": (
        ("[[", "[The ", "|The "),
        r"\[\[(?:[ABC]|[AB](?:>>?|=|<<?)[AB]|(?<=Rating: \[\[)[0-9.]{1,4})\]\]"
        r"|(?:\[|<\|)The (?:Start|End) of (?:Assistant|Reference Answer)",
    ),
}
PAIR_WARNINGS = (*_PATTERNS, "prompt_repeated", "cell_limit")
"""The codes of single pairs; `pair_warnings` gives each as a bit."""

_COMPILED = [(hints, re.compile(pattern, re.MULTILINE)) for hints, pattern in _PATTERNS.values()]


def pair_warnings(columns: Sequence[Column]) -> list[int]:
    """For each pair of these sides a number whose bits are its warnings, as in PAIR_WARNINGS."""
    found = [repeated << len(_COMPILED) for repeated in _repeats(*columns)]
    for column in columns:
        texts = column.texts
        for at in [at for at, text in enumerate(texts) if len(text) == 32_767]:
            found[column.owner(at)] |= 2 << len(_COMPILED)
        for bit, (hints, pattern) in enumerate(_COMPILED):
            for hint in hints:
                data = column.data if hint.isascii() else column.wide
                # One byte is found, or found missing, much faster than several.
                if hint[0].encode() not in data or hint.encode() not in data:
                    continue
                for at in [at for at, text in enumerate(texts) if hint in text]:
                    if pattern.search(texts[at]):
                        found[column.owner(at)] |= 1 << bit
    return found


def _repeats(prompt: Column, chosen: Column, rejected: Column) -> list[bool]:
    """Whether both answers of each pair begin with the last text of the prompt."""

    def texts(column: Column, at: int) -> list[str]:
        """The text of each side, or of one of its messages."""
        if not column.messages:
            return column.texts
        sides = (column.texts[start:stop] or [""] for start, stop in column.bounds)
        return [side[at] for side in sides]

    asked, won, lost = texts(prompt, -1), texts(chosen, 0), texts(rejected, 0)
    return [
        bool(text) and first.startswith(text) and second.startswith(text)
        for text, first, second in zip(asked, won, lost, strict=True)
    ]


def share_warnings(first_wins: int, ordered: int, longer: int, unequal: int) -> dict[str, int]:
    """Warnings for shares outside 0.4 to 0.6, each with the pairs of the larger share.

    `first_wins` of the `ordered` pairs were won by the answer shown first; of the `unequal` pairs,
    whose answers differ in length, `longer` have the longer one chosen.
    """
    found = {}
    shares = {"first_answer_bias": (first_wins, ordered), "length_bias": (longer, unequal)}
    for code, (part, whole) in shares.items():
        distance = abs(2 * part - whole)  # the second limit is three standard errors
        if distance > max(0.2 * whole, 3 * whole**0.5):
            found[code] = max(part, whole - part)
    return found
