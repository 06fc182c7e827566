"""Which format is this, and on what evidence: looks at the first records of every file."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from data_tools.formats import FORMATS, rows, table
from data_tools.formats.dialogues import PROMPTS
from data_tools.formats.format import Format, Plan, ReadOptions, tidy_name, tidy_names
from data_tools.formats.label import BareLabel
from data_tools.formats.reader import fitting, last_text, seen_by, without_prompt
from data_tools.formats.rows import mapped
from data_tools.record import BadRecord, ConvertError, Record, Reject, clip

HEAD = 1000  # records of every file that are looked at
_HELD = 20_000  # records of all files that are held for a closer look
_NO_LINES = (
    "not a record: rename a file that holds one array to .json, and write one record a line in "
    "JSON Lines"
)
_STRAY = 0.01  # a format of fewer of a file's records is a stray, of more a question


@dataclass(frozen=True)
class Detection:
    """The format, how its records are read, and the evidence in words."""

    format: Format
    options: ReadOptions
    evidence: str
    columns: frozenset[str]


@dataclass
class Survey:
    """What the first records of all files look like."""

    files: str  # for messages
    items: int = 0
    records: int = 0  # of those, with fields
    columns: set[str] = field(default_factory=set)  # by their tidy names
    held: list[Record] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)  # of records by the formats that they fit
    common: set[str] = field(default_factory=set)  # formats that are no strays in some file
    trouble: str = ""  # the first thing that is no record with fields


def detect(
    heads: Mapping[str, Iterable[Record | Reject]],
    name: str | None,
    mapping: Mapping[str, str],
    options: ReadOptions,
) -> Detection:
    """Decide for all files at once.

    `heads` are the first records of each file, by its path; `options` are the user's. Raises
    ConvertError (status 2) where no format fits, two do, the format cannot be converted, or the
    label's polarity is not known; status 1 where there is no record at all.
    """
    seen = _survey(heads, count=not name and not mapping)
    if not seen.items:
        raise ConvertError(f"{seen.files}: no records, the input is empty", status=1)
    format, evidence = _choose(seen, name, mapping)
    if options.label is not None and format.label is None:
        how = f"the format {format.name} has no label to define ({format.about['polarity']})"
        raise ConvertError(f"--label: {how}; remove the option")
    records = [seen_by(format.traits, record.value, record.cells) for record in seen.held]
    try:
        options = replace(options, question=_question(format, records, options))
        plans = {names: format.plan(names, options) for names in dict.fromkeys(map(tuple, records))}
        repeats = _read(records, plans)
    except ConvertError as error:
        raise ConvertError(f"{seen.files}: {error}") from None
    read = {name for plan in plans.values() for name in plan.reads}
    unread = sorted(seen.columns & {*PROMPTS} - read)
    if unread and not mapping:
        evidence += f"; not read, though it may be a prompt: {', '.join(unread)}"
    options = replace(options, answers_repeat_prompt=repeats)
    return Detection(format, options, evidence, frozenset(seen.columns))


def _survey(heads: Mapping[str, Iterable[Record | Reject]], count: bool) -> Survey:
    others = f" and {len(heads) - 1} more" if len(heads) > 1 else ""
    seen = Survey(next(iter(heads)) + others)
    for head in heads.values():
        here, records = Counter(), 0
        for item in head:
            seen.items += 1
            if isinstance(item, Reject):
                seen.trouble = seen.trouble or f"the first is {item.location}: {item.detail}"
            elif isinstance(item.value, list):
                seen.trouble = seen.trouble or f"{item.location} is a list, {_NO_LINES}"
            elif isinstance(item.value, dict):
                records += 1
                seen.columns |= tidy_names(tuple(item.value)).keys()
                if len(seen.held) < _HELD:
                    seen.held.append(item)
                if count:
                    here.update(fitting(item.value, item.cells))
        seen.records += records
        seen.counts += here
        seen.common |= {name for name, number in here.items() if number >= _STRAY * records}
    return seen


def _choose(seen: Survey, name: str | None, mapping: Mapping[str, str]) -> tuple[Format, str]:
    """The format, and why it was taken."""
    if mapping and name:
        raise ConvertError(f"--format {name} and --map both define the format; give one")
    if mapping:
        return _mapped(seen, mapping), "from --map"
    if name and name not in FORMATS:
        known = ", ".join(FORMATS)
        raise ConvertError(f"--format {name}: unknown; known are {known} (see --list-formats)")
    if name:
        return FORMATS[name], "from --format"
    if len(seen.common) > 1:
        names = sorted(seen.common)
        raise ConvertError(
            f"{seen.files}: more than one format fits: {_counted(names, seen.counts)}; choose with "
            f"--format {'|'.join(names)}, the other records become rejects"
        )
    if not seen.common:
        raise ConvertError(f"{seen.files}: {_no_format(seen)}")
    (name,) = seen.common
    fit = f"{seen.counts[name]:,} of the first {seen.records:,} records fit"
    return FORMATS[name], f"{fit}; columns {listed(seen.columns)}"


def _mapped(seen: Survey, mapping: Mapping[str, str]) -> Format:
    format, known = mapped(mapping), listed(seen.columns)
    for field_name, column in mapping.items():
        if seen.held and tidy_name(column) not in seen.columns:
            raise ConvertError(f"--map {field_name}={column}: no such column; there are {known}")
    records = [seen_by(format.traits, record.value, record.cells) for record in seen.held]
    if records and not any(map(format.matches, records)):
        given = ", ".join(f"{name}={column}" for name, column in mapping.items())
        raise ConvertError(
            f"--map {given}: no record has all of these columns; the mapping reads "
            f"{format.about['fields']}, the columns are {known}"
        )
    return format


def _counted(names: Iterable[str], counts: Counter) -> str:
    return ", ".join(f"{name} ({counts[name]:,} records)" for name in names)


def _no_format(seen: Survey) -> str:
    columns = listed(seen.columns)
    if not seen.columns:
        return (
            "no record with fields among the first ones, so the format cannot be detected; "
            f"{seen.trouble or 'is this a file of preferences?'}"
        )
    if {"chosen", "rejected"} <= seen.columns:
        example = min(seen.columns - {"chosen", "rejected"}, default="COLUMN")
        return (
            "chosen and rejected are plain text without a prompt, which cannot be split safely; "
            f"name the prompt's column with --map prompt={example} (columns: {columns}), "
            "or give whole dialogues as messages or with turn markers"
        )
    for record in seen.held:
        names = tuple(tidy_names(tuple(record.value), small=True))
        found = rows.resolve(table.ROWS["labelled-pairs"], names)
        if found.ambiguity and found.labels and {*found.answers[:2]} <= {*names}:
            return f"the columns are {columns}; {found.ambiguity}"
    return (
        f"no known format has the columns {columns}; name them with "
        "--map prompt=COLUMN chosen=COLUMN rejected=COLUMN, or "
        "--map prompt=COLUMN a=COLUMN b=COLUMN label=COLUMN (see --list-formats)"
    )


def listed(columns: Iterable[str]) -> str:
    """Column names for a message, shortened: a row taken for the header may hold whole texts."""
    names = sorted(columns)
    shown = [n if n.isprintable() and len(n) <= 40 else clip(n, 40) for n in names[:12]]
    return ", ".join(shown) + (" ..." if len(names) > 12 else "")


def _question(format: Format, records: list[dict], options: ReadOptions) -> str | None:
    """The question of a format that names the winner, the same one for all records."""
    if format.questions is None:
        return None
    counts = Counter(q for record in records for q in format.questions(record, options))
    common = [name for name, count in counts.items() if count >= _STRAY * len(records)]
    if len(common) > 1:
        raise ConvertError(
            f"more than one question names an answer: {_counted(sorted(common), counts)}; "
            "remove all but one from the export; one that is a column can be named, --map "
            "prompt=COLUMN a=COLUMN b=COLUMN label=COLUMN"
        )
    return common[0] if common else None


def _read(records: list[dict], plans: Mapping[tuple[str, ...], Plan]) -> bool:
    """Whether nearly all answers begin with their whole prompt, for several prompts.

    Raises ConvertError where the meaning of the labels is not known.
    """
    bare: list[object] = []  # labels
    texts, prompts = 0, []  # results whose sides are texts, and prompts that answers begin with
    for record in records:
        try:
            results = plans[tuple(record)].results(record)
        except BareLabel as fault:
            bare.append(fault.value)
            continue
        except BadRecord:
            continue
        for result in results:
            cut = without_prompt(result)
            texts += cut is not result
            if cut is not result and not isinstance(cut, BadRecord):
                prompts.append(last_text(cut.prompt))
    if bare and len(bare) >= _STRAY * len(records):
        shown = ", ".join(sorted({clip(value) for value in bare})[:4])
        example = "first=1,second=2 or first=0,second=1,tie=2"
        if all(str(value).strip().casefold() in ("true", "false") for value in bare):
            example = "first=true,second=false"
        raise ConvertError(
            f"the label holds bare numbers or booleans ({shown}), and which answer they mean is "
            f"never guessed; define it, e.g. --label {example}"
        )
    return len(set(prompts)) > 1 and len(prompts) >= 0.9 * texts
