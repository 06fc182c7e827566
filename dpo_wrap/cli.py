"""What the commands share: options, signals, and how a command ends."""

import argparse
import atexit
import inspect
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, NoReturn

from dpo_wrap import __version__
from dpo_wrap.config import is_key
from dpo_wrap.errors import ConfigError, DpoWrapError
from dpo_wrap.files import path_problem
from dpo_wrap.terminal import show

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class ConfigParser(argparse.ArgumentParser):
    """Answers a key of the config that is given as an option with the --set that sets it."""

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        arguments, rest = self.parse_known_args(words, namespace)
        unset = [word for word in arguments.overrides if "=" not in word]
        for word in [*unset, *(word for word in rest if word.startswith("--"))]:
            option, _, value = word.partition("=")
            key = option.removeprefix("--").replace("-", "_")
            value = value or next(iter(words[words.index(word) + 1 :]), "VALUE")
            if is_key(key):
                # The value of a token is in no message.
                self.error(f"{option}: write --set {key}={'VALUE' if 'token' in key else value}")
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return arguments


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add CONFIG, --config and --set, which several commands share; `config_path` reads them."""
    given = {"type": path, "metavar": "CONFIG"}
    parser.add_argument("config", nargs="?", help="the YAML config", **given)
    parser.add_argument("--config", dest="config_option", help="the same", **given)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="override a key of the config; repeatable; lora.r=4 for a key of a group",
    )
    add_version(parser)


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add --version."""
    parser.add_argument("--version", action="version", version=f"dpo-wrap {__version__}")


def as_overrides(values: Mapping[str, Any] | None) -> list[str]:
    """The values by key as `--set` takes them; JSON is YAML."""
    return [f"{key}={json.dumps(v, default=os.fspath)}" for key, v in (values or {}).items()]


def check_options(parser: argparse.ArgumentParser, options: Mapping[str, Any]) -> None:
    """Raise ConfigError for a value that the command would not accept."""
    for action in parser._actions:
        value = options.get(action.dest)
        if value is None or value is False or action.nargs == 0:
            continue
        try:
            checked = action.type(str(value)) if action.type else str(value)
        except argparse.ArgumentTypeError as error:
            raise ConfigError(f"{action.option_strings[-1]}: {error}") from None
        if action.choices and checked not in action.choices:
            known = ", ".join(action.choices)
            raise ConfigError(f"{action.option_strings[-1]}: {value!r} is none of {known}")


def make_callable(module: str, function: Callable[..., Any]) -> None:
    """Let the module of a command be called like the function of its name.

    `from dpo_wrap import train` imports the module dpo_wrap.train.
    """
    kind = type("CallableModule", (ModuleType,), {"__call__": staticmethod(function)})
    sys.modules[module].__class__ = kind
    sys.modules[module].__signature__ = inspect.signature(function)


def path(text: str) -> str:
    """The argparse type of a path."""
    if problem := path_problem(text):
        raise argparse.ArgumentTypeError(problem)
    return text


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


class Stop:
    """Turns a signal into KeyboardInterrupt, or only records it once `defer` is set.

    A second signal goes to the previous handler, which ends the process at once. Under a launcher
    it is ignored: there Ctrl-C arrives twice, from the terminal and from the launcher, and the
    launcher ends processes that take too long.
    """

    def __init__(self):
        self.defer = False
        self.caught: signal.Signals | None = None
        self.agreed: signal.Signals | None = None
        """The signal for which all processes of the run stop after the same step."""
        self._previous: dict[int, Any] = {}

    def __enter__(self):
        # Python handles signals in the main thread only.
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._record) for number in SIGNALS}
        return self

    def __exit__(self, *exception):
        self._restore()

    def _record(self, number: int, frame: Any) -> None:
        if self.caught:
            return
        self.caught = signal.Signals(number)
        if "LOCAL_RANK" not in os.environ:
            self._restore()
        if not self.defer:
            raise KeyboardInterrupt

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


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
            show(error, file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        if is_first:
            show(stopped, file=sys.stderr)
        return 1


def exit_with(status: int) -> NoReturn:
    """End the process with this status, also after a KeyboardInterrupt that was caught.

    CPython exits with 130 if a KeyboardInterrupt passed through exec, which dataclasses use while
    modules are imported.
    """
    if status:
        # os._exit skips these; `datasets` deletes its temporary files in one of them.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
