"""Which format is this, and on what evidence: looks at the first records of every file."""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from data_tools import splits
from data_tools.formats import FORMATS, rows, table
from data_tools.formats.dialogues import PROMPTS
from data_tools.formats.format import Format, ReadOptions, tidy_names
from data_tools.formats.mapping import columns_of, mapped
from data_tools.formats.reader import fitting, seen_by
from data_tools.record import ConvertError, Record, Reject, clip
from data_tools.sample import STRAY, Look, counted, look, stored_as_text

HEAD = 1000  # records of every file that are looked at
_HELD = 20_000  # records of all files that are held for a closer look
_NO_LINES = (
    "not a record: rename a file that holds one array to .json, and write one record a line in "
    "JSON Lines"
)


@dataclass(frozen=True)
class Detection:
    """The format, how its records are read, and the evidence in words."""

    format: Format
    options: ReadOptions
    evidence: str
    columns: frozenset[str]
    mapping: Mapping[str, str]
    context: Mapping[str, str]  # unread columns that may be part of the prompt, each with the fix
    splits: splits.OwnSplits | None


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
    parsed: frozenset[str] = frozenset()  # columns whose texts are messages
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
    mapping = dict(mapping)
    swapped = mapping.pop("swapped", None)
    seen = _survey(heads, count=not name and not mapping)
    if not seen.items:
        raise ConvertError(f"{seen.files}: no records, the input is empty", status=1)
    if mapping and "prompt" not in {*mapping, *seen.columns}:
        mapping["prompt"] = ""  # whole dialogues need none
    format, evidence = _choose(seen, name, mapping)
    if options.label is not None and format.label is None:
        how = f"the format {format.name} has no label to define ({format.about['polarity']})"
        raise ConvertError(f"--label: {how}; remove the option")
    options = replace(options, parsed=seen.parsed)
    try:
        found = look(format, seen.held, options, swapped)
        if not found.is_read and not name and not mapping and (other := _other(seen, options)):
            format, found = other
            evidence += f"; read as {format.name}, since no record has the values of the other"
    except ConvertError as error:
        raise ConvertError(f"{seen.files}: {error}") from None
    unread = sorted({*found.unread} & {*PROMPTS})
    if unread and not mapping:
        evidence += f"; not read, though it may be a prompt: {', '.join(unread)}"
    own = splits.find([*heads], (record.value for record in seen.held))
    columns = frozenset(seen.columns)
    return Detection(format, found.options, evidence, columns, mapping, found.context, own)


def _other(seen: Survey, options: ReadOptions) -> tuple[Format, Look] | None:
    """A format that reads some of the records, where the one that fits more closely reads none."""
    for format in FORMATS.values():
        records = [seen_by(format, r.value, r.cells, seen.parsed) for r in seen.held]
        if any(map(format.matches, records)) and "refused" not in format.traits:
            with suppress(ConvertError):
                found = look(format, seen.held, options)
                if found.is_read:
                    return format, found
    return None


def _survey(heads: Mapping[str, Iterable[Record | Reject]], count: bool) -> Survey:
    others = f" and {len(heads) - 1} more" if len(heads) > 1 else ""
    seen = Survey(next(iter(heads)) + others)
    for path, head in heads.items():
        here, records, head = Counter(), 0, [*head]
        try:
            values = [r.value for r in head if isinstance(r, Record) and isinstance(r.value, dict)]
            seen.parsed |= stored_as_text(values)
        except ConvertError as error:
            raise ConvertError(f"{path}: {error}") from None
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
                    here.update(fitting(item.value, item.cells, seen.parsed))
        seen.records += records
        seen.counts += here
        seen.common |= {name for name, number in here.items() if number >= STRAY * records}
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
            f"{seen.files}: more than one format fits: {counted(names, seen.counts)}; choose with "
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
        columns = column.split(",") if field_name == "label" else [column]
        used = {name for part in columns for name in columns_of(part)}
        if seen.held and not used <= seen.columns:
            raise ConvertError(f"--map {field_name}={column}: no such column; there are {known}")
    records = [seen_by(format, r.value, r.cells, seen.parsed) for r in seen.held]
    if records and not any(map(format.matches, records)):
        given = ", ".join(f"{name}={column}" for name, column in mapping.items())
        raise ConvertError(
            f"--map {given}: no record has all of these columns; prompt, chosen and rejected are "
            f"read under these names where they are not mapped; the columns are {known}"
        )
    return format


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
