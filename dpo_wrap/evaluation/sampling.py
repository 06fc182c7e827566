"""Answers of both models to the same prompts, and how far the policy moved from its reference."""

import contextlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import nn
from tqdm import tqdm
from transformers import GenerationConfig
from trl import DPOConfig
from trl.trainer.utils import pad

from dpo_wrap.evaluation.models import JudgedModel
from dpo_wrap.evaluation.scoring import both_logps, precision


@dataclass(frozen=True)
class Sampled:
    """One prompt with both answers, each as token ids with their end where one was drawn."""

    row: int
    prompt_ids: list[int]
    policy_ids: list[int]
    reference_ids: list[int]
    policy_log_ratio: float
    """log pi(y|x) - log pi_ref(y|x) of the policy's answer, in nats: a draw of the sequence KL."""


def choose_prompts(
    prompts: Sequence[list[int]],
    rows: Sequence[int],
    count: int,
    seed: int,
    room: int | None,
) -> dict[int, list[int]]:
    """At most `count` distinct prompts of at most `room` ids, by their row.

    Drawn without replacement by the seed and each row's number alone, so that of two runs that keep
    other rows the same prompts are asked wherever both have them.
    """
    first: dict[tuple[int, ...], int] = {}
    for row, prompt in zip(rows, prompts, strict=True):
        if room is None or len(prompt) <= room:
            first.setdefault(tuple(prompt), row)
    lot = {row: random.Random(f"{seed} {row}").random() for row in first.values()}
    drawn = set(sorted(lot, key=lot.__getitem__)[:count])
    return {row: list(prompt) for prompt, row in first.items() if row in drawn}


def sample_answers(
    judged: JudgedModel,
    prompts: dict[int, list[int]],
    dpo: DPOConfig,
    stops: list[int],
    max_new_tokens: int,
    seed: int,
) -> list[Sampled]:
    """Draw one answer of each model to each prompt at temperature 1, from the whole distribution.

    `prompts` maps a row to its prompt's ids. The mean of `policy_log_ratio` estimates
    KL(pi || pi_ref) per sequence without bias only at that temperature. Both models draw with the
    same dice, batch by batch, so that where they agree they write the same.
    """
    rows, ids = list(prompts), list(prompts.values())
    size, pad_id = dpo.per_device_eval_batch_size, judged.tokenizer.pad_token_id
    policy, reference, ratios = [], [], []
    for number, batch in enumerate(_split(ids, size, "sampling from the policy")):
        torch.manual_seed(seed + number)
        answers = draw_answers(judged.policy, batch, dpo, stops, max_new_tokens, pad_id)
        policy += answers
        ours, theirs = both_logps(judged, answer_batch(batch, answers, pad_id), dpo)
        ratios += (ours - theirs).tolist()
    with judged.as_reference() as model:
        for number, batch in enumerate(_split(ids, size, "sampling from the reference")):
            torch.manual_seed(seed + number)
            reference += draw_answers(model, batch, dpo, stops, max_new_tokens, pad_id)
    return [Sampled(*parts) for parts in zip(rows, ids, policy, reference, ratios, strict=True)]


def _split(ids: list[list[int]], size: int, what: str) -> list[list[list[int]]]:
    return tqdm([ids[i : i + size] for i in range(0, len(ids), size)], desc=what, disable=None)


def draw_answers(
    model: nn.Module,
    prompts: list[list[int]],
    dpo: DPOConfig,
    stops: list[int],
    max_new_tokens: int,
    pad_id: int,
) -> list[list[int]]:
    """One answer to each prompt at temperature 1: token ids, with the stop where one was drawn."""
    tensors = [torch.tensor(prompt) for prompt in prompts]
    ones = [torch.ones(len(prompt), dtype=torch.long) for prompt in prompts]
    plain = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=max_new_tokens,
        eos_token_id=stops,
        pad_token_id=pad_id,
    )
    with torch.no_grad(), precision(dpo), _configured(model, plain):
        drawn = model.generate(
            input_ids=pad(tensors, padding_value=pad_id, padding_side="left").to(dpo.device),
            attention_mask=pad(ones, padding_value=0, padding_side="left").to(dpo.device),
        )
    width = max(map(len, prompts))
    return [_ended(row, stops) for row in drawn[:, width:].tolist()]


@contextlib.contextmanager
def _configured(model: nn.Module, config: GenerationConfig) -> Iterator[None]:
    """In place of the model's own config, whose penalties and beams would fill what is not said."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    before, base.generation_config = base.generation_config, config
    try:
        yield
    finally:
        base.generation_config = before


def _ended(ids: list[int], stops: list[int]) -> list[int]:
    """The answer up to and with its end; what follows is padding."""
    end = next((i + 1 for i, token in enumerate(ids) if token in stops), len(ids))
    return ids[:end]


def answer_batch(
    prompts: list[list[int]], answers: list[list[int]], pad_id: int
) -> dict[str, torch.Tensor]:
    """Prompts with their answers as a right-padded batch of which the answers are scored."""
    whole = [torch.tensor(p + a) for p, a in zip(prompts, answers, strict=True)]
    masks = [
        torch.tensor([0] * len(p) + [1] * len(a)) for p, a in zip(prompts, answers, strict=True)
    ]
    return {
        "input_ids": pad(whole, padding_value=pad_id),
        "attention_mask": pad([torch.ones_like(ids) for ids in whole], padding_value=0),
        "completion_mask": pad(masks, padding_value=0),
    }
