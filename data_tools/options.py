"""The options of a conversion: as dataclasses for Python, and as the command line."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from data_tools import readers
from data_tools.record import ConvertError

EXAMPLES = """examples:
  python -m data_tools.convert raw.csv
  python -m data_tools.convert battles.jsonl.gz more/ -o data/battles
  python -m data_tools.convert raw.csv --map prompt=question a=left b=right label=best
  python -m data_tools.convert raw.csv --label first=1,second=2,tie=0
  python -m data_tools.convert ranked.jsonl --pairs all --annotators unanimous
  python -m data_tools.convert raw.csv --check

exit status: 0 at least one pair was kept; 1 none was, or --strict and something was rejected, or
stopped, or unable to write; 2 a file, format, label or option that cannot be used as given."""


def share(text: str) -> float:
    return _limited(text, float, 0, 1, "not a share; give 0 or more and less than 1")


def margin(text: str) -> float:
    return _limited(text, float, 0, float("inf"), "not a margin; give 0 or more")


def count(text: str) -> int:
    return _limited(text, int, 1, float("inf"), "too small; give 1 or more")


def _limited(text: str, kind: type, low: float, end: float, problem: str) -> Any:
    value = kind(text)
    if not low <= value < end:
        raise argparse.ArgumentTypeError(f"{text} is {problem}")
    return value


def _option(default: Any, help: str, metavar: str | None = None, **more: Any) -> Any:
    """A field with what argparse needs to know of it."""
    more |= {} if metavar is None else {"metavar": metavar}
    if default is dict:
        return field(default_factory=dict, metadata=more | {"help": help})
    shown = f"{help} (default {default})" if default else help
    return field(default=default, metadata=more | {"help": shown})


@dataclass(frozen=True)
class Reading:
    """How the inputs are read"""

    format: str | None = _option(None, "use this format, do not detect it (--list-formats)", "NAME")
    map: dict[str, str] = _option(
        dict,
        "which column is what: prompt= chosen= rejected=, or prompt= a= b= label= annotator=; "
        "system=",
        "FIELD=COLUMN",
        action="append",
        nargs="+",
    )
    label: str | None = _option(
        None, "the values that mean: first answer won, second won, tie", "first=X,second=Y[,tie=Z]"
    )
    encoding: str | None = _option(None, "of text files (default utf-8; a BOM decides)", "NAME")
    sheet: str | None = _option(None, "the sheet of .xlsx files (default: the first)", "NAME")


@dataclass(frozen=True)
class Pairing:
    """Which pairs are made"""

    pairs: str = _option(
        "best-worst",
        "how rankings and ratings become pairs",
        choices=("best-worst", "adjacent", "all"),
    )
    min_margin: float = _option(
        0.0, "ratings less than N apart are a tie (default: only equal ones are)", "N", type=margin
    )
    annotators: str = _option(
        "majority",
        "several judgements of one pair: the view of more than half, of all, or a pair for each",
        choices=("majority", "unanimous", "each"),
    )
    max_chars: int | None = _option(
        None, "reject pairs whose prompt + longer answer exceed N characters", "N", type=count
    )
    exclude_rows: str | None = _option(
        None, "JSON Lines with 'source' values: reject those pairs", "FILE"
    )


@dataclass(frozen=True)
class Writing:
    """What is written"""

    output: str | None = _option(None, "default: data/NAME of the first input", "DIR")
    to: str = _option("arrow", "how the splits are stored", choices=("arrow", "parquet", "jsonl"))
    keep: tuple[str, ...] = _option(
        (), "carry this column along, as text; repeatable", "COLUMN", action="append"
    )
    test_size: float = _option(
        0.05, "share of prompts held out in test by hash; 0 writes train only", "F", type=share
    )
    seed: int = _option(0, "salt of the split's hash (default 0)", "N", type=int)
    check: bool = _option(False, "read and check everything, write nothing", action="store_true")
    strict: bool = _option(False, "any reject: exit status 1, no dataset", action="store_true")


@dataclass(frozen=True)
class Running:
    """How the command runs"""

    workers: int | None = _option(
        None, "processes (default: all cores that this process may use)", "N", type=count
    )
    scheduler: str | None = _option(
        None,
        "use the workers of this Dask scheduler (tcp://HOST:8786); they need the same working "
        "directory and files (pip install -r requirements-dask.txt)",
        "ADDRESS",
    )
    json: bool = _option(False, "print the report as JSON", action="store_true")


@dataclass(frozen=True)
class Options:
    """The options of a conversion, with the defaults and the help of the command."""

    inputs: tuple[str, ...]
    reading: Reading
    pairing: Pairing
    writing: Writing
    running: Running

    @classmethod
    def of(cls, inputs: Sequence[str], output: str | None = None, **values: Any) -> "Options":
        """Options from their values by name, whichever group they are in."""
        values["output"], groups = output, []
        for group in GROUPS:
            names = values.keys() & group.__dataclass_fields__
            groups.append(group(**{name: values.pop(name) for name in names}))
        if values:
            raise TypeError(f"no such option: {', '.join(values)}")
        return cls(tuple(inputs), *groups)


GROUPS = (Reading, Pairing, Writing, Running)


def parse(argv: Sequence[str] | None) -> Options | None:
    """The options of a command line, or None for --list-formats.

    Raises ConvertError (status 2), and SystemExit as argparse does.
    """
    arguments = vars(parser().parse_intermixed_args(argv))  # inputs may be between options
    if arguments.pop("list_formats"):
        return None
    _read_maps(arguments)
    options = Options.of(**arguments | {"keep": tuple(arguments["keep"] or ())})
    if not options.inputs:
        raise ConvertError("no input; name a file, e.g. python -m data_tools.convert raw.csv")
    if options.running.scheduler and options.running.workers:
        raise ConvertError(
            "--workers and --scheduler: a scheduler has its own workers; remove --workers"
        )
    return options


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.convert",
        description="Convert raw preference files into one checked Hugging Face dataset.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = " ".join(readers.SYNTAXES)
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help=f"files ({known}; text also as .gz or .zst) or directories of them; - is standard "
        "input, JSON Lines",
    )
    parser.add_argument("--list-formats", action="store_true", help="print every format and exit")
    for group in GROUPS:
        title = parser.add_argument_group(group.__doc__)
        for option in fields(group):
            flags = ["--" + option.name.replace("_", "-")]
            if option.name == "output":
                flags.insert(0, "-o")
            default = {} if option.metadata.get("action") else {"default": option.default}
            title.add_argument(*flags, **default, **option.metadata)
    return parser


def _read_maps(arguments: dict[str, Any]) -> None:
    """Read --map: its words are FIELD=COLUMN up to the first that is not, which is an input."""
    columns: dict[str, str] = {}
    for words in arguments["map"] or []:
        pairs = [word for word in words if "=" in word and not os.path.exists(word)]
        ahead = words[: len(pairs)]
        if ahead != pairs or not pairs:
            raise ConvertError(f"--map {' '.join(words)}: write FIELD=COLUMN, e.g. prompt=question")
        for name, column in (pair.split("=", 1) for pair in pairs):
            if columns.setdefault(name, column) != column:
                taken = f"{name} is {columns[name]} already"
                raise ConvertError(f"--map {name}={column}: {taken}; map it once")
        arguments["inputs"] += words[len(pairs) :]
    arguments["map"] = columns
