"""What the commands share: options, numbers on the command line, and how a command ends."""

import argparse
import math
import os
import sys
from collections.abc import Callable

from dpo_wrap.errors import ConfigError, DpoWrapError
from dpo_wrap.signals import Stop


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add CONFIG, --config and --set, which several commands share; `config_path` reads them."""
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="the YAML config")
    parser.add_argument("--config", dest="config_option", metavar="CONFIG", help="the same")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="override a key of the config; repeatable; lora.r=4 for a key of a group",
    )


def config_path(arguments: argparse.Namespace) -> str:
    """The path of the config. Raises ConfigError unless exactly one was given."""
    if arguments.config and arguments.config_option:
        raise ConfigError("two configs were given; give one, as CONFIG or with --config")
    path = arguments.config or arguments.config_option
    if path is None:
        raise ConfigError(
            "no config was given; give one as CONFIG, such as configs/dpo_config.yaml"
        )
    return path


def run(command: Callable[[Stop], int], stopped: str) -> int:
    """Run a command and return its exit status.

    A DpoWrapError is printed without a traceback, and `stopped` after SIGINT or SIGTERM. Under a
    launcher, only the first process prints what all processes would.
    """
    is_first = os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        with Stop() as stop:
            return command(stop)
    except DpoWrapError as error:
        if is_first or not error.common:
            print(error, file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        if is_first:
            print(stopped, file=sys.stderr)
        return 1


def number(
    kind: type[int] | type[float], ge: float, le: float = math.inf
) -> Callable[[str], float]:
    """The argparse type of a finite number from `ge` to `le`."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if ge <= value <= le and math.isfinite(value):
            return value
        expected = "an integer" if kind is int else "a number"
        bounds = f"of {ge} or more" if le == math.inf else f"from {ge} to {le}"
        raise argparse.ArgumentTypeError(f"expected {expected} {bounds}, found {text!r}")

    return read
