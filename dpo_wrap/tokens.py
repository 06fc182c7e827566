"""Splits to token ids with TRL's own code, and what max_length does to them, counted and said."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pyarrow.compute as pc
from datasets import Dataset
from transformers import PretrainedConfig, PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer

from dpo_wrap.config import Settings
from dpo_wrap.data import nothing_kept
from dpo_wrap.errors import DataError
from dpo_wrap.model import context_length

IDS = ("prompt_ids", "chosen_ids", "rejected_ids")
BATCH = 1000


@dataclass(frozen=True)
class Fit:
    """How one split fits max_length, in pairs."""

    pairs: int
    too_long: int
    """More than max_length tokens in prompt and longer answer."""
    prompt_fills: int
    """The prompt alone takes max_length, so nothing of an answer would be left."""
    identical: int
    """Both answers are the same tokens, for most because what told them apart was cut."""
    longest: int
    """Tokens of the longest pair's prompt and longer answer."""
    kept: int


def tokenize(
    settings: Settings,
    rows: Dataset,
    split: str,
    tokenizer: PreTrainedTokenizerBase,
    dpo: DPOConfig,
    config: PretrainedConfig,
    needed: bool = True,
) -> tuple[Dataset, Fit]:
    """The rows with prompt_ids, chosen_ids and rejected_ids, less those that cannot be trained on.

    Raises DataError where overlength: error finds one, or nothing is left of what is needed.
    """
    plain = SimpleNamespace(
        max_length=None, truncation_mode="keep_start", dataset_num_proc=dpo.dataset_num_proc
    )
    with nothing_kept():
        # TRL's own method, which needs of its trainer the tokenizer alone. With a max_length it
        # would drop rows uncounted.
        tokens = DPOTrainer._prepare_dataset(
            SimpleNamespace(_tokenizer=tokenizer), rows, tokenizer, plain, split
        )
    _check_ids(settings, tokens, config)
    limit = dpo.max_length or context_length(config)
    keep, fit = _fitted(settings, tokens, limit, dpo.truncation_mode)
    _refuse(settings, split, fit, dpo.max_length, limit, needed)
    return (tokens if fit.kept == fit.pairs else tokens.select(keep)), fit


def spoken(split: str, fit: Fit, limit: int | None, overlength: str) -> str | None:
    """What became of the pairs that are too long, in a line; None where there is nothing to say."""
    if not fit.too_long and not fit.identical:
        return None
    parts = []
    if fit.too_long:
        if overlength == "drop":
            done = "dropped"
        else:
            done = "their answers cut"
            if fit.prompt_fills:
                done += f", {fit.prompt_fills} of them dropped (the prompt alone fills it)"
        parts.append(
            f"{fit.too_long} of {fit.pairs} pairs have more than {limit} tokens (longest "
            f"{fit.longest}): {done}"
        )
    if fit.identical:
        parts.append(f"{fit.identical} dropped, as both answers are the same tokens")
    return f"{split}: {'; '.join(parts)}"


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


def _fitted(
    settings: Settings, tokens: Dataset, limit: int | None, mode: str
) -> tuple[list[int], Fit]:
    """The row numbers to train on, and the counts."""
    keep, too_long, fills, identical, longest = [], 0, 0, 0, 0
    for number, row in enumerate(_rows(tokens)):
        prompt, longer = (
            len(row["prompt_ids"]),
            max(len(row["chosen_ids"]), len(row["rejected_ids"])),
        )
        longest = max(longest, prompt + longer)
        long = limit is not None and prompt + longer > limit
        too_long += long
        if long and settings.overlength == "drop":
            continue
        if limit is not None and prompt >= limit and mode == "keep_start":
            fills += 1
        elif kept_ids(row, "chosen", limit, mode) == kept_ids(row, "rejected", limit, mode):
            identical += 1
        else:
            keep.append(number)
    return keep, Fit(len(tokens), too_long, fills, identical, longest, len(keep))


def _rows(tokens: Dataset) -> Iterator[dict[str, list[int]]]:
    for batch in tokens.select_columns(list(IDS)).iter(batch_size=BATCH):
        for values in zip(*(batch[name] for name in IDS), strict=True):
            yield dict(zip(IDS, values, strict=True))


def _refuse(
    settings: Settings,
    split: str,
    fit: Fit,
    max_length: int | None,
    limit: int | None,
    needed: bool,
) -> None:
    found = (
        f"{fit.too_long} of {fit.pairs} pairs have more than {limit} tokens (longest {fit.longest})"
    )
    if fit.too_long and max_length is None:
        raise DataError(
            f"{settings.place('max_length')}: nothing is cut without it, but in {split} {found}, "
            "the model's context; set a number"
        )
    if fit.too_long and settings.overlength == "error":
        raise DataError(
            f"{settings.place('overlength')}: in {split} {found}; raise max_length, or set "
            "overlength to truncate or drop"
        )
    if needed and not fit.kept:
        raise DataError(
            f"{settings.place('dataset_path')}: nothing is left of {split}: {found}, "
            f"{fit.prompt_fills} prompts fill it alone, {fit.identical} pairs have the same tokens "
            "twice; raise max_length"
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
                    f"{settings.place('model_path')} {settings.model_path!r}: its tokenizer makes "
                    f"the id {top}, its embeddings end at {size - 1}; they do not belong together"
                )
