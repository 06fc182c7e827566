"""outline: LoRA's targets are held to the model before a weight is read."""

import pytest
import yaml
from transformers import AutoConfig

from dpo_wrap.arguments import build_arguments
from dpo_wrap.config import load_settings
from dpo_wrap.errors import ConfigError
from dpo_wrap.model.lora_targets import check_targets
from dpo_wrap.train import main


@pytest.fixture
def outlined(tiny_model_dir, tmp_path):
    """check_targets() under these keys of the config: the notes that it left."""

    def make(**keys):
        keys = {"model_path": str(tiny_model_dir), "dataset_path": "d", "output_dir": "o"} | keys
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(keys))
        settings = load_settings(str(tmp_path / "c.yaml"))
        config = AutoConfig.from_pretrained(tiny_model_dir)
        notes = []
        lora = build_arguments(settings, config).lora
        check_targets(settings, config, lora, notes)
        return notes

    return make


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ({"target_modules": ["q_proj"]}, "peft refuses it: Target modules {'q_proj'} not found"),
        ({"target_modules": ["c_attn", "q_proj"]}, "q_proj match no module of this model; remove"),
        ({"layers_to_transform": [7]}, "peft refuses it: Target modules {'c_attn'} not found"),
        ({"modules_to_save": ["wpe", "score"]}, "score match no module of this model; remove them"),
        ({"rank_pattern": {"c_fc": 2}}, "'c_fc' matches no adapted module"),
        ({"target_modules": ["c_attn", "lm_head"]}, "the output layer cannot be adapted"),
    ],
)
def test_targets_that_match_nothing_are_refused_where_they_stand(outlined, lora, said):
    with pytest.raises(ConfigError) as refused:
        outlined(lora=lora)
    assert said in str(refused.value)
    assert str(refused.value).startswith(str(refused.value).split("c.yaml")[0] + "c.yaml:")


@pytest.mark.parametrize(
    "lora",
    [
        {"use_dora": True},
        {"init_lora_weights": "gaussian"},
        {"target_modules": "all-linear"},
        {"target_modules": r".*\.c_(attn|fc)"},
        {"rank_pattern": {"h.0.attn.c_attn": 2}},
        {"modules_to_save": ["wpe"]},
    ],
)
def test_what_peft_takes_is_taken(outlined, lora):
    assert outlined(lora=lora) == []


def test_a_wrong_target_is_refused_before_weights_are_read(
    tiny_model_dir, tmp_path, capsys, monkeypatch
):
    def read(*arguments, **keywords):
        raise AssertionError("weights were read")

    monkeypatch.setattr("dpo_wrap.model.load.create_model_from_path", read)
    keys = {
        "model_path": str(tiny_model_dir),
        "dataset_path": str(tmp_path / "pairs.jsonl"),
        "output_dir": str(tmp_path / "out"),
        "lora": {"target_modules": ["q_proj"]},
    }
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "p", "chosen": "c", "rejected": "r"}\n')
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(keys))
    assert main([str(tmp_path / "c.yaml")]) == 2
    assert "Target modules {'q_proj'} not found in the base model" in capsys.readouterr().err


def test_a_model_that_needs_its_weights_to_be_built_is_a_note(outlined, monkeypatch):
    def broken(settings, config):
        raise RuntimeError("reads a file")

    monkeypatch.setattr("dpo_wrap.model.lora_targets._empty", broken)
    assert "no outline without its weights (reads a file)" in outlined()[0]
