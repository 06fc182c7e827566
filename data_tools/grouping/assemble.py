"""Makes pairs of rows that several records share: what a worker runs between the two passes."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from uuid import uuid4

from data_tools import annotators, block_files
from data_tools.block import BlockResult, Task
from data_tools.block_files import BlockFiles
from data_tools.grouping.groups import Groups
from data_tools.grouping.outcomes import RULES, Outcome
from data_tools.record import (
    BadRecord,
    LabeledComparison,
    Pair,
    Reject,
    Result,
    ScoredAnswer,
    as_json,
)

Assembly = tuple[BlockResult, list[Outcome]]


def assemblies(groups: Groups, task: Task) -> Iterator[Assembly]:
    """What the pending rows of each block come to, in their order."""
    kind = groups.blocks[0].files.pending
    waiting: list[list[Outcome]] = [[] for _ in groups.blocks]
    for number, block in enumerate(groups.blocks):
        for group in groups.led_in(number):
            for outcome in RULES[kind](groups, group, task):
                waiting[groups.block_of(outcome.rows[0])].append(outcome)
        # Every outcome of a later group is reported further on.
        found, waiting[number] = sorted(waiting[number], key=lambda each: each.rows[0]), []
        for outcome in found:
            is_home_enough = kind is LabeledComparison or outcome.fault
            loaded = outcome.rows[:1] if is_home_enough else outcome.rows
            outcome.places = [groups.place(row) for row in loaded]
            outcome.members, outcome.shared = groups.records(outcome.rows)
            if outcome.other is not None:
                reason, detail = outcome.fault.args
                outcome.fault = BadRecord(reason, detail.format(groups.locate(outcome.other)))
        yield block, found


def run(assembly: Assembly, task: Task, folder: str) -> tuple[BlockFiles, int]:
    """Write the files of a block again, with pairs and rejects in place of its pending rows.

    Also returns how many pairs these made.
    """
    (block, found), rows = assembly, []
    stored = block_files.load_pending({place for outcome in found for place in outcome.places})
    rejects = block_files.read_rejects(block.files.path, block.block.file)
    for outcome in found:
        home, *others = [stored[place] for place in outcome.places]
        if fault := outcome.fault:
            reject = (home.location, fault.reason, fault.detail, as_json(home.raw))
            rejects.append(Reject(*reject, outcome.made > 0, outcome.shared))
        else:
            pair = _pair(home.result, [row.result for row in others], outcome.won)
            row = replace(home, result=pair, members=outcome.members, shared=outcome.shared)
            rows.append(row)
    path, with_raw = os.path.join(folder, uuid4().hex), block.block.span is None
    files, failed = block_files.write_pairs(
        path, rows, task.limits, task.split, task.keep, with_raw
    )
    files.size += block_files.write_rejects(path, rejects + failed)
    return files, sum(outcome.made for outcome in found)


def _pair(home: Result, others: Sequence[Result], won: int) -> Pair:
    """The pair that the results of an outcome's rows make."""
    if isinstance(home, Pair):
        return home
    if isinstance(home, LabeledComparison):
        return annotators.pair_of(home, won)
    if isinstance(home, ScoredAnswer):
        answers = home.answer, others[0].answer
        extras = won == 0, home.tools, home.chat_template_kwargs
        return Pair(home.prompt, answers[won], answers[1 - won], *extras)
    answers = [home.message], [others[0].message]
    # Ranked answers are often in the order of their ranks, so no order is known.
    return Pair([message.message for message in others[1:]], answers[won], answers[1 - won])
