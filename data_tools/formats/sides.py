"""Sides of a pair: checked as text or messages, split into prompt and answers, and compared."""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

from data_tools import ranking
from data_tools.formats import label
from data_tools.formats.format import ReadOptions
from data_tools.formats.paths import check_object, check_text, not_a
from data_tools.record import (
    BadRecord,
    LabeledComparison,
    Message,
    Pair,
    Result,
    Side,
    Vote,
    as_messages,
    clip,
)

EXTRAS = ("system", "tools", "chat_template_kwargs")
"""The fields that `pair_from` reads next to the sides."""

Extras = tuple[str | None, str | None, dict | None]
NO_EXTRAS: Extras = (None, None, None)

_DIFFER = "the two dialogues differ before the {}, so they do not compare two answers to one "
_DIFFER += "prompt; remove the record or fix its history"
_TEXT_BLOCKS = ("text", "value")  # where a text block holds its text


def check_side(value: object, where: str) -> Side:
    """A side as text or a list of clean messages. Raises BadRecord."""
    if isinstance(value, str):
        return value
    return check_dialogue([value] if isinstance(value, dict) else value, where, "text or messages")


def check_dialogue(value: object, where: str, wanted: str = "a list of messages") -> list[Message]:
    """The messages with the text blocks of their contents joined. Raises BadRecord."""
    if not isinstance(value, list):
        raise not_a(wanted, value, where)
    checked = []
    for message in value:
        if not isinstance(message, dict):
            raise BadRecord("wrong_type", f"{where} is {clip(value)}; it must be {wanted}")
        if type(message.get("content")) is not str or type(message.get("role")) is not str:
            message = _check_message(message, f"message {len(checked) + 1} of {where}")
        checked.append(message)
    return checked


def _check_message(message: dict, where: str) -> Message:
    check_text(message.get("role"), f"the role of {where}")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_block_text(block, where) for block in content)
    elif content is not None or not message.get("tool_calls"):
        check_text(content, f"the content of {where}")
    return message | {"content": content}


def _block_text(block: object, where: str) -> str:
    kind = block.get("type", "text") if isinstance(block, dict) else None
    if kind != "text":
        raise BadRecord(
            "wrong_type",
            f"{where} holds a block of type {clip(kind or block)}; only text blocks can be "
            "trained on here; remove the record",
        )
    text = next((block[key] for key in _TEXT_BLOCKS if isinstance(block.get(key), str)), None)
    if text is None:
        raise BadRecord("wrong_type", f"a text block of {where} holds no text; add it")
    return text


def split_dialogues(
    chosen: Side, rejected: Side
) -> tuple[list[Message], list[Message], list[Message]]:
    """Split two whole dialogues into (prompt, chosen answer, rejected answer). Raises BadRecord.

    The prompt is the history that both share, at least up to the last user turn; it includes
    shared tool turns as long as both answers still begin with the assistant.
    """
    for side in (chosen, rejected):
        if isinstance(side, str):
            detail = (
                f"there is no prompt, and an answer is text ({clip(side)}); it must be messages"
            )
            raise BadRecord("wrong_type", detail)
    ends = [_after_last_user(side) for side in (chosen, rejected)]
    if 0 in ends:
        raise BadRecord("bad_roles", "a dialogue has no user turn, so it has no prompt")
    if chosen[: ends[0]] != rejected[: ends[1]]:
        turn = _shared_turns(chosen[: ends[0]], rejected[: ends[1]]) + 1
        raise BadRecord("history_mismatch", _DIFFER.format(f"answer (turn {turn})"))
    cut = min(_shared_turns(chosen, rejected), len(chosen) - 1, len(rejected) - 1)
    while cut > ends[0] and {chosen[cut]["role"], rejected[cut]["role"]} != {"assistant"}:
        cut -= 1
    cut = max(cut, ends[0])
    return chosen[:cut], chosen[cut:], rejected[cut:]


def _after_last_user(side: list[Message]) -> int:
    return max((i + 1 for i, message in enumerate(side) if message["role"] == "user"), default=0)


def _shared_turns(first: list, second: list) -> int:
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count


Sides = tuple[Side, Side, Side]
"""Prompt, chosen and rejected: all text, or all messages."""


def split_at_answer(prompt: None, chosen: list[Message], rejected: list[Message]) -> Sides:
    """The sides of two transcripts, whose prompt is all before the last assistant turn.

    Raises BadRecord.
    """
    histories, answers = [], []
    for side in (chosen, rejected):
        cuts = [at for at, message in enumerate(side) if message["role"] == "assistant"]
        if not cuts:
            raise BadRecord("bad_roles", "a dialogue has no assistant turn; add the answer")
        histories.append(side[: cuts[-1]])
        answers.append(side[cuts[-1] :])
    if histories[0] != histories[1]:
        raise BadRecord("history_mismatch", _DIFFER.format("last assistant turn"))
    return histories[0], *answers


def keep_sides(prompt: Side, chosen: Side, rejected: Side) -> Sides:
    """The sides as they are: all text, else all messages."""
    if isinstance(prompt, str) and isinstance(chosen, str) and isinstance(rejected, str):
        return prompt, chosen, rejected
    chosen, rejected = as_messages(chosen, "assistant"), as_messages(rejected, "assistant")
    return as_messages(prompt, "user"), chosen, rejected


def join_sides(prompt: Side | None, chosen: Side, rejected: Side) -> Sides:
    """The sides, where answers may be whole dialogues that repeat the prompt. Raises BadRecord.

    Such answers lose the turns that they share with it; without a prompt (None), they must be.
    """
    if isinstance(prompt, str) and isinstance(chosen, str) and isinstance(rejected, str):
        return prompt, chosen, rejected
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
    if isinstance(prompt, list):
        if not chosen[: len(prompt)] == prompt == rejected[: len(prompt)]:
            detail = "the dialogues do not begin with the turns of the prompt; fix the record"
            raise BadRecord("history_mismatch", detail)
        return split_dialogues(chosen, rejected)
    history, chosen, rejected = split_dialogues(chosen, rejected)
    users = [message["content"] or "" for message in history if message["role"] == "user"]
    if prompt.strip() not in [user.strip() for user in users]:
        detail = "the prompt's text is no user turn of the two dialogues; fix the record"
        raise BadRecord("history_mismatch", detail)
    return history, chosen, rejected


def make_pair(
    prompt: Side | None,
    chosen: Side,
    rejected: Side,
    first_won: bool | None = None,
    extras: Extras = NO_EXTRAS,
    join: Callable[[Side | None, Side, Side], Sides] = join_sides,
) -> Pair:
    """One pair with an explicit prompt that begins with the system text, if any.

    Raises BadRecord. `extras` is what `check_extras` returns.
    """
    prompt, chosen, rejected = join(prompt, chosen, rejected)
    system, tools, kwargs = extras
    if system is not None:
        prompt = with_system(as_messages(prompt, "user"), system)
        chosen, rejected = as_messages(chosen, "assistant"), as_messages(rejected, "assistant")
    return Pair(prompt, chosen, rejected, first_won, tools, kwargs)


def pair_from(
    record: dict, prompt: Side, chosen: Side, rejected: Side, first_won: bool | None = None
) -> Pair:
    """The pair with the record's system text, tools and template arguments. Raises BadRecord."""
    return make_pair(prompt, chosen, rejected, first_won, check_extras(record), keep_sides)


def check_extras(record: dict) -> Extras:
    """The record's system text, `tools` as a JSON string, and `chat_template_kwargs`.

    None for what is missing or empty. Raises BadRecord.
    """
    system, tools, kwargs = map(record.get, EXTRAS)
    if system is not None:
        check_text(system, "system")
    if isinstance(tools, list):
        tools = json.dumps(tools, ensure_ascii=False)
    elif tools is not None:
        check_text(tools, "tools", "a list or a JSON string")
    if kwargs in (None, ""):  # an empty cell of a table
        kwargs = None
    else:
        check_object(kwargs, "chat_template_kwargs")
    return system or None, tools or None, kwargs


def with_system(prompt: list[Message], system: str | None) -> list[Message]:
    """The prompt with the system text as its first turn, unless it is there already."""
    head = {"role": "system", "content": system}
    return prompt if system is None or prompt[:1] == [head] else [head, *prompt]


def interleave(questions: list[str], answers: list[str]) -> list[Message]:
    """The turns of a dialogue from its questions and answers."""
    turns = []
    for question, answer in zip(questions, answers, strict=True):
        turns += as_messages(question, "user") + as_messages(answer, "assistant")
    return turns


def attempt(make: Callable[..., Result], *arguments: object) -> Result:
    """What `make` returns, or the BadRecord that it raises: a fault of one comparison alone."""
    try:
        return make(*arguments)
    except BadRecord as fault:
        return fault


def compare(
    prompt: Side | None,
    answers: Mapping[int, Side],
    votes: Sequence[Vote],
    extras: Extras,
    across_records: bool = False,
) -> list[Result]:
    """Every two answers of which one won by some vote, with the votes on these two.

    `answers` are by position; where all votes are ties, the first is compared with the others.
    """
    winners = {won for _, won in votes} - {label.TIE} or {label.FIRST}
    found = []
    for first, second in combinations(answers, 2):
        if winners & {first, second}:
            cast = tuple(
                (who, won if won is label.TIE else int(won == second))
                for who, won in votes
                if won in (label.TIE, first, second)
            )
            two = answers[first], answers[second]
            found.append(attempt(comparison, prompt, *two, cast, extras, across_records))
    return found


def comparison(
    prompt: Side | None,
    first: Side,
    second: Side,
    votes: tuple[Vote, ...],
    extras: Extras,
    across_records: bool = False,
) -> LabeledComparison:
    """Two answers to one prompt, with the votes on them. Raises BadRecord."""
    pair = make_pair(prompt, first, second, None, extras)
    shown = pair.prompt, pair.chosen, pair.rejected
    return LabeledComparison(*shown, votes, *extras[1:], across_records)


def ranked_pairs(
    prompt: Side,
    answers: Sequence[Side],
    scores: Sequence[float],
    options: ReadOptions,
    rated: bool = False,
    extras: Extras = NO_EXTRAS,
) -> list[Result]:
    """The pairs that --pairs picks; the higher score won. Raises BadRecord.

    With `rated`, --min-margin applies, and the answers are in the order shown; ranked answers are
    often in the order of their ranks.
    """
    if len(answers) < 2:
        raise BadRecord("unpaired", f"{len(answers)} answer to this prompt; a pair needs two")
    pairs, ties = ranking.pick(scores, options.pairs, options.min_margin if rated else 0.0)
    found: list[Result] = []
    for winner, loser in pairs:
        shown = answers[winner], answers[loser], winner < loser if rated else None
        found.append(attempt(make_pair, prompt, *shown, extras))
    for first, second in map(sorted, ties):
        how = "equal" if scores[first] == scores[second] else "closer than --min-margin"
        detail = f"the scores of answers {first + 1} and {second + 1} are {how}; neither is better"
        found.append(BadRecord("tie", detail))
    return found
