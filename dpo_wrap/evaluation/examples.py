"""examples.parquet: one row per pair with its log-probabilities, lengths, source and figures.

Log-probabilities are natural logs, summed over the tokens of an answer; rows are cut and padded by
TRL's collator, as in training. Every figure of the evaluation is computed from this table.
"""

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd
from datasets import Dataset
from tqdm import tqdm
from trl import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference

from dpo_wrap.data.length_stats import IDS
from dpo_wrap.data.overlap import ORIGIN
from dpo_wrap.data.splits import KEPT
from dpo_wrap.errors import RunError
from dpo_wrap.evaluation.models import EvaluatedModels

ROW = "row"
"""The column with a row's index in its split, before any row was dropped."""
LOGPS = tuple(
    f"{who}_{side}_logps" for who in ("policy", "reference") for side in ("chosen", "rejected")
)


def score_rows(models: EvaluatedModels, rows: Dataset, args: DPOConfig) -> dict[str, list[float]]:
    """The columns LOGPS of rows with prompt_ids, chosen_ids and rejected_ids.

    Raises RunError for NaN or inf.
    """
    collate = DataCollatorForPreference(
        pad_token_id=models.tokenizer.pad_token_id,
        max_length=args.max_length,
        truncation_mode=args.truncation_mode,
    )
    rows = rows.select_columns(list(IDS))
    size = args.per_device_eval_batch_size
    columns: dict[str, list[float]] = {name: [] for name in LOGPS}
    for start in tqdm(range(0, len(rows), size), desc="scoring", disable=None):
        pairs = [rows[i] for i in range(start, min(start + size, len(rows)))]
        # A batch has its chosen answers first, then its rejected ones.
        sides = [half for logps in models.logps(collate(pairs), args) for half in logps.chunk(2)]
        if not all(half.isfinite().all() for half in sides):
            raise RunError(
                f"pairs {start + 1} to {start + len(pairs)}: log-probabilities are NaN or inf; "
                "check the weights of the run and of its base model"
            )
        for name, half in zip(LOGPS, sides, strict=True):
            columns[name] += half.tolist()
    return columns


def pair_table(
    tokens: Dataset, logps: dict[str, list[float]], beta: float, paths: Sequence[str]
) -> pd.DataFrame:
    """The table of scored pairs; lengths are tokens before truncation."""
    prompts = pd.Series([tuple(ids) for ids in tokens["prompt_ids"]], dtype=object)
    given = tokens.column_names
    sources = tokens["source"] if "source" in given else [None] * len(prompts)
    columns: dict[str, Any] = {
        ROW: list(tokens[ROW]),
        "source": [None if source is None else str(source) for source in sources],
    }
    if ORIGIN in given:
        columns["dataset"] = [paths[position] for position in tokens[ORIGIN]]
    columns["prompt_id"] = prompts.factorize()[0]
    for name in IDS:
        columns[name.replace("_ids", "_tokens")] = [len(ids) for ids in tokens[name]]
    table = pd.DataFrame(columns | logps)
    for side in ("chosen", "rejected"):
        table[f"{side}_log_ratio"] = (
            table[f"policy_{side}_logps"] - table[f"reference_{side}_logps"]
        )
    difference = table["chosen_log_ratio"] - table["rejected_log_ratio"]
    return table.assign(reward_margin=beta * difference, win=difference > 0, tie=difference == 0)


def kept_columns(rows: Dataset) -> dict[str, list[str | None]]:
    """The columns of `convert --keep`, by their own names."""
    names = [name for name in rows.column_names if name.startswith(KEPT)]
    return {name.removeprefix(KEPT): list(rows[name]) for name in names}


def with_kept(
    table: pd.DataFrame, kept: dict[str, list[str | None]]
) -> tuple[pd.DataFrame, list[str]]:
    """The table with kept columns appended, and their names in it.

    A kept column with the name of a figure gets a prefix.
    """
    named = {KEPT + name if name in table else name: values for name, values in kept.items()}
    return table.assign(**named), list(named)


def with_answers(
    table: pd.DataFrame, answers: Sequence[dict[str, Any]], scores: dict[str, Sequence[float]]
) -> pd.DataFrame:
    """The table with the figures of sampled answers, null for prompts that were not sampled.

    `answers` are the dicts of `answer_rows`; `scores` has further columns in the same order. The
    column `policy_tokens` of an answer becomes `policy_answer_tokens`.
    """
    if not answers:
        return table
    sampled = pd.DataFrame(answers)
    names = {name: name.replace("_", "_answer_", 1) for name in sampled}
    sampled = sampled.rename(columns=names).assign(**scores)
    return table.merge(sampled, on=ROW, how="left", validate="one_to_one")


def as_text(side: Any) -> str:
    """A prompt or an answer as text; several messages are prefixed with their roles."""
    if isinstance(side, str):
        return side
    if len(side) == 1:
        return _message_text(side[0])
    return "\n".join(f"{message['role']}: {_message_text(message)}" for message in side)


def _message_text(message: dict[str, Any]) -> str:
    """The content of a message and its tool calls."""
    calls = message.get("tool_calls")
    parts = [message.get("content") or "", json.dumps(calls, ensure_ascii=False) if calls else ""]
    return "\n".join(filter(None, parts))
