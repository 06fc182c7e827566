"""Prompts on which two models are compared, and how far apart their probabilities are there."""

import contextlib
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from dpo_wrap.logps import next_token_logps
from dpo_wrap.model.load import context_length

# The largest difference of any log-probability, in nats, that rounding to a dtype may make.
TOLERANCES = {"float32": 1e-3, "float16": 5e-2, "bfloat16": 2e-1}
PROBE_TEXTS = (
    "The quick brown fox jumps over the lazy dog, and then it sleeps in the sun.",
    "Question: What is 17 + 25? Answer: 42. def add(a, b):\n    return a + b\n",
)
PROBE_TALK = [{"role": "user", "content": "Which season is it when the leaves fall, and why?"}]
RANDOM_PROBES, PROBE_LENGTH = 5, 32
"""Sequences of random tokens, and tokens of each probe."""


@dataclass(frozen=True)
class Agreement:
    """How the merged model's next-token probabilities differ from the adapter's, over probes."""

    difference: float
    """Largest absolute difference of a log-probability, in nats; NaN where one is no number."""
    effect: float
    """The same between the adapter and its base: what training changed."""
    alike: int
    """Positions at which the likeliest token is the same, of `positions`."""
    positions: int


def probe_ids(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel | PeftModel, config: PretrainedConfig
) -> list[list[int]]:
    """Token ids to compare models on: texts, a question as it is chatted, and random tokens."""
    length = min(PROBE_LENGTH, context_length(config) or PROBE_LENGTH)
    texts = [tokenizer(text)["input_ids"] for text in PROBE_TEXTS]
    if tokenizer.chat_template is not None:
        # A template is code and may refuse a question alone; the other probes remain.
        with contextlib.suppress(Exception):
            texts.append(tokenizer.apply_chat_template(PROBE_TALK)["input_ids"])
    rows = model.get_input_embeddings().weight.shape[0]
    # A token that was added may stand for an image or a tool, which ids alone do not bring along.
    plain = sorted(set(range(min(rows, len(tokenizer)))) - set(tokenizer.added_tokens_decoder))
    draw = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(plain), (RANDOM_PROBES, length), generator=draw).tolist()
    random = [[plain[number] for number in numbers] for numbers in drawn]
    return [ids[:length] for ids in [*texts, *random] if ids and max(ids) < rows]


def log_probs(model: nn.Module, probes: list[list[int]]) -> torch.Tensor:
    """Log-probabilities of every token at every position of the probes: (positions, vocabulary)."""
    return torch.cat([next_token_logps(model, ids) for ids in probes])


def compare(merged: torch.Tensor, adapted: torch.Tensor, base: torch.Tensor) -> Agreement:
    """Hold the log-probabilities of the merged model to those of the adapter on its base."""
    # Where a model rules a token out, both are minus infinity, whose difference is no number.
    differences = (merged - adapted).masked_fill(merged == adapted, 0)
    return Agreement(
        difference=differences.abs().max().item(),
        effect=(adapted - base).abs().max().item(),
        alike=int((merged.argmax(-1) == adapted.argmax(-1)).sum()),
        positions=len(merged),
    )


def tolerated(agreement: Agreement, dtype: str) -> float:
    """Nats, by dtype, but no more than half of what training changed, lest rounding outweigh it."""
    return min(TOLERANCES[dtype], max(agreement.effect / 2, TOLERANCES["float32"]))
