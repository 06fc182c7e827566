"""Which format is this, and on what evidence: looks at the first records of every file."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from data_tools.formats import FORMATS, flat
from data_tools.formats.shape import Format, Label, Meaning, tidy_keys
from data_tools.record import ConvertError, Raw, clip

HEAD = 1000  # records of every file
_STRAY = 0.01  # a second shape below this share of a file is a stray, above it a question


@dataclass(frozen=True)
class Recognition:
    """The shape that was taken, what its values mean, and the evidence in words."""

    shape: Format
    meaning: Meaning
    evidence: str
    columns: frozenset[str]


def recognise(
    heads: Mapping[str, list], name: str | None, mapping: Mapping[str, str], label: Label | None
) -> Recognition:
    """Decide for all files at once.

    `heads` holds the first records of each file by its path. Raises ConvertError (status 2) where
    no shape fits, two do, or the label's polarity is not known.
    """
    records = {
        path: [tidy_keys(item.value) for item in head if isinstance(item, Raw) and _is_dict(item)]
        for path, head in heads.items()
    }
    sample = [record for found in records.values() for record in found]
    columns = frozenset(key for record in sample for key in record)
    if mapping:
        if name:
            raise ConvertError(f"--format {name} beside --map: each says which shape; give one")
        shape = flat.mapped(mapping)
        for field, column in mapping.items():
            if sample and column not in columns:
                raise ConvertError(
                    f"--map {field}={column}: no such column; there are {listed(columns)}"
                )
        if sample and not any(shape.matches(record) for record in sample):
            asked = ", ".join(f"{field}={column}" for field, column in mapping.items())
            raise ConvertError(
                f"--map {asked}: no record has these columns; it reads {shape.fields}, the columns "
                f"are {listed(columns)}"
            )
        evidence = "as --map says"
    elif name:
        if name not in FORMATS:
            raise ConvertError(
                f"--format {name}: unknown; known are {', '.join(FORMATS)} (see --list-formats)"
            )
        shape, evidence = FORMATS[name], "as --format says"
    else:
        shape = _by_signature(records, columns)
        fitting = sum(shape.matches(record) for record in sample)
        evidence = (
            f"{fitting:,} of the first {len(sample):,} records fit; columns {listed(columns)}"
        )
    _check_label(shape, sample, label, _files(records))
    meaning = Meaning(label, _answers_repeat_prompt(shape, sample, label))
    return Recognition(shape, meaning, evidence, columns)


def _is_dict(item: Raw) -> bool:
    return isinstance(item.value, dict)


def _by_signature(records: Mapping[str, list[dict]], columns: frozenset[str]) -> Format:
    counts: Counter[str] = Counter()
    significant: set[str] = set()
    for found in records.values():
        here = Counter(name for record in found for name in _names(record))
        significant |= {name for name, count in here.items() if count >= _STRAY * len(found)}
        counts += here
    if len(significant) > 1:
        listed = ", ".join(f"{name} ({counts[name]:,} records)" for name in sorted(significant))
        raise ConvertError(
            f"{_files(records)}: more than one shape fits: {listed}; say which to take with "
            f"--format {'|'.join(sorted(significant))}, the rest becomes rejects"
        )
    if not significant:
        raise ConvertError(f"{_files(records)}: {_unrecognised(records, columns)}")
    return FORMATS[significant.pop()]


def _names(record: dict) -> list[str]:
    return [name for name, shape in FORMATS.items() if shape.matches(record)]


def _files(records: Iterable[str]) -> str:
    paths = list(records)
    return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"


def _unrecognised(records: Mapping[str, list[dict]], columns: frozenset[str]) -> str:
    if not columns:
        return (
            "no record with fields among the first ones, so the shape cannot be recognised; "
            "is this a file of preferences?"
        )
    if {"chosen", "rejected"} <= columns:
        others = sorted(columns - {"chosen", "rejected"})
        example = others[0] if others else "COLUMN"
        return (
            "chosen and rejected are plain text without a prompt, which cannot be split safely; "
            f"name the prompt's column with --map prompt={example} (columns: {listed(columns)}), "
            "or give whole dialogues as messages or with turn markers"
        )
    return (
        f"no known shape has the columns {listed(columns)}; name them with "
        "--map prompt=COLUMN chosen=COLUMN rejected=COLUMN, or "
        "--map prompt=COLUMN a=COLUMN b=COLUMN label=COLUMN (see --list-formats)"
    )


def listed(columns: Iterable[str], limit: int = 12) -> str:
    """Column names for a message: a row of data taken for the header may hold whole texts."""
    plain = sorted(columns)
    names = [name if name.isprintable() and len(name) <= 40 else clip(name, 40) for name in plain]
    return ", ".join(names[:limit]) + (" ..." if len(names) > limit else "")


def _check_label(shape: Format, sample: list[dict], label: Label | None, files: str) -> None:
    if shape.labels is None:
        if label is not None:
            raise ConvertError(f"--label: the format {shape.name} has no label; leave it out")
        return
    values = [shape.labels(record) for record in sample]
    bare = Counter(clip(value) for value in values if flat.is_bare(value))
    if label is None and bare and bare.total() >= _STRAY * len(values):
        shown = ", ".join(sorted(bare)[:4])
        raise ConvertError(
            f"{files}: the label holds bare numbers or booleans ({shown}), and which answer they "
            "mean is never guessed; say it, e.g. --label first=1,second=2 or first=0,second=1,tie=2"
        )


def _answers_repeat_prompt(shape: Format, sample: list[dict], label: Label | None) -> bool:
    """Whether nearly every record's answers begin with its whole prompt, over several prompts."""
    texts, repeats, prompts = 0, 0, set()
    for record in sample:
        pairs = shape.pairs(record, Meaning(label)) if shape.matches(record) else []
        for pair in pairs if isinstance(pairs, list) else []:
            if isinstance(pair.prompt, str):
                texts += 1
                sides = (pair.chosen, pair.rejected)
                if pair.prompt.strip() and all(side.startswith(pair.prompt) for side in sides):
                    repeats += 1
                    prompts.add(pair.prompt)
    return len(prompts) > 1 and repeats >= 0.9 * texts
