"""A finished run's figures: held-out pairs scored, answers sampled, metrics taken of both."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from dpo_wrap.errors import DataError
from dpo_wrap.judging import metrics, sampling, scoring
from dpo_wrap.judging.intervals import mean, mean_interval, share_interval
from dpo_wrap.judging.judged_model import load_judged
from dpo_wrap.judging.sampling import Sampled
from dpo_wrap.loading.arguments import build_arguments
from dpo_wrap.loading.data import load_splits
from dpo_wrap.loading.fit import spoken
from dpo_wrap.loading.model import context_length, load_adapter_config, load_config
from dpo_wrap.loading.overlap import ORIGIN
from dpo_wrap.loading.tokenizer import check_data_fit, stop_ids
from dpo_wrap.loading.tokens import tokenize
from dpo_wrap.settings.config import Settings

PREFERENCE = (
    *("reward_accuracy", "reward_accuracy_interval", "ties"),
    *("reward_margin", "chosen_log_ratio", "rejected_log_ratio"),
)
"""What `preference_figures` finds beside the count of examples."""


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
    """What eval.json holds, and the sampled answers as text, a dict a prompt."""

    figures: dict[str, Any]
    samples: list[dict[str, Any]]


def evaluate_run(settings: Settings, request: Request) -> Evaluation:
    """Judge the model in output_dir by the data and metrics of `settings`. Raises DpoWrapError."""
    modules = metrics.load_metrics(settings)
    config = load_config(settings)
    dpo = build_arguments(settings, config, load_adapter_config(settings)).dpo
    with _rows(settings, request.split) as rows:
        judged = load_judged(settings, dpo.device)
        tokens, fit = tokenize(settings, rows, request.split, judged.tokenizer, dpo, config)
        for line in spoken(request.split, fit, dpo.max_length, settings.overlength):
            print(line, file=sys.stderr)
        scores = scoring.score_rows(judged, tokens, dpo)
        origins = list(tokens[ORIGIN]) if ORIGIN in tokens.column_names else []
        room = _room(config, request)
        prompts = sampling.choose_prompts(tokens["prompt_ids"], request.samples, request.seed, room)
        if request.samples and (said := _too_long(tokens["prompt_ids"], room, request)):
            print(said, file=sys.stderr)
    sampled = sampling.sample_answers(
        judged, prompts, dpo, stop_ids(judged.tokenizer), request.max_new_tokens, request.seed
    )
    samples = [_texts(judged.tokenizer, sample) for sample in sampled]
    changes = []
    if samples:
        reference, policy = (
            [s["prompt"] + s[who] for s in samples] for who in ("reference", "policy")
        )
        changes = metrics.score_samples(settings, modules, reference, policy)
    figures = {
        "split": request.split,
        "dataset": list(settings.dataset_path),
        **preference_figures(scores.chosen_log_ratios, scores.rejected_log_ratios, dpo.beta),
        **sample_figures(sampled),
        "slices": slice_figures(settings.dataset_path, origins, scores, dpo.beta),
        "samples": len(sampled),
        "max_new_tokens": request.max_new_tokens,
        "seed": request.seed,
        "metrics": {change.name: asdict(change) | {"change": change.change} for change in changes},
    }
    return Evaluation(figures, samples)


@contextlib.contextmanager
def _rows(settings: Settings, split: str) -> Iterator[Dataset]:
    """The split's rows; a raw file that has changed since training is converted for the while."""
    with tempfile.TemporaryDirectory() as aside:
        splits = load_splits(settings, Path(settings.output_dir), Path(aside))
        rows = splits.train if split == "train" else splits.test
        if rows is None:
            raise DataError(
                f"{settings.place('dataset_path')}: there is no test split to evaluate on; convert "
                "with --test-size above 0, or name another: --split train, --dataset PATH"
            )
        run = AutoTokenizer.from_pretrained(settings.output_dir)
        check_data_fit(settings, run, splits)
        yield rows


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


def preference_figures(chosen: list[float], rejected: list[float], beta: float) -> dict[str, Any]:
    """Means over examples of the log-ratios (nats) of both answers, and what follows from them.

    The implicit reward is beta times the log-ratio (Rafailov et al. 2023, section 4); a win is a
    strictly greater reward of the chosen answer, as TRL counts it. Of no examples all are None.
    """
    if not chosen:
        return {"examples": 0} | dict.fromkeys(PREFERENCE)
    wins = sum(c > r for c, r in zip(chosen, rejected, strict=True))
    ties = sum(c == r for c, r in zip(chosen, rejected, strict=True))
    margins = [beta * (c - r) for c, r in zip(chosen, rejected, strict=True)]
    return {
        "examples": len(chosen),
        "reward_accuracy": wins / len(chosen),
        "reward_accuracy_interval": list(share_interval(wins, len(chosen))),
        "ties": ties,
        "reward_margin": mean(margins),
        "chosen_log_ratio": mean(chosen),
        "rejected_log_ratio": mean(rejected),
    }


def slice_figures(
    paths: Sequence[str], origins: list[int], scores: scoring.Scores, beta: float
) -> dict[str, dict[str, Any]]:
    """The figures of each of several datasets by its path; `origins` has each row's place in them.

    Empty where there is one dataset, which the whole's figures are of.
    """
    if len(paths) < 2:
        return {}
    pairs = list(zip(origins, scores.chosen_log_ratios, scores.rejected_log_ratios, strict=True))
    return {
        path: preference_figures(
            [chosen for origin, chosen, _ in pairs if origin == position],
            [rejected for origin, _, rejected in pairs if origin == position],
            beta,
        )
        for position, path in enumerate(paths)
    }


def sample_figures(sampled: list[Sampled]) -> dict[str, Any]:
    """KL(policy || reference) estimated from the policy's own answers, and the length ratio.

    In nats a sequence, and over the same draws in nats a token; None where nothing was sampled.
    """
    names = ("kl_per_sequence", "kl_per_sequence_interval", "kl_per_token", "length_ratio")
    if not sampled:
        return dict.fromkeys(names)
    ratios = [sample.policy_log_ratio for sample in sampled]
    policy_tokens = sum(len(sample.policy_ids) for sample in sampled)
    reference_tokens = sum(len(sample.reference_ids) for sample in sampled)
    bounds = mean_interval(ratios)
    values = (
        mean(ratios),
        bounds and list(bounds),
        sum(ratios) / policy_tokens,
        policy_tokens / reference_tokens,
    )
    return dict(zip(names, values, strict=True))


def _texts(tokenizer: PreTrainedTokenizerBase, sample: Sampled) -> dict[str, Any]:
    def text(ids: list[int]) -> str:
        return tokenizer.decode(ids, skip_special_tokens=True)

    prompt = text(sample.prompt_ids)
    answers = {"reference": sample.reference_ids, "policy": sample.policy_ids}
    # Decoded with its prompt, since a token may end a character that the prompt began.
    whole = {who: text(sample.prompt_ids + ids) for who, ids in answers.items()}
    return {
        "prompt": prompt,
        **{who: joined.removeprefix(prompt) for who, joined in whole.items()},
        "policy_log_ratio": sample.policy_log_ratio,
    }
