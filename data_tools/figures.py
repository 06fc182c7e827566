"""The figures of a conversion: counted in parts, added up, and what report.json holds of them."""

from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa

from data_tools.annotators import Agreement, share
from data_tools.block_files import numbers_of
from data_tools.checks import PAIR_WARNINGS, share_warnings
from data_tools.dedupe import CONTRADICTORY, SPLITS
from data_tools.record import REASONS, Reject
from data_tools.schema import SIDES

_PERCENTILES = (5, 50, 95, 100)


@dataclass
class Figures:
    """What is known of a conversion, or of some blocks, whose figures can be added up.

    `counts` are by name, and under it by what is counted:
    - records: those `read` and `converted`;
    - pairs: those `made`, and of the kept ones those whose chosen answer is `longer`, `shorter`;
    - reasons, not_made: rejects by reason, all and those that are of no pair;
    - columns: blocks by the columns that were read; unread: records by other columns with a value;
    - warnings: kept pairs by warning;
    - splits, ordered, first_wins: by split the kept pairs, those with a known order, and those of
      them whose first answer won;
    - prompts: by split, and those in both;
    - prompt, chosen, rejected: kept pairs by the characters of that side.
    `examples` has the first place of each reason and warning.
    """

    counts: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    examples: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    agreement: Agreement = field(default_factory=Agreement)

    def reject(self, reject: Reject) -> None:
        self.counts["reasons"][reject.reason] += 1
        self.counts["not_made"][reject.reason] += not reject.made
        self.examples.setdefault(reject.reason, f"{reject.location}: {reject.detail}")

    def warn(self, code: str, count: int, source: str) -> None:
        """Count pairs with a warning, the first of which is at `source`."""
        self.counts["warnings"][code] += count
        self.examples.setdefault(code, source)

    def keep(self, batch: pa.RecordBatch, verdicts: np.ndarray) -> None:
        """Count the kept pairs of a block."""
        rows = np.flatnonzero(verdicts < CONTRADICTORY)

        def numbers(name: str) -> np.ndarray:
            return numbers_of(batch, name)[rows]

        bits, first_won = numbers("warnings"), numbers("first_won")
        for bit, code in enumerate(PAIR_WARNINGS if bits.any() else ()):
            warned = np.flatnonzero(bits & (1 << bit))
            if len(warned):
                self.warn(code, len(warned), batch.column("source")[rows[warned[0]]].as_py())
        for split, verdict in SPLITS.items():
            won = first_won[verdicts[rows] == verdict]
            self.counts["splits"][split] += len(won)
            self.counts["ordered"][split] += int(np.count_nonzero(won >= 0))
            self.counts["first_wins"][split] += int(np.count_nonzero(won > 0))
        for side, _ in SIDES:
            self.counts[side].update(numbers(f"{side}_size").tolist())
        difference = numbers("chosen_size") - numbers("rejected_size")
        self.counts["pairs"]["longer"] += int(np.count_nonzero(difference > 0))
        self.counts["pairs"]["shorter"] += int(np.count_nonzero(difference < 0))

    def merge(self, later: "Figures") -> None:
        """Add the counts and examples of later blocks."""
        for name, counter in later.counts.items():
            self.counts[name].update(counter)
        self.examples = later.examples | self.examples

    def as_dict(self, kept_columns: Sequence[str]) -> dict[str, Any]:
        """What report.json holds but for the format, the inputs and the options."""
        counts = self.counts
        records, pairs, reasons = counts["records"], counts["pairs"], counts["reasons"]
        kept, ordered = counts["splits"].total(), counts["ordered"].total()
        first_wins, longer = counts["first_wins"].total(), pairs["longer"]
        prompts = sum(counts["prompts"][split] for split in SPLITS)
        unequal = longer + pairs["shorter"]
        warnings = counts["warnings"] | share_warnings(first_wins, ordered, longer, unequal)

        def rate(reason: str) -> float | None:
            """How many comparisons had this reason, of those and the pairs that were made."""
            return share(reasons[reason], pairs["made"] + counts["not_made"][reason])

        return {
            "records": {
                "read": records["read"],
                "converted": records["converted"],
                "rejected": records["read"] - records["converted"],
            },
            "pairs": {"made": pairs["made"], "kept": kept, "rejected": pairs["made"] - kept},
            "reasons": {code: reasons[code] for code in REASONS if reasons[code]},
            "examples": {code: self.examples[code] for code in REASONS if reasons[code]},
            "warnings": dict(sorted(warnings.items())),
            "warning_examples": {
                code: self.examples[code] for code in sorted(warnings) if code in self.examples
            },
            "splits": {split: counts["splits"][split] for split in SPLITS},
            "prompts": dict(counts["prompts"]),
            "pairs_per_prompt": round(kept / prompts, 2) if prompts else None,
            "characters": {side: _percentiles(counts[side]) for side, _ in SIDES},
            "chosen_longer": share(longer, kept),
            "chosen_shorter": share(pairs["shorter"], kept),
            "first_answer_wins": share(first_wins, ordered),
            "ordered_pairs": ordered,
            "order_by_split": {
                s: {"pairs": counts["ordered"][s], "first_wins": counts["first_wins"][s]}
                for s in SPLITS
            },
            "ties": rate("tie"),
            "duplicates": rate("duplicate"),
            "contradictions": rate("contradictory"),
            "columns": {
                "read": sorted(counts["columns"]),
                "unread": dict(sorted(counts["unread"].items())),
                "kept": list(kept_columns),
            },
            "agreement": self.agreement.figures(),
            "notes": self.notes,
        }


def _percentiles(sizes: Counter) -> dict[str, int]:
    """The sizes at some shares of all pairs."""
    found = sorted(sizes.items())
    ends = [*accumulate(pairs for _, pairs in found)]
    ranks = {f"p{p}": round(p / 100 * (ends[-1] - 1)) for p in _PERCENTILES} if found else {}
    return {mark: found[bisect(ends, rank)][0] for mark, rank in ranks.items()}
