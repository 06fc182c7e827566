"""A closer look at the first records, once their format is known: how all of them are read.

What no record shows alone is decided here: whether texts hold messages, whether answers repeat
their prompt or are only pointers to other columns, and which unread columns may matter.
"""

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from data_tools.column_kinds import kind_of
from data_tools.formats import rows, table
from data_tools.formats.dialogues import is_dialogue, transcript
from data_tools.formats.format import Format, Plan, ReadOptions, tidy_names
from data_tools.formats.label import BareLabel, as_number
from data_tools.formats.mapping import columns_of
from data_tools.formats.paths import parse_literal
from data_tools.formats.reader import ANSWERS, last_text, seen_by, without_prompt
from data_tools.record import (
    BadRecord,
    ConvertError,
    Pair,
    Record,
    Result,
    as_json,
    clip,
    tidy_name,
)

STRAY = 0.01  # what fewer of the records have is a stray, what more of them have a question
_ORDERS = re.compile(
    "(?:is_)?(?:swap|swapped|flip|flipped|shuffled|reversed)|(?:answer_|presentation_|shown_)?order"
)
_NO_CONTEXT = re.compile(  # what is about the record or the judgement
    ".*(?:rationale|reason|expla|comment|feedback|critique|justif|statement|review|note|judg|model|"
    "generator|source|url|quote|score|rating|metadata|prompt).*"
)
_WORDS = 8  # of a text that may be context
_POINTERS = re.compile("[abcd0-4]|first|second|third|fourth|left|right")
_TWINS = (("a", "b"), ("A", "B"), ("1", "2"), ("0", "1"), ("left", "right"), ("first", "second"))
_NUMPY = re.compile(r"\s*\[\s*\{.*\}\s+\{.*\}\s*\]\s*|.*\barray\(\[", re.DOTALL)

Read = list[tuple[dict, list[Result]]]  # records with what they come to


@dataclass(frozen=True)
class Look:
    """How all records are read; whether any of the first can be; and, of the unread columns, those
    that may be context, each with the fix, and all of them.
    """

    options: ReadOptions
    is_read: bool
    context: Mapping[str, str] = field(default_factory=dict)
    unread: Sequence[str] = ()


def stored_as_text(records: Sequence[dict]) -> frozenset[str]:
    """The columns whose texts are all messages, as JSON or as Python writes them.

    Raises ConvertError for the form that numpy writes, which cannot be read back.
    """
    found = set()
    for name in dict.fromkeys(name for record in records for name in record):
        texts = [record[name] for record in records if record.get(name) not in (None, "")]
        if not texts or not all(isinstance(t, str) and t.lstrip()[:1] in ("[", "{") for t in texts):
            continue
        if all(is_dialogue(parse_literal(text)) for text in texts):
            found.add(tidy_name(name))
        elif all("role" in text and _NUMPY.match(text) for text in texts):
            raise ConvertError(
                f"the column {clip(name)} holds messages in the text form of numpy, which cannot "
                "be read back; write the file again with to_json or to_parquet instead of to_csv"
            )
    return frozenset(found)


def look(
    format: Format, held: Sequence[Record], options: ReadOptions, swapped: str | None = None
) -> Look:
    """Read the first records. `swapped` is what --map says of the order of the answers.

    Raises ConvertError where the meaning of the labels or of the answers is not known.
    """
    records = [seen_by(format, r.value, r.cells, options.parsed) for r in held]
    options = replace(options, question=_question(format, records, options))
    plans = {names: format.plan(names, options) for names in dict.fromkeys(map(tuple, records))}
    read, bare = _read(records, plans)
    _check_labels(bare, len(records))
    used = {name for plan in plans.values() for name in plan.reads}
    used |= {column for name in used for column in columns_of(format.made.get(name, name))}
    names = dict.fromkeys(name for record in records for name in record)
    unread = [name for name in names if name not in used]
    own = {}  # the name in the file of each field
    for record in held:
        own |= tidy_names(tuple(record.value), small="any_case" in format.traits)
    _refuse_pointers(format, read, unread, own)
    swapped = _order(format, records, unread, swapped)
    options = replace(options, swapped=swapped, **_answers(read))
    context = [name for name in unread if _is_context(name, read)]
    fixes = {own[name]: _fix(format, read, name, own) for name in context}
    return Look(options, bool(read), fixes, unread)


def _question(format: Format, records: list[dict], options: ReadOptions) -> str | None:
    """The question of a format that names the winner, the same one for all records."""
    if format.questions is None:
        return None
    counts = Counter(q for record in records for q in format.questions(record, options))
    common = [name for name, count in counts.items() if count >= STRAY * len(records)]
    if len(common) > 1:
        raise ConvertError(
            f"more than one question names an answer: {counted(sorted(common), counts)}; "
            "remove all but one from the export; one that is a column can be named, --map "
            "prompt=COLUMN a=COLUMN b=COLUMN label=COLUMN"
        )
    return common[0] if common else None


def counted(names: Iterable[str], counts: Counter) -> str:
    """Names with how many records each has."""
    return ", ".join(f"{name} ({counts[name]:,} records)" for name in names)


def _read(records: list[dict], plans: Mapping[tuple[str, ...], Plan]) -> tuple[Read, list[object]]:
    """What the records come to, and the labels whose meaning is not known."""
    read, bare = [], []
    for record in records:
        try:
            read.append((record, plans[tuple(record)].results(record)))
        except BareLabel as fault:
            bare.append(fault.value)
        except BadRecord:
            continue
    return read, bare


def _check_labels(bare: list[object], count: int) -> None:
    """Raise ConvertError where more than strays of the labels are bare numbers or booleans."""
    if not bare or len(bare) < STRAY * count:
        return
    shown = ", ".join(sorted({clip(value) for value in bare})[:7])
    example = "first=1,second=2 or first=0,second=1,tie=2"
    numbers = [number for value in bare if (number := as_number(value)) is not None]
    if not numbers:
        example = "first=true,second=false"
    elif max(numbers) > 2 or min(numbers) < 0:  # a scale
        low, high = min(numbers), max(numbers)
        middle = (low + high) / 2
        first, second = (
            (middle - 1, middle + 1) if middle % 1 == 0 else (middle - 0.5, middle + 0.5)
        )
        tie = f"tie={middle:g}," if middle % 1 == 0 else ""
        example = f"first={low:g}..{first:g},{tie}second={second:g}..{high:g}"
    raise ConvertError(
        f"the label holds bare numbers or booleans ({shown}), and which answer they mean is "
        f"never guessed; define it, e.g. --label {example}"
    )


def _answers(read: Read) -> dict[str, bool]:
    """Whether nearly all answers begin with their whole prompt, for several prompts; else whether
    some are whole transcripts.
    """
    texts, prompts, transcripts = 0, [], False  # prompts that answers begin with
    for result in (result for _, results in read for result in results):
        cut = without_prompt(result)
        texts += cut is not result
        if cut is not result and not isinstance(cut, BadRecord):
            prompts.append(last_text(cut.prompt))
        sides = [getattr(result, name, None) for name in ("chosen", "rejected", "first", "second")]
        marked = [isinstance(side, str) and bool(transcript(side)) for side in sides]
        transcripts = transcripts or all(marked[:2]) or all(marked[2:])
    repeats = len(set(prompts)) > 1 and len(prompts) >= 0.9 * texts
    return {
        "answers_repeat_prompt": repeats,
        "answers_are_transcripts": transcripts and not repeats,
    }


def _order(format: Format, records: list[dict], unread: list[str], swapped: str | None) -> str:
    """The column that says whether the answers were swapped. Raises ConvertError if one may."""
    if swapped:
        own = {tidy_name(swapped), tidy_name(swapped).casefold()}
        found = [name for name in dict.fromkeys(n for r in records for n in r) if name in own]
        if not found or not format.label:
            what = f"{format.name} has no label to turn" if found else "no such column"
            raise ConvertError(f"--map swapped={swapped}: {what}")
        return found[0]
    if swapped is not None or not format.label:
        return ""
    for name in unread:
        values = {str(record[name]) for record in records if record.get(name) not in (None, "")}
        if _ORDERS.fullmatch(name.casefold()) and 1 < len(values) <= 3:
            raise ConvertError(
                f"the column {name} ({', '.join(sorted(values)[:3])}) may say that answers were "
                f"shown the other way round, which decides who won; add --map swapped={name} where "
                "true means that the label's first answer is the second, or --map swapped= to "
                "ignore it"
            )
    return ""


def _refuse_pointers(format: Format, read: Read, unread: list[str], own: Mapping[str, str]) -> None:
    """Raise ConvertError where the answers only name columns, positions or models."""
    pairs = [(record, r) for record, results in read for r in results if isinstance(r, Pair)]
    texts = [
        name for name in unread if any(isinstance(record.get(name), str) for record, _ in read)
    ]
    if len(texts) < 2 or format.name not in table.ROWS:
        return
    pointing = 0
    for record, pair in pairs:
        models = [record.get(name) for name in texts if "model" in name]
        words = {str(word).casefold() for word in (*texts, *models)}
        answers = [as_json(side).strip(' "').casefold() for side in (pair.chosen, pair.rejected)]
        pointing += all(word in words or _POINTERS.fullmatch(word) for word in answers)
    if pointing <= 0.9 * len(pairs):
        return
    found = rows.resolve(table.ROWS[format.name], tuple(pairs[0][0]))
    two = next(
        (
            (own[name], own[twin])
            for name in texts
            for end, other in _TWINS
            if name.endswith(end)
            and (twin := name[: -len(end)] + other) in texts
            and "model" not in name
        ),
        ("COLUMN", "COLUMN"),
    )
    won, lost = found.answers[:2]
    raise ConvertError(
        f"{won} and {lost} only point at answers in other columns; resolve them with "
        f"--map prompt={own[found.prompt]} a={two[0]} b={two[1]} label={own[won]}"
    )


def _is_context(name: str, read: Read) -> bool:
    """Whether a column may be a part of the prompt: by its name, or by texts found nowhere else."""
    given = [
        (r, results) for r, results in read if isinstance(r.get(name), str) and r[name].strip()
    ]
    if not given or kind_of(name) == "context":
        return bool(given)
    if _NO_CONTEXT.fullmatch(name.casefold()):
        return False
    alone = sum(
        len(record[name].split()) >= _WORDS
        and record[name].strip() not in "\0".join(_texts(results))
        for record, results in given
    )
    return alone > len(given) / 2


def _texts(results: list[Result]) -> Iterator[str]:
    """The texts of the sides of some results."""
    for side in (getattr(r, name, "") for r in results for name in ("prompt", *ANSWERS)):
        yield from [side] if isinstance(side, str) else (m["content"] or "" for m in side)


def _fix(format: Format, read: Read, name: str, own: Mapping[str, str]) -> str:
    """How an unread column becomes a part of the prompt."""
    row = table.ROWS.get(format.name)
    is_flat = row is not None and row.prompt and not re.search(r"[.\[]", row.prompt + row.answers)
    if not is_flat or row.decode or row.scores:
        return "add it to the prompt before converting"
    found = rows.resolve(row, tuple(read[0][0]))
    mapped = {"prompt": f"{{{own[name]}}}\\n\\n{{{own[found.prompt]}}}"}
    if found.labels:
        mapped |= {
            letter: own[answer] for letter, answer in zip("abcd", found.answers, strict=False)
        }
        mapped |= {"label": own[found.labels[0]]}
        mapped |= {"annotator": own[found.annotator]} if found.annotator else {}
    else:
        names = dict(zip(("chosen", "rejected"), found.answers, strict=True))
        mapped |= {side: own[answer] for side, answer in names.items() if side != own[answer]}
    words = (shlex.quote(f"{field}={column}") for field, column in mapped.items())
    return f"add it with --map {' '.join(words)}"
