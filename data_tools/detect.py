"""Which format is this, and on what evidence: looks at the first records of every file."""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from data_tools.formats import FORMATS, fitting, rows, table
from data_tools.formats.cells import cell_parser
from data_tools.formats.format import Format, Label, Plan, ReadOptions, tidy_name, tidy_names
from data_tools.formats.label import is_bare
from data_tools.formats.mapping import mapped
from data_tools.formats.reader import last_text, repeats_prompt
from data_tools.record import BadRecord, ConvertError, Record, Reject, clip

HEAD = 1000  # records of every file that are looked at
_HELD = 20_000  # records of all files that are held for a closer look
_STRAY = 0.01  # a format of fewer of a file's records is a stray, of more a question
# Fields that hold the prompt in some format.
_PROMPTS = frozenset({"prompt", "question", "instruction", "query", "input"})


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

    paths: list[str] = field(default_factory=list)
    items: int = 0
    records: int = 0  # of those, with fields
    columns: set[str] = field(default_factory=set)
    held: list[Record] = field(default_factory=list)  # with tidy names
    counts: Counter = field(default_factory=Counter)  # of records by the formats that they fit
    common: set[str] = field(default_factory=set)  # formats that are no strays in some file
    trouble: str = ""  # the first thing that is no record with fields

    @property
    def files(self) -> str:
        others = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        return self.paths[0] + others


def detect(
    heads: Iterable[tuple[str, Iterable[Record | Reject]]],
    name: str | None,
    mapping: Mapping[str, str],
    options: ReadOptions,
) -> Detection:
    """Decide for all files at once.

    `heads` gives each file's path and first records; `options` are the user's. Raises ConvertError
    (status 2) where no format fits, two do, the format cannot be converted, or the label's
    polarity is not known; status 1 where there is no record at all.
    """
    seen = _survey(heads, count=not name and not mapping)
    if not seen.items:
        paths = ", ".join(seen.paths[:3])
        raise ConvertError(f"{paths}: no records, the input is empty", status=1)
    format, evidence = _choose(seen, name, mapping)
    records = [_view(record, format) for record in seen.held]
    _check_label(format, records, options.label, seen.files)
    options = replace(options, question=_question(format, records, options, seen.files))
    plans: dict[tuple[str, ...], Plan] = {}
    try:
        for names in map(tuple, records):
            if names not in plans:
                plans[names] = format.plan(names, options)
        repeats = _answers_repeat_prompt(format, records, plans)
    except ConvertError as error:  # of a format that cannot be converted
        raise ConvertError(f"{seen.files}: {error}") from None
    unread = sorted(_PROMPTS & seen.columns - {name for p in plans.values() for name in p.reads})
    if unread and not mapping:
        evidence += f"; not read, though it may be a prompt: {', '.join(unread)}"
    options = replace(options, answers_repeat_prompt=repeats)
    return Detection(format, options, evidence, frozenset(seen.columns))


def _survey(heads: Iterable[tuple[str, Iterable[Record | Reject]]], count: bool) -> Survey:
    seen = Survey()
    for path, head in heads:
        here, records = Counter(), 0
        for item in head:
            seen.items += 1
            if isinstance(item, Reject) or not isinstance(item.value, dict):
                seen.trouble = seen.trouble or _trouble(item)
                continue
            records += 1
            names = tidy_names(tuple(item.value))
            record = replace(item, value={name: item.value[own] for name, own in names.items()})
            seen.columns |= names.keys()
            if len(seen.held) < _HELD:
                seen.held.append(record)
            if count:
                view = partial(_view, record) if record.cells else None
                here.update(fitting(record.value, view))
        seen.paths.append(path)
        seen.records += records
        seen.counts += here
        seen.common |= {name for name, number in here.items() if number >= _STRAY * records}
    return seen


def _view(record: Record, format: Format) -> dict:
    """The fields as a format sees them, on which depends what a cell of a table holds."""
    if not record.cells:
        return record.value
    try:
        names = tuple(record.value)
        return cell_parser(format.json_fields, names, format.any_case)(record.value)
    except BadRecord:
        return record.value


def _trouble(item: Record | Reject) -> str:
    if isinstance(item, Reject):
        return f"the first is {item.location}: {item.detail}"
    if not isinstance(item.value, list):
        return ""
    return (
        f"{item.location} is a list, not a record: rename a file that holds one array to .json, "
        "and write one record a line in JSON Lines"
    )


def _choose(seen: Survey, name: str | None, mapping: Mapping[str, str]) -> tuple[Format, str]:
    """The format, and why it was taken."""
    if mapping:
        if name:
            raise ConvertError(f"--format {name} and --map both define the format; give one")
        return _mapped(seen, mapping), "from --map"
    if name:
        if name not in FORMATS:
            known = ", ".join(FORMATS)
            raise ConvertError(f"--format {name}: unknown; known are {known} (see --list-formats)")
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
    mapping = {field: tidy_name(column) for field, column in mapping.items()}
    format = mapped(mapping)
    given, known = [f"{name}={column}" for name, column in mapping.items()], listed(seen.columns)
    for text, column in zip(given, mapping.values(), strict=True):
        if seen.held and column not in seen.columns:
            raise ConvertError(f"--map {text}: no such column; there are {known}")
    if seen.held and not any(format.matches(_view(record, format)) for record in seen.held):
        raise ConvertError(
            f"--map {', '.join(given)}: no record has all of these columns; the mapping reads "
            f"{format.fields}, the columns are {known}"
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
    for row in table.ROWS:
        for record in seen.held if "general" in row.traits and row.answers.label else ():
            if detail := rows.collision(row, record.value):
                return f"the columns are {columns}; {detail}"
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


def _check_label(format: Format, records: list[dict], label: Label | None, files: str) -> None:
    if format.labels.values is None:
        if label is not None:
            raise ConvertError(
                f"--label: the format {format.name} has no label to define ({format.polarity}); "
                "remove the option"
            )
        return
    values = [format.labels.values(record) for record in records]
    bare = Counter(clip(value) for value in values if is_bare(value))
    is_guess = label is None and not format.labels.numbered
    if is_guess and bare and bare.total() >= _STRAY * len(values):
        shown = ", ".join(sorted(bare)[:4])
        example = "first=1,second=2 or first=0,second=1,tie=2"
        if all(value.strip("'").casefold() in ("true", "false") for value in bare):
            example = "first=true,second=false"
        raise ConvertError(
            f"{files}: the label holds bare numbers or booleans ({shown}), and which answer they "
            f"mean is never guessed; define it, e.g. --label {example}"
        )


def _question(format: Format, records: list[dict], options: ReadOptions, files: str) -> str | None:
    """The question of a format that names the winner, the same one for all records."""
    if format.labels.questions is None:
        return None
    counts = Counter(q for record in records for q in format.labels.questions(record, options))
    common = [name for name, count in counts.items() if count >= _STRAY * len(records)]
    if len(common) > 1:
        raise ConvertError(
            f"{files}: more than one question names an answer: {_counted(sorted(common), counts)}; "
            "remove all but one from the export; one that is a column can be named, --map "
            "prompt=COLUMN a=COLUMN b=COLUMN label=COLUMN"
        )
    return common[0] if common else None


def _answers_repeat_prompt(
    format: Format, records: list[dict], plans: Mapping[tuple[str, ...], Plan]
) -> bool:
    """Whether nearly all answers begin with their whole prompt, for several prompts."""
    seen, prompts = 0, []
    for record in filter(format.matches, records):
        with suppress(BadRecord):
            for result in plans[tuple(record)].results(record):
                repeats = repeats_prompt(result)
                seen += repeats is not None
                if repeats:
                    prompts.append(last_text(result.prompt))
    return len(set(prompts)) > 1 and len(prompts) >= 0.9 * seen
