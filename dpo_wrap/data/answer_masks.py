"""Which tokens of an answer are scored: the assistant's own.

User and tool turns within an answer are context, and so is the empty reasoning block that some
templates write before an answer (`<think></think>`): the model does not generate them. An answer of
one message without such a block is scored whole and needs no mask.
"""

import functools
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from os.path import commonprefix
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from trl import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference

from dpo_wrap.data.length_stats import BATCH, IDS, MASKS, kept_ids, kept_mask
from dpo_wrap.model.tokenizer import PROBE, stop_ids

ROW = (*IDS, "prompt", "chosen", "rejected", "tools", "chat_template_kwargs")
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""The tag with which a template marks what the assistant generates."""
REASON = "probe_reason"

Message = dict[str, Any]


@dataclass
class MaskingCollator(DataCollatorForPreference):
    """TRL's collator, whose completion_mask is also 0 for answer tokens that are not scored."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch, cut = super().torch_call(examples), (self.max_length, self.truncation_mode)
        rows = [(example, name.removesuffix("_mask")) for name in MASKS for example in examples]
        for mask, (example, side) in zip(batch["completion_mask"], rows, strict=True):
            if example.get(f"{side}_mask") is not None:
                start = len(kept_ids(example, side, *cut)[0])
                scored = torch.tensor(kept_mask(example, side, *cut), dtype=mask.dtype)
                mask[start : start + len(scored)] = scored
        return batch


def make_collator(args: DPOConfig, tokenizer: PreTrainedTokenizerBase) -> MaskingCollator:
    """The collator of training and of evaluation."""
    return MaskingCollator(
        pad_token_id=tokenizer.pad_token_id,
        max_length=args.max_length,
        truncation_mode=args.truncation_mode,
        pad_to_multiple_of=args.pad_to_multiple_of,
    )


def add_answer_masks(
    tokens: Dataset, tokenizer: PreTrainedTokenizerBase
) -> tuple[Dataset, Counter[str], list[int]]:
    """The rows with the columns MASKS where any row needs one, counts, and the mixed rows.

    A mask has one value per token of its answer, true where the token is scored; null scores all.
    The counts are of rows, `other_turns` and `empty_reasoning`. In a mixed row the template does
    not render the turns of an answer one after another, so that they cannot be separated.
    """
    finder, counts, mixed, number = MaskFinder(tokenizer), Counter(), [], 0
    chunks: dict[str, list[pa.Array]] = {name: [] for name in MASKS}
    columns = [name for name in ROW if name in tokens.column_names]
    for batch in tokens.select_columns(columns).iter(batch_size=BATCH):
        found = []
        for values in zip(*batch.values(), strict=True):
            masks = finder.masks(dict(zip(batch, values, strict=True)), counts)
            mixed += [number] if masks is None else []
            found.append(masks or (None, None))
            number += 1
        for name, column in zip(MASKS, zip(*found, strict=True), strict=True):
            chunks[name].append(pa.array(column, pa.list_(pa.bool_())))
    if any(chunk.null_count < len(chunk) for column in chunks.values() for chunk in column):
        for name, column in chunks.items():
            tokens = tokens.add_column(name, pa.chunked_array(column))
    return tokens, +counts, mixed


class Span(NamedTuple):
    """The assistant's tokens of a turn, and the messages that they may come from."""

    start: int
    end: int
    messages: list[Message]


class MaskFinder:
    """Finds the masks of rows by rendering their messages with the tokenizer's template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer, self.stops = tokenizer, frozenset(stop_ids(tokenizer))
        template = tokenizer.get_chat_template()
        # Without the offsets of tokens transformers cannot return what a template marks.
        self.marked = tokenizer.is_fast and GENERATION.search(template) is not None
        self.blocks: dict[str, list[int]] = {}
        """The ids of the empty reasoning block, by the template's arguments."""

    def masks(
        self, row: Mapping[str, Any], counts: Counter[str]
    ) -> tuple[list[bool] | None, ...] | None:
        """The masks of both answers, null where both are scored whole; None if they are mixed."""
        tools, given = row.get("tools"), row.get("chat_template_kwargs") or {}
        keywords = {"tools": json.loads(tools) if isinstance(tools, str) else tools, **given}
        render = functools.partial(self.tokenizer.apply_chat_template, tokenize=False, **keywords)
        key = json.dumps(given, sort_keys=True, default=str)
        if key not in self.blocks:
            self.blocks[key] = self._empty_reasoning(render)
        block, answers = self.blocks[key], (row["chosen"], row["rejected"])
        if not block and all(len(answer) == 1 for answer in answers):
            return None, None
        found, skipped, first = [], 0, len(row["prompt_ids"])
        for answer, name in zip(answers, IDS[1:], strict=True):
            ids = row["prompt_ids"] + row[name]
            try:
                spans = self._turn_spans(render, row["prompt"], answer, ids, first)
            except Exception:  # a template is code and may raise anything for a part of the turns
                spans = None
            if spans is None and self.marked:
                spans = self._marked_spans(render, row["prompt"], answer, ids, first)
            if not spans:
                return None
            mask = [False] * len(ids)
            for start, end, messages in spans:
                skip = self._block_length(block, ids[start:end], messages)
                mask[start + skip : end] = [True] * (end - start - skip)
                skipped += skip
            found.append(mask[first:])
        counts["other_turns"] += any(m["role"] != "assistant" for a in answers for m in a)
        counts["empty_reasoning"] += skipped > 0
        return (None, None) if all(map(all, found)) else tuple(found)

    def _turn_spans(
        self,
        render: Callable[..., Any],
        prompt: list[Message],
        answer: list[Message],
        ids: list[int],
        first: int,
    ) -> list[Span] | None:
        """The assistant's tokens, each turn from its generation prompt to its stop token.

        The answer starts at `first` in ids. None if the template does not render the turns one
        after another.
        """
        if len(answer) == 1:
            return [Span(first, len(ids), answer)]
        messages, last = prompt + answer, len(prompt) + len(answer) - 1
        text, starts = render(messages), {len(prompt): first}
        for number in range(len(prompt) + 1, last + 1):
            if messages[number]["role"] == "assistant":
                asked = render(messages[:number], add_generation_prompt=True)
                common = len(commonprefix([text, asked]))
                # A generation prompt may end in what the turn does not begin with, such as <think>.
                if common < len(asked) and common < len(
                    commonprefix([render(messages[:number]), asked])
                ):
                    return None
                starts[number] = self._tokens_before(common, text, ids)
        spans = []
        for number, until in zip(starts, [*starts.values(), len(ids)][1:], strict=True):
            start, end = starts[number], until
            if number < last:
                stop = (n + 1 for n in range(start, until) if ids[n] in self.stops)
                end = next(stop, None) or self._end(render(messages[: number + 1]), text, ids)
            if end is None:
                return None
            spans.append(Span(start, end, messages[number : number + 1]))
        return spans

    def _end(self, turns: str, text: str, ids: list[int]) -> int | None:
        """Where the text of these turns ends in ids; None if the whole text begins otherwise."""
        if not text.startswith(turns):
            # A template may end only the last turn of a conversation with a stop token.
            turns = turns.rstrip()
            for stop in self.tokenizer.convert_ids_to_tokens(sorted(self.stops)):
                turns = turns.removesuffix(stop)
        return self._tokens_before(len(turns), text, ids) if text.startswith(turns) else None

    def _marked_spans(
        self,
        render: Callable[..., Any],
        prompt: list[Message],
        answer: list[Message],
        ids: list[int],
        first: int,
    ) -> list[Span]:
        """The answer's tokens that the template marks as generated, each turn with its stop token.

        They may include headers, in templates that TRL ships too, so turns are tried before.
        """
        options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
        spans, start = [], 0
        for marked, group in groupby(render(prompt + answer, **options)["assistant_masks"]):
            end = start + len(list(group))
            if marked and end > first:
                stops = end < len(ids) and ids[end] in self.stops
                spans.append(Span(max(start, first), end + stops, answer))
            start = end
        if spans and answer[-1]["role"] == "assistant":
            # What follows the last turn is scored, as in an answer of one message.
            spans[-1] = Span(spans[-1].start, len(ids), answer)
        return spans

    def _block_length(self, block: list[int], ids: list[int], messages: list[Message]) -> int:
        """The length of the empty reasoning block at the start of ids, if it is not the data's."""
        if ids[:1] != block[:1]:
            return 0
        # The white space after a block may be one token with that of the answer.
        common = commonprefix([block, ids])
        text, found = (_compact(self.tokenizer.decode(part)) for part in (block, common))
        own = any(text in _compact(message["content"] or "") for message in messages)
        return 0 if own or text != found else len(common)

    def _empty_reasoning(self, render: Callable[..., Any]) -> list[int]:
        """The ids of the block that the template writes before an answer without reasoning."""
        question, answer = PROBE
        try:
            asked, whole = render([question], add_generation_prompt=True), render(PROBE)
            reasoned = render([question, {**answer, "reasoning_content": REASON}])
        except Exception:  # a template is code and may raise anything
            return []
        content = answer["content"]
        empty, full = (
            text[len(commonprefix([asked, text])) : text.rfind(content)]
            for text in (whole, reasoned)
        )
        opening, _, closing = full.partition(REASON)
        blocks = {"</think>", "<think></think>", closing.strip() and _compact(opening + closing)}
        if not empty.strip() or _compact(empty) not in blocks:
            return []
        ids = self._ids(whole)
        start = len(commonprefix([self._ids(asked), ids]))
        return ids[start : self._tokens_before(whole.rfind(content), whole, ids)]

    def _tokens_before(self, end: int, text: str, ids: list[int]) -> int:
        """How many tokens of a text are before a character."""
        return len(commonprefix([self._ids(text[:end]), ids]))

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def _compact(text: str) -> str:
    """The text without white space."""
    return "".join(text.split())
