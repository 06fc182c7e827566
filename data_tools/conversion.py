"""A conversion from its options to its report: recognise, check, settle, write.

Two passes over blocks of records, each of which any worker can do: the first checks a block and
leaves what passed in a part, settling looks at the keys of all pairs, the second writes what is
kept. Where records belong together across blocks, they are gathered between the passes.
"""

import contextlib
import os
import pickle
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from typing import Any, BinaryIO

import numpy as np

from data_tools import (
    first_pass,
    gather,
    readers,
    report,
    rules,
    second_pass,
    settle,
    swap,
    target,
    workers,
    writer,
)
from data_tools.agreement import Agreement
from data_tools.alike import AlikePrompts
from data_tools.block import Checked, Task, ruled, warned
from data_tools.blocks import Inputs, in_order
from data_tools.figures import Figures
from data_tools.formats.shape import parse_label, tidy_key
from data_tools.layout import Layout, LayoutFinder
from data_tools.options import Options
from data_tools.progress import Progress
from data_tools.recognise import HEAD, Recognition, listed, recognise
from data_tools.record import ConvertError
from data_tools.report import Report

_OWN_COLUMNS = ("prompt", "chosen", "rejected", "source", "tools", "chat_template_kwargs")
_GATHERED = 2000  # records of one part, where they were gathered
_SPOOL_IN_MEMORY = 32_000_000  # bytes of records that wait for others before they go to a file
_SHARD = 128_000_000  # bytes of parts that go into one shard


def run(options: Options) -> Report:
    """Convert, and say how it went; raises ConvertError as `convert.convert` tells."""
    aside = _writing("a temporary file", "set TMPDIR to another place")
    with aside, _standard_input(options.inputs) as stdin:
        files = readers.find_inputs(options.inputs)
        place = None if options.check else target.choose(options, files)
        inputs = Inputs(files, options.encoding, options.sheet, stdin)
        found = _recognised(options, inputs)
        figures = Figures(found.shape.name, found.evidence, list(files), _shaping(options))
        if found.meaning.answers_repeat_prompt:
            figures.notes.append("the answers begin with their prompt, which was taken off them")
        figures.notes += _without_effect(options, files, found)
        again = [path for path in options.inputs if options.inputs.count(path) > 1]
        figures.notes += [f"{path}: is named twice and read once" for path in dict.fromkeys(again)]
        task = _task(options, found)
        with _crew(options, files) as crew:
            if place is None:
                shared = os.getcwd() if options.scheduler else None  # where its workers see it
                with tempfile.TemporaryDirectory(dir=shared) as work:
                    Conversion(options, inputs, task, figures, crew, work).run()
                return _ended(options, figures, None, None, "")
            with _writing(place, "choose another place with -o"):
                swap.clear_litter(place, target.is_part)
                with swap.written_aside(place) as part:
                    work = os.path.join(part, target.WORK)
                    os.mkdir(work)
                    block = Conversion(options, inputs, task, figures, crew, work, part).run()
                    return _ended(options, figures, part, place, block)


def _crew(options: Options, files: Sequence[str]):
    if options.scheduler is None:
        return workers.crew(options.workers or workers.available())
    from data_tools.cluster import cluster

    return cluster(options.scheduler, files)


def _task(options: Options, found: Recognition) -> Task:
    limits = rules.Limits(options.max_chars, rules.read_excluded(options.exclude_rows))
    mapping = tuple(options.map.items())
    return Task(found.shape, found.meaning, limits, options.keep, options.annotators, mapping)


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


def _recognised(options: Options, inputs: Inputs) -> Recognition:
    label = None if options.label is None else parse_label(options.label)
    heads = ((path, islice(inputs.read(path), HEAD)) for path in inputs.files)
    try:
        found = recognise(
            heads, options.format, options.map, label, options.pairs, options.min_margin
        )
    except ConvertError as error:  # how the file was read may be why nothing fits
        notes = [note for path in inputs.files for note in inputs.notes[path]]
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
    silent = {"inputs", "output", "check", "strict", "json", "workers", "scheduler"}
    return {name: value for name, value in vars(options).items() if name not in silent}


class _MustGather(Exception):  # noqa: N818 - a turn of the way, not a fault
    """A record waits for others, so blocks cannot be settled as they are."""


class Conversion:
    """One conversion under way.

    `work` is a folder for what only the run needs, `part` the dataset in the making, None where
    everything is only counted.
    """

    def __init__(
        self,
        options: Options,
        inputs: Inputs,
        task: Task,
        figures: Figures,
        crew: workers.Crew,
        work: str,
        part: str | None = None,
    ):
        self._options, self._inputs, self._task, self._figures = options, inputs, task, figures
        self._crew, self._work, self._part = crew, work, part
        self._split = settle.Split(options.test_size, options.seed)

    def run(self) -> str:
        """Do it; returns a block for the dataset's card."""
        options, figures = self._options, self._figures
        try:
            with Progress("checking", self._inputs.size) as self._progress:
                self._check()
        except _MustGather:
            with Progress("checking", self._inputs.size) as self._progress:
                self._gather()
        self._inputs.check_unchanged()
        figures.notes += [note for path in self._inputs.files for note in self._inputs.notes[path]]
        if options.annotators != Options.annotators and not figures.agreement.judged:
            note = f"--annotators {options.annotators} changes nothing: no record names one"
            figures.notes.append(note)
        settled = self._settlement.finish()
        layout = self._finder.layout(options.keep)
        with Progress("writing", sum(self._sizes)) as self._progress:
            notes = self._write(settled, layout)
        self._inputs.check_unchanged()
        figures.prompts = settled.prompts
        figures.notes += settled.notes + notes
        excluded = self._task.limits.excluded
        if excluded and not figures.reasons["excluded"]:
            figures.notes.append(
                f"--exclude-rows: none of its {len(excluded)} sources meets a pair; write "
                "them as this dataset's own source column has them"
            )
        return layout.card_block() if options.to == "jsonl" else ""

    def _check(self) -> None:
        """The first pass over every block."""
        self._begin()
        for told, lines, records in self._told(waits=False):
            if told.waiting is not None:
                raise _MustGather
            stretch = None
            if isinstance(told.source, readers.Stretch):
                stretch = replace(told.source, stop=told.stop)
            self._settle(told, lines, records, stretch)

    def _begin(self) -> None:
        self._settlement, self._finder = settle.Settlement(self._work), LayoutFinder()
        self._blocks: list[second_pass.Block] = []
        self._sizes: list[int] = []  # bytes of each block's part
        self._loose: list[bytes] = []  # loose keys of prompts that may be in test
        self._figures.read = self._figures.made = 0
        self._figures.agreement = Agreement()

    def _told(self, waits: bool) -> Iterator[tuple[first_pass.Told, int, int]]:
        """Every block that was checked, with the lines and records of its file before it."""
        sources = self._inputs.sources(counted=bool(self._task.limits.excluded))
        arguments = (self._task, self._split, self._work, waits)
        lines, records = Counter(), Counter()
        for told in in_order(sources, self._crew, first_pass.run, *arguments):
            file, before = told.source.file, told.source.before
            yield told, lines[file] if before is None else 0, records[file]
            if isinstance(told.source, readers.Stretch):
                lines[file] = (lines[file] if before is None else before) + told.lines
                records[file] += told.records
                self._progress.update(told.stop - told.source.start)
            else:
                self._progress.update(told.source.size)
            self._figures.read += told.records
            for ballot in told.ballots:
                self._figures.ballot(ballot)

    def _settle(
        self, told: first_pass.Told, lines: int, records: int, stretch: readers.Stretch | None
    ) -> None:
        """Note what settling and the second pass need to know of a block."""
        first = self._blocks[-1].first + self._blocks[-1].pairs if self._blocks else 0
        self._blocks.append(
            second_pass.Block(
                told.path, told.source.file, lines, records, first, told.pairs, stretch
            )
        )
        self._sizes.append(told.size)
        self._loose.append(told.loose_in_test)
        self._figures.made += told.made
        self._finder.merge(told.finder)
        self._settlement.add(told.entries)
        for comparison, place in told.excluded:
            self._settlement.exclude(comparison, place.moved(lines, records))

    def _gather(self) -> None:
        """The first pass anew, its records brought together before any is settled."""
        self._begin()
        options = self._options
        gatherer = gather.Gatherer(options.annotators, options.pairs, options.min_margin)
        with tempfile.SpooledTemporaryFile(_SPOOL_IN_MEMORY, dir=self._work) as spool:
            for told, lines, records in self._told(waits=True):
                for found in told.waiting:
                    moved = replace(found, place=found.place.moved(lines, records))
                    gatherer.add(moved, spool.tell())
                    pickle.dump(moved, spool, protocol=5)
            together = map(self._ruled, gatherer.resolved(spool))
            for file, found in groupby(together, key=lambda found: found.place.file):
                while batch := list(islice(found, _GATHERED)):
                    path = os.path.join(self._work, f"gathered-{len(self._blocks):06d}")
                    told = first_pass.Told(first_pass.Records(file), path)
                    first_pass.finish(told, batch, self._task, self._split)
                    self._settle(told, 0, 0, None)

    def _ruled(self, found: Checked) -> Checked:
        results = tuple(ruled(result, found.place, self._task) for result in found.results)
        return replace(found, results=results, odd=warned(results))

    def _write(self, settled: settle.Settled, layout: Layout) -> list[str]:
        """The second pass: the shards, the rejects and the figures; returns notes for a reader."""
        figures, survived = self._figures, bytearray(self._figures.read)
        shards, alike = [], AlikePrompts()
        sizes: list[int] = []  # bytes of the parts of each job, known once it is asked for
        jobs, crew = workers.alone_or(self._jobs(settled, layout, sizes), self._crew)
        results = workers.in_order(second_pass.run, jobs, crew)
        for done, size in zip(results, sizes, strict=False):
            self._progress.update(size)
            figures.merge(done.figures)
            alike.merge(done.alike)
            shards.append(done.shards)
            if done.rejects:
                writer.append_rejects(self._part, done.rejects)
            for member in done.members:
                survived[member] = True
        figures.converted += sum(survived)
        found = alike.found()
        figures.alike = len(found)
        if len(found):
            figures.alike_at = str(second_pass.first_alike(found, settled.verdicts, self._blocks))
        if self._part is None:
            return []
        return writer.finish(self._part, self._options.to, layout, shards)

    def _jobs(
        self, settled: settle.Settled, layout: Layout, sizes: list[int]
    ) -> Iterator[second_pass.Job]:
        candidates = os.path.join(self._work, "loose.npy")
        np.save(candidates, np.unique(np.frombuffer(b"".join(self._loose), np.uint64)))
        firsts = np.array([block.first for block in self._blocks])
        start, size = 0, 0
        for stop, more in enumerate(self._sizes, start=1):
            size += more
            if size < _SHARD and stop < len(self._sizes):
                continue
            sizes.append(size)
            blocks, size = self._blocks[start:stop], 0
            pairs = blocks[0].first, blocks[-1].first + blocks[-1].pairs
            verdicts, first = settled.between(*pairs)
            meant = np.unique(np.searchsorted(firsts, first, side="right") - 1)
            yield second_pass.Job(
                number=start,
                blocks=blocks,
                verdicts=verdicts,
                first=first,
                again={n: place for n, place in settled.again.items() if pairs[0] <= n < pairs[1]},
                every=[self._blocks[number] for number in meant],
                layout=layout,
                directory=self._work if self._part else None,
                kind=self._options.to,
                candidates=candidates,
            )
            start = stop


def _ended(
    options: Options, figures: Figures, part: str | None, place: str | None, card_block: str
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
    beside = target.rejects_beside(place)
    if reason:
        os.replace(os.path.join(part, "rejects.jsonl"), beside)
        return Report(status, summary, None, beside, f"{reason}: no dataset was written")
    done = Report(status, summary, place, os.path.join(place, "rejects.jsonl"))
    report.write(done, part, card_block)
    shutil.rmtree(os.path.join(part, target.WORK), ignore_errors=True)
    swap.move_into_place(part, place)
    with contextlib.suppress(FileNotFoundError):
        os.remove(beside)
    return done
