"""The options of a conversion: as a dataclass for Python, and as the command line."""

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


def _limited(value: float, text: str, is_right: bool, problem: str) -> Any:
    if not is_right:
        raise argparse.ArgumentTypeError(f"{text} is {problem}")
    return value


def share(text: str) -> float:
    value = float(text)
    return _limited(value, text, 0 <= value < 1, "not a share; give 0 or more and less than 1")


def margin(text: str) -> float:
    value = float(text)
    return _limited(value, text, 0 <= value < float("inf"), "not a margin; give 0 or more")


def count(text: str) -> int:
    value = int(text)
    return _limited(value, text, value >= 1, "too small; give 1 or more")


def _option(default: Any, help: str, metavar: str | None = None, **more: Any) -> Any:
    """A field with what argparse needs to know of it."""
    more |= {"help": help} if metavar is None else {"help": help, "metavar": metavar}
    if default is dict:
        return field(default_factory=dict, metadata=more)
    return field(default=default, metadata=more)


@dataclass(frozen=True)
class Options:
    """The options of a conversion, with the defaults and the help of the command."""

    inputs: tuple[str, ...]
    output: str | None = _option(None, "default: data/NAME of the first input", "DIR")
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
        None,
        "the label values that mean: first answer won, second won, tie",
        "first=X,second=Y[,tie=Z]",
    )
    pairs: str = _option(
        "best-worst",
        "how rankings and ratings become pairs (default best-worst)",
        choices=("best-worst", "adjacent", "all"),
    )
    min_margin: float = _option(
        0.0, "ratings less than N apart are a tie (default: only equal ones are)", "N", type=margin
    )
    annotators: str = _option(
        "majority",
        "several judgements of one pair: the view of more than half, of all, or a pair for each of "
        "them (default majority)",
        choices=("majority", "unanimous", "each"),
    )
    keep: tuple[str, ...] = _option(
        (), "carry this column along, as text; repeatable", "COLUMN", action="append"
    )
    exclude_rows: str | None = _option(
        None, "JSON Lines with 'source' values: reject those pairs", "FILE"
    )
    test_size: float = _option(
        0.05,
        "share of prompts held out in test, by hash; 0 writes train only (default 0.05)",
        "F",
        type=share,
    )
    seed: int = _option(0, "salt of the split's hash (default 0)", "N", type=int)
    to: str = _option(
        "arrow", "how the splits are stored (default arrow)", choices=("arrow", "parquet", "jsonl")
    )
    max_chars: int | None = _option(
        None,
        "reject pairs whose prompt + longer answer exceed N characters (default: off)",
        "N",
        type=count,
    )
    encoding: str | None = _option(None, "of text files (default utf-8; a BOM decides)", "NAME")
    sheet: str | None = _option(None, "the sheet of .xlsx files (default: the first)", "NAME")
    workers: int | None = _option(
        None, "processes (default: all cores that this process may use)", "N", type=count
    )
    scheduler: str | None = _option(
        None,
        "use the workers of this Dask scheduler (tcp://HOST:8786); they need the same working "
        "directory and files (pip install -r requirements-dask.txt)",
        "ADDRESS",
    )
    check: bool = _option(False, "read and check everything, write nothing", action="store_true")
    strict: bool = _option(False, "any reject: exit status 1, no dataset", action="store_true")
    json: bool = _option(False, "print the report as JSON", action="store_true")


def parse(argv: Sequence[str] | None) -> Options | None:
    """The options of a command line, or None for --list-formats.

    Raises ConvertError (status 2), and SystemExit as argparse does.
    """
    arguments = vars(parser().parse_intermixed_args(argv))  # inputs may be between options
    if arguments.pop("list_formats"):
        return None
    _read_maps(arguments)
    options = Options(**arguments | {"keep": tuple(arguments["keep"] or ())})
    if not options.inputs:
        raise ConvertError("no input; name a file, e.g. python -m data_tools.convert raw.csv")
    if options.scheduler and options.workers:
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
    for option in fields(Options)[1:]:
        flags = ["--" + option.name.replace("_", "-")]
        if option.name == "output":
            flags.insert(0, "-o")
        default = {} if option.metadata.get("action") else {"default": option.default}
        parser.add_argument(*flags, **default, **option.metadata)
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
    arguments |= {"map": columns, "inputs": tuple(arguments["inputs"])}
