"""Count what max_length does to the pairs of a split, and how their texts begin and end.

keep, stats = length_stats(tokens, special, moved, limit, mode, overlength)
for line in report_lines("train", stats, limit, overlength): print(line)
"""

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from dpo_wrap.model.tokenizer import adds_bos, stop_ids

IDS = ("prompt_ids", "chosen_ids", "rejected_ids")
MASKS = ("chosen_mask", "rejected_mask")
"""Columns of answer_masks.py: which answer tokens are scored. Without them, or null, all are."""
BATCH = 1000
SHARES = (50, 95, 99, 100)
"""The percentiles of the lengths, by nearest rank: the last is the longest."""

PROBLEMS = {
    "too_long": "{n:,} of {pairs:,} pairs have more than {limit:,} tokens in the prompt and the "
    "longer answer (longest {longest:,}; overlength: {overlength})",
    "prompt_fills": "{n:,} pairs dropped, because the prompt alone has max_length tokens",
    "identical": "{n:,} pairs dropped, because both answers are the same tokens",
    "unscored": "{n:,} pairs dropped, because max_length leaves an answer no token to score",
    "end_cut": "{n:,} pairs kept without the end of an answer, and so without its end of text",
    "prompt_cut": "{n:,} pairs kept without the beginning of a prompt (truncation_mode: keep_end)",
    "prompt_gone": "{n:,} of these pairs have no prompt left on a side; set truncation_mode: "
    "keep_start",
    "endless": "in {n:,} of {pairs:,} pairs an answer ends in no token that generation stops at, "
    "so the model does not learn to stop there; set a chat_template that ends each turn with one",
    "two_ends": "in {n:,} of {pairs:,} pairs an answer ends in two ends of text or turn; remove "
    "one from the data or from the template",
    "own_end": "in {n:,} of {pairs:,} pairs an answer ends in an end of text or turn before white "
    "space; no other end is added",
    "two_starts": "{n:,} of {pairs:,} prompts begin with two begin-of-text tokens; remove one from "
    "the data or from the template",
    "no_start": "{n:,} of {pairs:,} prompts lack the begin-of-text token that this tokenizer puts "
    "before plain text, and that most models were trained with; begin the chat_template with it",
    "moved": "in {n:,} of {pairs:,} pairs the prompt's tokens are not a prefix of the tokens of "
    "prompt and answer, so the end of the prompt is dropped, such as {end!r}; end prompts on a "
    "token boundary (no space), or use a template that renders both alike",
    "other_turns": "in {n:,} of {pairs:,} pairs an answer has turns of user or tool; only the "
    "assistant's tokens are scored",
    "empty_reasoning": "in {n:,} of {pairs:,} pairs the template writes an empty reasoning block "
    "before an answer; it is not scored",
}
"""What max_length does, then how texts begin and end: keys of run.json, counted in pairs."""


@dataclass(frozen=True)
class LengthStats:
    """The lengths of one split's pairs, and the problems with them."""

    pairs: int
    kept: int
    counts: Counter[str]
    """Pairs by the names of PROBLEMS."""
    dropped_prompt_end: str
    """The end of the first prompt counted as `moved`, which is trained without it."""
    adds_eos: bool
    """Whether the tokenizer adds an end of text to every text, also to prompts."""
    lengths: dict[str, tuple[int, ...]]
    """Tokens of the prompt, the chosen and the rejected answer and the whole pair, at SHARES."""

    @property
    def longest(self) -> int:
        """Tokens of the longest pair's prompt and longer answer."""
        return self.lengths["pair"][-1]

    def as_record(self) -> dict[str, Any]:
        """The figures for run.json."""
        counts = {name: self.counts[name] for name in PROBLEMS}
        record = {"pairs": self.pairs, **counts, "moved_text": self.dropped_prompt_end}
        return record | {"closes": self.adds_eos, "kept": self.kept, "lengths": self.lengths}


class SpecialTokens:
    """The token ids that a tokenizer's texts should begin and end with."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.stops = frozenset(stop_ids(tokenizer))
        self.bos = tokenizer.bos_token_id if adds_bos(tokenizer) else None
        self.adds_eos = tokenizer("a")["input_ids"][-1:] == [tokenizer.eos_token_id]
        # Cached, because a template ends all answers alike.
        self._is_blank = lru_cache(1024)(lambda ids: not tokenizer.decode(ids).strip())

    def problems(self, prompt: list[int], answers: list[list[int]]) -> Iterator[str]:
        """The names of PROBLEMS that apply to an uncut pair."""
        ends = [self._end(answer) for answer in answers]
        if None in ends:
            yield "endless"
        if any(end and self._follows_end(a, end) for a, end in zip(answers, ends, strict=True)):
            yield "two_ends"
        if self.bos is not None and prompt[:2] == [self.bos] * 2:
            yield "two_starts"
        if self.bos is not None and prompt[:1] != [self.bos]:
            yield "no_start"

    def _end(self, answer: list[int]) -> int | None:
        """The position of the last stop token, if only white space follows it."""
        last = next((n for n in reversed(range(len(answer))) if answer[n] in self.stops), None)
        return last if last is not None and self._is_blank(tuple(answer[last + 1 :])) else None

    def _follows_end(self, answer: list[int], end: int) -> bool:
        """Whether another stop token is before this one, or the same one before white space."""
        before = answer[max(0, end - 3) : end]
        other = self._end(before)
        return before[-1] in self.stops or (other is not None and before[other] == answer[end])


def kept_ids(
    row: dict[str, list[int]], side: str, limit: int | None, mode: str
) -> tuple[list[int], list[int]]:
    """(prompt ids, answer ids) of one side as TRL's collator truncates them."""
    prompt, answer = row["prompt_ids"], row[f"{side}_ids"]
    excess = max(0, len(prompt) + len(answer) - limit) if limit else 0
    if not excess:
        return prompt, answer
    if mode == "keep_start":
        return prompt[:limit], answer[: max(0, limit - len(prompt))]
    return prompt[excess:], answer[max(0, excess - len(prompt)) :]


def kept_mask(row: dict[str, Any], side: str, limit: int | None, mode: str) -> list[bool]:
    """For each answer token of `kept_ids` whether it is scored."""
    mask = row.get(f"{side}_mask") or [True] * len(row[f"{side}_ids"])
    return kept_ids({**row, f"{side}_ids": mask}, side, limit, mode)[1]


def scored_ids(row: dict[str, Any], side: str, limit: int | None, mode: str) -> list[int]:
    """The answer tokens of `kept_ids` that are scored."""
    return [*compress(kept_ids(row, side, limit, mode)[1], kept_mask(row, side, limit, mode))]


def length_stats(
    tokens: Dataset,
    special: SpecialTokens,
    moved: tuple[int, str],
    limit: int | None,
    mode: str,
    overlength: str,
) -> tuple[list[int], LengthStats]:
    """The numbers of the rows to train on, and the figures of all rows.

    `moved` is the result of tokenize.moved_boundaries.
    """
    keep: list[int] = []
    counts = Counter(moved=moved[0])
    lengths = {name: array("I") for name in ("prompt", "chosen", "rejected", "pair")}
    for number, row in enumerate(rows_of(tokens)):
        prompt, *answers = (row[name] for name in IDS)
        size = len(prompt) + max(map(len, answers))
        sizes = (*map(len, (prompt, *answers)), size)
        for values, length in zip(lengths.values(), sizes, strict=True):
            values.append(length)
        counts.update(special.problems(prompt, answers))
        long = limit is not None and size > limit
        counts["too_long"] += long
        if long and overlength == "drop":
            continue
        chosen, rejected = (kept_ids(row, side, limit, mode) for side in ("chosen", "rejected"))
        if limit is not None and len(prompt) >= limit and mode == "keep_start":
            counts["prompt_fills"] += 1
        elif chosen == rejected:
            counts["identical"] += 1
        elif not all(any(kept_mask(row, side, limit, mode)) for side in ("chosen", "rejected")):
            counts["unscored"] += 1
        else:
            keep.append(number)
            if long and mode == "keep_start":
                counts["end_cut"] += 1
            elif long:
                left = min(len(chosen[0]), len(rejected[0]))
                counts["prompt_cut"] += left < len(prompt)
                counts["prompt_gone"] += left == 0
    percentiles = {name: _percentiles(values) for name, values in lengths.items()}
    return keep, LengthStats(
        len(tokens), len(keep), counts, moved[1], special.adds_eos, percentiles
    )


def lengths_line(split: str, stats: LengthStats) -> str:
    """One line with the lengths of a split's pairs in tokens."""
    p50, p95, p99, longest = stats.lengths["pair"]
    return (
        f"{split}: tokens of prompt and longer answer: median {p50:,}, 95 % {p95:,}, "
        f"99 % {p99:,}, longest {longest:,}"
    )


def report_lines(split: str, stats: LengthStats, limit: int | None, overlength: str) -> list[str]:
    """A line for each problem with a split's tokens."""
    lines = []
    if stats.adds_eos:
        lines.append(
            f"{split}: the tokenizer adds an end of text to every text, also to prompts and twice "
            "to answers; set add_eos_token: false in its tokenizer_config.json"
        )
    values = {"pairs": stats.pairs, "longest": stats.longest, "end": stats.dropped_prompt_end[:40]}
    for name, text in PROBLEMS.items():
        explained = stats.adds_eos and name in ("moved", "two_ends")
        if (n := stats.counts[name]) and not explained:
            line = text.format(n=n, limit=limit, overlength=overlength, **values)
            lines.append(f"{split}: {line}")
    return lines


def token_columns(tokens: Dataset) -> list[str]:
    """The columns that the collator reads: IDS, and MASKS where there are any."""
    return [name for name in (*IDS, *MASKS) if name in tokens.column_names]


def rows_of(tokens: Dataset) -> Iterator[dict[str, Any]]:
    """Each row's ids and masks, read in batches."""
    for batch in tokens.select_columns(token_columns(tokens)).iter(batch_size=BATCH):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def pair_lengths(tokens: Dataset, limit: int | None) -> np.ndarray:
    """Tokens of each row's prompt and longer answer, at most `limit`: (rows,)."""
    found = []
    for batch in tokens.select_columns(list(IDS)).with_format("arrow").iter(batch_size=BATCH):
        prompt, chosen, rejected = (pc.list_value_length(batch[name]) for name in IDS)
        found.append(pc.add(prompt, pc.max_element_wise(chosen, rejected)).to_numpy())
    lengths = np.concatenate(found) if found else np.zeros(0, dtype=int)
    return lengths if limit is None else np.minimum(lengths, limit)


def _percentiles(values: array) -> tuple[int, ...]:
    if not values:
        return (0,) * len(SHARES)
    return tuple(int(v) for v in np.percentile(values, SHARES, method="inverted_cdf"))
