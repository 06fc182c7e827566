"""Raw preference files to one checked Hugging Face dataset: python -m data_tools.convert raw.csv

Every record that is read is kept, or rejected with its file, line and reason; the counts always
add up, and which answer won is never guessed.
"""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from data_tools.options import Options, options_of, parse
from data_tools.output_dir import on_stop, signals_restored
from data_tools.record import ConvertError, visible


def convert(inputs: Sequence[str], output: str | None = None, **options: Any):
    """Convert the inputs and return a `report.Report`; `options` are those of the command.

    Raises ConvertError: status 2 for inputs and options that cannot be used, 1 where there is
    nothing to convert or the output cannot be written. An older dataset is then unchanged.
    """
    return _run(options_of(inputs, output, **options))


def _run(options: Options):
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


if __name__ == "__main__":
    sys.exit(main())
