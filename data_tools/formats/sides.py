"""Sides of a pair: joined to pairs, with what is next to them, and compared by votes or scores."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import combinations

from data_tools import ranking
from data_tools.column_kinds import NAMES
from data_tools.formats import label
from data_tools.formats.dialogues import (
    check_dialogue,
    has_turns,
    interleave,
    is_earlier,
    last_answer,
    same_turns,
    split_dialogues,
    transcript,
    transcript_prompt,
)
from data_tools.formats.format import ReadOptions
from data_tools.formats.paths import check, holds
from data_tools.keys import folded
from data_tools.record import (
    BadRecord,
    LabeledComparison,
    Message,
    Pair,
    Result,
    Side,
    Vote,
    as_json,
    as_messages,
    clip,
)

SYSTEMS = NAMES["system"]
EXTRAS = (*SYSTEMS, "tools", "chat_template_kwargs")
"""The fields that are read next to the sides, those of the system text first."""

UNSURE = "conversation"
"""A field of earlier turns, or of an id or other things, which are left unread."""

Extras = tuple[str | None, str | None, dict | None]
NO_EXTRAS: Extras = (None, None, None)
Votes = list[tuple[str, object]]
"""(annotator, meaning): what an answer means, or the BadRecord of its fault."""


def make_pair(
    prompt: Side | None,
    chosen: Side,
    rejected: Side,
    first_won: bool | None = None,
    extras: Extras = NO_EXTRAS,
) -> Pair:
    """One pair with an explicit prompt that begins with the system text, if any.

    Answers that are whole dialogues lose the turns that they share with the prompt; without a
    prompt (None), they must be. `extras` is what `check_extras` returns. Raises BadRecord.
    """
    system, tools, kwargs = extras
    if prompt is None or not (isinstance(chosen, str) and isinstance(rejected, str)):
        prompt, chosen, rejected = _as_messages(prompt, chosen, rejected)
    if system is not None:
        prompt = with_system(prompt, system)
    return Pair(prompt, chosen, rejected, first_won, tools, kwargs)


def _as_messages(prompt: Side | None, chosen: Side, rejected: Side) -> tuple[list[Message], ...]:
    """The sides as messages, without the turns of the prompt in the answers. Raises BadRecord."""
    if prompt is None:
        return split_dialogues(chosen, rejected)
    chosen, rejected = as_messages(chosen, "assistant"), as_messages(rejected, "assistant")
    whole = [bool(side) and side[0]["role"] != "assistant" for side in (chosen, rejected)]
    if not any(whole):
        return as_messages(prompt, "user"), chosen, rejected
    if not all(whole):
        raise BadRecord(
            "history_mismatch",
            "one answer is a whole dialogue and the other is not; give both or neither the history",
        )
    history, *answers = split_dialogues(chosen, rejected)
    own = as_messages(prompt, "user")
    head = own[:1] if own and own[0]["role"] == "system" else []
    if has_turns(history, own[len(head) :]):
        return with_system(history, head[0]["content"]) if head else history, *answers
    if not same_turns(own[-len(history) :], history):
        detail = "the turns of the two dialogues do not hold the prompt; fix the record"
        raise BadRecord("history_mismatch", detail)
    return own, *answers


def split_transcripts(result: Result) -> Result:
    """The result with answers that are whole marked transcripts as messages, or its fault.

    Where one answer is plain, the other is a transcript if its turns hold the prompt.
    """
    names = ("chosen", "rejected") if isinstance(result, Pair) else ("first", "second")
    answers = [getattr(result, name, []) for name in names]
    turns = [*map(transcript, answers)]
    if not any(turns):
        return result
    history = max(turns, key=len)[:-1]
    pairs = zip(turns, answers, strict=True)
    whole = [own or [*history, *as_messages(answer, "assistant")] for own, answer in pairs]
    split = attempt(_as_messages, transcript_prompt(result.prompt, "prompt"), *whole)
    if isinstance(split, BadRecord):
        return split if all(turns) else result
    return replace(result, **dict(zip(("prompt", *names), split, strict=True)))


def check_extras(record: dict, systems: Sequence[str] = SYSTEMS, container: str = "") -> Extras:
    """The record's system text, `tools` as a JSON string, and `chat_template_kwargs`.

    The system text is in one of the fields `systems`, of which several may hold the same. What the
    object `container` has counts before other fields. None for what is missing or empty. Raises
    BadRecord.
    """
    if container:
        record = record | check(record.get(container), dict, container)
    given = ((name, _system(record[name], name)) for name in systems if record.get(name))
    texts = {name: text for name, text in given if text}
    if len(texts) > 1 and len({*map(folded, texts.values())}) > 1:
        detail = f"{' and '.join(texts)} differ; keep the one that is the system text"
        raise BadRecord("wrong_type", detail)
    tools, kwargs = record.get("tools"), record.get("chat_template_kwargs")
    tools = None if tools in (None, "") else _tools(tools)
    kwargs = None if kwargs in (None, "") else check(kwargs, dict, "chat_template_kwargs")
    return next(iter(texts.values()), None), tools, kwargs


def _tools(value: object) -> str:
    """A list of tools as a JSON string; a text in JSON as it is. Raises BadRecord."""
    wanted = "a list of objects, also as JSON; fix or remove it"
    for tool in (tools := check(value, list, "tools", wanted)):
        check(tool, dict, "a tool", wanted)
    with suppress(ValueError, TypeError):  # in the form of Python, or a list
        json.loads(value)
        return str(value)
    return as_json(tools)


def _system(value: object, where: str) -> str:
    """A system text, also of a message without a role, or of text blocks. Raises BadRecord."""
    if isinstance(value, list) and holds(value, "text"):
        value = {"content": value}
    if isinstance(value, dict) or holds(value, "parts"):
        message = check(value, dict, where) | {"role": "system"}
        return check_dialogue([message], where)[0]["content"]
    return check(value, str, where)


def with_input(prompt: Side, more: object) -> Side:
    """The prompt with the text of `input` below it."""
    if more in (None, ""):
        return prompt
    more = check(more, str, "input")
    check(prompt, str, "instruction next to input")
    return f"{prompt}\n{more}" if prompt else more


def with_earlier(prompt: Side, earlier: object, field: str, answers: Iterable[Side]) -> Side:
    """The prompt after the turns of a field, which may be those before it, or the whole dialogue
    up to the prompt or one of its answers. Raises BadRecord.
    """
    turns, own = _earlier_turns(earlier, field), as_messages(prompt, "user")
    if not turns:
        return prompt
    if same_turns(turns[-len(own) :], own):
        return turns
    if turns[-1]["role"] == "user":
        detail = f"{field} ends with another question than the prompt; fix the record"
        raise BadRecord("history_mismatch", detail)
    for answer, is_whole in map(last_answer, answers):
        before, last = turns[: -len(answer)], turns[-len(answer) :]
        is_answer, is_history = same_turns(last, answer), "history" in field
        # An earlier answer in a history may be the same by chance, unless the prompt is before it.
        asked = before[-len(own) :] if is_history else before
        if (is_answer or is_whole) and has_turns(asked, own):
            return before
        if is_answer and not is_history:
            detail = f"{field} ends with an answer, and its turns before do not hold the prompt"
            raise BadRecord("history_mismatch", f"{detail}; fix the record")
    return prompt if has_turns(own, turns) else turns + own


def _earlier_turns(earlier: object, field: str) -> list[Message]:
    """The turns of a field of [question, answer] each, or of messages. Raises BadRecord."""
    wanted = "a list of [question, answer], or messages"
    is_other = field == UNSURE and not is_earlier(earlier)
    if is_other or not isinstance(earlier, list) and label.is_null(earlier):
        return []
    earlier = check(earlier, list, field, wanted)
    if not any(isinstance(part, list) for part in earlier):
        return check_dialogue(earlier, field, wanted)
    turns = []
    for part in earlier:
        if not isinstance(part, list) or [type(text) for text in part] != [str, str]:
            detail = f"{field} is {clip(earlier)}; it must be a list of [question, answer]"
            raise BadRecord("wrong_type", detail)
        turns += interleave(part[:1], part[1:])
    return turns


def with_system(prompt: Side, system: str) -> list[Message]:
    """The prompt with the system text as its first turn, unless it is there already."""
    head, prompt = {"role": "system", "content": system}, as_messages(prompt, "user")
    return prompt if same_turns(prompt[:1], [head]) else [head, *prompt]


def attempt(make: Callable[..., Result], *arguments: object) -> Result:
    """What `make` returns, or the BadRecord that it raises: a fault of one comparison alone."""
    try:
        return make(*arguments)
    except BadRecord as fault:
        return fault


def cast(given: Iterable[tuple[str, object]], decode: Callable[..., object]) -> Votes:
    """What each annotator's value means by `decode`, or the BadRecord of its fault.

    Values that are no judgement are left out.
    """
    votes: Votes = []
    for who, value in given:
        try:
            votes.append((who, decode(value)))
        except BadRecord as fault:
            if fault.reason != "null_label":
                votes.append((who, fault))
    return votes


def sound(votes: Votes) -> list[Vote]:
    """The votes where there are any and none is a fault. Raises BadRecord."""
    for _, won in votes:
        if isinstance(won, BadRecord):
            raise won
    if not votes:
        raise BadRecord("null_label", label.NO_JUDGEMENT)
    return votes


def check_named(winner: int | None, answers: Mapping[int, Side]) -> None:
    """Raise BadRecord where the winner is none of the answers that the record has."""
    if winner is not label.TIE and winner not in answers:
        detail = f"the label names answer {winner + 1}, which is missing or empty; fix the record"
        raise BadRecord("empty_response", detail)


def compare(
    prompt: Side | None,
    answers: Mapping[int, Side],
    extras: Extras,
    votes: Sequence[Vote],
    across_records: bool = False,
    is_ordered: bool = True,
) -> list[Result]:
    """Every two answers of which one won by some vote, with the votes on these two.

    `answers` are by position; where all votes are ties, the first is compared with the others.
    Raises BadRecord where a vote is for an answer that is missing.
    """
    for _, won in votes:
        check_named(won, answers)
    winners = {won for _, won in votes} - {label.TIE} or {label.FIRST}

    def compared(first: int, second: int) -> LabeledComparison:
        pair = make_pair(prompt, answers[first], answers[second], None, extras)
        cast = tuple(
            (who, won if won is label.TIE else int(won == second))
            for who, won in votes
            if won in (label.TIE, first, second)
        )
        shown = pair.prompt, pair.chosen, pair.rejected
        return LabeledComparison(*shown, cast, *extras[1:], across_records, is_ordered)

    return [attempt(compared, *two) for two in combinations(answers, 2) if winners & {*two}]


def ranked_pairs(
    prompt: Side,
    answers: Sequence[Side],
    extras: Extras,
    scores: Sequence[float],
    options: ReadOptions,
    rated: bool = False,
) -> list[Result]:
    """The pairs that --pairs picks; the higher score won. Raises BadRecord.

    With `rated`, --min-margin applies, and the answers are in the order shown; ranked answers are
    often in the order of their ranks.
    """
    pairs, ties = ranking.pick(scores, options.pairs, options.min_margin if rated else 0.0)
    found: list[Result] = []
    for winner, loser in pairs:
        shown = answers[winner], answers[loser], winner < loser if rated else None
        found.append(attempt(make_pair, prompt, *shown, extras))
    for first, second in map(sorted, ties):
        how = "equal; remove one of them, or give it another score"
        if scores[first] != scores[second]:
            how = "closer than --min-margin; lower it, or remove one of them"
        detail = f"the scores of answers {first + 1} and {second + 1} are {how}"
        found.append(BadRecord("tie", detail))
    return found
