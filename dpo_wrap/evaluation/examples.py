"""One row a pair with every figure of it, as pandas: what all figures are means of."""

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd
from datasets import Dataset

from dpo_wrap.data.overlap import ORIGIN
from dpo_wrap.data.splits import KEPT
from dpo_wrap.evaluation.scoring import Scores

ROW = "row"
"""The column with a row's place in its split, before any was dropped."""
SIDES = ("prompt", "chosen", "rejected")


def table(tokens: Dataset, scores: Scores, beta: float, paths: Sequence[str]) -> pd.DataFrame:
    """The scored rows. Log-probabilities are natural logs of whole answers, lengths are tokens
    before any cut."""
    numbers: dict[tuple[int, ...], int] = {}
    prompts = tokens["prompt_ids"]
    given = tokens.column_names
    sources = tokens["source"] if "source" in given else [None] * len(prompts)
    columns: dict[str, Any] = {
        "row": list(tokens[ROW]),
        "source": [None if source is None else str(source) for source in sources],
    }
    if ORIGIN in given:
        columns["dataset"] = [paths[position] for position in tokens[ORIGIN]]
    columns["prompt_id"] = [numbers.setdefault(tuple(ids), len(numbers)) for ids in prompts]
    for side in SIDES:
        columns[f"{side}_tokens"] = [len(ids) for ids in tokens[f"{side}_ids"]]
    columns |= vars(scores)
    columns["chosen_log_ratio"] = scores.chosen_log_ratios
    columns["rejected_log_ratio"] = scores.rejected_log_ratios
    examples = pd.DataFrame(columns)
    ratios = examples["chosen_log_ratio"] - examples["rejected_log_ratio"]
    examples["reward_margin"] = beta * ratios
    examples["win"], examples["tie"] = ratios > 0, ratios == 0
    return examples


def kept_columns(rows: Dataset) -> dict[str, list[str | None]]:
    """What the converter was told to keep, by its own name."""
    names = [name for name in rows.column_names if name.startswith(KEPT)]
    return {name.removeprefix(KEPT): list(rows[name]) for name in names}


def with_kept(
    examples: pd.DataFrame, kept: dict[str, list[str | None]]
) -> tuple[pd.DataFrame, list[str]]:
    """The table with these columns behind its own, and their names in it: one that is the name of
    a figure keeps its mark."""
    named = {KEPT + name if name in examples else name: kept[name] for name in kept}
    return examples.assign(**named), list(named)


def with_answers(
    examples: pd.DataFrame, answers: Sequence[dict[str, Any]], each: dict[str, Sequence[float]]
) -> pd.DataFrame:
    """The table with what is known of the sampled answers; null for prompts not sampled from.

    `answers` are dicts with `row`; `each` has further columns in their order.
    """
    if not answers:
        return examples
    sampled = pd.DataFrame(answers).rename(columns=_apart).assign(**each)
    return examples.merge(sampled, on="row", how="left", validate="one_to_one")


def _apart(name: str) -> str:
    """`policy_tokens` of a sampled answer is `policy_answer_tokens`, no figure of a pair."""
    who, _, rest = name.partition("_")
    return f"{who}_answer_{rest}" if rest else name


def said(side: Any) -> str:
    """A prompt or an answer to read: a text as it is, several messages with their roles."""
    if isinstance(side, str):
        return side
    if len(side) == 1:
        return _words(side[0])
    return "\n".join(f"{message['role']}: {_words(message)}" for message in side)


def _words(message: dict[str, Any]) -> str:
    """What a message says, and the tools that it calls."""
    calls = message.get("tool_calls")
    parts = [message.get("content") or "", json.dumps(calls, ensure_ascii=False) if calls else ""]
    return "\n".join(filter(None, parts))
