"""Every family of model_families.py trains, resumes, evaluates and merges with plain TRL's figures.

TRL's trainer is built by hand, on a model whose config has no dropout.
"""

import json
import re
import signal
from pathlib import Path

import pytest
import torch
from datasets import Dataset, DatasetDict
from model_families import FAMILIES, SMALL, table
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file
from training import metrics, run_json, runner, same, without_times
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
)
from trl import DPOConfig, DPOTrainer

from dpo_wrap import eval as eval_command
from dpo_wrap import merge
from dpo_wrap.training import session

FAST = ("qwen2", "mixtral", "gemma3_text", "modernbert-decoder")
ROWS = [
    {
        "prompt": f"{number}:" + "prompt"[: number % 7] * 2,
        "chosen": "chosen answer"[: 2 + number],
        "rejected": "a rejected one"[: 12 - number],
    }
    for number in range(11)
]
TRAIN, TEST = Dataset.from_list(ROWS[:8]), Dataset.from_list(ROWS[8:])
STEPS, BETA = 4, 0.5
OPTIONS = {
    "max_steps": STEPS,
    "beta": BETA,
    "logging_steps": 1,
    "eval_strategy": "steps",
    "eval_steps": STEPS,
    "report_to": "none",
    "disable_tqdm": True,
}
RATES = {"lora": 1e-2, "full": 1e-3}
TOLERANCE = 1e-4
"""Nats, and relative for figures above 1."""


class Interrupted(session.Progress):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 1:
            signal.raise_signal(signal.SIGTERM)


def auto(config):
    """The class that loads a model for text, also of one that takes images."""
    text_only = config.get_text_config() is config
    return AutoModelForCausalLM if text_only else AutoModelForImageTextToText


def load(path, config=None):
    config = config or AutoConfig.from_pretrained(path)
    model = auto(config).from_pretrained(path, config=config, dtype=torch.float32).eval()
    if model.base_model is model:
        model.base_model_prefix = "model"  # TRL fails on Llama 4's, which is of another class
    return model


@pytest.fixture(scope="module")
def base(tiny_model_dir, tmp_path_factory):
    """A function that saves a family's model of random weights: its path."""
    saved = {}

    def save(name):
        if name not in saved:
            torch.manual_seed(0)
            config = AutoConfig.for_model(name.split()[0], **SMALL | FAMILIES[name].keys)
            saved[name] = str(tmp_path_factory.mktemp("base"))
            auto(config).from_config(config).save_pretrained(saved[name])
            AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(saved[name])
        return saved[name]

    return save


def trained_by_trl(path, out, kind, lora):
    """A DPOTrainer that has trained the model without dropout, and saved it."""
    config = AutoConfig.from_pretrained(path)
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        rates = [n for n, value in vars(part).items() if "drop" in n and isinstance(value, float)]
        vars(part).update(dict.fromkeys(rates, 0.0))
    model = load(path, config)
    trainer = DPOTrainer(
        model=model,
        ref_model=None if lora else load(path, config),
        args=DPOConfig(
            output_dir=str(out),
            per_device_train_batch_size=2,
            learning_rate=RATES[kind],
            max_length=128,
            bf16=False,
            save_strategy="no",
            activation_checkpointing=model.supports_gradient_checkpointing,
            **OPTIONS,
        ),
        train_dataset=TRAIN,
        eval_dataset=TEST,
        processing_class=AutoTokenizer.from_pretrained(path),
        peft_config=lora,
    )
    trainer.train()
    trainer.save_model()
    return trainer


def logged(trainer):
    """What TRL logged at each step, the evaluation at the last one with it."""
    lines = [{} for _ in range(STEPS)]
    for line in trainer.state.log_history[:-1]:
        lines[line["step"] - 1] |= without_times(line)
    return lines


@torch.no_grad()
def answer_logps(model, tokenizer, side):
    """The log-probabilities of the answer's tokens in each pair of TEST, one row at a time."""
    found = []
    for pair in TEST:
        prompt, answer = (tokenizer(pair[name])["input_ids"] for name in ("prompt", side))
        ids = torch.tensor([[*prompt, *answer, tokenizer.eos_token_id]])
        every = model(ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        logps = every[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])
        found.append(logps[len(prompt) - 1 :, 0])
    return found


def mean_logp(answers):
    return sum(answer.sum().item() for answer in answers) / len(TEST)


@pytest.mark.parametrize("kind", RATES)
@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES]
)
def test_a_family_trains_resumes_evaluates_and_merges_with_trls_figures(
    base, tmp_path, capfd, monkeypatch, name, kind
):
    family, path, data = FAMILIES[name], base(name), str(tmp_path / "data")
    DatasetDict({"train": TRAIN, "test": TEST}).save_to_disk(data)
    start, keys = runner(path, tmp_path), {"dataset_path": data, "batch_size": 2, **OPTIONS}
    keys |= {"learning_rate": RATES[kind], "lora": None if kind == "lora" else False}

    def run(**more):
        status, out = start(**keys | more)
        return status, out, "".join(capfd.readouterr())

    if message := family.refused.get(kind):
        status, out, printed = run()
        assert status == 2 and message in printed and not [*out.glob("*")], printed
        return

    # Stopped in the second step and resumed, a run has the figures and weights of plain TRL's.
    way = "off" if family.sharing is None else "auto"
    with monkeypatch.context() as patch:
        patch.setattr(session, "Progress", Interrupted)
        status, out, printed = run(prefix_sharing=way)
        assert status == 1, printed
    status, out, printed = run(prefix_sharing=way)
    assert status == 0 and f"resuming from {out}/checkpoint-2" in printed, printed
    lora = PeftConfig.from_pretrained(out) if kind == "lora" else None
    if lora:
        lora.inference_mode = False
    trainer = trained_by_trl(path, tmp_path / "trl", kind, lora)
    expected = logged(trainer)
    for line, trl in zip(metrics(out), expected, strict=True):
        assert {name: line.get(name) for name in trl} == trl
    weights, trls = (
        load_file(next(folder.glob("*model.safetensors"))) for folder in (out, tmp_path / "trl")
    )
    assert same(weights, trls)
    for tensor in weights:
        assert not re.search(r"router|\.gate\.|expert_gate|visual|vision", tensor) or not lora, (
            tensor
        )
        assert "lora_B" not in tensor or weights[tensor].any(), f"{tensor} is never trained"

    # What was saved loads in plain transformers and peft, and is the model that was trained.
    tokenizer, reference = AutoTokenizer.from_pretrained(out), load(path)
    policy = PeftModel.from_pretrained(load(path), out).eval() if lora else load(out)
    worst, logps, ratios = {}, {}, {}
    others = {"saved": trainer.model.eval()}
    if lora:
        assert merge.main([str(out), str(tmp_path / "merged")]) == 0, capfd.readouterr()
        others["merged"] = load(tmp_path / "merged")
    for side in ("chosen", "rejected"):
        answers = answer_logps(policy, tokenizer, side)
        for what, other in others.items():
            pairs = zip(answers, answer_logps(other, tokenizer, side), strict=True)
            difference = max((one - two).abs().max().item() for one, two in pairs)
            worst[what] = max(difference, worst.get(what, 0))
        logps[side] = mean_logp(answers)
        ratios[side] = logps[side] - mean_logp(answer_logps(reference, tokenizer, side))

    # The figures of both commands are those of these models.
    options = ("--samples", "1", "--max-new-tokens", "2")
    assert eval_command.main([str(tmp_path / "config.yaml"), *options]) == 0, capfd.readouterr()
    trained, evaluated = metrics(out)[-1], json.loads((out / "eval.json").read_text())
    margin = BETA * (ratios["chosen"] - ratios["rejected"])
    for figure, value in (
        (trained["eval_logps/chosen"], logps["chosen"]),
        (trained["eval_rewards/margins"], margin),
        (evaluated["reward_margin"], margin),
        (evaluated["chosen_log_ratio"], ratios["chosen"]),
    ):
        worst["figures"] = max(worst.get("figures", 0), abs(figure - value))

    # With prompts computed once the figures are the same; or the run says why that is not so.
    if family.sharing is None:
        status, shared, printed = run(output_dir=str(tmp_path / "shared"))
        assert status == 0, printed
        assert run_json(shared)["prefix_sharing"]["on"], run_json(shared)["prefix_sharing"]
        worst["sharing"] = max(
            abs(line[n] - value) / max(1, abs(value))
            for line, trl in zip(metrics(shared), expected, strict=True)
            for n, value in trl.items()
        )
    else:
        assert family.sharing in run_json(out)["prefix_sharing"]["reason"]
    print(f"{name}, {kind}:", ", ".join(f"{what} {value:.1e}" for what, value in worst.items()))
    assert max(worst.values()) < TOLERANCE


def test_the_docs_have_the_table_of_families():
    """`python tests/model_families.py` prints it."""
    text = Path(__file__).parent.parent.joinpath("docs/models.md").read_text(encoding="utf-8")
    assert "\n".join(table()) in text
