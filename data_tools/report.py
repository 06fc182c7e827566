"""The report of a conversion: as text, as JSON and as the card of the dataset."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

from data_tools.checks import WARNINGS
from data_tools.record import clip, visible
from data_tools.targets import TARGETS

# How much is shown of what report.json holds in full.
_CHARACTERS = 300  # of a place with its detail
_ITEMS = 10  # of a list


@dataclass(frozen=True)
class Report:
    """The outcome of a conversion: exit status, figures, paths of the dataset or its rejects."""

    status: int
    figures: dict[str, Any]
    output: str | None = None
    rejects: str | None = None
    reason: str | None = None  # why there is no dataset

    def text(self) -> str:
        """The figures with one example each, then the paths of what was written."""
        lines = [*_summary(self.figures)]
        if self.output:
            lines += [f"dataset   {self.output}", f"open it   {loader(self, self.output)}"]
        if self.rejects and self.figures["reasons"]:
            lines.append(f"rejects   {self.rejects}")
        return "\n".join(map(visible, lines))

    def _repr_html_(self) -> str:
        """The text, in a notebook."""
        return f"<pre>{escape(self.text())}</pre>"

    def json(self) -> str:
        """The figures as report.json holds them, with invisible characters as escapes."""
        text = json.dumps(self.figures, ensure_ascii=False, indent=2)
        return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def loader(report: Report, directory: str) -> str:
    """The line of Python, or for its own format the trainer's option, that opens the dataset."""
    if (to := report.figures["options"]["to"]) in TARGETS:
        return TARGETS[to].usage.format(directory)
    name = "load_from_disk" if to == "arrow" else "load_dataset"
    return f"datasets.{name}({json.dumps(directory, ensure_ascii=False)})"


_COUNTS = """\
records   {records[read]:,} read, {records[converted]:,} converted, {records[rejected]:,} rejected
pairs     {pairs[made]:,} made, {pairs[kept]:,} kept, {pairs[rejected]:,} rejected"""
_SPLITS = (
    "splits    train {splits[train]:,} pairs ({prompts[train]:,} prompts), test {splits[test]:,} "
    "({prompts[test]:,}), prompts in both {prompts[shared]:,}; pairs per prompt {pairs_per_prompt}"
)
_LONGER = (
    "length    chosen is the longer answer in {chosen_longer:.1%} of pairs, "
    "the shorter in {chosen_shorter:.1%}"
)
_FIRST = "labels    the first answer wins in {first_answer_wins:.1%} of {ordered_pairs:,} pairs"
_JUDGES = (
    "judges    {annotators:,} annotators, {comparisons:,} comparisons, "
    "{judged_twice:,} judged by several"
)
_DISAGREE = (
    "judges    they disagree on {disagreeing:,} of {judged_twice:,} ({disagreeing_share:.1%}), "
    "which limits the accuracy of any model"
)


def _summary(figures: dict) -> Iterator[str]:
    """The lines of the report; names of files and columns may hold control characters."""
    yield "format    {format}: {evidence}".format_map(figures)
    yield from (f"note      {note}" for note in _first(figures["notes"]))
    if unread := figures["columns"]["unread"]:
        named = [f"{clip(name, 40)[1:-1]} ({count:,} records)" for name, count in unread.items()]
        yield f"columns   unread: {', '.join(_first(named))}"
    yield from _COUNTS.format_map(figures).splitlines()
    if figures["reasons"]:
        yield "rejected  by reason, with the first of each"
    for code, count in figures["reasons"].items():
        yield f"  {count:>9,} {code}"
        # The fix is at the end of the detail, so the line is only cut when it is very long.
        yield f"            {_clip(figures['examples'][code])}"
    if figures["warnings"]:
        yield "warnings  kept, but worth a look"
    for code, count in figures["warnings"].items():
        place = figures["warning_examples"].get(code)
        shown = f"{place}: {WARNINGS[code]}" if place else WARNINGS[code]
        yield f"  {count:>9,} {code:<21} {_clip(shown)}"
    if figures["pairs"]["kept"]:
        yield from _content(figures)
    if figures["agreement"]:
        yield from _agreement(figures["agreement"])


def _content(figures: dict) -> Iterator[str]:
    yield _SPLITS.format_map(figures)
    for name, sizes in figures["characters"].items():
        shown = ", ".join(f"{mark} {value:,}" for mark, value in sizes.items())
        yield f"length    {name:<8} {shown} characters"
    yield _LONGER.format_map(figures)
    if figures["ordered_pairs"]:
        yield _FIRST.format_map(figures)
    if figures["ties"]:
        yield f"labels    {figures['ties']:.1%} of the judgements are ties"


def _agreement(found: dict) -> Iterator[str]:
    """Krippendorff's alpha, the disagreements, and a row for each of the busiest annotators."""
    yield _JUDGES.format_map(found)
    if found["judged_twice"]:
        alpha = "undefined" if found["alpha"] is None else f"{found['alpha']:.3f}"
        yield f"judges    Krippendorff's alpha {alpha} (1 is agreement, 0 is chance)"
        yield _DISAGREE.format_map(found)
    if found["majority_ties"]:
        yield f"judges    {found['majority_ties']:,} are a tie by majority"
    yield "          judgements  differs  first wins    ties  annotator"
    yield from (f"          {row}" for row in _first([*map(_annotator, found["per_annotator"])]))
    if found["judged_twice"]:
        yield "          differs: from the majority of the others, where they have one"


def _annotator(row: dict) -> str:
    shares = (row["differs"], row["first_answer_wins"], row["ties"])
    differs, first, ties = ("none" if share is None else f"{share:.1%}" for share in shares)
    name = clip(row["annotator"], 40)
    return f"{row['judgements']:>10,}  {differs:>7}  {first:>10}  {ties:>6}  {name}"


def _first(items: list[str]) -> list[str]:
    """The first items, and how many more there are."""
    more = len(items) - _ITEMS
    return [*items[:_ITEMS], f"{more:,} more in report.json"] if more > 0 else items


def _clip(text: str) -> str:
    return text if len(text) <= _CHARACTERS else text[: _CHARACTERS - 1] + "…"


def card(report: Report, block: str) -> str:
    """README.md of the dataset: what it is, its source and figures, how to load it.

    `block` is added to its YAML head, for files without types of their own. The head has no
    `configs:` block, since two directories of one name would then share a cache entry, and the
    card has no path of the directory, so that the same data gives the same card anywhere.
    """
    figures, inputs = report.figures, report.figures["inputs"]
    listed = "".join(f"- {name}\n" for name in _first([*map(_code, inputs)]))
    columns = [_code(name).replace("|", "\\|") for name in figures["options"].get("keep", ())]
    template = files(__package__).joinpath("card.md").read_text(encoding="utf-8")
    if figures["options"]["to"] in TARGETS:  # whose files have other columns
        start, end = template.index("```python"), template.index("## Figures")
        template = f"{template[:start]}    {{load}}\n\n{template[end:]}"
    return template.format(
        **figures,
        block=f"\n{block}" if block else "",
        files=len(inputs),
        listed=listed,
        load=loader(report, "path/to/this/directory"),
        kept="".join(f"| {name} | as in the records |\n" for name in columns),
        summary="\n".join(map(visible, _summary(figures))),
    )


def _code(name: str) -> str:
    """The name as code in Markdown, whatever backticks it has."""
    longest = max(map(len, re.findall("`+", name)), default=0)
    fence, blank = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{blank}{visible(name)}{blank}{fence}"


def write(report: Report, directory: str, card_block: str) -> None:
    """Write report.json and the dataset card."""
    texts = {"report.json": report.json() + "\n", "README.md": card(report, card_block)}
    for name, text in texts.items():
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            file.write(text)
