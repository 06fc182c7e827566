"""The figures of a conversion: what report.json holds."""

from bisect import bisect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa

from data_tools.annotators import Agreement, share
from data_tools.block_files import numbers_of
from data_tools.checks import PAIR_WARNINGS, share_warnings
from data_tools.record import REASONS, Reject
from data_tools.schema import SIDES

_PERCENTILES = (5, 50, 95, 100)
_SPLITS = ("train", "test")


@dataclass
class Figures:
    """Counts of kept pairs and rejects, which can be added up over shards."""

    reasons: Counter = field(default_factory=Counter)
    not_made: Counter = field(default_factory=Counter)  # rejects that are of no pair, by reason
    examples: dict[str, str] = field(default_factory=dict)
    warnings: Counter = field(default_factory=Counter)
    warning_examples: dict[str, str] = field(default_factory=dict)
    splits: Counter = field(default_factory=Counter)  # kept pairs
    sizes: Counter = field(default_factory=Counter)  # kept pairs by side and its characters
    chosen: Counter = field(default_factory=Counter)  # pairs whose chosen answer is longer, shorter
    ordered: Counter = field(default_factory=Counter)  # by split: pairs with a known order
    first_wins: Counter = field(default_factory=Counter)  # by split

    def reject(self, reject: Reject) -> None:
        self.reasons[reject.reason] += 1
        self.not_made[reject.reason] += not reject.made
        self.examples.setdefault(reject.reason, f"{reject.location}: {reject.detail}")

    def keep(
        self, batch: pa.RecordBatch, rows: np.ndarray, in_test: np.ndarray, sources: Sequence[str]
    ) -> None:
        """Count the kept `rows` of a block of pairs; `sources` are those of all its rows."""
        bits, first_won = numbers_of(batch, "warnings")[rows], numbers_of(batch, "first_won")[rows]
        for bit, code in enumerate(PAIR_WARNINGS if bits.any() else ()):
            warned = np.flatnonzero(bits & (1 << bit))
            if len(warned):
                self.warnings[code] += len(warned)
                self.warning_examples.setdefault(code, sources[rows[warned[0]]])
        for split, mask in zip(_SPLITS, (~in_test, in_test), strict=True):
            won = first_won[mask]
            self.splits[split] += len(won)
            self.ordered[split] += int(np.count_nonzero(won >= 0))
            self.first_wins[split] += int(np.count_nonzero(won > 0))

    def add_sizes(self, prompt: np.ndarray, chosen: np.ndarray, rejected: np.ndarray) -> None:
        """Count the characters of the sides of kept pairs."""
        for (side, _), values in zip(SIDES, (prompt, chosen, rejected), strict=True):
            found, times = np.unique(values, return_counts=True)
            for size, count in zip(found.tolist(), times.tolist(), strict=True):
                self.sizes[side, size] += count
        self.chosen["longer"] += int(np.count_nonzero(chosen > rejected))
        self.chosen["shorter"] += int(np.count_nonzero(chosen < rejected))

    def merge(self, other: "Figures") -> None:
        """Add the figures of later records."""
        for name, found in vars(self).items():
            later = getattr(other, name)
            if isinstance(found, Counter):
                found.update(later)
            else:  # the first example of each code counts
                found.update(later | found)


@dataclass
class Totals:
    """What is known of a conversion as a whole."""

    format: str
    evidence: str
    inputs: list[str]
    options: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    read: int = 0  # records
    converted: int = 0  # records
    made: int = 0  # pairs
    prompts: dict[str, int] = field(default_factory=dict)
    agreement: Agreement = field(default_factory=Agreement)


def as_dict(totals: Totals, figures: Figures) -> dict[str, Any]:
    """The content of report.json."""
    kept, ordered = figures.splits.total(), figures.ordered.total()
    first_wins = figures.first_wins.total()
    prompts = sum(totals.prompts.get(split, 0) for split in _SPLITS)
    longer, unequal = figures.chosen["longer"], figures.chosen.total()
    warnings = figures.warnings | share_warnings(first_wins, ordered, longer, unequal)

    def rate(reason: str) -> float | None:
        """How many comparisons had this reason, of those and the pairs that were made."""
        return share(figures.reasons[reason], totals.made + figures.not_made[reason])

    return {
        "format": totals.format,
        "evidence": totals.evidence,
        "inputs": totals.inputs,
        "options": totals.options,
        "records": {
            "read": totals.read,
            "converted": totals.converted,
            "rejected": totals.read - totals.converted,
        },
        "pairs": {"made": totals.made, "kept": kept, "rejected": totals.made - kept},
        "reasons": {code: figures.reasons[code] for code in REASONS if figures.reasons[code]},
        "examples": {code: figures.examples[code] for code in REASONS if code in figures.examples},
        "warnings": dict(sorted(warnings.items())),
        "warning_examples": dict(sorted(figures.warning_examples.items())),
        "splits": {split: figures.splits[split] for split in _SPLITS},
        "prompts": totals.prompts,
        "pairs_per_prompt": round(kept / prompts, 2) if prompts else None,
        "characters": {side: _percentiles(figures.sizes, side) for side, _ in SIDES},
        "chosen_longer": share(longer, kept),
        "chosen_shorter": share(figures.chosen["shorter"], kept),
        "first_answer_wins": share(first_wins, ordered),
        "ordered_pairs": ordered,
        "order_by_split": {
            split: {"pairs": figures.ordered[split], "first_wins": figures.first_wins[split]}
            for split in _SPLITS
        },
        "ties": rate("tie"),
        "duplicates": rate("duplicate"),
        "contradictions": rate("contradictory"),
        "agreement": totals.agreement.figures(),
        "notes": totals.notes,
    }


def _percentiles(sizes: Counter, side: str) -> dict[str, int]:
    """The sizes of a side at some shares of all pairs."""
    found = sorted((size, pairs) for (name, size), pairs in sizes.items() if name == side)
    ends = [*accumulate(pairs for _, pairs in found)]
    ranks = {f"p{p}": round(p / 100 * (ends[-1] - 1)) for p in _PERCENTILES} if found else {}
    return {mark: found[bisect(ends, rank)][0] for mark, rank in ranks.items()}
