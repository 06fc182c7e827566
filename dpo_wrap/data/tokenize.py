"""Tokenize splits with TRL's own code, and check the tokens against model and chat template."""

import json
from collections import Counter
from typing import Any

import pyarrow.compute as pc
from datasets import Dataset
from transformers import PretrainedConfig, PreTrainedTokenizerBase
from trl import DPOConfig

from dpo_wrap.config import Settings
from dpo_wrap.data.answer_masks import add_answer_masks
from dpo_wrap.data.length_stats import BATCH, IDS, LengthStats, SpecialTokens, length_stats
from dpo_wrap.data.splits import Splits, caching_disabled
from dpo_wrap.errors import DataError, ModelError, one_line
from dpo_wrap.model.load import context_length
from dpo_wrap.trl_hooks import tokenize_rows

PARAMETERS = {"type": "object", "properties": {"x": {"type": "string"}}}
TOOL = {"name": "probe_tool", "description": "A probe.", "parameters": PARAMETERS}
CALL = {"name": "probe_call", "arguments": {"x": "1"}}


def check_data_fit(settings: Settings, tokenizer: PreTrainedTokenizerBase, splits: Splits) -> None:
    """Raise ModelError if the tokenizer's chat template cannot render the data."""
    place = settings.where("chat_template")
    if not splits.conversational:
        if settings.chat_template is not None:
            raise ModelError(f"{place}: no effect, because the data are plain text; remove it")
        return
    if tokenizer.chat_template is None:
        raise ModelError(
            f"{settings.where('model_path')}: the data are conversations, and this tokenizer has "
            "no chat template; set chat_template: chatml, or to the path of a template"
        )
    tools, calls = ([{"type": "function", "function": probe}] for probe in (TOOL, CALL))
    calling = {"role": "assistant", "content": "", "tool_calls": calls}
    messages = [{"role": "user", "content": "ask"}, calling]
    try:
        text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
    except Exception:  # a template is code and may raise anything; tokenize names the row
        return
    for present, what, name in (
        (splits.calls, "tool calls", CALL["name"]),
        (splits.tools, "tools", TOOL["name"]),
    ):
        if present and name not in text:
            raise ModelError(
                f"{place}: the data have {what}, which this chat template does not render; set it "
                "to the path of a template that renders them"
            )


def tokenize(
    settings: Settings,
    rows: Dataset,
    split: str,
    tokenizer: PreTrainedTokenizerBase,
    dpo: DPOConfig,
    config: PretrainedConfig,
    needed: bool = True,
) -> tuple[Dataset, LengthStats]:
    """The rows with prompt_ids, chosen_ids and rejected_ids, without those that cannot be used.

    They have masks where an answer has tokens that are not scored (answer_masks.py). Raises
    DataError for a row that is too long under `overlength: error`, for turns that cannot be
    separated, and if no row of a split that is `needed` is left.
    """
    with caching_disabled():
        try:
            tokens = tokenize_rows(rows, split, tokenizer, dpo)
        except Exception as error:  # a template is code and may raise anything
            raise _template_error(rows, split, tokenizer, error) from error
    _check_ids(settings, tokens, config)
    found: Counter[str] = Counter()
    if not isinstance(rows[0]["prompt"], str):
        tokens, found, mixed = add_answer_masks(tokens, tokenizer)
        _check_separable(settings, split, tokens, mixed)
    limit = dpo.max_length or context_length(config)
    moved = moved_boundaries(tokens, tokenizer)
    keep, stats = length_stats(
        tokens, SpecialTokens(tokenizer), moved, limit, dpo.truncation_mode, settings.overlength
    )
    stats.counts.update(found)
    _check_lengths(settings, split, stats, dpo.max_length, limit, needed)
    return (tokens if stats.kept == stats.pairs else tokens.select(keep)), stats


def moved_boundaries(tokens: Dataset, tokenizer: PreTrainedTokenizerBase) -> tuple[int, str]:
    """How many rows have prompt ids that are not a prefix of those of prompt and answer.

    TRL trains these rows without the end of the prompt, a context that generation never sees.
    Also returns that end in the first of them.
    """
    moved, example = 0, ""
    columns = ("prompt", "prompt_ids", "tools", "chat_template_kwargs")
    columns = [name for name in columns if name in tokens.column_names]
    for batch in tokens.select_columns(columns).iter(batch_size=BATCH):
        for whole, kept in zip(_prompt_ids(batch, tokenizer), batch["prompt_ids"], strict=True):
            if len(kept) < len(whole):
                example = example or tokenizer.decode(whole[len(kept) :])
                moved += 1
    return moved, example


def _template_error(
    rows: Dataset, split: str, tokenizer: PreTrainedTokenizerBase, error: Exception
) -> Exception:
    """A DataError for the first row that the chat template cannot render, else the error itself."""
    for number, row in enumerate(rows if tokenizer.chat_template else ()):
        keywords = row.get("chat_template_kwargs") or {}
        for side in ("chosen", "rejected"):
            messages = row["prompt"] + row[side]
            try:
                tokenizer.apply_chat_template(messages, tokenize=False, **keywords)
            except Exception as row_error:
                name = _name(row, number, split)
                roles = " ".join(message["role"] for message in messages)
                return DataError(
                    f"{name}: the chat template cannot render its turns ({roles}): "
                    f"{one_line(row_error)}; fix or remove such rows, or set another chat_template"
                )
    return error


def _name(row: dict[str, Any], number: int, split: str) -> str:
    return row.get("source") or f"row {number} of {split}"


def _check_separable(settings: Settings, split: str, rows: Dataset, mixed: list[int]) -> None:
    """Raise DataError for rows in which the assistant's turns cannot be separated from others."""
    if mixed:
        raise DataError(
            f"{settings.where('chat_template')}: in {len(mixed)} of {len(rows)} pairs of {split} "
            f"(first {_name(rows[mixed[0]], mixed[0], split)}) an answer has several turns, and "
            "this chat template changes a turn once others follow, so that the assistant's tokens "
            "cannot be found; set chat_template to the path of one that does not, such as one of "
            "trl/chat_templates/*_training.jinja, or that has {% generation %} marks, or remove "
            "these pairs"
        )


def _prompt_ids(batch: dict[str, list[Any]], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The prompts tokenized as generation sees them, by the calls that TRL makes."""
    prompts = batch["prompt"]
    if isinstance(prompts[0], str):
        return tokenizer(prompts)["input_ids"]
    tools = [json.loads(t) if isinstance(t, str) else t for t in batch.get("tools", ())]
    keywords = batch.get("chat_template_kwargs", ())
    return [
        tokenizer.apply_chat_template(
            prompt,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            tools=tools[row] if tools else None,
            **(keywords[row] if keywords else {}),
        )["input_ids"]
        for row, prompt in enumerate(prompts)
    ]


def _check_lengths(
    settings: Settings,
    split: str,
    stats: LengthStats,
    max_length: int | None,
    limit: int | None,
    needed: bool,
) -> None:
    counts, too_long = stats.counts, stats.counts["too_long"]
    found = (
        f"{too_long} of {stats.pairs} pairs have more than {limit} tokens (longest {stats.longest})"
    )
    if too_long and max_length is None:
        raise DataError(
            f"{settings.where('max_length')}: in {split} {found}, which is the model's context; "
            "set a number, so that they are truncated"
        )
    if too_long and settings.overlength == "error":
        raise DataError(
            f"{settings.where('overlength')}: in {split} {found}; raise max_length, or set "
            "overlength to truncate or drop"
        )
    if needed and not stats.kept:
        fix = "raise max_length" if too_long else "the template may not render them"
        raise DataError(
            f"{settings.where('dataset_path')}: no pair of {split} can be trained on: {found}, "
            f"{counts['prompt_fills']} prompts alone have that many, {counts['identical']} pairs "
            f"have answers of the same tokens; {fix}"
        )


def _check_ids(settings: Settings, tokens: Dataset, config: PretrainedConfig) -> None:
    """Raise DataError for ids beyond the embeddings; the model would raise an IndexError."""
    size = getattr(config.get_text_config(), "vocab_size", None)
    if size is None:
        return
    for table in tokens.select_columns(list(IDS)).with_format("arrow").iter(batch_size=BATCH):
        for column in table.columns:
            top = pc.max(pc.list_flatten(column)).as_py()
            if top is not None and top >= size:
                raise DataError(
                    f"{settings.where('model_path')} {settings.model_path!r}: its tokenizer makes "
                    f"the id {top}, but its embeddings end at {size - 1}; use the model's own "
                    "tokenizer"
                )
