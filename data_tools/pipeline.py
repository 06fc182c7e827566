"""A conversion from its options to its report: detect, check, group, deduplicate, write.

The first pass checks blocks of records and leaves the pairs of each in a file. Deduplication looks
at the keys of all pairs. The second pass writes the pairs that are kept.
"""

import contextlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from data_tools import checks, dataset, dedupe, output_dir, report, shards, workers
from data_tools.block import BlockResult, Task
from data_tools.block_files import keys_of
from data_tools.dedupe import Split, Verdicts
from data_tools.detect import HEAD, Detection, detect, listed
from data_tools.figures import Figures, Totals, as_dict
from data_tools.first_pass import Inputs, check_blocks, read_excluded, standard_input
from data_tools.formats.format import ReadOptions, tidy_name
from data_tools.formats.label import parse_label
from data_tools.grouping import assemble, groups
from data_tools.options import Options
from data_tools.readers import find_inputs, syntax_of
from data_tools.record import ConvertError
from data_tools.report import Report
from data_tools.schema import Schema
from data_tools.workers import Workers, progress

_SHOWN = (  # of the options, in report.json
    *("format", "map", "label", "pairs", "min_margin", "annotators", "keep", "exclude_rows"),
    *("test_size", "seed", "to", "max_chars", "encoding", "sheet"),
)
_OWN_COLUMNS = ("prompt", "chosen", "rejected", "source", "tools", "chat_template_kwargs")


def run(options: Options) -> Report:
    """Convert the inputs. Raises ConvertError, see `convert.convert`."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(output_dir.signals_restored())
        stack.enter_context(_os_errors("a temporary file", "set TMPDIR to another place"))
        stdin = stack.enter_context(standard_input(options.inputs))
        files = find_inputs(options.inputs)
        target = None
        if not options.check:
            target = output_dir.choose(options.output, options.inputs, files)
        inputs = Inputs(files, options, stdin)
        detection = _detect(options, inputs)
        if target is None:
            part = None
            shared = os.getcwd() if options.scheduler else None  # which all workers see
            work = stack.enter_context(tempfile.TemporaryDirectory(dir=shared))
        else:
            stack.enter_context(_os_errors(target, "choose another directory with -o"))
            part = stack.enter_context(output_dir.temporary(target))
            work = os.path.join(part, output_dir.WORK)
            os.mkdir(work)
        crew = stack.enter_context(_workers(options))  # which ends before its files are removed
        conversion = Conversion(options, inputs, detection, crew, work, part)
        schema = conversion.run()
        return _finish(options, conversion.figures(), schema, part, target)


def _detect(options: Options, inputs: Inputs) -> Detection:
    label = None if options.label is None else parse_label(options.label)
    read_options = ReadOptions(label, False, options.pairs, options.min_margin)
    heads = ((path, islice(inputs.reader(path), HEAD)) for path in inputs.files)
    try:
        found = detect(heads, options.format, options.map, read_options)
    except ConvertError as error:  # how the file was read may be the reason
        note = f" ({inputs.notes[0]})" if inputs.notes and error.status == 2 else ""
        raise ConvertError(f"{error}{note}", error.status) from None
    for name in options.keep:
        if options.keep.count(name) > 1:
            raise ConvertError(f"--keep {name}: is given twice; give it once")
        if name in _OWN_COLUMNS:
            raise ConvertError(f"--keep {name}: the dataset has a column of that name already")
        if tidy_name(name) not in found.columns:
            columns = listed(found.columns)
            raise ConvertError(f"--keep {name}: no such column; there are {columns}")
    return found


def _totals(options: Options, inputs: Inputs, detection: Detection) -> Totals:
    shown = {name: getattr(options, name) for name in _SHOWN}
    format, sheet = detection.format, options.sheet
    totals = Totals(format.name, detection.evidence, list(inputs.files), shown)
    if detection.options.answers_repeat_prompt:
        totals.notes.append("the answers begin with their prompt, which was removed from them")
    if options.pairs != "best-worst" and "ranked" not in format.traits:
        totals.notes.append(f"--pairs {options.pairs} has no effect: {format.name} has no ranking")
    if options.min_margin and "rated" not in format.traits:
        totals.notes.append(f"--min-margin has no effect: {format.name} has no ratings")
    if sheet is not None and not any(syntax_of(f) == ".xlsx" for f in inputs.files):
        totals.notes.append(f"--sheet {sheet} has no effect: no input is .xlsx")
    twice = [path for path in options.inputs if options.inputs.count(path) > 1]
    totals.notes += [f"{path}: is named twice and read once" for path in dict.fromkeys(twice)]
    return totals


def _workers(options: Options):
    if options.scheduler is None:
        return workers.processes(options.workers or workers.available())
    return workers.cluster(options.scheduler)


class Conversion:
    """The passes of one conversion.

    `work` is a folder for what only the run needs, `part` the new dataset, None where everything
    is only counted.
    """

    def __init__(
        self,
        options: Options,
        inputs: Inputs,
        detection: Detection,
        crew: Workers,
        work: str,
        part: str | None,
    ):
        self._options, self._inputs, self._crew = options, inputs, crew
        self._work, self._part = work, part
        self._totals, self._counts = _totals(options, inputs, detection), Figures()
        self._task = Task(
            format=detection.format.name,
            mapping=tuple(options.map.items()),
            options=detection.options,
            annotators=options.annotators,
            limits=checks.Limits(options.max_chars, read_excluded(options.exclude_rows)),
            keep=options.keep,
            split=Split(options.test_size, options.seed),
        )

    def figures(self) -> dict[str, Any]:
        """The content of report.json."""
        return as_dict(self._totals, self._counts)

    def run(self) -> Schema:
        """Do everything but move the dataset into place; returns its schema."""
        task, totals, limits = self._task, self._totals, self._task.limits
        results = self._check()
        self._inputs.check_unchanged()
        totals.notes += self._inputs.notes
        if task.annotators != "majority" and not totals.agreement.judged:
            note = f"--annotators {task.annotators} has no effect: no record names one"
            totals.notes.append(note)
        if pending := [result for result in results if result.files.pending]:
            self._group(pending)
        verdicts = self._dedupe(results)
        schema = Schema(keep=task.keep)
        for result in results:
            schema.merge(result.files.schema)
        self._write(results, verdicts, schema)
        self._inputs.check_unchanged()
        if limits.excluded and not self._counts.reasons["excluded"]:
            totals.notes.append(
                f"--exclude-rows: none of its {len(limits.excluded)} sources is of a pair; write "
                "them as in this dataset's own source column"
            )
        return schema

    def _check(self) -> list[BlockResult]:
        """The first pass: the result of every block, in order."""
        results, totals, in_file = [], self._totals, Counter()
        with progress("checking", self._inputs.size) as bar:
            for result in check_blocks(self._inputs, self._task, self._crew, self._work):
                block = result.block
                bar.update(block.size)
                result.first_record = totals.read
                if block.span is not None:
                    result.records_before = in_file[block.file]
                totals.read += result.records
                in_file[block.file] += result.records
                totals.made += result.made
                for ballot in result.ballots:
                    totals.agreement.add(ballot)
                result.ballots = []  # noted above
                results.append(result)
        return results

    def _group(self, results: Sequence[BlockResult]) -> None:
        """Replace the files of blocks with pending rows by those of what these come to."""
        arguments = (groups.write(results, self._work), self._task, self._work)
        done = workers.in_order(assemble.run, range(len(results)), self._crew, *arguments)
        for result, (files, made) in zip(results, done, strict=True):
            result.files = files
            self._totals.made += made

    def _dedupe(self, results: Sequence[BlockResult]) -> Verdicts:
        """What becomes of each pair."""
        excluded, pairs = {}, 0
        for result in results:
            result.first_pair = pairs
            pairs += result.files.pairs
            excluded = dict(result.files.excluded) | excluded  # the first source counts
        verdicts = dedupe.dedupe(
            lambda: (keys_of(result.files.path) for result in results), pairs, excluded
        )
        self._totals.prompts = verdicts.prompts
        self._totals.notes += verdicts.notes
        return verdicts

    def _write(self, blocks: Sequence[BlockResult], verdicts: Verdicts, schema: Schema) -> None:
        """The second pass: the shards, the rejects and the counts of both."""
        totals, counts, written = self._totals, self._counts, []
        is_converted, size = np.zeros(totals.read, bool), sum(block.files.size for block in blocks)
        kind, directory = self._options.to, self._work if self._part else None
        jobs = shards.jobs(blocks, verdicts, schema, directory, kind)
        with progress("writing", size) as bar:
            for result in workers.in_order(shards.run, jobs, self._crew):
                bar.update(result.size)
                counts.merge(result.figures)
                written.append(result.shards)
                is_converted[result.converted] = True
                if result.rejects:
                    dataset.append_rejects(self._part, result.rejects)
        totals.converted = int(is_converted.sum())
        totals.notes += (
            f"{shards.source_of(pair, blocks)}: kept, though the same pair is listed in "
            f"--exclude-rows as {source}; list this place too, if neither is wanted"
            for pair, source in sorted(verdicts.listed.items())
        )
        alike, where = shards.alike_across_splits(blocks, verdicts.of)
        if where is not None:
            counts.warnings["alike_across_splits"] = alike
            counts.warning_examples["alike_across_splits"] = where
        if self._part is not None:
            dataset.finish(self._part, kind, schema, written)


def _finish(
    options: Options, figures: dict[str, Any], schema: Schema, part: str | None, target: str | None
) -> Report:
    """Move what was written into place, or the rejects alone where there is no dataset."""
    reason = None
    if not figures["pairs"]["kept"]:
        reason = "no pair was kept"
    elif options.strict and figures["reasons"]:
        reason = "--strict, and something was rejected"
    status = 1 if reason else 0
    if part is None:
        return Report(status, figures, reason=reason)
    if reason:
        rejects = output_dir.rejects_next_to(target)
        os.replace(os.path.join(part, "rejects.jsonl"), rejects)
        return Report(status, figures, None, rejects, f"{reason}: no dataset was written")
    done = Report(status, figures, target, os.path.join(target, "rejects.jsonl"))
    report.write(done, part, schema.card_block() if options.to == "jsonl" else "")
    shutil.rmtree(os.path.join(part, output_dir.WORK), ignore_errors=True)
    output_dir.move_into_place(part, target)
    return done


@contextlib.contextmanager
def _os_errors(place: str, fix: str) -> Iterator[None]:
    """OSError as ConvertError (status 1)."""
    try:
        yield
    except OSError as error:
        raise ConvertError(
            f"{place}: cannot be written ({error.strerror or error}); free some space or {fix}",
            status=1,
        ) from None
