"""Raw preference files to one checked Hugging Face dataset: python -m data_tools.convert raw.csv

Every record that is read is kept, or rejected with its file, line and reason; the counts always
add up, and which answer won is never guessed.
"""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence

from data_tools import lean
from data_tools.options import Options, parse
from data_tools.record import ConvertError

# What converts is loaded once the command line is known to be sound: --help is to be quick.


def convert(options: Options):
    """Convert, and say how it went: a `report.Report`.

    Raises ConvertError: status 2 for inputs and options that cannot be used, 1 where there is
    nothing to convert or no place to write. An older dataset then stands as it was.
    """
    from data_tools import conversion

    return conversion.run(options)


def list_formats() -> str:
    """Every format: name, sentence, fields, polarity and an example record."""
    from data_tools.formats import FORMATS

    parts = []
    for shape in FORMATS.values():
        parts.append(
            f"{shape.name}\n  {shape.sentence}\n  fields    {shape.fields}\n"
            f"  polarity  {shape.polarity}\n"
            f"  example   {json.dumps(shape.passing, ensure_ascii=False)}\n"
        )
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    try:
        options = parse(argv)
        if options is None:
            _say(list_formats())
            return 0
        with _stoppable():
            done = convert(options)
    except ConvertError as error:
        print(f"convert: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print(
            "convert: stopped; no dataset was written, an older one is as it was", file=sys.stderr
        )
        return 1
    _say(done.json() if options.json else done.text())
    if done.reason:
        print(f"convert: {done.reason}", file=sys.stderr)
    return done.status


def _say(text: str) -> None:
    if sys.stdout is None:  # closed, as with `>&-`
        return
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError:  # the reader has seen enough, as with `| head`; report.json says it all
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM and a closed terminal stop as Ctrl-C does, so that what was written aside is cleared.

    Ctrl-C is taken too, since a shell starts background jobs with it ignored.
    """

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    try:
        before = {number: signal.signal(number, stop) for number in numbers}
    except ValueError:  # not in the main thread, where signals are not ours to take
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    lean.stay()
    sys.exit(main())
