"""Which rows stand in a batch: found again by their ids, all that the collator leaves of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl import DPOTrainer

from dpo_wrap.data.length_stats import kept_ids, rows_of

SHOWN = 5
BEGINNING = 40
"""How many rows a message names, and the characters that it shows of a prompt without a source."""


@dataclass(frozen=True)
class Row:
    """A pair of a batch."""

    name: str
    tokens: int
    """Of the prompt and the longer answer, as cut."""


def rows_in(trainer: DPOTrainer, batch: dict[str, Any]) -> list[Row]:
    """The pairs of a batch, in its order. Reads through the splits, so only for a failure."""
    pairs = _pairs(batch)
    names: dict[Any, str] = {}
    for split, rows in _splits(trainer):
        if len(names) < len(set(pairs)):
            names = _found(trainer, split, rows, pairs) | names
    return [
        Row(names.get(pair, "a row that was not found again"), max(map(len, pair)))
        for pair in pairs
    ]


def name_of(
    rows: Dataset, number: int, split: str, tokenizer: PreTrainedTokenizerBase | None = None
) -> str:
    """A row's `source`, or its place in the split and how its prompt begins."""
    row = rows[number]
    if row.get("source"):
        return row["source"]
    text = tokenizer.decode(row["prompt_ids"], skip_special_tokens=True) if tokenizer else ""
    return f"{split}[{number}]" + (f" ({text[:BEGINNING]!r})" if text else "")


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _pairs(batch: dict[str, Any]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Each pair's ids, prompt and answer, chosen and rejected, without padding."""
    lines = zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True)
    whole = [tuple(i for i, real in zip(*line, strict=True) if real) for line in lines]
    # A batch holds its chosen rows first, then its rejected ones.
    half = len(whole) // 2
    return list(zip(whole[:half], whole[half:], strict=True))


def _splits(trainer: DPOTrainer) -> Iterator[tuple[str, Dataset]]:
    held_out = trainer.eval_dataset
    yield "train", trainer.train_dataset
    if held_out is not None:
        yield from held_out.items() if isinstance(held_out, dict) else [("test", held_out)]


def _found(trainer: DPOTrainer, split: str, rows: Dataset, pairs: list[Any]) -> dict[Any, str]:
    limit, mode, wanted = trainer.args.max_length, trainer.args.truncation_mode, set(pairs)
    lengths = {tuple(map(len, pair)) for pair in pairs}
    found: dict[Any, str] = {}
    for number, row in enumerate(rows_of(rows)):
        sides = ("chosen", "rejected")
        whole = [len(row["prompt_ids"]) + len(row[f"{side}_ids"]) for side in sides]
        if tuple(min(n, limit or n) for n in whole) not in lengths:
            continue
        parts = (kept_ids(row, side, limit, mode) for side in sides)
        pair = tuple((*prompt, *answer) for prompt, answer in parts)
        if pair in wanted and pair not in found:
            found[pair] = name_of(rows, number, split, trainer.processing_class)
            if len(found) == len(wanted):
                break
    return found
