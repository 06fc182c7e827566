"""Helpers for the tests of prefix sharing: tiny random models, random pairs, one training step."""

import random

import torch
import transformers
from torch.nn.functional import softplus
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import add_fused_lm_head

from dpo_wrap.prefix_sharing.forward import PrefixSharing, share_forward

EOS, VOCABULARY, WINDOW = 2, 97, 8
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": EOS}
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    **SPECIAL,
}
HEADS = SMALL | {"head_dim": 8}
WINDOWED = {"sliding_window": WINDOW}
GPT2 = {"vocab_size": VOCABULARY, "n_positions": 256, "n_embd": 32, "n_layer": 3, "n_head": 4}
# Every window is shorter than most sequences of `pairs`.
SHAPES = {
    "gpt2": ("GPT2Config", GPT2 | SPECIAL),
    "llama": ("LlamaConfig", SMALL),
    "qwen2": ("Qwen2Config", SMALL),
    "qwen2 with a window in two layers": (
        "Qwen2Config",
        SMALL | WINDOWED | {"use_sliding_window": True, "max_window_layers": 2},
    ),
    "qwen3": ("Qwen3Config", HEADS),
    "mistral": ("MistralConfig", SMALL | {"sliding_window": None}),
    "mistral with a window": ("MistralConfig", SMALL | WINDOWED),
    "gemma": ("GemmaConfig", HEADS),
    "gemma 2": ("Gemma2Config", HEADS | WINDOWED),
    "gemma 3": ("Gemma3TextConfig", HEADS | WINDOWED | {"sliding_window_pattern": 2}),
    "phi 3 with a window": ("Phi3Config", SMALL | WINDOWED),
    "gpt-neox": ("GPTNeoXConfig", SMALL),
}


def build(name, keys, seed=0):
    """A model with random weights, large enough that its tokens differ, without dropout."""
    torch.manual_seed(seed)
    config = getattr(transformers, name)(**keys)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.15)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0
    return model.train()


def tiny(shape, seed=0, outputs=("log_probs", "entropy", "mean_logits", "is_top1"), **more):
    """A model of SHAPES with TRL's fused head."""
    name, keys = SHAPES[shape]
    model = build(name, keys | more, seed)
    add_fused_lm_head(model, outputs=outputs)
    return model


def pairs(seed, count=5, prompt=(2, 20), answer=(1, 20)):
    """Random pairs of token ids; some answers start alike, and one prompt is repeated."""
    generator = random.Random(seed)

    def ids(lengths):
        return [generator.randrange(3, VOCABULARY) for _ in range(generator.randint(*lengths))]

    rows = [
        {
            "prompt_ids": ids(prompt),
            "chosen_ids": [*ids(answer), EOS],
            "rejected_ids": [*ids(answer), EOS],
        }
        for _ in range(count)
    ]
    for row in rows[1::3]:
        start = row["chosen_ids"][: generator.randint(1, 4)]
        row["rejected_ids"] = [*start, *row["rejected_ids"]]
    if count > 2:
        rows[-1]["prompt_ids"] = rows[0]["prompt_ids"]
    return rows


def padded(rows, **options):
    """TRL's batch of these pairs."""
    return DataCollatorForPreference(pad_token_id=0, **options)(rows)


def arguments(batch):
    """The arguments with which TRL's loss calls a model on a batch."""
    return {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "labels": batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100),
        "fused_lm_head": True,
        "use_cache": False,
    }


def step(model, batch):
    """(TRL's output, the gradient of every trained parameter) of a loss like DPO's."""
    output = model(**arguments(batch))
    chosen, rejected = output.log_probs.sum(dim=1).chunk(2)
    (softplus(0.3 * (rejected - chosen)).mean() - 0.01 * chosen.mean()).backward()
    found = gradients(model)
    model.zero_grad(set_to_none=True)
    return output, found


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def without_and_with_sharing(model, batch, call=step):
    """The result of `call` on the model as it is, and after it shares prefixes."""
    plain, sharing = call(model, batch), PrefixSharing()
    share_forward(model, sharing)
    shared = call(model, batch)
    assert sharing.tokens > 0
    sharing.restore.close()
    return plain, shared


def assert_same_step(one, other, tolerance=1e-5):
    for name in ("log_probs", "entropy", "mean_logits", "is_top1", "label_mask"):
        torch.testing.assert_close(
            getattr(one[0], name), getattr(other[0], name), rtol=tolerance, atol=tolerance
        )
    assert one[1]
    assert_same_gradients(one[1], other[1], tolerance)


def assert_same_gradients(one, other, tolerance=1e-5):
    """Compare in units of each tensor's largest gradient."""
    assert one.keys() == other.keys()
    largest = max((gradient.abs().max().item() for gradient in one.values()), default=0)
    for name, gradient in one.items():
        # Gradients that are zero but for rounding (a key's bias) are compared with the others.
        scale = max(gradient.abs().max().item(), 1e-3 * largest)
        assert (gradient - other[name]).abs().max().item() <= 2 * tolerance * scale, name
