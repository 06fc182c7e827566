"""The figures of a conversion, gathered as it goes: what report.json holds."""

import operator
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from data_tools.agreement import Agreement, Ballot
from data_tools.odd import AlikePrompts, share_warnings
from data_tools.record import REASONS, Fault, Pair, Place
from data_tools.side import size

_PERCENTILES = (5, 50, 95, 100)


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
    alike: AlikePrompts = field(default_factory=AlikePrompts)
    agreement: Agreement = field(default_factory=Agreement)
    splits: Counter = field(default_factory=Counter)
    prompts: dict[str, int] = field(default_factory=dict)
    prompt_sizes: array = field(default_factory=lambda: array("Q"))
    chosen_sizes: array = field(default_factory=lambda: array("Q"))
    rejected_sizes: array = field(default_factory=lambda: array("Q"))
    ordered: Counter = field(default_factory=Counter)  # by split: pairs whose order was recorded
    first_wins: Counter = field(default_factory=Counter)

    def count(self, made: int) -> None:
        """Some pairs were made, kept or not; `read` and `converted` are set from outside."""
        self.made += made

    def ballot(self, ballot: Ballot) -> None:
        self.agreement.add(ballot)

    def reject(self, place: Place, fault: Fault, made: bool = False) -> None:
        """One more line of rejects; `made` says that it is of a pair that was counted as made."""
        self.reasons[fault.reason] += 1
        self.beside[fault.reason] += not made
        self.examples.setdefault(fault.reason, f"{place}: {fault.detail}")

    def keep(self, place: Place, pair: Pair, odd: tuple[str, ...], split: str) -> None:
        self.kept += 1
        self.splits[split] += 1
        for code in odd:
            self.warned[code] += 1
            self.warned_at.setdefault(code, str(place))
        self.alike.add(pair.prompt, split, place)
        self.prompt_sizes.append(size(pair.prompt))
        self.chosen_sizes.append(size(pair.chosen))
        self.rejected_sizes.append(size(pair.rejected))
        if pair.first_won is not None:
            self.ordered[split] += 1
            self.first_wins[split] += pair.first_won

    def as_dict(self) -> dict[str, Any]:
        """The content of report.json; every identity of the counts holds by construction."""
        longer = sum(map(operator.gt, self.chosen_sizes, self.rejected_sizes))
        shorter = sum(map(operator.lt, self.chosen_sizes, self.rejected_sizes))
        warned, warned_at = self._warned(longer, longer + shorter)
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
            "characters": {
                "prompt": _percentiles(self.prompt_sizes),
                "chosen": _percentiles(self.chosen_sizes),
                "rejected": _percentiles(self.rejected_sizes),
            },
            "chosen_longer": _share(longer, self.kept),
            "chosen_shorter": _share(shorter, self.kept),
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

    def _warned(self, longer: int, unequal: int) -> tuple[Counter, dict[str, str]]:
        """The warnings of pairs and those of the whole dataset, and the places of either."""
        warned, places = Counter(self.warned), dict(self.warned_at)
        if alike := self.alike.count():
            warned["alike_across_splits"] = alike
            places["alike_across_splits"] = str(self.alike.example())
        return warned + Counter(
            share_warnings(self.first_wins.total(), self.ordered.total(), longer, unequal)
        ), places


def _percentiles(sizes: array) -> dict[str, int]:
    ranked = sorted(sizes)
    if not ranked:
        return {}
    last = len(ranked) - 1
    return {f"p{p}": ranked[round(p / 100 * last)] for p in _PERCENTILES}


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
