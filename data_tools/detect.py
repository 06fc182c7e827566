"""Which format is this, and on what evidence: looks at the first records of every file."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from data_tools import splits
from data_tools.formats import FORMATS, rows, table
from data_tools.formats.dialogues import check_side
from data_tools.formats.format import Format, ReadOptions, tidy_names
from data_tools.formats.mapping import as_option, columns_read, mapped, mapped_columns
from data_tools.formats.paths import Column, columns_of, find_all, root
from data_tools.formats.reader import fitting, last_text, seen_by
from data_tools.keys import folded
from data_tools.record import BadRecord, ConvertError, Record, Reject, clip
from data_tools.sample import STRAY, Detection, counted, look, stored_as_text

HEAD = 1000  # records of every file that are looked at
_COMPARED = 200  # records whose answers are compared with those of another format
_HELD = 20_000  # records of all files that are held for a closer look
_DIALOGUES = ("implicit-messages", "hh")
_NO_LINES = (
    "not a record: rename a file that holds one array to .json, and write one record a line in "
    "JSON Lines"
)


@dataclass
class Survey:
    """What the first records of all files look like."""

    files: str  # for messages
    columns: set[str] = field(default_factory=set)  # by their tidy names
    held: list[Record] = field(default_factory=list)  # with fields
    records: int = 0  # with fields, held or not
    counts: Counter = field(default_factory=Counter)  # of records by the formats that they fit
    common: set[str] = field(default_factory=set)  # formats that are no strays in some file
    parsed: frozenset[str] = frozenset()  # columns whose texts are messages
    others: list[str] = field(default_factory=list)  # why something is no record with fields


def detect(
    heads: Mapping[str, Iterable[Record | Reject]],
    name: str | None,
    mapping: Mapping[str, str],
    options: ReadOptions,
) -> Detection:
    """Decide for all files at once.

    `heads` are the first records of each file, by its path; `options` are the user's. Raises
    ConvertError (status 2) where no format fits, two do, or the label's polarity is not known;
    status 1 where there is no record at all.
    """
    seen = _survey(heads, count=not name and mapping.keys() <= {"swapped"})
    mapping = mapped_columns(mapping, seen.columns)
    swapped = mapping.pop("swapped", None)
    if not seen.records and not seen.others:
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
        if not found.is_read and not name and not mapping:
            found = _other(seen, options, swapped) or found
    except ConvertError as error:
        raise ConvertError(f"{seen.files}: {error}") from None
    if not name and not mapping:
        _refuse_rivals(found.format, seen)
    if found.format is not format:
        name = found.format.name
        evidence += f"; read as {name}, since no record has the values of {format.name}"
    return replace(
        found,
        evidence=evidence,
        columns=frozenset(seen.columns),
        mapping=mapping,
        splits=splits.find([*heads], (record.value for record in seen.held)),
    )


def _other(seen: Survey, options: ReadOptions, swapped: str | None) -> Detection | None:
    """A format that reads some of the records, where the one that fits more closely reads none.

    Whole dialogues are read whatever stray column is next to them.
    """
    for format in FORMATS.values():
        if _fits(format, seen) or format.name in _DIALOGUES:
            with suppress(ConvertError):
                found = look(format, seen.held, options, swapped)
                if found.is_read:
                    return found
    return None


def _refuse_rivals(format: Format, seen: Survey) -> None:
    """Raise ConvertError where other columns of the records are a format with other answers.

    A single answer next to a pair is none. Where one has the answers of the other, as where the
    winner's text is repeated, the format is right.
    """
    rivals, examples = Counter(), {}
    for record in seen.held[:_COMPARED] if format.name in table.ROWS else ():
        answers, columns = _answers(format, record, seen.parsed)
        rest = {name: value for name, value in record.value.items() if name not in columns}
        for name in fitting(rest, record.cells, seen.parsed) if columns else ():
            other = replace(record, value=rest)
            texts, _ = _answers(FORMATS[name], other, seen.parsed)
            if not texts or len(texts) == 1 < len(answers):
                continue
            fewer, more = sorted((answers, texts), key=len)
            if not all(any(a.endswith(b) or b.endswith(a) for b in more) for a in fewer):
                rivals[name] += 1
                examples.setdefault(name, other.value)
    common = [name for name, n in rivals.items() if n >= STRAY * len(seen.held[:_COMPARED])]
    for name in common[:1]:
        way = columns_read(name, [*examples[name]])
        raise ConvertError(
            f"{seen.files}: more than one format fits, with other answers in other columns: "
            f"{format.name} and {name}; choose with --format {format.name}, or for {name} with "
            f"{as_option(way) if way else f'--format {name}'}"
        )


def _answers(format: Format, record: Record, parsed: frozenset[str]) -> tuple[set[str], set[str]]:
    """The texts of the answers as a format finds them in a record, and their columns."""
    if format.name not in table.ROWS:
        return set(), set()
    names, texts = tidy_names(tuple(record.value), small="any_case" in format.traits), set()
    answers = rows.resolve(table.ROWS[format.name], tuple(names)).answers
    with suppress(BadRecord):
        view = seen_by(format, record.value, record.cells, parsed)
        for value, where in (found for path in answers for found in find_all(view, path)):
            texts.add(folded(last_text(check_side(value, where)) or ""))
    return texts - {""}, {names[root(path)] for path in answers if root(path) in names}


def _fits(format: Format, seen: Survey) -> bool:
    return any(format.matches(record) for record in _views(format, seen))


def _views(format: Format, seen: Survey) -> Iterator[dict]:
    for record in seen.held:
        with suppress(BadRecord):
            yield seen_by(format, record.value, record.cells, seen.parsed)


def _survey(heads: Mapping[str, Iterable[Record | Reject]], count: bool) -> Survey:
    others = f" and {len(heads) - 1} more" if len(heads) > 1 else ""
    seen = Survey(next(iter(heads)) + others)
    for path, head in heads.items():
        records = []
        for item in head:
            if isinstance(item, Reject):
                seen.others.append(f"the first is {item.location}: {item.detail}")
            elif isinstance(item.value, dict):
                records.append(item)
            else:
                is_list = isinstance(item.value, list)
                seen.others.append(f"{item.location} is a list, {_NO_LINES}" if is_list else "")
        try:
            seen.parsed |= stored_as_text([record.value for record in records])
        except ConvertError as error:
            raise ConvertError(f"{path}: {error}") from None
        here = Counter()
        for record in records:
            seen.columns |= tidy_names(tuple(record.value)).keys()
            if count:
                here.update(fitting(record.value, record.cells, seen.parsed))
        seen.held += records[: _HELD - len(seen.held)]
        seen.records += len(records)
        seen.counts += here
        seen.common |= {name for name, number in here.items() if number >= STRAY * len(records)}
    return seen


def _choose(seen: Survey, name: str | None, mapping: Mapping[str, Column]) -> tuple[Format, str]:
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


def _mapped(seen: Survey, mapping: Mapping[str, Column]) -> Format:
    format, known = mapped(mapping), listed(seen.columns)
    given = {name: c if isinstance(c, str) else ",".join(c) for name, c in mapping.items()}
    for name, column in mapping.items() if seen.held else ():
        if not {*columns_of(column)} <= seen.columns:
            raise ConvertError(f"--map {name}={given[name]}: no such column; there are {known}")
        own = next((own for own, made in format.made.items() if made == column), None)
        if own and all(record[own] is None for record in _views(format, seen)):
            raise ConvertError(f"--map {name}={given[name]}: no record has a value there")
    if seen.held and not _fits(format, seen):
        words = ", ".join(f"{name}={column}" for name, column in given.items())
        raise ConvertError(
            f"--map {words}: no record has all of these columns; prompt, chosen and rejected are "
            f"read under these names where they are not mapped; the columns are {known}"
        )
    return format


def _no_format(seen: Survey) -> str:
    columns = listed(seen.columns)
    if not seen.columns:
        return (
            "no record with fields among the first ones, so the format cannot be detected; "
            + next(filter(None, seen.others), "is this a file of preferences?")
        )
    for name, value in ((name, v) for r in seen.held for name, v in r.value.items()):
        if isinstance(value, list) and value and {*map(type, value)} == {int}:
            return f"the column {name} holds token ids; write the texts that they stand for"
    if all(splits.is_test(name) is not None for name in seen.columns):
        fix = "write each to a file of its own, such as train.json and test.json"
        return f"one object holds the lists {columns}; {fix}, and give both with --keep-splits"
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
            way = columns_read("labelled-pairs", [*record.value])
            both = found.ambiguity.partition(";")[0]
            return f"the columns are {columns}; {both}; name the right one: {as_option(way)}"
    return (
        f"no known format has the columns {columns}; name them with "
        "--map prompt=COLUMN chosen=COLUMN rejected=COLUMN, or "
        "--map prompt=COLUMN a=COLUMN b=COLUMN label=COLUMN; also label=COLUMN,COLUMN, a= b= "
        "ranking=, responses= scores=, or response= score= (see --list-formats)"
    )


def listed(columns: Iterable[str]) -> str:
    """Column names for a message, shortened: a row taken for the header may hold whole texts."""
    names = sorted(columns)
    shown = [n if n.isprintable() and len(n) <= 40 else clip(n, 40) for n in names[:12]]
    return ", ".join(shown) + (" ..." if len(names) > 12 else "")
