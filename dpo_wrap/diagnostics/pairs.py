"""Names of the pairs of a batch, and the length and similarity of the answers to train on."""

import random
from typing import Any

from datasets import Dataset
from trl import DPOTrainer

from dpo_wrap.data.length_stats import kept_ids, rows_of, scored_ids

SIDES = ("chosen", "rejected")
SHOWN = 5
"""Pairs that a message names."""
SAMPLE = 2000
"""Training pairs that are read for a mean, at most; the same ones every time."""
SIMILAR = 0.8
"""Answers of this similarity or more are almost identical."""


def batch_rows(trainer: DPOTrainer, batch: dict[str, Any]) -> list[tuple[str, int]]:
    """(name, tokens of the prompt and the longer answer) of each pair of a batch, in its order.

    A batch holds token ids alone, so all rows are searched for them: for runs that failed only.
    """
    masks = batch["attention_mask"].bool()
    ids = [tuple(row[mask].tolist()) for row, mask in zip(batch["input_ids"], masks, strict=True)]
    # A batch holds its chosen rows first, then its rejected rows.
    pairs = list(zip(ids[: len(ids) // 2], ids[len(ids) // 2 :], strict=True))
    wanted, names = set(pairs), {}
    for split, rows in (("train", trainer.train_dataset), ("test", trainer.eval_dataset)):
        for number, row in enumerate(rows_of(rows) if rows is not None else ()):
            pair = tuple((*prompt, *answer) for prompt, answer in _both_sides(trainer, row))
            if pair in wanted and pair not in names:
                names[pair] = _name(rows, split, number)
    return [(names.get(pair, "an unknown row"), max(map(len, pair))) for pair in pairs]


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def answer_tokens(trainer: DPOTrainer) -> dict[str, float]:
    """Mean scored tokens of a chosen and of a rejected training answer, cut at max_length."""
    _, *columns = zip(*_sample(trainer), strict=True)
    sides = zip(SIDES, columns, strict=True)
    return {side: sum(map(len, answers)) / len(answers) for side, answers in sides}


def similar_answers(trainer: DPOTrainer) -> tuple[float, str]:
    """(share of training pairs with almost identical answers, the most similar pairs by name)."""
    found = [(similarity(chosen, rejected), row) for row, chosen, rejected in _sample(trainer)]
    closest = sorted(found, key=lambda pair: (-pair[0], pair[1]))[:SHOWN]
    names = [
        f"{_name(trainer.train_dataset, 'train', row)} ({value:.2f})" for value, row in closest
    ]
    return sum(value >= SIMILAR for value, _ in found) / len(found), ", ".join(names)


def similarity(one: list[int], other: list[int]) -> float:
    """2 LCS / (length + length): the share of tokens in common and in order, from 0 to 1.

    The longest common subsequence (LCS) is counted in the bits of one integer (Allison and Dix
    1986, in the form of Hyyrö 2004): 0.4 ms for answers of 1,000 tokens.
    """
    positions: dict[int, int] = {}
    for position, token in enumerate(one):
        positions[token] = positions.get(token, 0) | 1 << position
    full = free = (1 << len(one)) - 1
    for token in other:
        matched = free & positions.get(token, 0)
        free = (free + matched | free - matched) & full
    return 2 * (len(one) - free.bit_count()) / max(1, len(one) + len(other))


def _sample(trainer: DPOTrainer) -> list[tuple[int, list[int], list[int]]]:
    """(row, chosen ids, rejected ids), cut at max_length and scored, of some training pairs."""
    rows, args = trainer.train_dataset, trainer.args
    numbers = sorted(random.Random(0).sample(range(len(rows)), min(SAMPLE, len(rows))))
    return [
        (number, *(scored_ids(row, side, args.max_length, args.truncation_mode) for side in SIDES))
        for number, row in zip(numbers, rows_of(rows.select(numbers)), strict=True)
    ]


def _both_sides(trainer: DPOTrainer, row: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
    """(prompt ids, answer ids) of the chosen and of the rejected side, cut at max_length."""
    limit, mode = trainer.args.max_length, trainer.args.truncation_mode
    return [kept_ids(row, side, limit, mode) for side in SIDES]


def _name(rows: Dataset, split: str, number: int) -> str:
    """The row's `source` column, such as `pairs.csv:7`, or its position in the split."""
    return rows[number].get("source") or f"{split}[{number}]"
