"""The figures of a conversion: gathered as it goes, shown as text, JSON and a dataset card."""

import json
import os
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from data_tools.record import REASONS, Fault, Pair, Place
from data_tools.side import size

_PERCENTILES = (5, 50, 95, 100)
_SHOWN = 100  # a place is shown with its detail up to this many characters


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
    examples: dict[str, str] = field(default_factory=dict)
    warned: Counter = field(default_factory=Counter)
    warned_at: dict[str, str] = field(default_factory=dict)
    splits: Counter = field(default_factory=Counter)
    prompts: dict[str, int] = field(default_factory=dict)
    prompt_sizes: array = field(default_factory=lambda: array("Q"))
    chosen_sizes: array = field(default_factory=lambda: array("Q"))
    rejected_sizes: array = field(default_factory=lambda: array("Q"))
    ordered: int = 0
    first_wins: int = 0

    def count(self, made: int, survived: bool) -> None:
        """One more record: how many pairs it made, and whether any of them is kept."""
        self.read += 1
        self.made += made
        self.converted += survived

    def reject(self, place: Place, fault: Fault) -> None:
        self.reasons[fault.reason] += 1
        self.examples.setdefault(fault.reason, f"{place}: {fault.detail}")

    def keep(self, place: Place, pair: Pair, odd: tuple[str, ...], split: str) -> None:
        self.kept += 1
        self.splits[split] += 1
        for code in odd:
            self.warned[code] += 1
            self.warned_at.setdefault(code, str(place))
        self.prompt_sizes.append(size(pair.prompt))
        self.chosen_sizes.append(size(pair.chosen))
        self.rejected_sizes.append(size(pair.rejected))
        if pair.first_won is not None:
            self.ordered += 1
            self.first_wins += pair.first_won

    def as_dict(self) -> dict[str, Any]:
        """The content of report.json; every identity of the counts holds by construction."""
        longer = sum(c > r for c, r in zip(self.chosen_sizes, self.rejected_sizes, strict=True))
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
            "warnings": dict(sorted(self.warned.items())),
            "splits": {name: self.splits[name] for name in ("train", "test")},
            "prompts": self.prompts,
            "characters": {
                "prompt": _percentiles(self.prompt_sizes),
                "chosen": _percentiles(self.chosen_sizes),
                "rejected": _percentiles(self.rejected_sizes),
            },
            "chosen_longer": _share(longer, self.kept),
            "first_answer_wins": _share(self.first_wins, self.ordered),
            "notes": self.notes,
        }


@dataclass(frozen=True)
class Report:
    """How a conversion ended: exit status, figures, where the dataset or its rejects are."""

    status: int
    figures: dict[str, Any]
    output: str | None = None
    rejects: str | None = None
    reason: str | None = None  # why there is no dataset

    def text(self) -> str:
        """The figures with one example place each, then where things are."""
        return "\n".join([*_summary(self.figures), *self._ending()])

    def _ending(self) -> list[str]:
        lines = []
        if self.output:
            lines += [f"dataset   {self.output}", f"open it   {loader(self, self.output)}"]
        if self.rejects and self.figures["reasons"]:
            lines.append(f"rejects   {self.rejects}")
        return lines


def loader(report: Report, directory: str) -> str:
    """The line of Python that opens the dataset at `directory`."""
    name = "load_from_disk" if report.figures["options"]["to"] == "arrow" else "load_dataset"
    return f'datasets.{name}("{directory}")'


def _summary(figures: dict) -> list[str]:
    records, pairs = figures["records"], figures["pairs"]
    lines = [
        f"format    {figures['format']}: {figures['evidence']}",
        *(f"note      {note}" for note in figures["notes"]),
        f"records   {records['read']:,} read, {records['converted']:,} converted, "
        f"{records['rejected']:,} rejected",
        f"pairs     {pairs['made']:,} made, {pairs['kept']:,} kept, {pairs['rejected']:,} rejected",
    ]
    for code, count in figures["reasons"].items():
        lines.append(f"  {count:>9,} {code:<20} {_clip(figures['examples'][code])}")
    for code, count in figures["warnings"].items():
        lines.append(f"  {count:>9,} {code:<20} kept, but look at them")
    if not pairs["kept"]:
        return lines
    splits, prompts = figures["splits"], figures["prompts"]
    lines.append(
        f"splits    train {splits['train']:,} pairs ({prompts['train']:,} prompts), "
        f"test {splits['test']:,} ({prompts['test']:,}), prompts in both {prompts['shared']}"
    )
    for name, sizes in figures["characters"].items():
        shown = ", ".join(f"{mark} {value:,}" for mark, value in sizes.items())
        lines.append(f"length    {name:<8} {shown} characters")
    lines.append(f"chosen is the longer answer in {_percent(figures['chosen_longer'])} of pairs")
    if figures["first_answer_wins"] is not None:
        lines.append(f"the first answer wins in {_percent(figures['first_answer_wins'])} of pairs")
    return lines


def card(report: Report, block: str) -> str:
    """README.md of the dataset: what it is, its source and figures, how to load it.

    `block` is more of its YAML head, for files that do not say their own types. A `configs:`
    block never stands in it: two directories of one name would then share a cache entry. Nor does
    the directory's own path: the same data gives the same card wherever it stands.
    """
    head = "\n".join(["tags:", "- preference", "- dpo", *block.splitlines()])
    figures = report.figures
    summary = "\n".join(_summary(figures))
    inputs = "\n".join(f"- `{path}`" for path in figures["inputs"])
    columns = (
        "`prompt`, `chosen` and `rejected` are all text or all lists of messages; `source` says "
        "where in the raw files a pair stands."
    )
    return (
        f"---\n{head}\n---\n\n"
        "# Preference pairs\n\n"
        f"Converted by `python -m data_tools.convert` from {len(figures['inputs'])} file(s):\n\n"
        f"{inputs}\n\n{columns}\n\n"
        f"```python\nimport datasets\n\ndataset = {loader(report, 'path/to/this/directory')}\n"
        "```\n\n"
        f"```text\n{summary}\n```\n\n"
        "What was left out, and why, stands in `rejects.jsonl`; the figures in `report.json`.\n"
        "The licence is that of the source.\n"
    )


def write(report: Report, directory: str, card_block: str) -> None:
    """report.json and the dataset card, beside the splits."""
    texts = {"report.json": as_json(report.figures) + "\n", "README.md": card(report, card_block)}
    for name, text in texts.items():
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            file.write(text)


def as_json(figures: dict) -> str:
    return json.dumps(figures, ensure_ascii=False, indent=2)


def _percentiles(sizes: array) -> dict[str, int]:
    ranked = sorted(sizes)
    if not ranked:
        return {}
    last = len(ranked) - 1
    return {f"p{p}": ranked[round(p / 100 * last)] for p in _PERCENTILES}


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{share:.1%}"


def _clip(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
