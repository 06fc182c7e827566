"""Tokenize splits with TRL's own code, and check the tokens against model and chat template."""

import functools
import json
import re
from collections.abc import Callable
from typing import Any

import jinja2.meta
import pyarrow.compute as pc
from datasets import Dataset
from jinja2 import nodes
from transformers import PretrainedConfig, PreTrainedTokenizerBase
from trl import DPOConfig

from dpo_wrap.config import Settings
from dpo_wrap.data.answer_masks import add_answer_masks
from dpo_wrap.data.length_stats import BATCH, IDS, LengthStats, SpecialTokens, length_stats
from dpo_wrap.data.splits import Splits, caching_disabled
from dpo_wrap.errors import DataError, ModelError, one_line
from dpo_wrap.model.load import context_length
from dpo_wrap.model.tokenizer import PROBE, stop_ids
from dpo_wrap.trl_hooks import tokenize_rows

PARAMETERS = {"type": "object", "properties": {"x": {"type": "string"}}}
TOOL = {"name": "probe", "description": "A probe.", "parameters": PARAMETERS}
CALL = {"name": "probe", "arguments": {"x": "1"}}
# What shows whether a template renders a field.
TOOLS = [{"type": "function", "function": TOOL}]
CALLS = [{"type": "function", "id": "probe0001", "function": CALL}]
ASK, CALLING = PROBE[0], {"role": "assistant", "content": "", "tool_calls": CALLS}
REQUIRED = {"tool_calls": ("tool calls", "messages"), "tools": ("tools", "rows")}
"""Fields that a template must render, what they are and where."""
SET_HERE = {"messages", "tools", "add_generation_prompt", "raise_exception", "strftime_now"}
"""Variables of a template that no argument sets."""


def check_data_fit(
    settings: Settings, tokenizer: PreTrainedTokenizerBase, splits: Splits
) -> list[str]:
    """A line on the fields of messages that the chat template does not render, if there are any.

    Raises ModelError if it cannot render the data, or does not read the run's arguments.
    """
    place, given = settings.where("chat_template"), settings.chat_template_kwargs or {}
    if not splits.conversational:
        for name in ("chat_template", "chat_template_kwargs"):
            if getattr(settings, name) is not None:
                raise ModelError(
                    f"{settings.where(name)}: no effect, because the data are plain text; remove it"
                )
        return []
    if tokenizer.chat_template is None:
        raise ModelError(
            f"{settings.where('model_path')}: the data are conversations, and this tokenizer has "
            "no chat template; set chat_template: chatml, or to the path of a template"
        )
    known = _arguments(tokenizer)
    if unknown := [name for name in given if known is not None and name not in known]:
        raise ModelError(
            f"{settings.where('chat_template_kwargs')}: this chat template does not read "
            f"{', '.join(map(repr, unknown))}; it reads {', '.join(sorted(known)) or 'no argument'}"
        )
    render = functools.partial(tokenizer.apply_chat_template, tokenize=False, **given)
    lost = {key: n for key, n in sorted(splits.fields.items()) if not _renders(render, *key)}
    for (name, _), count in lost.items():
        if name in REQUIRED:
            what, where = REQUIRED[name]
            raise ModelError(
                f"{place}: the data have {what} ({count:,} {where}), which this chat template does "
                "not render; set chat_template to the path of a template that renders them"
            )
    fields = ", ".join(f"{name} ({n:,} messages of {role})" for (name, role), n in lost.items())
    return [f"the chat template does not render these fields of the data: {fields}"] * bool(lost)


def _arguments(tokenizer: PreTrainedTokenizerBase) -> set[str] | None:
    """The arguments that the chat template reads; None if it cannot be parsed."""
    environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"])
    try:
        # Jinja does not know this tag of transformers.
        template = re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", tokenizer.get_chat_template())
        tree = environment.parse(template)
        names = jinja2.meta.find_undeclared_variables(tree)
    except (jinja2.TemplateError, ValueError):
        return None
    tests = [node.node for node in tree.find_all((nodes.Test, nodes.Filter))]
    tested = {node.name for node in tests if isinstance(node, nodes.Name)}
    # A name that the template sets itself is an argument where it is tested, as `is defined`.
    local = {node.name for node in tree.find_all(nodes.Name) if node.ctx == "store"} - tested
    return names - SET_HERE - local - {*environment.globals, *tokenizer.special_tokens_map}


def _renders(render: Callable[..., str], name: str, role: str) -> bool:
    """Whether a field of a message changes the text; true for a template that raises."""
    before = {"user": [], "system": [], "tool": [ASK, CALLING]}.get(role, [ASK])
    message = {"role": role, "content": "" if name == "tool_calls" else "tell"}
    more = {**message, name: CALLS if name == "tool_calls" else "probe0001"}
    after = [ASK] if role == "system" else []
    try:
        if name == "tools":
            return render([ASK], tools=TOOLS) != render([ASK])
        return render([*before, more, *after]) != render([*before, message, *after])
    except Exception:  # a template is code and may raise anything; tokenize names the row
        return True


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
    if isinstance(rows[0]["prompt"], str):
        tokens, found = _without_second_ends(rows, tokens, tokenizer)
    else:
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


def _without_second_ends(
    rows: Dataset, tokens: Dataset, tokenizer: PreTrainedTokenizerBase
) -> tuple[Dataset, dict[str, int]]:
    """The tokens without the end that TRL adds to a text with an end of its own, and `own_end`.

    TRL adds one unless it is the very end of the text, and so after `<|im_end|>` and a line break.
    """
    stops = tuple(tokenizer.convert_ids_to_tokens(stop_ids(tokenizer)))
    added = {
        f"{side}_ids": {
            number
            for number, text in enumerate(rows[side])
            if text.rstrip().endswith(stops) and not text.endswith(tokenizer.eos_token)
        }
        for side in ("chosen", "rejected")
    }
    found = set().union(*added.values())
    if not found:
        return tokens, {}

    def cut(row: dict[str, Any], number: int) -> dict[str, list[int]]:
        return {name: row[name][:-1] for name, numbers in added.items() if number in numbers}

    with caching_disabled():
        return tokens.map(cut, with_indices=True), {"own_end": len(found)}


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
    """A DataError for the first row that the chat template cannot render, else for all of them."""
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
    return DataError(
        f"{split}: the rows cannot be tokenized: {type(error).__name__}: {one_line(error)}"
    )


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
