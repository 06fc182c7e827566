"""Makes pairs of rows that several records share: what a worker runs between the two passes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from data_tools import annotators, block_files
from data_tools.block import BlockResult, Task, write
from data_tools.block_files import BlockFiles
from data_tools.grouping.groups import Groups
from data_tools.grouping.outcomes import RULES, Outcome
from data_tools.record import BadRecord, LabeledComparison, Pair, Result, ScoredAnswer

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
            is_same = kind is LabeledComparison and not task.split.is_own
            loaded = outcome.rows[:1] if is_same or outcome.fault else outcome.rows
            outcome.places = [groups.place(row) for row in loaded]
            outcome.members, outcome.shared = groups.records(outcome.rows)
            if outcome.other is not None:
                reason, detail = outcome.fault.args
                outcome.fault = BadRecord(reason, detail.format(groups.locate(outcome.other)))
        yield block, found


def run(assembly: Assembly, task: Task, folder: str) -> BlockFiles:
    """Write the files of a block again, with pairs and rejects in place of its pending rows."""
    (block, found), rows = assembly, []
    stored = block_files.load_pending({place for outcome in found for place in outcome.places})
    for outcome in found:
        home, *others = [stored[place] for place in outcome.places]
        in_test = task.split.is_own and any(
            task.split.in_test(b"", row.location.file, row.kept) for row in others
        )
        others = [row.result for row in others]
        result = outcome.fault or _pair(home.result, others, outcome.won, task.annotators)
        row = replace(home, result=result, members=outcome.members, shared=outcome.shared)
        row.in_test, row.made = in_test, outcome.made or not outcome.fault
        rows.append(row)
    rejects = block_files.read_rejects(block.files.path)
    return write(rows, rejects, task, folder, with_raw=block.block.span is None)


def _pair(home: Result, others: Sequence[Result], won: int, mode: str) -> Pair:
    """The pair that the results of an outcome's rows make."""
    if isinstance(home, Pair):
        return home
    if isinstance(home, LabeledComparison):
        return annotators.pair_of(home, won, home.votes, mode)
    if isinstance(home, ScoredAnswer):
        answers = home.answer, others[0].answer
        extras = won == 0, home.tools, home.chat_template_kwargs
        return Pair(home.prompt, answers[won], answers[1 - won], *extras)
    answers = [home.message], [others[0].message]
    # Ranked answers are often in the order of their ranks, so no order is known.
    return Pair([message.message for message in others[1:]], answers[won], answers[1 - won])
