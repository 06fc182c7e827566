"""How a conversion went, to read: as text, as JSON and as the card of the dataset."""

import json
import os
from dataclasses import dataclass
from typing import Any

from data_tools.odd import WARNINGS
from data_tools.record import clip

# How much is shown of what report.json holds in full.
_SHOWN = 300  # characters of a place with its detail
_NOTES = 10
_INPUTS = 20
_ANNOTATORS = 10


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
        return "\n".join([*_summary(self.figures), *map(_printable, self._ending())])

    def json(self) -> str:
        """The figures as report.json holds them."""
        return as_json(self.figures)

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
    return f"datasets.{name}({json.dumps(directory, ensure_ascii=False)})"


def _summary(figures: dict) -> list[str]:
    """Every line is safe for a terminal, whatever stands in the names of files and columns."""
    lines = [*_counts(figures), *_odd(figures)]
    if figures["pairs"]["kept"]:
        lines += _content(figures)
    if figures["agreement"]:
        lines += _agreement(figures["agreement"])
    return [_printable(line) for line in lines]


def _counts(figures: dict) -> list[str]:
    records, pairs, notes = figures["records"], figures["pairs"], figures["notes"]
    lines = [
        f"format    {figures['format']}: {figures['evidence']}",
        *(f"note      {note}" for note in notes[:_NOTES]),
    ]
    if len(notes) > _NOTES:
        lines.append(f"note      {len(notes) - _NOTES:,} more in report.json")
    lines += [
        f"records   {records['read']:,} read, {records['converted']:,} converted, "
        f"{records['rejected']:,} rejected",
        f"pairs     {pairs['made']:,} made, {pairs['kept']:,} kept, {pairs['rejected']:,} rejected",
    ]
    if figures["reasons"]:
        lines.append("rejected  by reason, with the first place of each")
    for code, count in figures["reasons"].items():
        # The mend stands at the end of the detail, so this line is the last to be cut short.
        lines += [f"  {count:>9,} {code}", f"            {_clip(figures['examples'][code])}"]
    if "duplicate" in figures["reasons"] or "contradictory" in figures["reasons"]:
        lines.append(
            f"repeats   {_percent(figures['duplicates'])} of the pairs are duplicates, "
            f"{_percent(figures['contradictions'])} contradict each other"
        )
    return lines


def _odd(figures: dict) -> list[str]:
    lines = ["odd       kept, but look at them"] if figures["warnings"] else []
    for code, count in figures["warnings"].items():
        place = figures["warning_examples"].get(code)
        shown = f"{place}: {WARNINGS[code]}" if place else WARNINGS[code]
        lines.append(f"  {count:>9,} {code:<21} {_clip(shown)}")
    return lines


def _content(figures: dict) -> list[str]:
    splits, prompts, warned = figures["splits"], figures["prompts"], figures["warnings"]
    lines = [
        f"splits    train {splits['train']:,} pairs ({prompts['train']:,} prompts), "
        f"test {splits['test']:,} ({prompts['test']:,}), prompts in both {prompts['shared']:,}; "
        f"pairs per prompt {figures['pairs_per_prompt']}"
    ]
    for name, sizes in figures["characters"].items():
        shown = ", ".join(f"{mark} {value:,}" for mark, value in sizes.items())
        lines.append(f"length    {name:<8} {shown} characters")
    bias = ": a length bias, which a model learns too" if "length_bias" in warned else ""
    lines.append(
        f"length    chosen is the longer answer in {_percent(figures['chosen_longer'])} of pairs, "
        f"the shorter in {_percent(figures['chosen_shorter'])}{bias}"
    )
    if figures["ordered_pairs"]:
        bias = ": who judged may favour a position" if "first_answer_bias" in warned else ""
        lines.append(
            f"labels    the first answer wins in {_percent(figures['first_answer_wins'])} "
            f"of {figures['ordered_pairs']:,} pairs{bias}"
        )
    if figures["ties"]:
        lines.append(f"labels    {_percent(figures['ties'])} of the judgements are ties")
    return lines


def _agreement(found: dict) -> list[str]:
    """Krippendorff's alpha, the disagreements, and a row for each of the busiest annotators."""
    several = found["judged_twice"]
    lines = [
        f"judges    {found['annotators']:,} annotators, {found['comparisons']:,} comparisons, "
        f"{several:,} of them judged by several"
    ]
    if several:
        alpha = "undefined" if found["alpha"] is None else f"{found['alpha']:.3f}"
        lines += [
            f"judges    Krippendorff's alpha {alpha} (1 is agreement, 0 is chance)",
            f"judges    they disagree on {found['disagreeing']:,} of {several:,} "
            f"({_percent(found['disagreeing_share'])}): a ceiling for any model",
        ]
    if found["majority_ties"]:
        lines.append(f"judges    the majority calls {found['majority_ties']:,} a tie")
    lines.append("          judgements  differs  first wins    ties  annotator")
    for row in found["per_annotator"][:_ANNOTATORS]:
        shares = (row["differs"], row["first_answer_wins"], row["ties"])
        differs, first, ties = map(_percent, shares)
        name = clip(row["annotator"], 40)
        lines.append(
            f"          {row['judgements']:>10,}  {differs:>7}  {first:>10}  {ties:>6}  {name}"
        )
    if found["annotators"] > _ANNOTATORS:
        lines.append(f"          and {found['annotators'] - _ANNOTATORS:,} more in report.json")
    if several:
        lines.append("          differs: from the majority of the others, where they have one")
    return lines


def card(report: Report, block: str) -> str:
    """README.md of the dataset: what it is, its source and figures, how to load it.

    `block` is more of its YAML head, for files that do not say their own types. A `configs:`
    block never stands in it: two directories of one name would then share a cache entry. Nor does
    the directory's own path: the same data gives the same card wherever it stands.
    """
    head = "\n".join(["tags:", "- preference", "- dpo", *block.splitlines()])
    figures = report.figures
    splits, inputs = figures["splits"], figures["inputs"]
    listed = [f"- `{_printable(path)}`" for path in inputs[:_INPUTS]]
    if len(inputs) > _INPUTS:
        listed.append(f"- and {len(inputs) - _INPUTS:,} more, which `report.json` names")
    load = loader(report, "path/to/this/directory")
    kept_columns = [name.replace("|", "\\|") for name in figures["options"].get("keep", ())]
    return "\n".join(
        [
            f"---\n{head}\n---\n",
            "# Preference pairs\n",
            f"{figures['pairs']['kept']:,} pairs, {splits['train']:,} in `train` and "
            f"{splits['test']:,} in `test`: which of two answers to a prompt was preferred.",
            f"Prompts in both splits: {figures['prompts']['shared']:,}.\n",
            f"Converted by `python -m data_tools.convert` from {len(inputs):,} file(s) of the "
            f"format `{figures['format']}`:\n",
            *listed,
            f"\n## Load it\n\n```python\nimport datasets\n\ndataset = {load}\n```\n",
            "| column | what |",
            "|---|---|",
            "| `prompt` | what was asked: a text, or a list of messages, in every row the same |",
            "| `chosen` | the answer that was preferred, in the same form |",
            "| `rejected` | the answer that was not |",
            "| `source` | where in the raw files the pair stands |",
            *(f"| `{_printable(name)}` | as in the records |" for name in kept_columns),
            "\n## Figures\n\n```text",
            *_summary(figures),
            "```\n",
            "What was left out, and why, stands in `rejects.jsonl`; all figures in `report.json`.",
            "The licence is that of the source.\n",
        ]
    )


def write(report: Report, directory: str, card_block: str) -> None:
    """report.json and the dataset card, beside the splits."""
    texts = {"report.json": as_json(report.figures) + "\n", "README.md": card(report, card_block)}
    for name, text in texts.items():
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            file.write(text)


def as_json(figures: dict) -> str:
    return json.dumps(figures, ensure_ascii=False, indent=2)


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{share:.1%}"


def _printable(text: str) -> str:
    """The text with control and other invisible characters written as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _clip(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
