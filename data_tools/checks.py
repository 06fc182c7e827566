"""What a pair must be to be trained on: one function a check, over a block of pairs at once.

Each yields the position of every pair that fails and why; `CHECKS` names them by the reason that a
reject gets.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from data_tools.keys import CALLS, Column
from data_tools.record import ConvertError


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


def check(pairs: PairColumns, limits: Limits) -> dict[int, tuple[str, str]]:
    """The reason and detail of each pair that fails, by position; the first check counts."""
    failed: dict[int, tuple[str, str]] = {}
    for reason, find in CHECKS.items():
        for position, detail in find(pairs, limits):
            failed.setdefault(position, (reason, detail))
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
                detail = f"{wrong[turns]} ({name}); fix the turns or remove the record"
                yield position, detail


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
    for position, (chosen, rejected) in enumerate(answers):
        if chosen == rejected:
            detail = "chosen equals rejected except for white space"
            yield position, f"{detail}; remove the record or fix the label"


def overlong(pairs: PairColumns, limits: Limits) -> Failures:
    if limits.max_chars is None:
        return
    sizes = zip(pairs.prompt.sizes, pairs.chosen.sizes, pairs.rejected.sizes, strict=True)
    for position, (prompt, chosen, rejected) in enumerate(sizes):
        if (size := prompt + max(chosen, rejected)) > limits.max_chars:
            detail = f"prompt and longer answer have {size:,} characters"
            yield position, f"{detail}; --max-chars is {limits.max_chars}"


def excluded(pairs: PairColumns, limits: Limits) -> Failures:
    for position, source in enumerate(pairs.sources) if limits.excluded else ():
        if source in limits.excluded:
            yield position, f"{source} is listed in --exclude-rows"


CHECKS: dict[str, Callable[[PairColumns, Limits], Failures]] = {
    "bad_roles": bad_roles,
    "empty_prompt": empty_prompt,
    "empty_response": empty_response,
    "identical_pair": identical_pair,
    "overlong": overlong,
    "excluded": excluded,
}


def _without_text(column: Column, ignored: tuple[str, ...] = ()) -> Iterator[int]:
    """The sides without text, not counting messages of the roles `ignored` if one begins them."""
    normalized = column.texts.normalized
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
    "tool": {"assistant", "tool"},
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


def read_excluded(path: str | None) -> frozenset[str]:
    """The `source` values of a JSON Lines file. Raises ConvertError (status 2)."""
    if path is None:
        return frozenset()
    found = set()
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if not line.isspace():
                    found.add(_source(line, f"{path}:{number}"))
    except OSError as error:
        raise ConvertError(f"--exclude-rows {path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConvertError(f"--exclude-rows {path}: is not UTF-8; save it as UTF-8") from None
    return frozenset(found)


def _source(line: str, place: str) -> str:
    try:
        if isinstance(value := json.loads(line)["source"], str):
            return value
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    detail = "each line must be an object with a text 'source'"
    raise ConvertError(f"--exclude-rows {place}: {detail}")
