"""Evaluate a finished run: score held-out pairs, sample answers, compute metrics on both."""

import contextlib
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from numbers import Real
from pathlib import Path
from typing import Any

import evaluate
import pandas as pd
from datasets import Dataset
from trl import DPOConfig

from dpo_wrap.arguments import build_arguments
from dpo_wrap.config import Settings
from dpo_wrap.data.length_stats import report_lines
from dpo_wrap.data.splits import caching_disabled, load_splits
from dpo_wrap.data.tokenize import check_data_fit, tokenize
from dpo_wrap.errors import ConfigError, DataError, one_line
from dpo_wrap.evaluation import examples as tables
from dpo_wrap.evaluation import same_reference
from dpo_wrap.evaluation.examples import ROW
from dpo_wrap.evaluation.findings import findings, summary
from dpo_wrap.evaluation.models import (
    MODELS,
    EvaluatedModels,
    answer_figures,
    answer_limits,
    answer_rows,
    choose_prompts,
    load_models,
    load_run_tokenizer,
    sample_answers,
)
from dpo_wrap.hub import located
from dpo_wrap.metrics.intervals import mean
from dpo_wrap.model.load import context_length, load_adapter_config, load_config
from dpo_wrap.model.tokenizer import stop_ids
from dpo_wrap.run_dir import RUN, conversion_reports, read_object
from dpo_wrap.terminal import show

PER_EXAMPLE = "_per_example"


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

    def _repr_html_(self) -> str:
        """The figures and what they mean, in a notebook."""
        return f"<pre>{escape(chr(10).join(summary(self.figures)))}</pre>"


def evaluate_run(settings: Settings, request: Request) -> Evaluation:
    """Evaluate the model in output_dir on the data of `settings`. Raises DpoWrapError."""
    modules = load_metrics(settings)
    config = load_config(settings)
    args = build_arguments(settings, config, load_adapter_config(settings)).dpo
    with _rows(settings, request.split) as rows:
        models = load_models(settings, args.device)
        with models.as_reference() as reference:
            run = read_object(Path(settings.output_dir, RUN))
            if note := same_reference.check(reference, run, settings, args):
                show(note, file=sys.stderr)
        tokens, fit = tokenize(settings, rows, request.split, models.tokenizer, args, config)
        for line in report_lines(request.split, fit, args.max_length, settings.overlength):
            show(line, file=sys.stderr)
        logps = tables.score_rows(models, tokens, args)
        examples = tables.pair_table(tokens, logps, args.beta, settings.dataset_path)
        notes, context = [], context_length(config) or math.inf
        size = args.per_device_eval_batch_size
        prompts = _choose_prompts(tokens, context, request, size, notes)
        # TRL appends end-of-text tokens while it tokenizes, so texts are taken from the raw rows.
        texts = {row: _texts(rows[row]) for row in prompts}
        against_label = [
            _texts(rows[pair[ROW]]) | {"reward_margin": pair["reward_margin"]}
            for pair in tables.worst(examples).to_dict("records")
        ]
    for line in notes:
        show(line, file=sys.stderr)
    answers, samples = _sample(models, prompts, texts, args, request, context)
    metrics, scores = score_samples(settings, modules, samples) if samples else ({}, {})
    examples = tables.with_answers(examples, answers, scores)
    examples, kept = tables.with_kept(examples, tables.kept_columns(tokens))
    reports = conversion_reports(Path(settings.output_dir), settings.dataset_path)
    figures = {
        "split": request.split,
        "dataset": list(settings.dataset_path),
        **tables.pair_figures(examples, args.beta),
        **answer_figures(answers),
        **conversion_figures(list(reports.values()), request.split),
        "beta": args.beta,
        "slices": tables.slices(examples, args.beta, settings.dataset_path),
        "groups": tables.groups(examples, args.beta, kept),
        "against_label": against_label,
        "samples": len(samples),
        "samples_requested": request.samples,
        "max_new_tokens": request.max_new_tokens,
        "seed": request.seed,
        "metrics": metrics,
        "notes": notes,
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
        for line in check_data_fit(settings, load_run_tokenizer(settings), splits):
            print(line, file=sys.stderr)
        with caching_disabled():
            numbered = rows.add_column(ROW, list(range(len(rows))))
        yield numbered


def _texts(row: dict[str, Any]) -> dict[str, Any]:
    """The source of a pair, with its prompt and answers as text."""
    sides = ("prompt", "chosen", "rejected")
    return {"source": row.get("source"), **{side: tables.as_text(row[side]) for side in sides}}


def _choose_prompts(
    tokens: Dataset, context: float, request: Request, size: int, notes: list[str]
) -> dict[int, list[int]]:
    """The prompts to sample from in batches of `size`, by row.

    They are shorter than the model's context. Notes what does not fit into it.
    """
    ids = tokens["prompt_ids"]
    if request.samples and (full := sum(len(prompt) >= context for prompt in ids)):
        notes.append(f"{full} of {len(ids)} prompts fill the model's context and are not sampled")
    prompts = choose_prompts(ids, tokens[ROW], request.samples, request.seed, context - 1)
    most = request.max_new_tokens
    if max(map(len, prompts.values()), default=0) + most <= context:
        return prompts
    # By length, since the longest prompt of a batch decides where its answers are cut off.
    prompts = dict(sorted(prompts.items(), key=lambda item: len(item[1])))
    limits = answer_limits(list(prompts.values()), most, context, size)
    short = [limit for limit in limits if limit < most]
    notes.append(
        f"{len(short)} of {len(limits)} sampled prompts leave no room for {most} new tokens in the "
        f"model's context of {context}, so their answers are cut off at "
        f"{' to '.join(map(str, sorted({min(short), max(short)})))} tokens; lower --max-new-tokens "
        "for equal limits"
    )
    return prompts


def _sample(
    models: EvaluatedModels,
    prompts: dict[int, list[int]],
    texts: dict[int, dict[str, Any]],
    args: DPOConfig,
    request: Request,
    context: float,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(figures of each prompt's answers, lines of samples.jsonl)."""
    stops, limits = stop_ids(models.tokenizer), (request.max_new_tokens, context)
    sampled = sample_answers(models, prompts, args, stops, *limits, request.seed)
    answers = answer_rows(sampled, stops)

    def text(ids: list[int]) -> str:
        return models.tokenizer.decode(ids, skip_special_tokens=True)

    samples = []
    for sample, figures in zip(sampled, answers, strict=True):
        pair, ids, prompt = texts[sample.row], sample.prompt_ids, text(sample.prompt_ids)
        samples.append(
            {
                "prompt": prompt,
                "instruction": pair["prompt"],
                # Decoded with the prompt, since a character may begin there and end in the answer.
                "reference": text(ids + sample.reference_ids).removeprefix(prompt),
                "policy": text(ids + sample.policy_ids).removeprefix(prompt),
                "chosen": pair["chosen"],
                "source": pair["source"],
                **{name: value for name, value in figures.items() if name != ROW},
            }
        )
    return answers, samples


def conversion_figures(reports: Sequence[dict[str, Any]], split: str) -> dict[str, Any]:
    """From the converter's reports: how often the answer shown first won, annotator agreement.

    The `share` of the ceiling is how often annotators agree with the majority of the others, over
    all `judgements` that have others. It bounds the accuracy that can be expected of a model: a
    label that the next annotator would invert can only be guessed.
    """
    orders = [report.get("order_by_split", {}).get(split, {}) for report in reports]
    pairs = sum(order.get("pairs", 0) for order in orders)
    wins = sum(order.get("first_wins", 0) for order in orders)
    known = [report["agreement"] for report in reports if report.get("agreement")]
    rows = [row for found in known for row in found["per_annotator"] if row["compared"]]
    judgements = sum(row["compared"] for row in rows)
    agreed = sum(row["compared"] * (1 - row["differs"]) for row in rows)
    alpha = known[0]["alpha"] if len(known) == 1 else None
    return {
        "first_answer": {"accuracy": wins / pairs, "pairs": pairs} if pairs else None,
        "ceiling": {"share": agreed / judgements, "judgements": judgements, "alpha": alpha}
        if judgements
        else None,
    }


# The key `metrics:` lists local modules for evaluate.load. compute(predictions=[text, ...]) returns
# figures by name. If it also returns NAME_per_example, one number per prediction, the change of
# NAME gets a paired interval. Predictions are prompts with their answers. A module whose features
# have `references` gets the answers alone, and the chosen answers as references.


def load_metrics(settings: Settings) -> list[Any]:
    """Every module of `metrics:`. Raises ConfigError."""
    loaded = []
    for path in settings.metrics:
        try:
            # The files of intermediate results are named by this id; two runs must not share one.
            name = f"eval-{id(settings)}-{len(loaded)}"
            loaded.append(evaluate.load(located(path), experiment_id=name))
        except Exception as error:  # a module is code and may raise anything
            raise ConfigError(
                f"{settings.where('metrics')}: {path!r} cannot be loaded: {one_line(error)}"
            ) from None
    return loaded


def score_samples(
    settings: Settings, modules: Sequence[Any], samples: Sequence[dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """(figures by name, columns of values per sample) of all modules. Raises ConfigError.

    A figure has `reference`, `policy`, `change` (policy minus reference) and `change_interval`
    (95 %, None without values per sample).
    """
    figures: dict[str, Any] = {}
    columns: dict[str, list[float]] = {}
    for path, module in zip(settings.metrics, modules, strict=True):
        try:
            results = [module.compute(**_inputs(module, samples, who)) for who in MODELS]
            for name, value in results[0].items():
                if isinstance(value, Real) and not name.endswith(PER_EXAMPLE):
                    if name in figures:
                        raise ValueError(f"another module of metrics returns {name!r} too")
                    figures[name], values = _change(name, results, len(samples))
                    columns |= values
        except Exception as error:
            raise ConfigError(
                f"{settings.where('metrics')}: {path!r} failed on the samples: {one_line(error)}"
            ) from None
    return figures, columns


def _inputs(module: Any, samples: Sequence[dict[str, Any]], who: str) -> dict[str, list[str]]:
    features = module.features[0] if isinstance(module.features, list) else module.features
    if "references" not in features:
        return {"predictions": [sample["prompt"] + sample[who] for sample in samples]}
    answers, references = ([sample[name] for sample in samples] for name in (who, "chosen"))
    return {"predictions": answers, "references": references}


def _change(
    name: str, results: list[dict[str, Any]], count: int
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    before, after = (float(result[name]) for result in results)
    each = [[float(value) for value in r.get(name + PER_EXAMPLE, ())] for r in results]
    if {len(values) for values in each} not in ({0}, {count}):
        lengths = " and ".join(str(len(values)) for values in each)
        raise ValueError(f"{name}{PER_EXAMPLE} has {lengths} values for {count} predictions")
    if not all(map(math.isfinite, (before, after, *each[0], *each[1]))):
        raise ValueError(f"{name} has a value that is NaN or inf ({before}, {after})")
    differences = [later - earlier for earlier, later in zip(*each, strict=True)]
    bounds = mean(differences)[1] if differences else None
    figure = {"reference": before, "policy": after, "change": after - before}
    columns = {f"{name}_{who}": values for who, values in zip(MODELS, each, strict=True) if values}
    return figure | {"change_interval": bounds and list(bounds)}, columns
