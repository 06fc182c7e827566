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
from itertools import groupby, islice
from typing import Any

import numpy as np

from data_tools import checks, dataset, dedupe, output_dir, report, shards, workers
from data_tools.block import BlockResult, Task
from data_tools.block_files import keys_of, read
from data_tools.dedupe import Verdicts
from data_tools.detect import HEAD, Detection, detect, listed
from data_tools.figures import Figures
from data_tools.first_pass import Inputs, check_blocks, read_excluded
from data_tools.formats.format import ReadOptions
from data_tools.formats.label import parse_label
from data_tools.grouping import assemble
from data_tools.grouping.groups import Groups
from data_tools.options import Options
from data_tools.readers import find_inputs, syntax_of
from data_tools.record import ConvertError, clip, tidy_name
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
    place, fix = "a temporary file", "set TMPDIR to another place"
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(output_dir.signals_restored())
            temporary = stack.enter_context(tempfile.TemporaryDirectory())
            files = find_inputs(options.inputs, temporary)
            target = part = None
            if not options.check:
                target = output_dir.choose(options.output, options.inputs, [*files])
            inputs = Inputs(files, options)
            detection = _detect(options, inputs)
            if target is None:
                shared = os.getcwd() if options.scheduler else None  # which all workers see
                work = stack.enter_context(tempfile.TemporaryDirectory(dir=shared))
            else:
                place, fix = target, "choose another directory with -o"
                part = stack.enter_context(output_dir.temporary(target))
                work = os.path.join(part, output_dir.WORK)
                os.mkdir(work)
            # The workers end before their files are removed.
            crew = stack.enter_context(
                workers.cluster(options.scheduler)
                if options.scheduler
                else workers.Processes(options.workers or workers.available())
            )
            figures, schema = _convert(options, inputs, detection, crew, work, part)
            return _finish(options, figures, schema, part, target)
    except OSError as error:
        raise ConvertError(
            f"{place}: cannot be written ({error.strerror or error}); free some space or {fix}",
            status=1,
        ) from None


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
    if options.keep_splits:
        if found.splits is None:
            raise ConvertError("--keep-splits: no column and no file of the inputs names a split")
        if unknown := [name for name, own in found.splits.names.items() if own is None]:
            raise ConvertError(
                f"--keep-splits: {clip(unknown[0])} names neither train nor test; rename it to one "
                "of train, test, validation, dev or eval"
            )
        found = replace(found, options=replace(found.options, split=found.splits.column))
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
    figures, task = Figures(), _task(options, detection)
    blocks = _first_pass(inputs, task, crew, work, figures)
    verdicts, schema = _dedupe(blocks, figures), Schema(keep=options.keep)
    for block in blocks:
        schema.merge(block.files.schema)
    # --check too finds what the format of a trainer has no place for.
    folder = work if part or options.to in TARGETS else None
    results = workers.in_order(
        shards.run, shards.jobs(blocks, verdicts), crew, schema, folder, options.to
    )
    written = _count(results, blocks, figures)
    if part:
        dataset.finish(part, options.to, schema, written)
    inputs.check_unchanged()
    unread = figures.counts["unread"]
    if context := [name for name in detection.context if unread[name]]:
        fixes = groupby(sorted(context, key=detection.context.get), detection.context.get)
        fixes = "; ".join(f"{', '.join(names)}: {fix}" for fix, names in fixes)
        figures.warn("unread_context", max(unread[name] for name in context), fixes)
    shards.alike_across_splits(blocks, verdicts.of, figures)
    figures.notes[:0] = _notes(options, inputs, detection, task, figures)
    figures.notes += shards.kept_though_excluded(blocks, verdicts.of)
    head = {
        "format": detection.format.name,
        "evidence": detection.evidence,
        "inputs": list(inputs.files),
        "options": {name: getattr(options, name) for name in _SHOWN},
    }
    return head | figures.as_dict(options.keep), schema


def _task(options: Options, detection: Detection) -> Task:
    own = detection.splits.column if options.keep_splits else None
    return Task(
        format=detection.format.name,
        mapping=tuple(detection.mapping.items()),
        options=detection.options,
        annotators=options.annotators,
        limits=checks.Limits(options.max_chars, read_excluded(options.exclude_rows)),
        keep=(*options.keep, own) if own else options.keep,
        split=Split(options.test_size, options.seed, own),
    )


def _notes(
    options: Options, inputs: Inputs, detection: Detection, task: Task, figures: Figures
) -> list[str]:
    """What to note of the options and the inputs."""
    notes, format = [], detection.format
    if detection.options.answers_repeat_prompt:
        notes.append("the answers begin with their prompt, which was removed from them")
    if options.pairs != "best-worst" and "ranked" not in format.traits:
        notes.append(f"--pairs {options.pairs} has no effect: {format.name} has no ranking")
    if options.min_margin and "rated" not in format.traits:
        notes.append(f"--min-margin has no effect: {format.name} has no ratings")
    if options.sheet is not None and not any(syntax_of(f) == ".xlsx" for f in inputs.files):
        notes.append(f"--sheet {options.sheet} has no effect: no input is .xlsx")
    if options.annotators != "majority" and not figures.agreement.votes:
        notes.append(f"--annotators {options.annotators} has no effect: no record names one")
    excluded = task.limits.excluded
    if excluded and not figures.counts["reasons"]["excluded"]:
        notes.append(
            f"--exclude-rows: none of its {len(excluded)} sources is of a pair; write "
            "them as in this dataset's own source column"
        )
    if (splits := detection.splits) and {True, False} <= {*splits.names.values()}:
        mixed = "are mixed and split again; --keep-splits keeps them"
        notes.append(f"{splits}: they {'are kept' if options.keep_splits else mixed}")
    twice = [path for path in options.inputs if options.inputs.count(path) > 1]
    notes += [f"{path}: is named twice and read once" for path in dict.fromkeys(twice)]
    return notes + inputs.notes


def _first_pass(
    inputs: Inputs, task: Task, crew: Workers, work: str, figures: Figures
) -> list[BlockResult]:
    """The result of every block, in order, with the pairs that records of several blocks make."""
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
            counts["pairs"]["made"] += result.files.made
            counts["columns"].update(result.columns)
            counts["unread"] += result.unread
            figures.agreement.merge(result.agreement)
            result.agreement = None  # noted above
            results.append(result)
    inputs.check_unchanged()
    if pending := [result for result in results if result.files.pending]:
        jobs = assemble.assemblies(Groups(pending, figures.agreement), task)
        done = workers.in_order(assemble.run, jobs, crew, task, work)
        for result, files in zip(pending, done, strict=True):
            result.files = files
            counts["pairs"]["made"] += files.made
    return results


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
