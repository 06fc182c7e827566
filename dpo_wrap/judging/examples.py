"""One row a pair with every figure of it, as pandas: what all figures are means of."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from datasets import Dataset

from dpo_wrap.judging.scoring import Scores
from dpo_wrap.loading.data import KEPT
from dpo_wrap.loading.overlap import ORIGIN

ROW = "row"
"""The column with a row's place in its split, before any was dropped."""
SIDES = ("prompt", "chosen", "rejected")


def table(
    tokens: Dataset, scores: Scores, beta: float, paths: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """The scored rows, and the names of the columns that the converter was told to keep.

    Log-probabilities are natural logs of whole answers, lengths are tokens before any cut.
    """
    numbers: dict[tuple[int, ...], int] = {}
    prompts = tokens["prompt_ids"]
    given = tokens.column_names
    columns: dict[str, Any] = {"row": list(tokens[ROW])}
    if "source" in given:
        columns["source"] = list(tokens["source"])
    else:
        columns["source"] = [None] * len(prompts)
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
    kept = []
    for name in (name for name in given if name.startswith(KEPT)):
        bare = name.removeprefix(KEPT)
        # One of the name of a figure keeps its mark.
        kept.append(name if bare in examples else bare)
        examples[kept[-1]] = list(tokens[name])
    return examples, kept


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
        return side[0]["content"] or ""
    return "\n".join(f"{message['role']}: {message['content']}" for message in side)
