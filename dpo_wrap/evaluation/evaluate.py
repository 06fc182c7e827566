"""A finished run's figures: held-out pairs scored, answers sampled, metrics taken of both."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl import DPOConfig

from dpo_wrap.arguments import build_arguments
from dpo_wrap.config import Settings
from dpo_wrap.data.length_stats import report_lines
from dpo_wrap.data.splits import caching_disabled, load_splits
from dpo_wrap.data.tokenize import check_data_fit, tokenize
from dpo_wrap.errors import DataError
from dpo_wrap.evaluation import answer_stats as answers
from dpo_wrap.evaluation import pair_stats as preferences
from dpo_wrap.evaluation import sampling, scoring
from dpo_wrap.evaluation import user_metrics as metrics
from dpo_wrap.evaluation.examples import (
    ROW,
    kept_columns,
    said,
    table,
    with_answers,
    with_kept,
)
from dpo_wrap.evaluation.findings import findings
from dpo_wrap.evaluation.models import load_judged, load_run_tokenizer
from dpo_wrap.evaluation.sampling import Sampled
from dpo_wrap.model.load import context_length, load_adapter_config, load_config
from dpo_wrap.model.tokenizer import stop_ids
from dpo_wrap.report import run_files


@dataclass(frozen=True)
class Request:
    """What is asked for beside the config."""

    split: str = "test"
    samples: int = 64
    """How many prompts both models answer, at most."""
    max_new_tokens: int = 128
    seed: int = 0


@dataclass(frozen=True)
class Evaluation:
    """What eval.json holds, the sampled answers as text, and a row a pair with its figures."""

    figures: dict[str, Any]
    samples: list[dict[str, Any]]
    examples: pd.DataFrame


@dataclass(frozen=True)
class _Asked:
    """What was scored and sampled, before figures are made of it."""

    examples: pd.DataFrame
    kept: dict[str, list[str | None]]
    worst: list[dict[str, Any]]
    """The pairs that speak most against their label, as text."""
    answered: list[dict[str, Any]]
    """Numbers of each sampled answer."""
    samples: list[dict[str, Any]]


def evaluate_run(settings: Settings, request: Request) -> Evaluation:
    """Judge the model in output_dir by the data and metrics of `settings`. Raises DpoWrapError."""
    modules = metrics.load_metrics(settings)
    config = load_config(settings)
    dpo = build_arguments(settings, config, load_adapter_config(settings)).dpo
    asked = _asked(settings, request, config, dpo)
    changes = metrics.score_samples(settings, modules, asked.samples) if asked.samples else []
    each = {f"{c.name}_{who}": values for c in changes for who, values in c.each.items()}
    examples, kept = with_kept(with_answers(asked.examples, asked.answered, each), asked.kept)
    figures = {
        "split": request.split,
        "dataset": list(settings.dataset_path),
        **preferences.pair_figures(examples, dpo.beta),
        **answers.answer_figures(asked.answered),
        **_conversion(settings, request.split),
        "beta": dpo.beta,
        "slices": _slices(settings.dataset_path, examples, dpo.beta),
        "groups": preferences.groups(examples, dpo.beta, kept),
        "against_label": asked.worst,
        "samples": len(asked.samples),
        "max_new_tokens": request.max_new_tokens,
        "seed": request.seed,
        "metrics": {change.name: change.figures() for change in changes},
    }
    return Evaluation(figures | {"findings": findings(figures)}, asked.samples, examples)


def _asked(settings: Settings, request: Request, config: Any, dpo: DPOConfig) -> _Asked:
    """Score every pair of the split with both models, and let both answer some prompts."""
    with _rows(settings, request.split) as rows:
        judged = load_judged(settings, dpo.device)
        tokens, fit = tokenize(settings, rows, request.split, judged.tokenizer, dpo, config)
        for line in report_lines(request.split, fit, dpo.max_length, settings.overlength):
            print(line, file=sys.stderr)
        scores = scoring.score_rows(judged, tokens, dpo)
        examples, kept = (
            table(tokens, scores, dpo.beta, settings.dataset_path),
            kept_columns(tokens),
        )
        prompts, room = tokens["prompt_ids"], _room(config, request)
        if request.samples and (skipped := _too_long(prompts, room, request)):
            print(skipped, file=sys.stderr)
        chosen = sampling.choose_prompts(
            prompts, examples["row"].tolist(), request.samples, request.seed, room
        )
        # TRL adds ends of text to what it tokenises, so texts are those of the rows before.
        pairs = {row: _texts(rows[row]) for row in chosen}
        worst = [
            _texts(rows[row["row"]]) | {"reward_margin": row["reward_margin"]}
            for row in preferences.worst(examples).to_dict("records")
        ]
    stops = stop_ids(judged.tokenizer)
    sampled = sampling.sample_answers(
        judged, chosen, dpo, stops, request.max_new_tokens, request.seed
    )
    answered = answers.answer_rows(sampled, stops)
    samples = [
        _sample(judged.tokenizer, sample, figures, pairs[sample.row])
        for sample, figures in zip(sampled, answered, strict=True)
    ]
    return _Asked(examples, kept, worst, answered, samples)


@contextlib.contextmanager
def _rows(settings: Settings, split: str) -> Iterator[Dataset]:
    """The split's rows; a raw file that has changed since training is converted for the while."""
    with tempfile.TemporaryDirectory() as aside:
        splits = load_splits(settings, Path(settings.output_dir), Path(aside), kept=True)
        rows = splits.train if split == "train" else splits.test
        if rows is None:
            raise DataError(
                f"{settings.where('dataset_path')}: there is no test split to evaluate on; convert "
                "with --test-size above 0, or name another: --split train, --dataset PATH"
            )
        check_data_fit(settings, load_run_tokenizer(settings), splits)
        with caching_disabled():
            numbered = rows.add_column(ROW, list(range(len(rows))))
        yield numbered


def _room(config: Any, request: Request) -> int | None:
    """How many tokens a prompt may have so that the model's context holds its answer too."""
    context = context_length(config)
    return None if context is None else context - request.max_new_tokens


def _too_long(prompts: Sequence[list[int]], room: int | None, request: Request) -> str | None:
    """Which prompts are not sampled from, in a line; None where all may be."""
    count = sum(room is not None and len(prompt) > room for prompt in prompts)
    if not count:
        return None
    return (
        f"{count} of {len(prompts)} prompts leave no room for {request.max_new_tokens} tokens in "
        "the model's context, so they are not sampled from; lower --max-new-tokens"
    )


def _texts(row: dict[str, Any]) -> dict[str, Any]:
    """A pair to read: prompt, chosen and rejected as text, and where it stands in the raw data."""
    return {"source": row.get("source")} | {
        side: said(row[side]) for side in ("prompt", "chosen", "rejected")
    }


def _sample(
    tokenizer: PreTrainedTokenizerBase,
    sample: Sampled,
    figures: dict[str, Any],
    pair: dict[str, Any],
) -> dict[str, Any]:
    def text(ids: list[int]) -> str:
        return tokenizer.decode(ids, skip_special_tokens=True)

    prompt = text(sample.prompt_ids)
    found = {"reference": sample.reference_ids, "policy": sample.policy_ids}
    # Decoded with its prompt, since a token may end a character that the prompt began.
    whole = {who: text(sample.prompt_ids + ids) for who, ids in found.items()}
    return {
        "prompt": prompt,
        "instruction": pair["prompt"],
        **{who: joined.removeprefix(prompt) for who, joined in whole.items()},
        "chosen": pair["chosen"],
        "source": pair["source"],
        **{name: value for name, value in figures.items() if name != "row"},
    }


def _slices(paths: Sequence[str], examples: pd.DataFrame, beta: float) -> dict[str, Any]:
    """The figures of each of several datasets by its path; empty where there is one."""
    if len(paths) < 2:
        return {}
    return {
        path: preferences.of_rows(examples[examples["dataset"] == path], beta) for path in paths
    }


def _conversion(settings: Settings, split: str) -> dict[str, Any]:
    """What the converter knows of these labels: how far people agree, and who was shown first."""
    reports = run_files.conversion_reports(Path(settings.output_dir), settings.dataset_path)
    found = list(reports.values())
    pairs, wins = run_files.first_shown_wins(found, split)
    first = {"accuracy": wins / pairs, "pairs": pairs} if pairs else None
    return {"first_answer": first, "ceiling": run_files.annotator_agreement(found)}
