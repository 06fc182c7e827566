"""The figures of a conversion, gathered as it goes: what report.json holds."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_tools.agreement import Agreement, Ballot
from data_tools.odd import PAIR_WARNINGS, share_warnings
from data_tools.record import REASONS, Fault, Place

_PERCENTILES = (5, 50, 95, 100)
SIDES = ("prompt", "chosen", "rejected")


@dataclass
class Figures:
    """Counts while they grow; `as_dict` is what report.json holds."""

    shape: str
    evidence: str
    inputs: list[str]
    options: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    read: int = 0
    converted: int = 0
    made: int = 0
    kept: int = 0
    reasons: Counter = field(default_factory=Counter)
    beside: Counter = field(default_factory=Counter)  # those reasons that no made pair has
    examples: dict[str, str] = field(default_factory=dict)
    warned: Counter = field(default_factory=Counter)
    warned_at: dict[str, str] = field(default_factory=dict)
    alike: int = 0  # prompts of test that stand in train but for case and punctuation
    alike_at: str = ""  # where the first of them stands
    agreement: Agreement = field(default_factory=Agreement)
    splits: Counter = field(default_factory=Counter)
    prompts: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, Counter] = field(default_factory=lambda: {side: Counter() for side in SIDES})
    longer: int = 0  # pairs whose chosen answer is the longer one
    shorter: int = 0
    ordered: Counter = field(default_factory=Counter)  # by split: pairs whose order was recorded
    first_wins: Counter = field(default_factory=Counter)

    def ballot(self, ballot: Ballot) -> None:
        self.agreement.add(ballot)

    def reject(self, place: Place, fault: Fault, made: bool = False) -> None:
        """One more line of rejects; `made` says that it is of a pair that was counted as made."""
        self.reasons[fault.reason] += 1
        self.beside[fault.reason] += not made
        self.examples.setdefault(fault.reason, f"{place}: {fault.detail}")

    def keep(
        self, pairs: Mapping[str, np.ndarray], in_test: np.ndarray, place: Callable[[int], Place]
    ) -> None:
        """Pairs that are kept in either split, by what the parts hold of them, and their places."""
        self.kept += len(pairs["odd"])
        for bit, code in enumerate(PAIR_WARNINGS):
            rows = np.flatnonzero(pairs["odd"] & (1 << bit))
            if len(rows):
                self.warned[code] += len(rows)
                self.warned_at.setdefault(code, str(place(int(rows[0]))))
        for side, counts in self.sizes.items():
            values, times = np.unique(pairs[f"{side}_size"], return_counts=True)
            counts.update(dict(zip(values.tolist(), times.tolist(), strict=True)))
        chosen, rejected = pairs["chosen_size"], pairs["rejected_size"]
        self.longer += int(np.count_nonzero(chosen > rejected))
        self.shorter += int(np.count_nonzero(chosen < rejected))
        for split, rows in (("train", ~in_test), ("test", in_test)):
            won = pairs["first_won"][rows]
            self.splits[split] += len(won)
            self.ordered[split] += int(np.count_nonzero(won >= 0))
            self.first_wins[split] += int(np.count_nonzero(won > 0))

    def merge(self, other: "Figures") -> None:
        """The figures of records further on, of the same conversion."""
        for name in ("read", "converted", "made", "kept", "longer", "shorter"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("reasons", "beside", "warned", "splits", "ordered", "first_wins"):
            getattr(self, name).update(getattr(other, name))
        for side, counts in self.sizes.items():
            counts.update(other.sizes[side])
        self.examples = other.examples | self.examples
        self.warned_at = other.warned_at | self.warned_at
        self.notes += other.notes

    def as_dict(self) -> dict[str, Any]:
        """The content of report.json; every identity of the counts holds by construction."""
        warned, warned_at = self._warned()
        prompts = sum(self.prompts.get(s, 0) for s in ("train", "test"))
        return {
            "format": self.shape,
            "evidence": self.evidence,
            "inputs": self.inputs,
            "options": self.options,
            "records": {
                "read": self.read,
                "converted": self.converted,
                "rejected": self.read - self.converted,
            },
            "pairs": {
                "made": self.made,
                "kept": self.kept,
                "rejected": self.made - self.kept,
            },
            "reasons": {code: self.reasons[code] for code in REASONS if self.reasons[code]},
            "examples": {code: self.examples[code] for code in REASONS if code in self.examples},
            "warnings": dict(sorted(warned.items())),
            "warning_examples": dict(sorted(warned_at.items())),
            "splits": {name: self.splits[name] for name in ("train", "test")},
            "prompts": self.prompts,
            "pairs_per_prompt": round(self.kept / prompts, 2) if prompts else None,
            "characters": {side: _percentiles(counts) for side, counts in self.sizes.items()},
            "chosen_longer": _share(self.longer, self.kept),
            "chosen_shorter": _share(self.shorter, self.kept),
            "first_answer_wins": _share(self.first_wins.total(), self.ordered.total()),
            "ordered_pairs": self.ordered.total(),
            "order_by_split": {
                name: {"pairs": self.ordered[name], "first_wins": self.first_wins[name]}
                for name in ("train", "test")
            },
            "ties": self._rate("tie"),
            "duplicates": self._rate("duplicate"),
            "contradictions": self._rate("contradictory"),
            "agreement": self.agreement.figures(),
            "notes": self.notes,
        }

    def _rate(self, reason: str) -> float | None:
        """How many comparisons had this reason, of those and the pairs that were made."""
        return _share(self.reasons[reason], self.made + self.beside[reason])

    def _warned(self) -> tuple[Counter, dict[str, str]]:
        """The warnings of pairs and those of the whole dataset, and the places of either."""
        warned, places = Counter(self.warned), dict(self.warned_at)
        if self.alike:
            warned["alike_across_splits"] = self.alike
            places["alike_across_splits"] = self.alike_at
        unequal = self.longer + self.shorter
        return warned + Counter(
            share_warnings(self.first_wins.total(), self.ordered.total(), self.longer, unequal)
        ), places


def _percentiles(sizes: Counter) -> dict[str, int]:
    """The sizes at some shares of all pairs, from how many pairs have each."""
    last, found, passed = sizes.total() - 1, {}, 0
    ranks = {f"p{p}": round(p / 100 * last) for p in _PERCENTILES} if sizes else {}
    for value in sorted(sizes):
        passed += sizes[value]
        found |= {
            mark: value for mark, rank in ranks.items() if mark not in found and rank < passed
        }
    return found


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
