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
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from data_tools import checks, dataset, dedupe, output_dir, report, shards, workers
from data_tools.block import BlockResult, Task
from data_tools.block_files import keys_of, read
from data_tools.dedupe import Verdicts
from data_tools.detect import HEAD, Detection, detect, listed
from data_tools.figures import Figures
from data_tools.first_pass import Inputs, check_blocks, read_excluded, standard_input
from data_tools.formats.format import ReadOptions
from data_tools.formats.label import parse_label
from data_tools.grouping import assemble
from data_tools.grouping.groups import Groups
from data_tools.options import Options
from data_tools.readers import find_inputs, syntax_of
from data_tools.record import ConvertError, tidy_name
from data_tools.report import Report
from data_tools.schema import EXTRAS, SIDES, Schema
from data_tools.splits import Split
from data_tools.targets import TARGETS
from data_tools.workers import Workers, progress

_SHOWN = (  # of the options, in report.json
    *("format", "map", "label", "pairs", "min_margin", "annotators", "keep", "exclude_rows"),
    *("test_size", "keep_splits", "seed", "to", "max_chars", "encoding", "sheet", "header_row"),
)
_OWN_COLUMNS = (*(name for name, _ in SIDES), "source", *EXTRAS)


def run(options: Options) -> Report:
    """Convert the inputs. Raises ConvertError, see `convert.convert`."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(output_dir.signals_restored())
        stack.enter_context(_os_errors("a temporary file", "set TMPDIR to another place"))
        stdin = stack.enter_context(standard_input(options.inputs))
        files = find_inputs(options.inputs, stack.enter_context(tempfile.TemporaryDirectory()))
        target = part = None
        if not options.check:
            target = output_dir.choose(options.output, options.inputs, files)
        inputs = Inputs(files, options, stdin)
        detection = _detect(options, inputs)
        if target is None:
            shared = os.getcwd() if options.scheduler else None  # which all workers see
            work = stack.enter_context(tempfile.TemporaryDirectory(dir=shared))
        else:
            stack.enter_context(_os_errors(target, "choose another directory with -o"))
            part = stack.enter_context(output_dir.temporary(target))
            work = os.path.join(part, output_dir.WORK)
            os.mkdir(work)
        # The workers end before their files are removed.
        processes = workers.Processes(options.workers or workers.available())
        cluster = workers.cluster(options.scheduler) if options.scheduler else None
        crew = stack.enter_context(cluster or processes)
        figures, schema = _convert(options, inputs, detection, crew, work, part)
        return _finish(options, figures, schema, part, target)


def _detect(options: Options, inputs: Inputs) -> Detection:
    label = None if options.label is None else parse_label(options.label)
    read_options = ReadOptions(label, False, options.pairs, options.min_margin)
    heads = {path: islice(inputs.reader(path), HEAD) for path in inputs.files}
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
    if options.keep_splits and found.splits is None:
        raise ConvertError("--keep-splits: no column and no file of the inputs names a split")
    if options.keep_splits:
        found.splits.check()
        read = replace(found.options, split=found.splits.column)
        found = replace(found, options=read)
    return found


def _convert(
    options: Options,
    inputs: Inputs,
    detection: Detection,
    crew: Workers,
    work: str,
    part: str | None,
) -> tuple[dict[str, Any], Schema]:
    """Do everything but move the dataset into place.

    `work` is a folder for what only the run needs, `part` the new dataset, None where everything
    is only counted. Returns the content of report.json and the schema of the dataset.
    """
    figures = Figures(notes=_notes(options, inputs, detection))
    own = detection.splits.column if options.keep_splits else None
    task = Task(
        format=detection.format.name,
        mapping=tuple(detection.mapping.items()),
        options=detection.options,
        annotators=options.annotators,
        limits=checks.Limits(options.max_chars, read_excluded(options.exclude_rows)),
        keep=(*options.keep, own) if own else options.keep,
        split=Split(options.test_size, options.seed, own),
    )
    blocks = _check(inputs, task, crew, work, figures)
    inputs.check_unchanged()
    figures.notes += inputs.notes
    if task.annotators != "majority" and not figures.agreement.annotators:
        figures.notes.append(f"--annotators {task.annotators} has no effect: no record names one")
    _group([block for block in blocks if block.files.pending], task, crew, work, figures)
    verdicts, schema = _dedupe(blocks, figures), Schema(keep=options.keep)
    for block in blocks:
        schema.merge(block.files.schema)
    if options.to in TARGETS:  # --check too finds what the format has no place for
        part = part or work
    jobs, folder = shards.jobs(blocks, verdicts), work if part else None
    results = workers.in_order(shards.run, jobs, crew, schema, folder, options.to)
    written = _count(results, blocks, figures)
    figures.notes += shards.kept_though_excluded(blocks, verdicts.of)
    unread = figures.counts["unread"]
    if context := [name for name in detection.context if unread[name]]:
        fixes = "; ".join(f"{name}: {detection.context[name]}" for name in context)
        figures.warn("unread_context", max(unread[name] for name in context), fixes)
    shards.alike_across_splits(blocks, verdicts.of, figures)
    if part is not None:
        dataset.finish(part, options.to, schema, written)
    inputs.check_unchanged()
    excluded = task.limits.excluded
    if excluded and not figures.counts["reasons"]["excluded"]:
        figures.notes.append(
            f"--exclude-rows: none of its {len(excluded)} sources is of a pair; write "
            "them as in this dataset's own source column"
        )
    head = {
        "format": detection.format.name,
        "evidence": detection.evidence,
        "inputs": list(inputs.files),
        "options": {name: getattr(options, name) for name in _SHOWN},
    }
    found = head | figures.as_dict()
    found["columns"]["kept"] = list(options.keep)
    return found, schema


def _notes(options: Options, inputs: Inputs, detection: Detection) -> list[str]:
    """What to note of the options before anything is converted."""
    notes, format, sheet = [], detection.format, options.sheet
    if detection.options.answers_repeat_prompt:
        notes.append("the answers begin with their prompt, which was removed from them")
    if options.pairs != "best-worst" and "ranked" not in format.traits:
        notes.append(f"--pairs {options.pairs} has no effect: {format.name} has no ranking")
    if options.min_margin and "rated" not in format.traits:
        notes.append(f"--min-margin has no effect: {format.name} has no ratings")
    if sheet is not None and not any(syntax_of(f) == ".xlsx" for f in inputs.files):
        notes.append(f"--sheet {sheet} has no effect: no input is .xlsx")
    if (splits := detection.splits) and True in splits.names.values():
        done = (
            "are kept"
            if options.keep_splits
            else "are mixed and split again; --keep-splits keeps them"
        )
        notes.append(f"{splits.note}: they {done}")
    twice = [path for path in options.inputs if options.inputs.count(path) > 1]
    return notes + [f"{path}: is named twice and read once" for path in dict.fromkeys(twice)]


def _check(
    inputs: Inputs, task: Task, crew: Workers, work: str, figures: Figures
) -> list[BlockResult]:
    """The first pass: the result of every block, in order."""
    results, in_file, counts = [], Counter(), figures.counts
    with progress("checking", inputs.size) as bar:
        for result in check_blocks(inputs, task, crew, work):
            block = result.block
            bar.update(block.size)
            before = in_file[block.file]
            result.records_before = before if block.span else 0
            # Records count from 1, those of a file without spans from its start.
            result.first_record = counts["records"]["read"] - 1 - (0 if block.span else before)
            in_file[block.file] += result.records
            counts["records"]["read"] += result.records
            counts["pairs"]["made"] += result.made
            counts["columns"].update(result.columns)
            counts["unread"] += result.unread
            figures.agreement.merge(result.agreement)
            result.agreement = None  # noted above
            results.append(result)
    return results


def _group(
    blocks: Sequence[BlockResult], task: Task, crew: Workers, work: str, figures: Figures
) -> None:
    """Replace the files of blocks with pending rows by those of what these come to."""
    if not blocks:
        return
    jobs = assemble.assemblies(Groups(blocks), task)
    done = workers.in_order(assemble.run, jobs, crew, task, work)
    for block, (files, made) in zip(blocks, done, strict=True):
        block.files = files
        figures.counts["pairs"]["made"] += made


def _dedupe(blocks: Sequence[BlockResult], figures: Figures) -> Verdicts:
    """What becomes of each pair."""
    pairs = 0
    for block in blocks:
        block.first_pair = pairs
        pairs += block.files.pairs
    files = [f"{block.files.path}.pairs" for block in blocks]
    verdicts = dedupe.dedupe(lambda: (keys_of(read(path)) for path in files), pairs)
    figures.counts["prompts"].update(verdicts.prompts)
    figures.notes += verdicts.notes
    return verdicts


def _count(
    results: Iterator[shards.ShardResult], blocks: Sequence[BlockResult], figures: Figures
) -> list[dataset.Shard]:
    """The second pass: add up the figures of every shard; returns their files."""
    is_converted, written = np.zeros(figures.counts["records"]["read"], bool), []
    with progress("writing", sum(block.files.size for block in blocks)) as bar:
        for result in results:
            bar.update(result.size)
            figures.merge(result.figures)
            is_converted[result.converted] = True
            written.append(result.shard)
    figures.counts["records"]["converted"] = int(is_converted.sum())
    return written


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
