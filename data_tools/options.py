"""What the command line says: every option once, its default, and the words of --help."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from data_tools import ranking, readers, votes
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

_STORES = ("arrow", "parquet", "jsonl")  # writer.STORES, which would load pyarrow for --help


@dataclass(frozen=True)
class Options:
    """What the command line says; the defaults are the command's own."""

    inputs: tuple[str, ...]
    output: str | None = None
    format: str | None = None
    map: dict[str, str] = field(default_factory=dict)
    label: str | None = None
    pairs: str = "best-worst"
    min_margin: float = 0.0
    annotators: str = "majority"
    keep: tuple[str, ...] = ()
    exclude_rows: str | None = None
    test_size: float = 0.05
    seed: int = 0
    to: str = "arrow"
    max_chars: int | None = None
    encoding: str | None = None
    sheet: str | None = None
    workers: int | None = None
    scheduler: str | None = None
    check: bool = False
    strict: bool = False
    json: bool = False


def parse(argv: Sequence[str] | None) -> Options | None:
    """The options given, or None where only the list of formats was asked for.

    Raises ConvertError (status 2), and SystemExit as argparse does.
    """
    arguments = parser().parse_intermixed_args(argv)  # inputs may stand between options
    if arguments.list_formats:
        return None
    _settle_maps(arguments)
    if not arguments.inputs:
        raise ConvertError("no input; name a file, e.g. python -m data_tools.convert raw.csv")
    if arguments.scheduler and arguments.workers:
        raise ConvertError("--workers beside --scheduler: its workers are as many as it has")
    given = vars(arguments)
    values = {name: given[name] for name in Options.__dataclass_fields__ if name in given}
    values |= {
        "inputs": tuple(arguments.inputs),
        "map": arguments.columns,
        "keep": tuple(arguments.keep),
    }
    return Options(**values)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.convert",
        description="Convert raw preference files into one checked Hugging Face dataset.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    known = " ".join(readers.SYNTAXES)
    add(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help=f"files ({known}; text also as .gz or .zst) or directories of them; - is standard "
        "input, JSON Lines",
    )
    add("-o", "--output", metavar="DIR", help="default: data/NAME of the first input")
    add("--format", metavar="NAME", help="take this format, do not recognise (--list-formats)")
    add("--list-formats", action="store_true", help="print every format and exit")
    add(
        "--map",
        action="append",
        nargs="+",
        metavar="FIELD=COLUMN",
        help="which column is what: prompt= chosen= rejected=, or prompt= a= b= label= annotator=; "
        "system=",
    )
    add(
        "--label",
        metavar="first=X,second=Y[,tie=Z]",
        help="the label values that mean: first answer won, second won, tie",
    )
    add(
        "--pairs",
        choices=ranking.MODES,
        default="best-worst",
        help="how rankings and ratings become pairs (default best-worst)",
    )
    add(
        "--min-margin",
        type=margin,
        default=0.0,
        metavar="N",
        help="ratings less than N apart are a tie (default: only equal ones are)",
    )
    add(
        "--annotators",
        choices=votes.MODES,
        default="majority",
        help="several judgements of one pair: what more than half say, what all say, or a pair of "
        "each (default majority)",
    )
    add(
        "--keep",
        action="append",
        default=[],
        metavar="COLUMN",
        help="carry this column along, as text; repeatable",
    )
    add(
        "--exclude-rows",
        metavar="FILE",
        help="JSON Lines with 'source' values: leave those pairs out",
    )
    add(
        "--test-size",
        type=share,
        default=0.05,
        metavar="F",
        help="share of prompts held out in test, by hash; 0 writes train only (default 0.05)",
    )
    add("--seed", type=int, default=0, metavar="N", help="salt of the split's hash (default 0)")
    add("--to", choices=_STORES, default="arrow", help="how the splits are stored (default arrow)")
    add(
        "--max-chars",
        type=count,
        metavar="N",
        help="reject pairs whose prompt + longer answer exceed N characters (default: off)",
    )
    add("--encoding", metavar="NAME", help="of text files (default utf-8; a BOM decides)")
    add("--sheet", metavar="NAME", help="the sheet of .xlsx files to read (default: the first)")
    add(
        "--workers",
        type=count,
        metavar="N",
        help="processes (default: all cores that may be used)",
    )
    add(
        "--scheduler",
        metavar="ADDRESS",
        help="let the workers of this Dask scheduler do it (tcp://HOST:8786); they need the same "
        "working directory and files (pip install -r requirements-dask.txt)",
    )
    add("--check", action="store_true", help="read and check everything, write nothing")
    add("--strict", action="store_true", help="any reject: exit status 1 and no dataset")
    add("--json", action="store_true", help="print the report as JSON")
    return parser


def share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no share; give 0 or more and less than 1")
    return value


def margin(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no margin; give 0 or more")
    return value


def count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is too small; give 1 or more")
    return value


def _settle_maps(arguments: argparse.Namespace) -> None:
    """--map takes words while they look like FIELD=COLUMN; the first that does not is an input."""
    arguments.columns = {}
    for words in arguments.map or []:
        pairs = [word for word in words if "=" in word and not os.path.exists(word)]
        ahead = words[: len(pairs)]
        if ahead != pairs or not pairs:
            raise ConvertError(f"--map {' '.join(words)}: write FIELD=COLUMN, e.g. prompt=question")
        for name, column in (pair.split("=", 1) for pair in pairs):
            if arguments.columns.setdefault(name, column) != column:
                first = arguments.columns[name]
                raise ConvertError(f"--map {name}={column}: {name} is {first} already; map it once")
        arguments.inputs = [*arguments.inputs, *words[len(pairs) :]]
