"""Which unread columns may belong to the prompt, and the --map that would add them to it."""

import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from data_tools.column_kinds import kind_of
from data_tools.formats.dialogues import PROMPTS
from data_tools.formats.format import Format, ReadOptions, tidy_names
from data_tools.formats.label import outcome, parse_label
from data_tools.formats.mapping import as_option, columns_read, mapped, mapped_columns
from data_tools.formats.paths import is_blank
from data_tools.formats.reader import ANSWERS, FormatReader, as_text
from data_tools.formats.table import ROWS
from data_tools.record import BadRecord, ConvertError, Record, Result, as_messages, tidy_name

_NO_CONTEXT = re.compile(  # what is about the record or the judgement
    ".*(?:rationale|reason|expla|comment|feedback|critique|justif|statement|review|note|judg|model|"
    "generator|source|url|quote|score|rating|metadata|prompt).*"
)
_WORDS = 8  # of a text that may be context

Read = list[tuple[dict, list[Result]]]  # records as their file holds them, with their results


def unread_context(
    format: Format, held: Sequence[Record], read: Read, unread: list[str], options: ReadOptions
) -> dict[str, str]:
    """The unread columns that may be part of the prompt, each with the fix: one for all, or own."""
    context = [name for name in unread if _is_context(name, read, options)]
    together = _fix(format, held, context, options)
    found = {name: together or _fix(format, held, [name], options) for name in context}
    return {name: fix or "add it to the prompt before converting" for name, fix in found.items()}


def _is_context(name: str, read: Read, options: ReadOptions) -> bool:
    """Whether a column may be a part of the prompt: by its name, or by texts found nowhere else."""
    held = {"context": (str, list, dict), "system": (str, list, dict), "turns": (list, dict)}
    if kinds := held.get(kind_of(name)):
        values = [r.get(name) for r, _ in read]
        return any(isinstance(v, kinds) and not is_blank(v) for v in values)
    field_name = tidy_name(name).casefold()
    is_about = field_name not in PROMPTS and _NO_CONTEXT.fullmatch(field_name)
    if is_about or tidy_name(name) in options.parsed:
        return False
    given = [(_listed(r.get(name)), results) for r, results in read]
    given = [(texts, results) for texts, results in given if texts]
    words = 1 if field_name in PROMPTS else _WORDS
    alone = [
        texts
        for texts, results in given
        if sum(len(text.split()) for text in texts) >= words
        and not any(text in _texts(results) for text in texts)
    ]
    return len(alone) > len(given) / 2


def _listed(value: object) -> list[str]:
    """A text, or those of a list, without white space around them; none of any other value."""
    texts = value if isinstance(value, list) else [value]
    return [text.strip() for text in texts if isinstance(text, str) and text.strip()]


def _texts(results: list[Result]) -> str:
    """The texts of all sides of some results, in one."""
    sides = [getattr(r, name, "") for r in results for name in ("prompt", *ANSWERS)]
    messages = (as_messages(side, "") for side in sides)
    return "\0".join(m["content"] or "" for turns in messages for m in turns)


def _fix(
    format: Format, held: Sequence[Record], context: list[str], options: ReadOptions
) -> str | None:
    """The --map that puts the columns before the prompt, or into the system turn, if one does."""
    columns = columns_read(format.name, [*held[0].value]) if context else None
    if columns is None or options.answers_repeat_prompt or options.answers_are_transcripts:
        return None
    option, defined = _defined(format, held, columns.get("label"), options)
    before = "\\n\\n".join(f"{{{name}}}" for name in context)
    tries = [{"system": before if context[1:] else context[0]}]
    if columns.get("prompt"):
        tries.insert(0, {"prompt": f"{before}\\n\\n{{{columns['prompt']}}}"})
    default = {name: name for name in ("prompt", "chosen", "rejected")}
    if "prompt" not in held[0].value:
        default["prompt"] = ""
    for given in [columns | more for more in tries]:
        if _adds(format, held[:200], context, given, options, defined):
            shown = {f: column for f, column in given.items() if default.get(f) != column}
            return f"add it with {as_option(shown)}{option}"
    return None


def _defined(
    format: Format, held: Sequence[Record], column: str | None, options: ReadOptions
) -> tuple[str, ReadOptions]:
    """The --label that defines the numbers of a label as the format does, and the options with it.

    It is empty where the label holds words.
    """
    decode = column and ROWS[format.name].decode
    if not decode or options.label is not None:
        return "", options
    meant = {"first": [], "second": []}
    for value in sorted({as_text(record.value.get(column)) or "" for record in held}):
        with suppress(BadRecord):
            won = outcome(value, ("first", "second"), numbers=decode)
            meant.setdefault({0: "first", 1: "second"}.get(won, "tie"), []).append(value)
    text = ",".join(f"{name}={'|'.join(values)}" for name, values in meant.items())
    with suppress(ConvertError):
        return f" --label {shlex.quote(text)}", replace(options, label=parse_label(text))
    return "", options


def _adds(
    format: Format,
    held: Sequence[Record],
    context: list[str],
    given: Mapping[str, str],
    options: ReadOptions,
    defined: ReadOptions,
) -> bool:
    """Whether what --map gives reads the records as the format does, with the context added."""
    try:
        other = mapped(mapped_columns(given, tidy_names(tuple(held[0].value))))
    except ConvertError:
        return False
    reader, other_reader = FormatReader(format, options), FormatReader(other, defined)
    for record in held:
        with suppress(BadRecord):
            old = reader.read(record)[0]
            try:
                new = other_reader.read(record)[0]
            except BadRecord:
                return False
            filled = [not is_blank(record.value.get(name)) for name in context]
            two = zip(old, new, strict=False)
            if len(old) != len(new) or not all(_adds_to(*both, filled) for both in two):
                return False
    return True


def _adds_to(old: Result, new: Result, filled: list[bool]) -> bool:
    """Whether two results differ in nothing but what the new one has before the prompt."""
    if type(new) is not type(old) or not hasattr(old, "prompt"):
        return type(new) is type(old)
    if replace(old, prompt=type(old.prompt)) != replace(new, prompt=type(new.prompt)):
        return False
    if isinstance(new.prompt, str):
        return all(filled) and new.prompt.endswith(old.prompt)
    start = len(new.prompt) - len(old.prompt)
    has_system = old.prompt and old.prompt[0]["role"] in ("system", "developer")
    return new.prompt[start:] == old.prompt and not has_system and start == any(filled)
