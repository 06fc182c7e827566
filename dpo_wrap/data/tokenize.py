"""Splits to token ids with TRL's own code, and what max_length does to them, counted and said."""

import json
from typing import Any

import pyarrow.compute as pc
from datasets import Dataset
from transformers import PretrainedConfig, PreTrainedTokenizerBase
from trl import DPOConfig

from dpo_wrap.config import Settings
from dpo_wrap.data.length_stats import BATCH, IDS, LengthStats, SpecialTokens, fitted
from dpo_wrap.data.splits import nothing_kept
from dpo_wrap.errors import DataError, one_line
from dpo_wrap.model.load import context_length
from dpo_wrap.trl_hooks import tokenize_rows

# What a chat template reads beside the messages.
RENDERED = ("tools", "chat_template_kwargs")


def tokenize(
    settings: Settings,
    rows: Dataset,
    split: str,
    tokenizer: PreTrainedTokenizerBase,
    dpo: DPOConfig,
    config: PretrainedConfig,
    needed: bool = True,
) -> tuple[Dataset, LengthStats]:
    """The rows with prompt_ids, chosen_ids and rejected_ids, less those that cannot be trained on.

    Raises DataError where overlength: error finds one, or nothing is left of what is needed.
    """
    with nothing_kept():
        try:
            tokens = tokenize_rows(rows, split, tokenizer, dpo)
        except Exception as error:  # a template is code and may raise anything
            raise _unrendered(rows, split, tokenizer, error) from error
    _check_ids(settings, tokens, config)
    limit = dpo.max_length or context_length(config)
    marks = SpecialTokens.of(tokenizer)
    moved = moved_boundaries(tokens, tokenizer)
    keep, fit = fitted(tokens, marks, moved, limit, dpo.truncation_mode, settings.overlength)
    _refuse(settings, split, fit, dpo.max_length, limit, needed)
    return (tokens if fit.kept == fit.pairs else tokens.select(keep)), fit


def moved_boundaries(tokens: Dataset, tokenizer: PreTrainedTokenizerBase) -> tuple[int, str]:
    """In how many rows the prompt's own tokens are no prefix of those of prompt and answer.

    TRL trains such rows without the end of the prompt, a context that generation never sees; the
    second value is that end in the first of them.
    """
    moved, example = 0, ""
    columns = [n for n in ("prompt", "prompt_ids", *RENDERED) if n in tokens.column_names]
    for batch in tokens.select_columns(columns).iter(batch_size=BATCH):
        for whole, kept in zip(_prompt_ids(batch, tokenizer), batch["prompt_ids"], strict=True):
            if len(kept) < len(whole):
                example = example or tokenizer.decode(whole[len(kept) :])
                moved += 1
    return moved, example


def _unrendered(
    rows: Dataset, split: str, tokenizer: PreTrainedTokenizerBase, error: Exception
) -> Exception:
    """The first row that the chat template refuses, as a DataError; else the error itself."""
    for number, row in enumerate(rows if tokenizer.chat_template else ()):
        keywords = row.get("chat_template_kwargs") or {}
        for side in ("chosen", "rejected"):
            try:
                tokenizer.apply_chat_template(row["prompt"] + row[side], tokenize=False, **keywords)
            except Exception as refusal:
                name = row.get("source") or f"row {number} of {split}"
                roles = " ".join(message["role"] for message in row["prompt"] + row[side])
                return DataError(
                    f"{name}: the chat template refuses its turns ({roles}): {one_line(refusal)}; "
                    "mend or leave out such rows, or give a chat_template that takes them"
                )
    return error


def _prompt_ids(batch: dict[str, list[Any]], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The prompts tokenised as generation will see them, by the calls that TRL makes."""
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


def _refuse(
    settings: Settings,
    split: str,
    fit: LengthStats,
    max_length: int | None,
    limit: int | None,
    needed: bool,
) -> None:
    found = (
        f"{fit.too_long} of {fit.pairs} pairs have more than {limit} tokens (longest {fit.longest})"
    )
    mend = "raise max_length" if fit.too_long else "the template may have no words for them"
    if fit.too_long and max_length is None:
        raise DataError(
            f"{settings.where('max_length')}: nothing is cut without it, but in {split} {found}, "
            "the model's context; set a number"
        )
    if fit.too_long and settings.overlength == "error":
        raise DataError(
            f"{settings.where('overlength')}: in {split} {found}; raise max_length, or set "
            "overlength to truncate or drop"
        )
    if needed and not fit.kept:
        raise DataError(
            f"{settings.where('dataset_path')}: nothing is left of {split}: {found}, "
            f"{fit.prompt_fills} prompts fill it alone, {fit.identical} pairs have the same tokens "
            f"twice; {mend}"
        )


def _check_ids(settings: Settings, tokens: Dataset, config: PretrainedConfig) -> None:
    """Raise DataError for ids beyond the embeddings; they would end the run in an IndexError."""
    size = getattr(config.get_text_config(), "vocab_size", None)
    if size is None:
        return
    for table in tokens.select_columns(list(IDS)).with_format("arrow").iter(batch_size=BATCH):
        for column in table.columns:
            top: Any = pc.max(pc.list_flatten(column)).as_py()
            if top is not None and top >= size:
                raise DataError(
                    f"{settings.where('model_path')} {settings.model_path!r}: its tokenizer makes "
                    f"the id {top}, its embeddings end at {size - 1}; they do not belong together"
                )
