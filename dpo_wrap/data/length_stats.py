"""How tokenised pairs fit: lengths, what max_length cuts, where texts begin and end, counted.

kept, fit = fitted(tokens, marks, moved, limit, mode, overlength)
for line in spoken("train", fit, limit, overlength): print(line)
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from dpo_wrap.model.tokenizer import stop_ids

IDS = ("prompt_ids", "chosen_ids", "rejected_ids")
BATCH = 1000
SHARES = (50, 95, 99, 100)
"""The percentiles that are shown, nearest rank: the last is the longest."""


@dataclass(frozen=True)
class LengthStats:
    """How one split fits max_length and the tokenizer's marks, in pairs."""

    pairs: int
    too_long: int
    """More than max_length tokens in prompt and longer answer."""
    prompt_fills: int
    """The prompt alone takes max_length, so nothing of an answer would be left."""
    identical: int
    """Both answers are the same tokens, for most because what told them apart was cut."""
    end_cut: int
    """Kept, but an answer's end is cut off, so that stopping is not learned from it."""
    prompt_cut: int
    """Kept, but with truncation_mode: keep_end a side's prompt has lost its beginning."""
    prompt_gone: int
    """Of these, pairs of which a side is left without any prompt."""
    endless: int
    """An answer ends in no token that generation stops at, cut or not."""
    two_ends: int
    """An answer ends in two ends of text."""
    two_starts: int
    """The prompt begins with two begin-of-text tokens."""
    no_start: int
    """The prompt lacks the begin-of-text token that this tokenizer puts before plain text."""
    moved: int
    """The prompt's own tokens are no prefix of those of prompt and answer."""
    moved_text: str
    """The end of the first such prompt, which is trained without it."""
    closes: bool
    """The tokenizer itself puts an end of text after every text, also after a prompt."""
    kept: int
    lengths: dict[str, tuple[int, ...]]
    """Tokens of the prompt, the chosen, the rejected answer and of the whole, at SHARES."""

    @property
    def longest(self) -> int:
        """Tokens of the longest pair's prompt and longer answer."""
        return self.lengths["pair"][-1]


@dataclass(frozen=True)
class SpecialTokens:
    """The token ids by which a tokenizer's texts begin and end."""

    tokenizer: PreTrainedTokenizerBase
    stops: frozenset[int]
    start: int | None
    """The begin-of-text id, where the tokenizer puts one before plain text."""
    closes: bool
    """Whether the tokenizer itself puts an end after every text."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "SpecialTokens":
        bos = tokenizer.bos_token_id
        ids = tokenizer("a")["input_ids"]
        begins, closes = bos is not None and ids[:1] == [bos], ids[-1:] == [tokenizer.eos_token_id]
        return cls(tokenizer, frozenset(stop_ids(tokenizer)), bos if begins else None, closes)

    def ends(self, answer: list[int]) -> bool:
        """Whether nothing but white space follows the answer's last stop."""
        place = next((i for i in range(len(answer), 0, -1) if answer[i - 1] in self.stops), None)
        return place is not None and self._blank(tuple(answer[place:]))

    def ends_twice(self, answer: list[int]) -> bool:
        return len(answer) > 1 and answer[-1] in self.stops and answer[-2] in self.stops

    @lru_cache(maxsize=1024)  # noqa: B019 - few tails exist, and the marks live as long as a run
    def _blank(self, ids: tuple[int, ...]) -> bool:
        return not ids or not self.tokenizer.decode(ids).strip()


def kept_ids(
    row: dict[str, list[int]], side: str, limit: int | None, mode: str
) -> tuple[list[int], list[int]]:
    """(prompt ids, answer ids) of one side as TRL's collator leaves them."""
    prompt, answer = row["prompt_ids"], row[f"{side}_ids"]
    excess = max(0, len(prompt) + len(answer) - limit) if limit else 0
    if not excess:
        return prompt, answer
    if mode == "keep_start":
        return prompt[:limit], answer[: max(0, limit - len(prompt))]
    return prompt[excess:], answer[max(0, excess - len(prompt)) :]


def fitted(
    tokens: Dataset,
    marks: SpecialTokens,
    moved: tuple[int, str],
    limit: int | None,
    mode: str,
    overlength: str,
) -> tuple[list[int], LengthStats]:
    """The numbers of the rows that can be trained on, and the counts over all rows.

    `moved` is what tokens.moved_boundaries found.
    """
    keep: list[int] = []
    names = ("too_long", "prompt_fills", "identical", "end_cut", "prompt_cut", "prompt_gone")
    count = dict.fromkeys((*names, "endless", "two_ends", "two_starts", "no_start"), 0)
    lengths = {name: array("I") for name in ("prompt", "chosen", "rejected", "pair")}
    for number, row in enumerate(rows_of(tokens)):
        prompt, answers = row["prompt_ids"], (row["chosen_ids"], row["rejected_ids"])
        whole = len(prompt) + max(map(len, answers))
        parts = (prompt, *answers)
        for name, length in zip(lengths, (*map(len, parts), whole), strict=True):
            lengths[name].append(length)
        count["endless"] += not all(map(marks.ends, answers))
        count["two_ends"] += any(map(marks.ends_twice, answers))
        if marks.start is not None:
            count["two_starts"] += prompt[:2] == [marks.start] * 2
            count["no_start"] += prompt[:1] != [marks.start]
        long = limit is not None and whole > limit
        count["too_long"] += long
        if long and overlength == "drop":
            continue
        if limit is not None and len(prompt) >= limit and mode == "keep_start":
            count["prompt_fills"] += 1
        elif kept_ids(row, "chosen", limit, mode) == kept_ids(row, "rejected", limit, mode):
            count["identical"] += 1
        else:
            keep.append(number)
            count["end_cut"] += long and mode == "keep_start"
            if long and mode == "keep_end":
                left = [len(kept_ids(row, side, limit, mode)[0]) for side in ("chosen", "rejected")]
                count["prompt_cut"] += min(left) < len(prompt)
                count["prompt_gone"] += min(left) == 0
    shown = {name: _percentiles(values) for name, values in lengths.items()}
    both = {"moved": moved[0], "moved_text": moved[1], "closes": marks.closes}
    return keep, LengthStats(pairs=len(tokens), kept=len(keep), lengths=shown, **count, **both)


def lengths_line(split: str, fit: LengthStats) -> str:
    """How long a split's pairs are, in tokens."""
    middle, most, nearly, longest = fit.lengths["pair"]
    return (
        f"{split}: tokens of prompt and longer answer: median {middle:,}, 95 % {most:,}, "
        f"99 % {nearly:,}, longest {longest:,}"
    )


def spoken(split: str, fit: LengthStats, limit: int | None, overlength: str) -> list[str]:
    """What a user should know of a split's tokens, a line for each matter; none where all fits."""
    lines = []
    if fit.too_long or fit.identical:
        lines.append(f"{split}: {'; '.join(_cut(fit, limit, overlength))}")
    if fit.closes:
        lines.append(
            f"{split}: the tokenizer puts an end of text after every text, also after prompts and "
            "twice after answers; set add_eos_token: false in its tokenizer_config.json"
        )
    elif fit.moved:
        lines.append(
            f"{split}: in {fit.moved:,} of {fit.pairs:,} pairs the prompt's tokens are no prefix "
            f"of prompt and answer's, so its end is left out, such as {fit.moved_text[:40]!r}; "
            "end prompts on a token boundary (no space), or use a template that renders both alike"
        )
    if fit.endless:
        lines.append(
            f"{split}: in {fit.endless:,} of {fit.pairs:,} pairs an answer ends in no token that "
            "generation stops at, so the model is not taught to stop there; give a chat_template "
            "that ends a turn in one"
        )
    if fit.two_ends and not fit.closes:
        lines.append(
            f"{split}: in {fit.two_ends:,} of {fit.pairs:,} pairs an answer ends in two ends of "
            "text or turn; remove the one from the data, or from the template"
        )
    if fit.two_starts:
        lines.append(
            f"{split}: {fit.two_starts:,} of {fit.pairs:,} prompts begin with two begin-of-text "
            "tokens; remove the one from the data, or from the template"
        )
    if fit.no_start:
        lines.append(
            f"{split}: {fit.no_start:,} of {fit.pairs:,} prompts lack the begin-of-text token that "
            "this tokenizer puts before plain text; most models were trained with it, so let the "
            "chat_template begin with it"
        )
    return lines


def table(fit: LengthStats) -> list[str]:
    """The lengths in tokens, a line for each part of a pair."""
    heads = "".join(f"{f'{share} %' if share < 100 else 'longest':>9}" for share in SHARES)
    lines = [f"  {'tokens':<9}{heads}"]
    for name, values in fit.lengths.items():
        lines.append(f"  {name:<9}{''.join(f'{value:>9,}' for value in values)}")
    return lines


def rows_of(tokens: Dataset) -> Iterator[dict[str, list[int]]]:
    """Each row's ids, read in batches."""
    for batch in tokens.select_columns(list(IDS)).iter(batch_size=BATCH):
        for values in zip(*(batch[name] for name in IDS), strict=True):
            yield dict(zip(IDS, values, strict=True))


def pair_lengths(tokens: Dataset, limit: int | None) -> np.ndarray:
    """Tokens of each row's prompt and longer answer, cut at `limit`: (rows,)."""
    found = []
    for table in tokens.select_columns(list(IDS)).with_format("arrow").iter(batch_size=BATCH):
        prompt, chosen, rejected = (pc.list_value_length(table[name]) for name in IDS)
        found.append(pc.add(prompt, pc.max_element_wise(chosen, rejected)).to_numpy())
    lengths = np.concatenate(found) if found else np.zeros(0, dtype=int)
    return lengths if limit is None else np.minimum(lengths, limit)


def _cut(fit: LengthStats, limit: int | None, overlength: str) -> Iterator[str]:
    if fit.too_long:
        if overlength == "drop":
            done = "dropped"
        else:
            done = "their beginnings cut" if fit.prompt_cut else "their answers cut"
            if fit.prompt_gone:
                done += (
                    f", {fit.prompt_gone} of them without any prompt on a side (truncation_mode: "
                    "keep_end; keep_start keeps both sides' prompt alike)"
                )
            if fit.prompt_fills:
                done += f", {fit.prompt_fills} of them dropped (the prompt alone fills it)"
            if fit.end_cut:
                done += f", {fit.end_cut} of them without their end of text"
        yield (
            f"{fit.too_long} of {fit.pairs} pairs have more than {limit} tokens (longest "
            f"{fit.longest}): {done}"
        )
    if fit.identical:
        yield f"{fit.identical} dropped, as both answers are the same tokens"


def _percentiles(values: array) -> tuple[int, ...]:
    if not values:
        return (0,) * len(SHARES)
    return tuple(int(v) for v in np.percentile(values, SHARES, method="inverted_cdf"))
