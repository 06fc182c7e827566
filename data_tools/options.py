"""The options of a conversion: one parser, for the command line and for Python."""

import argparse
import os
from collections.abc import Sequence
from typing import Any, NoReturn

from data_tools import __version__, readers, targets
from data_tools.record import ConvertError

Options = argparse.Namespace
"""What `parser` defines, under the names of the options (`max_chars` for --max-chars)."""

EXAMPLES = """examples:
  python -m data_tools.convert raw.csv
  python -m data_tools.convert battles.jsonl.gz more/ -o data/battles
  python -m data_tools.convert raw.csv --map prompt=question a=left b=right label=best
  python -m data_tools.convert raw.csv --label first=1,second=2,tie=0
  python -m data_tools.convert ranked.jsonl --pairs all --annotators unanimous
  python -m data_tools.convert raw.csv --check

exit status: 0 at least one pair was kept; 1 none was, or --strict and something was rejected, or
stopped, or unable to write; 2 a file, format, label or option that cannot be used as given."""


_LIMITS = {  # of numbers: the least, and the first that is too large
    "test_size": (0, 1, "not a share; give 0 or more and less than 1"),
    "min_margin": (0, float("inf"), "not a margin; give 0 or more"),
    "max_chars": (1, float("inf"), "too small; give 1 or more"),
    "workers": (1, float("inf"), "too small; give 1 or more"),
    "header_row": (1, float("inf"), "too small; give 1 or more"),
}


def options_of(inputs: Sequence[str], output: str | None = None, **values: Any) -> Options:
    """The options of a conversion by name, checked as those of a command line are.

    Raises TypeError for a name that is no option.
    """
    if unknown := values.keys() - vars(parser().parse_args([])).keys():
        raise TypeError(f"no such option: {', '.join(sorted(unknown))}")
    argv = []
    for name, value in (values | {"output": output}).items():
        if isinstance(value, dict):
            several = {k: v for k, v in value.items() if isinstance(v, list | tuple)}
            value = value | {k: "|".join(map(str, v)) for k, v in several.items()}
            value = [f"{key}={item}" for key, item in value.items()]
            value = ",".join(value) if name == "label" else value
        if value is True:
            argv.append(_flag(name))
        elif value is not None and value is not False:
            items = value if isinstance(value, list | tuple) else [value]
            argv += [f"{_flag(name)}={item}" for item in items]
    options = parser().parse_args(argv)
    options.inputs = [*inputs]
    return _checked(options)


def parse(argv: Sequence[str] | None) -> Options | None:
    """The options of a command line, or None for --list-formats.

    Raises ConvertError (status 2), and SystemExit for --help.
    """
    options = parser().parse_intermixed_args(argv)  # inputs may be between options
    return None if options.list_formats else _checked(options)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _checked(options: Options) -> Options:
    for name, (low, end, problem) in _LIMITS.items():
        value = getattr(options, name)
        if value is not None and not low <= value < end:
            raise ConvertError(f"{_flag(name)}: {value} is {problem}")
    _read_maps(options)
    options.keep = tuple(options.keep)
    if not options.inputs:
        raise ConvertError("no input; name a file, e.g. python -m data_tools.convert raw.csv")
    if options.scheduler and options.workers:
        raise ConvertError(
            "--workers and --scheduler: a scheduler has its own workers; remove --workers"
        )
    return options


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConvertError(f"{message}; see --help")


def parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m data_tools.convert",
        description="Convert raw preference files into one checked Hugging Face dataset.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    help = f"files ({readers.KNOWN}), directories of them, what save_to_disk wrote, "
    help += "hf://datasets/OWNER/NAME[@REVISION][/PATH]; - is standard input, JSON Lines"
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help=help)
    parser.add_argument("--list-formats", action="store_true", help="print every format and exit")
    parser.add_argument("--version", action="version", version=f"dpo-wrap {__version__}")

    add = parser.add_argument_group("How the inputs are read").add_argument
    add("--format", metavar="NAME", help="use this format, do not detect it (--list-formats)")
    help = "which column is what: prompt= chosen= rejected=, or prompt= a= b= label= annotator=; "
    help += "system="
    add("--map", metavar="FIELD=COLUMN", nargs="+", action="append", help=help)
    help = "the values that mean: first answer won, second won, tie"
    add("--label", metavar="first=X,second=Y[,third=V][,tie=Z]", help=help)
    add("--encoding", metavar="NAME", help="of text files (default utf-8; a BOM decides)")
    add("--sheet", metavar="NAME", help="the sheet of .xlsx files (default: the first)")
    help = "the row of a sheet, or line of a CSV file, with the names of the columns"
    add("--header-row", metavar="N", type=int, help=help)

    add = parser.add_argument_group("Which pairs are made").add_argument
    help = "how rankings and ratings become pairs"
    add("--pairs", choices=("best-worst", "adjacent", "all"), default="best-worst", help=help)
    help = "ratings less than N apart are a tie (default: only equal ones are)"
    add("--min-margin", metavar="N", type=float, default=0.0, help=help)
    help = "several judgements of one pair: the view of more than half, of all, or a pair for each"
    modes = ("majority", "unanimous", "each")
    add("--annotators", choices=modes, default="majority", help=help)
    help = "reject pairs whose prompt + longer answer exceed N characters"
    add("--max-chars", metavar="N", type=int, help=help)
    help = "JSON Lines with 'source' values: reject those pairs"
    add("--exclude-rows", metavar="FILE", help=help)

    add = parser.add_argument_group("What is written").add_argument
    add("-o", "--output", metavar="DIR", help="default: data/NAME of the first input")
    stores = ("arrow", "parquet", "jsonl", *targets.TARGETS)
    help = "how the splits are stored, or the trainer in whose own format (default arrow)"
    add("--to", choices=stores, default="arrow", help=help)
    help = "carry this column along, as text; repeatable"
    add("--keep", metavar="COLUMN", action="append", default=[], help=help)
    help = "keep the inputs' own splits, named by a column, by files or by folders"
    add("--keep-splits", action="store_true", help=help)
    help = "share of prompts held out in test by hash; 0 writes train only"
    add("--test-size", metavar="F", type=float, default=0.05, help=help)
    add("--seed", metavar="N", type=int, default=0, help="salt of the split's hash (default 0)")
    add("--check", action="store_true", help="read and check everything, write nothing")
    add("--strict", action="store_true", help="any reject: exit status 1, no dataset")

    add = parser.add_argument_group("How the command runs").add_argument
    help = "processes (default: all cores that this process may use)"
    add("--workers", metavar="N", type=int, help=help)
    help = "use the workers of this Dask scheduler (tcp://HOST:8786); they need the same working "
    help += "directory and files (pip install distributed)"
    add("--scheduler", metavar="ADDRESS", help=help)
    add("--json", action="store_true", help="print the report as JSON")
    return parser


def _read_maps(options: Options) -> None:
    """Read --map: its words are FIELD=COLUMN up to the first that is not, which is an input."""
    columns: dict[str, str] = {}
    for words in options.map or []:
        pairs = [word for word in words if "=" in word and not os.path.exists(word)]
        ahead = words[: len(pairs)]
        if ahead != pairs or not pairs:
            raise ConvertError(f"--map {' '.join(words)}: write FIELD=COLUMN, e.g. prompt=question")
        for name, column in (pair.split("=", 1) for pair in pairs):
            if columns.setdefault(name, column) != column:
                taken = f"{name} is {columns[name]} already"
                raise ConvertError(f"--map {name}={column}: {taken}; map it once")
        options.inputs += words[len(pairs) :]
    options.map, options.inputs = columns, tuple(options.inputs)
