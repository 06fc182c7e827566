"""Evaluate a finished run: score held-out pairs, sample answers, compute metrics on both."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset
from transformers import PretrainedConfig, PreTrainedTokenizerBase
from trl import DPOConfig

from dpo_wrap.arguments import build_arguments
from dpo_wrap.config import Settings
from dpo_wrap.data.length_stats import report_lines
from dpo_wrap.data.splits import caching_disabled, load_splits
from dpo_wrap.data.tokenize import check_data_fit, tokenize
from dpo_wrap.errors import DataError
from dpo_wrap.evaluation import pair_stats, sampling, user_metrics
from dpo_wrap.evaluation.examples import (
    ROW,
    as_text,
    kept_columns,
    pair_table,
    score_rows,
    with_answers,
    with_kept,
)
from dpo_wrap.evaluation.findings import findings
from dpo_wrap.evaluation.models import EvaluatedModels, load_models, load_run_tokenizer
from dpo_wrap.evaluation.sampling import MODELS, Sampled
from dpo_wrap.model.load import context_length, load_adapter_config, load_config
from dpo_wrap.model.tokenizer import stop_ids
from dpo_wrap.report import run_files


@dataclass(frozen=True)
class Request:
    """What to evaluate, next to the settings."""

    split: str = "test"
    samples: int = 64
    """The largest number of prompts that both models answer."""
    max_new_tokens: int = 128
    seed: int = 0


@dataclass(frozen=True)
class Evaluation:
    """The content of eval.json, samples.jsonl and examples.parquet."""

    figures: dict[str, Any]
    samples: list[dict[str, Any]]
    examples: pd.DataFrame


def evaluate_run(settings: Settings, request: Request) -> Evaluation:
    """Evaluate the model in output_dir on the data of `settings`. Raises DpoWrapError."""
    modules = user_metrics.load_metrics(settings)
    config = load_config(settings)
    args = build_arguments(settings, config, load_adapter_config(settings)).dpo
    with _rows(settings, request.split) as rows:
        models = load_models(settings, args.device)
        tokens, fit = tokenize(settings, rows, request.split, models.tokenizer, args, config)
        for line in report_lines(request.split, fit, args.max_length, settings.overlength):
            print(line, file=sys.stderr)
        logps = score_rows(models, tokens, args)
        examples = pair_table(tokens, logps, args.beta, settings.dataset_path)
        prompts = _choose_prompts(tokens, config, request)
        # TRL appends end-of-text tokens while it tokenizes, so texts are taken from the raw rows.
        texts = {row: _texts(rows[row]) for row in prompts}
        against_label = [
            _texts(rows[pair[ROW]]) | {"reward_margin": pair["reward_margin"]}
            for pair in pair_stats.worst(examples).to_dict("records")
        ]
    answers, samples = _sample(models, prompts, texts, args, request)
    metrics, scores = {}, {}
    if samples:
        metrics, scores = user_metrics.score_samples(settings, modules, samples)
    examples = with_answers(examples, answers, scores)
    examples, kept = with_kept(examples, kept_columns(tokens))
    figures = {
        "split": request.split,
        "dataset": list(settings.dataset_path),
        **pair_stats.pair_figures(examples, args.beta),
        **sampling.answer_figures(answers),
        **_conversion_figures(settings, request.split),
        "beta": args.beta,
        "slices": pair_stats.slices(examples, args.beta, settings.dataset_path),
        "groups": pair_stats.groups(examples, args.beta, kept),
        "against_label": against_label,
        "samples": len(samples),
        "max_new_tokens": request.max_new_tokens,
        "seed": request.seed,
        "metrics": metrics,
    }
    return Evaluation(figures | {"findings": findings(figures)}, samples, examples)


@contextlib.contextmanager
def _rows(settings: Settings, split: str) -> Iterator[Dataset]:
    """The split's rows; a raw file that changed since training is converted temporarily."""
    with tempfile.TemporaryDirectory() as directory:
        splits = load_splits(settings, Path(settings.output_dir), Path(directory), kept=True)
        rows = splits.train if split == "train" else splits.test
        if rows is None:
            raise DataError(
                f"{settings.where('dataset_path')}: there is no test split to evaluate on; convert "
                "with --test-size above 0, or use another: --split train, --dataset PATH"
            )
        check_data_fit(settings, load_run_tokenizer(settings), splits)
        with caching_disabled():
            numbered = rows.add_column(ROW, list(range(len(rows))))
        yield numbered


def _texts(row: dict[str, Any]) -> dict[str, Any]:
    """The source of a pair, with its prompt and answers as text."""
    sides = ("prompt", "chosen", "rejected")
    return {"source": row.get("source"), **{side: as_text(row[side]) for side in sides}}


def _choose_prompts(
    tokens: Dataset, config: PretrainedConfig, request: Request
) -> dict[int, list[int]]:
    """The prompts to sample from, by row; reports those that are too long."""
    prompts, context = tokens["prompt_ids"], context_length(config)
    room = None if context is None else context - request.max_new_tokens
    too_long = sum(room is not None and len(prompt) > room for prompt in prompts)
    if request.samples and too_long:
        print(
            f"{too_long} of {len(prompts)} prompts leave no room for {request.max_new_tokens} "
            "tokens in the model's context and are not sampled; lower --max-new-tokens",
            file=sys.stderr,
        )
    return sampling.choose_prompts(prompts, tokens[ROW], request.samples, request.seed, room)


def _sample(
    models: EvaluatedModels,
    prompts: dict[int, list[int]],
    texts: dict[int, dict[str, Any]],
    args: DPOConfig,
    request: Request,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(figures of each prompt's answers, lines of samples.jsonl)."""
    stops = stop_ids(models.tokenizer)
    sampled = sampling.sample_answers(
        models, prompts, args, stops, request.max_new_tokens, request.seed
    )
    answers = sampling.answer_rows(sampled, stops)
    samples = []
    for sample, figures in zip(sampled, answers, strict=True):
        pair = texts[sample.row]
        prompt, written = _decoded(models.tokenizer, sample)
        record = {"prompt": prompt, "instruction": pair["prompt"], **written}
        record |= {"chosen": pair["chosen"], "source": pair["source"], **figures}
        del record[ROW]
        samples.append(record)
    return answers, samples


def _decoded(tokenizer: PreTrainedTokenizerBase, sample: Sampled) -> tuple[str, dict[str, str]]:
    """(the prompt, the answer of each model) as text."""

    def text(ids: list[int]) -> str:
        return tokenizer.decode(ids, skip_special_tokens=True)

    prompt, answers = text(sample.prompt_ids), (sample.reference_ids, sample.policy_ids)
    # Decoded with the prompt, since a character may begin in the prompt and end in the answer.
    wholes = [text(sample.prompt_ids + ids) for ids in answers]
    return prompt, {w: whole.removeprefix(prompt) for w, whole in zip(MODELS, wholes, strict=True)}


def _conversion_figures(settings: Settings, split: str) -> dict[str, Any]:
    """From the converter's reports: how often the answer shown first won, annotator agreement."""
    found = run_files.conversion_reports(Path(settings.output_dir), settings.dataset_path)
    reports = list(found.values())
    pairs, wins = run_files.first_shown_wins(reports, split)
    first = {"accuracy": wins / pairs, "pairs": pairs} if pairs else None
    return {"first_answer": first, "ceiling": run_files.annotator_agreement(reports)}
