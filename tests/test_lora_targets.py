"""lora_targets: what LoRA adapts by default and by name, in every family of models."""

import json
import re
import shutil

import pytest
import torch
import yaml
from families import FAMILIES, load_whole, save_family
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from training import adapter_weights, runner
from transformers import LlamaConfig, LlamaForCausalLM

from dpo_wrap import eval as eval_command
from dpo_wrap import merge
from dpo_wrap.model import load, lora_targets

IDS = torch.arange(1, 40)[None]
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MIXTURES = ["qwen3 moe", "mixtral", "deepseek v3", "qwen3 next", "granite moe", "llama 4"]
VISION = ["qwen2.5 vl", "gemma 3", "llava"]


@pytest.fixture(scope="module")
def family(tmp_path_factory, tiny_model_dir):
    """A function that saves a tiny model of a family once: its directory."""
    saved = {"gpt2": tiny_model_dir}

    def path(name):
        if name not in saved:
            saved[name] = save_family(name, tmp_path_factory.mktemp("family"), tiny_model_dir)
        return saved[name]

    return path


@pytest.fixture
def start(family, tmp_path, capsys):
    """A function that trains a family for two steps: (exit status, output directory, output)."""

    def run(name, *options, **keys):
        status, out = runner(family(name), tmp_path)(*options, **{"max_steps": 2} | keys)
        printed = capsys.readouterr()
        return status, out, printed.out if status == 0 else printed.err

    return run


@torch.no_grad()
def logits(model):
    return model(IDS).logits


def adapted(out):
    """The names of the adapter's tensors without the rest of the model's name."""
    names = {re.sub(r"\.lora_[AB].*", "", name) for name in adapter_weights(out)}
    return {name.removeprefix("base_model.model.") for name in names}


@pytest.mark.parametrize("name", MIXTURES + VISION)
def test_by_default_the_language_model_is_adapted_and_no_router(start, family, tmp_path, name):
    status, out, printed = start(name, lora_dropout=0.1)
    assert status == 0, printed
    names = adapted(out)
    assert all(re.search(r"(attn|mlp|feed_forward|shared_expert)\.\w+$", name) for name in names)
    assert not [n for n in names if re.search(r"visual|vision|projector|router|\.gate$|experts", n)]
    assert not PeftConfig.from_pretrained(out).target_parameters
    left = r"not adapted: .*(routers \(\w+\.weight|outside the language model \(model\.vis)"
    assert re.search(left, printed) or name == "llava"
    # The adapter is plain peft's, and eval and merge read it.
    assert (
        eval_command.main([str(tmp_path / "config.yaml"), "--split", "train", "--samples=0"]) == 0
    )
    (family(name) / "preprocessor_config.json").write_text("{}")
    assert merge.main([str(out), str(tmp_path / "merged")]) == 0
    assert (tmp_path / "merged/preprocessor_config.json").is_file()  # vLLM needs it for vision
    tuned = logits(PeftModel.from_pretrained(load_whole(family(name)), out))
    assert (tuned - logits(load_whole(family(name)))).abs().max() > 0.05
    torch.testing.assert_close(logits(load_whole(tmp_path / "merged")), tuned, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "targets"),
    [("qwen3 moe", SEVEN), *((name, "all-linear") for name in ("qwen3 moe", "mixtral", "llama 4"))],
)
def test_named_experts_are_adapted_by_their_fused_weights(start, family, tmp_path, name, targets):
    status, out, printed = start(name, lora={"target_modules": targets})
    assert status == 0, printed
    fused = name != "llama 4"  # peft has no conversion for it
    line = "parameters (experts.down_proj, experts.gate_up_proj), which vLLM does not load"
    assert (line in printed) == fused
    assert any("experts" in name for name in adapted(out)) == fused
    assert not [n for n in adapted(out) if re.search(r"router|\.gate$", n)]
    assert merge.main([str(out), str(tmp_path / "merged")]) == 0
    tuned = logits(PeftModel.from_pretrained(load_whole(family(name)), out))
    torch.testing.assert_close(logits(load_whole(tmp_path / "merged")), tuned, atol=1e-5, rtol=0)


def test_a_router_is_adapted_if_it_is_named(start):
    status, out, printed = start("qwen3 moe", lora={"target_modules": ["q_proj", "gate"]})
    assert status == 0, printed
    assert "model.layers.1.mlp.gate" in adapted(out)


def test_the_resolved_config_of_a_default_repeats_its_targets(start, family, tmp_path):
    _, out, _ = start("qwen2.5 vl", max_steps=1)
    resolved = yaml.safe_load((out / "config.resolved.yaml").read_text())
    before = adapted(out)
    (tmp_path / "again").mkdir()
    status, out = runner(family("qwen2.5 vl"), tmp_path / "again")(
        max_steps=1, lora=resolved["lora"]
    )
    assert status == 0 and adapted(out) == before


def test_modules_of_the_vision_tower_are_adapted_if_named_and_a_note_says_so(start):
    status, out, printed = start("llava", lora={"target_modules": ["q_proj"]})
    assert status == 0, printed
    assert any("vision_tower" in name for name in adapted(out))
    assert "1 of 3 adapted modules are in model.vision_tower, outside the language" in printed


@pytest.mark.parametrize(
    ("name", "lora", "message"),
    [
        (
            "mixtral",
            {"target_modules": SEVEN},
            "9: lora.target_modules: down_proj, gate_proj, up_proj match no module of this model; "
            "remove them (adapted are k_proj, o_proj, q_proj, v_proj); experts' weights are "
            "parameters: target_parameters: [experts.down_proj, experts.gate_up_proj]",
        ),
        (
            "mixtral",
            {"target_parameters": ["experts.w1"]},
            "9: lora.target_parameters: experts.w1 match no parameter of this model; it "
            "has embed_tokens.weight, experts.down_proj, experts.gate_up_proj, gate.weight, ",
        ),
        (
            "qwen3 moe",
            {"target_modules": SEVEN, "lora_dropout": 0.1},
            "17: lora.lora_dropout: peft refuses it: lora.ParamWrapper does not work with "
            "lora_dropout != 0; experts' fused weights are adapted here: remove it, or",
        ),
        (
            "llama 4",
            {"target_modules": ["q_proj", "router"]},
            "9: lora.target_modules: model.layers.1.feed_forward.router is a router with an "
            "output of its own kind, which peft cannot adapt; remove it",
        ),
        (
            "llama",
            {"target_modules": ["q_proj", "lm_head"]},
            "9: lora.target_modules: lm_head is the output layer, whose weight TRL reads without "
            "the adapter; remove it, or write modules_to_save: [lm_head] to train the whole layer",
        ),
        *(
            ("gpt2", lora, f"9: lora.{[*lora][0]}: {message}")
            for lora, message in (
                (
                    {"target_modules": ["q_proj"]},
                    "peft refuses it: Target modules {{'q_proj'}} not found in the base model. "
                    "Please check the target modules and try again; the model's linear modules are "
                    "c_attn, c_fc, c_proj, lm_head",
                ),
                (
                    {"target_modules": ["c_attn", "q_proj"]},
                    "q_proj match no module of this model; remove them (adapted are c_attn)\n",
                ),
                (
                    {"layers_to_transform": [7]},
                    "peft refuses it: Target modules {{'c_attn'}} not found in",
                ),
                ({"modules_to_save": ["wpe", "score"]}, "score match no module of this model;"),
                ({"rank_pattern": {"c_fc": 2}}, "'c_fc' matches nothing that is adapted; remove"),
                ({"target_modules": ["c_attn", "lm_head"]}, "lm_head is the output layer, whose"),
                ({"target_parameters": ["c_fc"]}, "c_fc match no parameter of this model; it has "),
            )
        ),
        (
            "llama 4 with vision",
            None,
            "model_path '{model}' is a Llama4ForConditionalGeneration, whose output layer is "
            "inside its language model, where TRL does not find it",
        ),
        *(
            ("llama", lora, f"lora.{[*lora][-1]}: '*.q_proj' is not a regular expression: nothing")
            for lora in (
                {"target_modules": "*.q_proj"},
                {"exclude_modules": "*.q_proj"},
                {"layers_to_transform": [0], "layers_pattern": ["*.q_proj"]},
                {"modules_to_save": ["*.q_proj"]},
                {"rank_pattern": {"*.q_proj": 2}},
            )
        ),
    ],
)
def test_targets_that_cannot_be_trained_are_refused_before_weights_are_read(
    start, family, monkeypatch, name, lora, message
):
    monkeypatch.setattr(load, "create_model_from_path", lambda *a, **k: pytest.fail("read"))
    status, _, error = start(name, "--dry-run", lora=lora)
    assert status == 2
    assert message.format(model=family(name)) in error


def test_an_adapter_of_another_model_is_refused_with_both_shapes(start, tmp_path, monkeypatch):
    wide = LlamaForCausalLM(LlamaConfig(**FAMILIES["llama"][1] | {"hidden_size": 64}))
    get_peft_model(wide, LoraConfig(task_type="CAUSAL_LM")).save_pretrained(tmp_path / "wide")
    monkeypatch.setattr(load, "create_model_from_path", lambda *a, **k: pytest.fail("read"))
    status, _, error = start("llama", "--dry-run", adapter_path=str(tmp_path / "wide"))
    assert status == 2
    assert (
        "layers.0.self_attn.q_proj.lora_A.weight is [8, 64] in the adapter and [8, 32] in" in error
    )


def test_biases_on_layers_without_one_are_a_note_and_cannot_be_merged(start, tmp_path, capsys):
    lora = {"lora_bias": True, "target_modules": ["q_proj"]}
    status, out, printed = start("llama", lora=lora)
    assert status == 0
    assert "lora_bias: the adapter cannot be merged, since q_proj have no bias" in printed
    assert merge.main([str(out), str(tmp_path / "merged")]) == 2
    message = capsys.readouterr().err
    assert "has a bias (lora_bias: true) on model.layers.0.self_attn.q_proj, which" in message
    assert message.endswith("train it again without lora_bias\n") and message.count("\n") == 1


@pytest.mark.parametrize("name", ["deepseek v3", "gemma 3"])
def test_a_default_is_restricted_to_the_layers_that_are_named(start, name):
    status, out, printed = start(name, lora={"layers_to_transform": [1]})
    assert status == 0, printed
    assert adapted(out) and all(".layers.1." in name for name in adapted(out))


def test_a_model_with_code_of_its_own_trains(start, family, tmp_path):
    own = shutil.copytree(family("llama"), tmp_path / "own")
    config = json.loads((own / "config.json").read_text())
    config |= {"model_type": "own", "architectures": ["OwnForCausalLM"]}
    config["auto_map"] = {
        "AutoConfig": "configuration_own.OwnConfig",
        "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
    }
    (own / "config.json").write_text(json.dumps(config))
    (own / "configuration_own.py").write_text(
        "from transformers import LlamaConfig\n\n\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
    )
    (own / "modeling_own.py").write_text(
        "from transformers import LlamaForCausalLM\n\nfrom .configuration_own import OwnConfig\n\n"
        "class OwnForCausalLM(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    status, out, printed = start("llama", model_path=str(own), trust_remote_code=True)
    assert status == 0, printed
    assert "all-linear by default, peft has no default for own" in printed
    assert len(adapted(out)) == 14


def test_a_pattern_may_name_a_part_of_a_path(start):
    lora = {"rank_pattern": {"h.0.attn.c_attn": 2}, "modules_to_save": ["wpe"]}
    assert start("gpt2", "--dry-run", lora=lora)[0] == 0


def test_a_model_that_needs_its_weights_to_be_built_is_a_note(start, monkeypatch):
    def broken(settings, config):
        raise RuntimeError("reads a file")

    monkeypatch.setattr(lora_targets, "_without_weights", broken)
    status, _, printed = start("gpt2", "--dry-run")
    assert status == 0
    assert "the model cannot be built without its weights (reads a file), so LoRA's" in printed
