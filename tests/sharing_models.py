"""What the tests of shared prompts share: tiny random models by shape, random pairs, one step."""

import random

import torch
import transformers
from torch.nn.functional import softplus
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import add_fused_lm_head

EOS, WORDS, WINDOW = 2, 97, 8
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": EOS}
SMALL = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    **ENDS,
}
HEADS = SMALL | {"head_dim": 8}
WINDOWED = {"sliding_window": WINDOW}
GPT2 = {"vocab_size": WORDS, "n_positions": 256, "n_embd": 32, "n_layer": 3, "n_head": 4, **ENDS}
# Every window is shorter than the texts of `pairs`, most of which it would cut.
SHAPES = {
    "gpt2": ("GPT2Config", GPT2),
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


def tiny(shape, seed=0, outputs=("log_probs", "entropy", "mean_logits", "is_top1"), **more):
    """A model of random weights, large enough to tell tokens apart, with TRL's fused head."""
    name, keys = SHAPES[shape]
    config = getattr(transformers, name)(**keys | more)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.15)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0
    add_fused_lm_head(model, outputs=outputs)
    return model.train()


def pairs(seed, count=5, prompt=(2, 20), answer=(1, 20)):
    """Random pairs of token ids; some answers begin alike, one prompt stands twice."""
    dice = random.Random(seed)

    def ids(span):
        return [dice.randrange(3, WORDS) for _ in range(dice.randint(*span))]

    rows = [
        {
            "prompt_ids": ids(prompt),
            "chosen_ids": [*ids(answer), EOS],
            "rejected_ids": [*ids(answer), EOS],
        }
        for _ in range(count)
    ]
    for row in rows[1::3]:
        row["rejected_ids"] = [*row["chosen_ids"][: dice.randint(1, 4)], *row["rejected_ids"]]
    if count > 2:
        rows[-1]["prompt_ids"] = rows[0]["prompt_ids"]
    return rows


def padded(rows, **options):
    """TRL's batch of these pairs."""
    return DataCollatorForPreference(pad_token_id=0, **options)(rows)


def asked(batch):
    """What TRL's loss asks a model with for the figures of a batch."""
    return {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "labels": batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100),
        "fused_lm_head": True,
        "use_cache": False,
    }


def step(model, batch):
    """(TRL's output, the gradient of every trained parameter) of a loss like DPO's."""
    output = model(**asked(batch))
    chosen, rejected = output.log_probs.sum(dim=1).chunk(2)
    (softplus(0.3 * (rejected - chosen)).mean() - 0.01 * chosen.mean()).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return output, gradients


def assert_same_step(one, other, tolerance=1e-5):
    """Every figure and gradient alike; gradients in parts of the largest of their tensor."""
    for name in ("log_probs", "entropy", "mean_logits", "is_top1", "label_mask"):
        torch.testing.assert_close(
            getattr(one[0], name), getattr(other[0], name), rtol=tolerance, atol=tolerance
        )
    assert one[1].keys() == other[1].keys() and one[1]
    largest = max(gradient.abs().max().item() for gradient in one[1].values())
    for name, gradient in one[1].items():
        # What is 0 but for rounding (a key's bias) is measured by the others.
        scale = max(gradient.abs().max().item(), 1e-3 * largest)
        assert (gradient - other[1][name]).abs().max().item() < tolerance * scale * 2, name
