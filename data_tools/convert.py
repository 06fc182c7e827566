"""Raw preference files to one checked Hugging Face dataset: python -m data_tools.convert raw.csv

Every record that is read is kept, or rejected with its file, line and reason; the counts always
add up, and which answer won is never guessed.
"""

import contextlib
import json
import os
import pickle
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, BinaryIO

from data_tools import block, gather, readers, report, rules, settle, swap, workers
from data_tools.figures import Figures
from data_tools.formats import FORMATS
from data_tools.formats.shape import parse_label, tidy_key
from data_tools.options import Options, parse
from data_tools.recognise import HEAD, Recognition, listed, recognise
from data_tools.record import ConvertError, Fault, Pair, Raw, Reject
from data_tools.report import Report

_OWN_COLUMNS = ("prompt", "chosen", "rejected", "source", "tools", "chat_template_kwargs")
_OWN_FILES = frozenset(
    {"train", "test", "dataset_dict.json", "rejects.jsonl", "report.json", "README.md"}
    | {f"{split}.{kind}" for split in ("train", "test") for kind in ("parquet", "jsonl")}
)
_SPOOL_IN_MEMORY = 32_000_000  # bytes of checked records held before they go to a file


def convert(options: Options) -> Report:
    """Convert, and say how it went.

    Raises ConvertError: status 2 for inputs and options that cannot be used, 1 where there is
    nothing to convert or no place to write. An older dataset then stands as it was.
    """
    aside = _writing("a temporary file", "set TMPDIR to another place")
    with aside, _standard_input(options.inputs) as stdin:
        files = readers.find_inputs(options.inputs)
        target = None if options.check else _target(options, files)
        found = _recognised(options, files, stdin)
        limits = rules.Limits(options.max_chars, rules.read_excluded(options.exclude_rows))
        task = block.Task(found.shape, found.meaning, limits, options.keep, options.annotators)
        figures = Figures(found.shape.name, found.evidence, list(files), _shaping(options))
        if found.meaning.answers_repeat_prompt:
            figures.notes.append("the answers begin with their prompt, which was taken off them")
        figures.notes += _without_effect(options, files, found)
        again = [path for path in options.inputs if options.inputs.count(path) > 1]
        figures.notes += [f"{path}: is named twice and read once" for path in dict.fromkeys(again)]
        if target is None:
            return _settled_and_written(options, files, stdin, task, figures, None, None)
        with _writing(target, "choose another place with -o"):
            swap.clear_litter(target, _OWN_FILES)
            with swap.written_aside(target) as part:
                return _settled_and_written(options, files, stdin, task, figures, part, target)


@contextlib.contextmanager
def _writing(place: str, mend: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConvertError(
            f"{place}: cannot be written ({error.strerror or error}); free some space or {mend}",
            status=1,
        ) from None


@contextlib.contextmanager
def _standard_input(inputs: Sequence[str]) -> Iterator[BinaryIO | None]:
    """A copy of standard input that can be read twice, where it is asked for."""
    if readers.STDIN not in inputs:
        yield None
        return
    if sys.stdin is None:
        raise ConvertError("-: standard input is closed; pipe the records in or name a file")
    with tempfile.TemporaryFile() as copy:
        try:
            while piece := sys.stdin.buffer.read(1 << 20):
                copy.write(piece)
        except OSError as error:
            raise ConvertError(f"-: standard input cannot be copied ({error.strerror})") from None
        yield copy


def _target(options: Options, files: Sequence[str]) -> str:
    first = options.inputs[0]
    name = "stdin" if first == readers.STDIN else readers.stem_of(first)
    target = os.path.normpath(options.output or os.path.join("data", name))
    real = os.path.realpath(target)
    for path in (*options.inputs, *files):
        source = os.path.realpath(path)
        if path != readers.STDIN and (source == real or source.startswith(real + os.sep)):
            raise ConvertError(
                f"{target}: this is where the input {path} stands; name another output with -o"
            )
    swap.refuse_foreign(target, _OWN_FILES, _is_ours)
    beside = _rejects_beside(target)
    if os.path.lexists(beside) and not _holds_rejects(beside):
        raise ConvertError(
            f"{beside}: exists and was not written by this command, which keeps rejects there "
            "where no pair is kept; move it or choose another place with -o"
        )
    return target


def _rejects_beside(target: str) -> str:
    """Where the rejects go when there is no dataset for them to stand in."""
    return f"{target}.rejects.jsonl"


def _holds_rejects(path: str) -> bool:
    try:
        with open(path, encoding="utf-8") as file:
            first = file.readline()
        return not first or {"file", "record", "reason", "detail"} <= json.loads(first).keys()
    except (OSError, ValueError, AttributeError):
        return False


def _is_ours(target: str) -> bool:
    try:
        with open(os.path.join(target, "report.json"), encoding="utf-8") as file:
            return {"records", "pairs", "splits", "evidence"} <= json.load(file).keys()
    except (OSError, ValueError, AttributeError):
        return False


def _recognised(options: Options, files: Sequence[str], stdin: BinaryIO | None) -> Recognition:
    label = None if options.label is None else parse_label(options.label)
    notes: list[str] = []
    heads = ((path, islice(_read(path, options, stdin, notes), HEAD)) for path in files)
    try:
        found = recognise(
            heads, options.format, options.map, label, options.pairs, options.min_margin
        )
    except ConvertError as error:  # how the file was read may be why nothing fits
        said = f" ({notes[0]})" if notes and error.status == 2 else ""
        raise ConvertError(f"{error}{said}", error.status) from None
    for name in options.keep:
        if options.keep.count(name) > 1:
            raise ConvertError(f"--keep {name}: is given twice; give it once")
        if name in _OWN_COLUMNS:
            raise ConvertError(f"--keep {name}: the dataset has a column of that name anyway")
        if tidy_key(name) not in found.columns:
            there = listed(found.columns)
            raise ConvertError(f"--keep {name}: no such column; there are {there}")
    return found


def _read(
    path: str, options: Options, stdin: BinaryIO | None, notes: list[str] | None = None
) -> Iterator[Raw | Reject]:
    return readers.read(path, options.encoding, notes, stdin, options.sheet)


def _without_effect(options: Options, files: Sequence[str], found: Recognition) -> list[str]:
    """A note for each option that was given and has nothing to decide here."""
    shape, notes = found.shape, []
    if options.pairs != Options.pairs and not shape.ranked:
        notes.append(f"--pairs {options.pairs} changes nothing: {shape.name} holds no ranking")
    if options.min_margin and not shape.rated:
        notes.append(f"--min-margin changes nothing: {shape.name} holds no ratings")
    if options.sheet is not None and not any(readers.syntax_of(f) == ".xlsx" for f in files):
        notes.append(f"--sheet {options.sheet} changes nothing: no input is .xlsx")
    return notes


def _shaping(options: Options) -> dict[str, Any]:
    """The options that shape the output, for report.json."""
    silent = {"inputs", "output", "check", "strict", "json", "workers"}
    return {name: value for name, value in vars(options).items() if name not in silent}


def _settled_and_written(
    options: Options,
    files: Sequence[str],
    stdin: BinaryIO | None,
    task: block.Task,
    figures: Figures,
    part: str | None,
    target: str | None,
) -> Report:
    """Check every record once, settle what needs all of them, write what is kept to `part`."""
    # These load pyarrow, so only once nothing was refused.
    from data_tools import writer
    from data_tools.layout import LayoutFinder

    folder = part and os.path.dirname(part)
    with _spool(folder) as spool, _spool(folder) as whole:
        settlement, finder = settle.Settlement(options.test_size, options.seed), LayoutFinder()
        gatherer = gather.Gatherer(options.annotators, options.pairs, options.min_margin)
        for checked in _checked(options, files, stdin, task, figures):
            gatherer.add(checked, spool.tell())
            pickle.dump(checked, spool, protocol=5)
            if not gatherer.needed:
                _settle(checked, settlement, finder)
            figures.read += 1
            for ballot in checked.ballots:
                figures.ballot(ballot)
        if options.annotators != Options.annotators and not figures.agreement.judged:
            note = f"--annotators {options.annotators} changes nothing: no record names one"
            figures.notes.append(note)
        if gatherer.needed:
            settlement, finder = settle.Settlement(options.test_size, options.seed), LayoutFinder()
            for found in gatherer.resolved(spool):
                results = tuple(block.ruled(result, found.place, task) for result in found.results)
                checked = replace(found, results=results, odd=block.warned(results))
                pickle.dump(checked, whole, protocol=5)
                _settle(checked, settlement, finder)
            spool = whole
        settled = settlement.finish()
        columns = finder.layout(options.keep)
        spool.seek(0)
        with writer.Sink(part, columns, options.to) as sink:
            figures.converted = _written(_unpickled(spool), settled, sink, figures)
            figures.prompts = settled.prompts
            figures.notes += settled.notes + sink.close()
    if task.limits.excluded and not figures.reasons["excluded"]:
        figures.notes.append(
            f"--exclude-rows: none of its {len(task.limits.excluded)} sources meets a pair; write "
            "them as this dataset's own source column has them"
        )
    card_block = columns.card_block() if options.to == "jsonl" else ""
    return _ended(options, figures, part, target, card_block)


def _spool(folder: str | None):
    return tempfile.SpooledTemporaryFile(_SPOOL_IN_MEMORY, dir=folder)


def _settle(checked: block.Checked, settlement: settle.Settlement, finder) -> None:
    for result in checked.results:
        if isinstance(result, Pair):
            settlement.add(result)
            finder.add(result)
        elif isinstance(result, Fault) and result.comparison:
            settlement.exclude(result.comparison, checked.place)


def _checked(
    options: Options,
    files: Sequence[str],
    stdin: BinaryIO | None,
    task: block.Task,
    figures: Figures,
) -> Iterator[block.Checked]:
    from tqdm import tqdm

    items = (item for path in files for item in _read(path, options, stdin, figures.notes))
    count = options.workers or workers.available()
    silent = not sys.stderr.isatty()
    with tqdm(desc="reading", unit=" records", delay=1, disable=silent, leave=False) as bar:
        for checked in workers.check(items, task, options.map, count):
            bar.update()
            yield checked


def _unpickled(spool: BinaryIO) -> Iterator[block.Checked]:
    while True:
        try:
            yield pickle.load(spool)
        except EOFError:
            return


def _written(
    whole: Iterator[block.Checked], settled: settle.Settled, sink, figures: Figures
) -> int:
    """Pairs into their split and faults into the rejects, all counted.

    Returns how many records take part in a pair that is kept.
    """
    survived = bytearray(figures.read)
    for index, checked in enumerate(whole):
        place = checked.place
        for result, odd in zip(checked.results, checked.odd, strict=True):
            outcome = settled.next(place) if isinstance(result, Pair) else result
            if isinstance(outcome, Fault):
                figures.reject(place, outcome, made=checked.made > 0)
                sink.reject(place, outcome, checked.raw, checked.places)
                continue
            for member in checked.members or (index,):
                survived[member] = True
            figures.keep(place, result, odd, outcome)
            sink.keep(outcome, result, str(place), checked.kept)
        figures.count(checked.made)
    return sum(survived)


def _ended(
    options: Options, figures: Figures, part: str | None, target: str | None, card_block: str
) -> Report:
    """Move what was written into place, or the rejects alone where there is no dataset."""
    summary, reason = figures.as_dict(), None
    if not figures.kept:
        reason = "no pair was kept"
    elif options.strict and figures.reasons:
        reason = "--strict, and something was rejected"
    status = 1 if reason else 0
    if part is None:
        return Report(status, summary, reason=reason)
    beside = _rejects_beside(target)
    if reason:
        os.replace(os.path.join(part, "rejects.jsonl"), beside)
        return Report(status, summary, None, beside, f"{reason}: no dataset was written")
    done = Report(status, summary, target, os.path.join(target, "rejects.jsonl"))
    report.write(done, part, card_block)
    swap.move_into_place(part, target)
    with contextlib.suppress(FileNotFoundError):
        os.remove(beside)
    return done


def list_formats() -> str:
    """Every format: name, sentence, fields, polarity and an example record."""
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
    _say(report.as_json(done.figures) if options.json else done.text())
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
    sys.exit(main())
