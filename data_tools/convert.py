"""Raw preference files to one checked Hugging Face dataset: python -m data_tools.convert raw.csv

Every record that is read is kept, or rejected with its file, line and reason; the counts always
add up, and which answer won is never guessed.
"""

import json
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from data_tools.options import Options, options_of, parse
from data_tools.output_dir import on_stop, signals_restored
from data_tools.record import ConvertError, visible

if TYPE_CHECKING:
    from data_tools.report import Report


def convert(
    inputs: str | os.PathLike | Sequence[str | os.PathLike],
    output: str | os.PathLike | None = None,
    **options: Any,
) -> "Report":
    """Convert one input or several; `options` are those of the command (`test_size=0.1`).

    Raises ConvertError: status 2 for inputs and options that cannot be used; 1 where no pair was
    kept, `strict` refused the data, or the output cannot be written. Its `report` then has the
    figures, if there are any. An older dataset is unchanged.
    """
    several = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    output = None if output is None else os.fspath(output)
    report = _run(options_of([*map(os.fspath, several)], output, **options))
    if report.status:
        raise ConvertError(report.reason, report.status, report)
    return report


def _run(options: Options) -> "Report":
    from data_tools import pipeline  # now that the command line is right: --help is quick

    return pipeline.run(options)


def list_formats() -> str:
    """Every format with its sentence, fields, polarity and an example record."""
    from data_tools.formats import FORMATS

    shown = {name: format.about for name, format in FORMATS.items()}
    return "\n".join(
        f"{name}\n  {about['sentence']}\n  fields    {about['fields']}\n"
        f"  polarity  {about['polarity']}\n"
        f"  example   {json.dumps(about['examples'][0], ensure_ascii=False)}\n"
        for name, about in shown.items()
    )


def main(argv: Sequence[str] | None = None) -> int:
    try:
        options = parse(argv)
        if options is None:
            _print(list_formats())
            return 0
        with signals_restored():
            on_stop(_stop)  # as Ctrl-C does, which background jobs would ignore
            done = _run(options)
    except ConvertError as error:
        print(f"convert: {visible(str(error))}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        text = "convert: stopped; no dataset was written, an older one is unchanged"
        print(text, file=sys.stderr)
        return 1
    _print(done.json() if options.json else done.text())
    if done.reason:
        print(f"convert: {done.reason}", file=sys.stderr)
    return done.status


def _print(text: str) -> None:
    # Standard output is None where it is closed, as with `>&-`; nothing is then printed.
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError:  # the reader has closed the pipe, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def script() -> NoReturn:
    """The command that an installation adds."""
    sys.exit(main())


class _Callable(ModuleType):
    """This module, which is also the function: `from data_tools import convert`."""

    def __call__(self, inputs, output=None, **options: Any) -> "Report":
        return convert(inputs, output, **options)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    script()
