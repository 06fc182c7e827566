"""Policy and reference of a finished run: loading, log-probabilities, and sampled answers."""

import contextlib
import math
import random
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase
from trl import DPOConfig
from trl.trainer.utils import create_model_from_path, pad

from dpo_wrap.config import Settings
from dpo_wrap.errors import ModelError, one_line
from dpo_wrap.hub import located
from dpo_wrap.logps import (
    REFERENCE_ADAPTER,
    answer_batch,
    answer_logps,
    mixed_precision,
    reference_model,
)
from dpo_wrap.metrics.intervals import Bounds, mean
from dpo_wrap.model.load import CONFIG_ERRORS, WEIGHT_ERRORS, init_kwargs, load_base
from dpo_wrap.model.tokenizer import silence_length_warning

MODELS = ("reference", "policy")
GRAMS = (1, 2, 3)
INTERVALS = ("kl_per_sequence", "kl_per_token", "length_ratio")


@dataclass(frozen=True)
class EvaluatedModels:
    """Policy and reference in evaluation mode on one device; with LoRA they share weights."""

    tokenizer: PreTrainedTokenizerBase
    policy: nn.Module
    separate_reference: nn.Module | None = None
    """The reference of a run that trained all weights."""

    def as_reference(self) -> AbstractContextManager[nn.Module]:
        """The reference, for as long as the context lasts."""
        return reference_model(self.policy, self.separate_reference)

    def logps(self, batch: dict[str, Tensor], args: DPOConfig) -> tuple[Tensor, Tensor]:
        """log pi(y|x) and log pi_ref(y|x) of each row of a batch for `answer_logps`: (B,) each."""
        policy = answer_logps(self.policy, batch, args)
        with self.as_reference() as reference:
            return policy, answer_logps(reference, batch, args)


def load_run_tokenizer(settings: Settings) -> PreTrainedTokenizerBase:
    """The tokenizer that the run saved. Raises ModelError."""
    run = settings.output_dir
    try:
        if not Path(run, "tokenizer_config.json").is_file():
            raise OSError("tokenizer_config.json is missing")
        tokenizer = AutoTokenizer.from_pretrained(
            run, trust_remote_code=settings.option("trust_remote_code")
        )
        if tokenizer.eos_token is None:
            raise ValueError("it has no end-of-text token")
    except Exception as error:  # the libraries raise anything for a truncated file
        raise ModelError(
            f"{run}: its tokenizer cannot be loaded ({one_line(error)}); train again"
        ) from None
    silence_length_warning(tokenizer)
    return tokenizer


def load_models(settings: Settings, device: torch.device) -> EvaluatedModels:
    """The model in output_dir and the reference that it was trained with. Raises ModelError."""
    run = settings.output_dir
    if not any(Path(run).glob("*.safetensors")):
        raise ModelError(f"{run}: its weights (*.safetensors) are missing; train again")
    tokenizer = load_run_tokenizer(settings)
    try:
        if settings.lora is None:
            policy = _full_weights(settings)
            reference = load_base(settings, distributed=True).to(device).eval()
            return EvaluatedModels(tokenizer, policy.to(device).eval(), reference)
        with warnings.catch_warnings():
            # peft leaves weights that the file lacks at their initial values, and only warns.
            warnings.filterwarnings("error", "Found missing adapter keys")
            policy = PeftModel.from_pretrained(load_base(settings, distributed=True), run)
            if settings.adapter_path is not None:
                # Added as TRL adds it, with the config that peft completed for the first adapter:
                # with one of its own, peft would no longer find the output layer to tie.
                warnings.filterwarnings("ignore", "You have requested `ensure_weight_tying`")
                policy.add_adapter(REFERENCE_ADAPTER, policy.peft_config["default"])
                policy.load_adapter(located(settings.adapter_path), adapter_name=REFERENCE_ADAPTER)
                policy.set_adapter("default")
    except (*WEIGHT_ERRORS, *CONFIG_ERRORS, UserWarning) as error:
        raise ModelError(
            f"{run}: the trained model cannot be loaded ({one_line(error)}); train again"
        ) from None
    return EvaluatedModels(tokenizer, policy.to(device).eval())


def _full_weights(settings: Settings) -> nn.Module:
    # Without a device map the whole model is on one device, on a machine with several GPUs too.
    trusted = {"trust_remote_code": settings.option("trust_remote_code")}
    options = {**trusted, **init_kwargs(settings), "device_map": None}
    policy, loading = create_model_from_path(
        settings.output_dir, output_loading_info=True, **options
    )
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(f"{len(missing)} of its weights are missing, first {missing[0]}")
    return policy


@dataclass(frozen=True)
class Sampled:
    """One prompt with both answers as token ids, each with its stop token if one was drawn."""

    row: int
    prompt_ids: list[int]
    policy_ids: list[int]
    reference_ids: list[int]
    policy_log_ratio: float
    """log pi(y|x) - log pi_ref(y|x) of the policy's answer, in nats: a draw of the sequence KL."""


def choose_prompts(
    prompts: Sequence[list[int]], rows: Sequence[int], count: int, seed: int, room: float
) -> dict[int, list[int]]:
    """At most `count` distinct prompts of at most `room` tokens, by their row.

    Drawn without replacement. The draw depends on the seed and on each row's number alone, so two
    runs that dropped different rows still get the same prompts wherever both have them.
    """
    first: dict[tuple[int, ...], int] = {}
    for row, prompt in zip(rows, prompts, strict=True):
        if len(prompt) <= room:
            first.setdefault(tuple(prompt), row)
    order = {row: random.Random(f"{seed} {row}").random() for row in first.values()}
    drawn = set(sorted(order, key=order.__getitem__)[:count])
    return {row: list(prompt) for prompt, row in first.items() if row in drawn}


def answer_limits(
    prompts: Sequence[list[int]], max_new_tokens: int, context: float, size: int
) -> list[int]:
    """The largest number of tokens of the answers to each prompt, in batches of `size`.

    The longest prompt of a batch leaves room for it in the model's context.
    """
    batches = [prompts[i : i + size] for i in range(0, len(prompts), size)]
    return [int(min(max_new_tokens, context - max(map(len, b)))) for b in batches for _ in b]


def sample_answers(
    models: EvaluatedModels,
    prompts: dict[int, list[int]],
    args: DPOConfig,
    stops: list[int],
    max_new_tokens: int,
    context: float,
    seed: int,
) -> list[Sampled]:
    """One answer of each model to each prompt at temperature 1, from the whole distribution.

    `prompts` maps a row to its prompt's ids. Only at that temperature is the mean of
    `policy_log_ratio` an unbiased estimate of KL(pi || pi_ref) per sequence. Both models use the
    same random numbers in each batch, so equal distributions give equal answers. Prompts with
    answers do not exceed `context` tokens, so the answers to long prompts are cut off earlier.
    """
    ids, pad_id = list(prompts.values()), models.tokenizer.pad_token_id
    size = args.per_device_eval_batch_size
    batches = [ids[i : i + size] for i in range(0, len(ids), size)]
    limits = answer_limits(ids, max_new_tokens, context, size)[::size]

    def draw(model: nn.Module, who: str) -> Iterator[list[list[int]]]:
        for number, batch in enumerate(tqdm(batches, desc=f"sampling: {who}", disable=None)):
            torch.manual_seed(seed + number)
            yield draw_answers(model, batch, args, stops, limits[number], pad_id)

    policy, ratios, reference = [], [], []
    for batch, answers in zip(batches, draw(models.policy, "policy"), strict=True):
        policy += answers
        logps, reference_logps = models.logps(answer_batch(batch, answers, pad_id), args)
        ratios += (logps - reference_logps).tolist()
    with models.as_reference() as model:
        for answers in draw(model, "reference"):
            reference += answers
    columns = (list(prompts), ids, policy, reference, ratios)
    return [Sampled(*values) for values in zip(*columns, strict=True)]


@torch.no_grad()
def draw_answers(
    model: nn.Module,
    prompts: list[list[int]],
    args: DPOConfig,
    stops: list[int],
    max_new_tokens: int,
    pad_id: int,
) -> list[list[int]]:
    """One answer to each prompt at temperature 1: token ids up to and with the stop token."""
    ids = [torch.tensor(prompt) for prompt in prompts]
    config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=max_new_tokens,
        eos_token_id=stops,
        pad_token_id=pad_id,
    )
    batch = {
        "input_ids": pad(ids, padding_value=pad_id, padding_side="left"),
        "attention_mask": pad([torch.ones_like(row) for row in ids], 0, padding_side="left"),
    }
    with mixed_precision(args), _generation_config(model, config):
        drawn = model.generate(**{name: value.to(args.device) for name, value in batch.items()})
    answers = drawn[:, batch["input_ids"].shape[1] :].tolist()
    ends = [next((i + 1 for i, t in enumerate(a) if t in stops), len(a)) for a in answers]
    return [answer[:end] for answer, end in zip(answers, ends, strict=True)]


@contextlib.contextmanager
def _generation_config(model: nn.Module, config: GenerationConfig) -> Iterator[None]:
    """Replace the model's own config; generate() would fill in its penalties and beams."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    before, base.generation_config = base.generation_config, config
    try:
        yield
    finally:
        base.generation_config = before


def answer_rows(sampled: Sequence[Sampled], stops: Sequence[int]) -> list[dict[str, Any]]:
    """For each prompt its figures: tokens, whether the answer ended, distinct n-grams."""
    rows = []
    for sample in sampled:
        row: dict[str, Any] = {"row": sample.row, "policy_log_ratio": sample.policy_log_ratio}
        for who, ids in zip(MODELS, (sample.reference_ids, sample.policy_ids), strict=True):
            ended = ids[-1] in stops
            words = ids[:-1] if ended else ids
            row |= {f"{who}_tokens": len(ids), f"{who}_ended": ended}
            row |= {f"{who}_distinct_{n}": distinct(words, n) for n in GRAMS}
        rows.append(row)
    return rows


def distinct(ids: Sequence[int], n: int) -> float | None:
    """The share of an answer's n-grams that are distinct (distinct-n, Li et al. 2016).

    1 means no repetition; None is returned for an answer shorter than n.
    """
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def answer_figures(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """KL(policy || reference) over the policy's own answers, and how both models write.

    KL in nats, per sequence and per token of the same answers, with 95 % intervals. Without samples
    every figure is None.
    """
    names = {"eos_rate": "ended"} | {f"distinct_{n}": f"distinct_{n}" for n in GRAMS}
    if not rows:
        return dict.fromkeys([*INTERVALS, *(f"{name}_interval" for name in INTERVALS), *names])
    ratios = [row["policy_log_ratio"] for row in rows]
    lengths = {who: [row[f"{who}_tokens"] for row in rows] for who in MODELS}
    found: dict[str, Any] = {}
    for name, (value, bounds) in {
        "kl_per_sequence": mean(ratios),
        "kl_per_token": ratio_of_sums(ratios, lengths["policy"]),
        "length_ratio": ratio_of_sums(lengths["policy"], lengths["reference"]),
    }.items():
        found |= {name: value, f"{name}_interval": bounds and list(bounds)}
    for name, column in names.items():
        found[name] = {
            who: _mean_of_known(row[f"{who}_{column}"] for row in rows) for who in MODELS
        }
    return found


def ratio_of_sums(above: Sequence[float], below: Sequence[float]) -> tuple[float, Bounds | None]:
    """sum(above) / sum(below) with 95 % bounds by the delta method (Cochran 1977, section 6.3)."""
    total = math.fsum(below)
    ratio, scale = math.fsum(above) / total, len(below) / total
    values = [ratio + (a - ratio * b) * scale for a, b in zip(above, below, strict=True)]
    return ratio, mean(values)[1]


def _mean_of_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known)[0] if known else None
