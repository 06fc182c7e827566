"""A closer look at the first records, once their format is known: how all of them are read.

What no record shows alone is decided here: whether texts hold messages, whether answers repeat
their prompt.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from data_tools.context import unread_context
from data_tools.formats import label
from data_tools.formats.dialogues import is_dialogue, transcript
from data_tools.formats.format import Format, ReadOptions
from data_tools.formats.label import SIDES, BareLabel, as_number, is_null
from data_tools.formats.paths import MESSAGES, Column, parse_json, value_at
from data_tools.formats.reader import (
    ANSWERS,
    ORDER_VARIES,
    FormatReader,
    as_text,
    last_text,
    seen_by,
    without_prompt,
)
from data_tools.formats.sides import split_transcripts
from data_tools.pointers import refuse_pointers, words_of
from data_tools.record import (
    BadRecord,
    ConvertError,
    Record,
    Result,
    clip,
    tidy_name,
)
from data_tools.splits import OwnSplits

STRAY = 0.01  # what fewer of the records have is a stray, what more of them have a question
_PLACE = "(?:answers?|responses?|completions?|positions?|order|presentation|shown|display)"
_ORDERS = re.compile(
    rf"(?:(?:is|was|are|were)_)?(?:{_PLACE}_)*"
    rf"(?:swap|swapped|flip|flipped|shuffled?|reversed|inverted|order)(?:_{_PLACE})?"
)
_NUMPY = re.compile(r"(?=.*['\"](?:role|from)['\"]).*(?:\}\s+\{|\barray\(\[)", re.DOTALL)

Read = list[tuple[dict, list[Result]]]  # records as their file holds them, with their results


@dataclass(frozen=True)
class Detection:
    """The format, how its records are read, and the evidence in words.

    `is_read` is whether any of the first records can be; `context` are unread columns that may be
    part of the prompt, each with the fix. `detect` adds what is below these.
    """

    format: Format
    options: ReadOptions
    is_read: bool
    context: Mapping[str, str]
    evidence: str = ""
    columns: frozenset[str] = frozenset()
    mapping: Mapping[str, str] = field(default_factory=dict)
    splits: OwnSplits | None = None


def stored_as_text(records: Sequence[dict]) -> frozenset[str]:
    """The columns most of whose texts are messages, as JSON or as Python writes them.

    So is `tools` as Python writes it. Raises ConvertError for the form that numpy writes, which
    cannot be read back.
    """
    found = set()
    for name in dict.fromkeys(name for record in records for name in record):
        texts = [record[name] for record in records if isinstance(record.get(name), str)]
        texts = [text for text in texts if len(text) > len("skipped") or not is_null(text)]
        forms = Counter(map(_form, texts))
        if tidy_name(name) == "tools" and any(text.startswith("[{'") for text in texts):
            found.add("tools")
        if forms["json"] + forms["numpy"] <= len(texts) / 2:
            continue
        if forms["numpy"] >= STRAY * len(texts):
            raise ConvertError(
                f"the column {clip(name)} holds messages in the text form of numpy, which cannot "
                "be read back; write the file again with to_json or to_parquet instead of to_csv"
            )
        found.add(tidy_name(name))
    return frozenset(found)


def _form(text: str) -> str:
    """How a text holds messages: `json`, or Python's form, also unsound; `numpy`; or as `text`."""
    if not MESSAGES.match(text):
        return "text"
    try:
        value = parse_json(text, "")
    except BadRecord:
        return "json"
    if value is text:
        return "numpy" if _NUMPY.match(text) else "text"
    return "json" if is_dialogue(value) else "text"


def look(
    format: Format, held: Sequence[Record], options: ReadOptions, swapped: Column | None = None
) -> Detection:
    """Read the first records. `swapped` is what --map says of the order of the answers.

    Raises ConvertError where the meaning of the labels or of the answers is not known.
    """
    options = replace(options, question=_question(format, held, options))
    reader, read, bare = FormatReader(format, options), [], []
    for record in held:
        try:
            read.append((record.value, reader.read(record)[0]))
        except BareLabel as fault:
            bare.append(fault)
        except BadRecord:
            continue
    _check_labels(bare, len(held))
    names = dict.fromkeys(name for record in held for name in record.value)
    unread = [name for name in names if name in reader.unread]
    refuse_pointers(format, held, unread)
    options = replace(options, swapped=_order(format, held, swapped), **_answers(read))
    if swapped is None and format.label is not None:
        options = replace(options, steady=_steady(held, unread))
    fixes = unread_context(format, held, read, unread, options)
    results = [result for _, results in read for result in results]
    if options.answers_are_transcripts:
        results = map(split_transcripts, results)
    is_read = any(not isinstance(result, BadRecord) for result in results)
    return Detection(format, options, is_read, fixes)


def _question(format: Format, held: Sequence[Record], options: ReadOptions) -> str | None:
    """The question of a format that names the winner, the same one for all records."""
    if format.questions is None:
        return None
    records = [seen_by(format, r.value, r.cells, options.parsed) for r in held]
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


def _check_labels(bare: list[BareLabel], count: int) -> None:
    """Raise ConvertError where more than strays of the labels are bare numbers or booleans."""
    if not bare or len(bare) < STRAY * count:
        return
    shown = ", ".join(sorted({clip(fault.value) for fault in bare})[:7])
    example = "first=1,second=2 or first=0,second=1,tie=2"
    numbers = [number for fault in bare if (number := as_number(fault.value)) is not None]
    answers = max(fault.answers for fault in bare)
    places = range(start := 0 if 0 in numbers else 1, start + answers)
    if not numbers:
        example = "first=true,second=false"
    elif answers > 2 and {*numbers} <= {*places}:
        example = ",".join(f"{side}={at}" for side, at in zip(SIDES, places, strict=False))
    elif (low := min(numbers)) < (high := max(numbers)) and (high > 2 or low < 0):
        # A scale, whose middle may be a tie.
        middle = (low + high) / 2
        tie, step = (f"tie={middle:g},", 1) if middle.is_integer() else ("", 0.5)
        first, second = f"{low:g}..{middle - step:g}", f"{middle + step:g}..{high:g}"
        example = f"first={first},{tie}second={second}"
    raise ConvertError(
        f"the label holds bare numbers or booleans ({shown}), and which answer they mean is "
        f"never guessed; define it, e.g. --label {example}"
    )


def _answers(read: Read) -> dict[str, bool]:
    """Whether nearly all answers begin with their whole prompt, for several prompts; else whether
    some are whole transcripts.
    """
    texts, prompts, are_transcripts = 0, [], False  # prompts that answers begin with
    for result in (result for _, results in read for result in results):
        cut = without_prompt(result)
        texts += cut is not result
        if cut is not result and not isinstance(cut, BadRecord):
            prompts.append(last_text(cut.prompt))
        marked = [bool(transcript(getattr(result, n))) for n in ANSWERS if hasattr(result, n)]
        are_transcripts = are_transcripts or (len(marked) == 2 and any(marked))
    repeat = len(set(prompts)) > 1 and len(prompts) >= 0.9 * texts
    are_transcripts = are_transcripts and not repeat
    return {"answers_repeat_prompt": repeat, "answers_are_transcripts": are_transcripts}


def _order(format: Format, held: Sequence[Record], swapped: Column | None) -> Column:
    """The column that --map says is true where the answers were swapped. Raises ConvertError."""
    if not swapped:
        return ""
    given, small = "".join(swapped), "any_case" in format.traits
    if format.label is None:
        raise ConvertError(f"--map swapped={given}: {format.name} has no label to turn")
    column = swapped if isinstance(swapped, str) or not small else (given.casefold(),)
    views = [seen_by(format, r.value, r.cells, frozenset()) for r in held]
    if all(value_at(view, column) is None for view in views):
        raise ConvertError(f"--map swapped={given}: no record has a value there")
    return column


def _steady(held: Sequence[Record], unread: list[str]) -> dict[str, str]:
    """The columns that may say that answers were swapped, with the one value that each has.

    Raises ConvertError where one has several, of which a blank is one.
    """
    found = {}
    for name in [n for n in unread if _ORDERS.fullmatch(words_of(n))]:
        values = sorted({as_text(record.value.get(name)) or "" for record in held})
        if 1 < len(values) <= 3:
            shown = ", ".join(value or "blank" for value in values)
            try:
                [label.swapped(value, name) for value in values]
            except BadRecord as fault:
                why = ORDER_VARIES.partition("; ")[0].format(name, shown)
                fix = "write true where the label's first answer was shown second, else false"
                raise ConvertError(
                    f"{why}; {fault.detail}: {fix}, with --map swapped={name}, or add --map "
                    "swapped= to ignore it"
                ) from None
            raise ConvertError(ORDER_VARIES.format(name, shown))
        if len(values) == 1:
            found[name] = values[0]
    return found
