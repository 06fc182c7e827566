"""Models and adapters that would train something else than they seem to, without an error."""

import json

import pytest
from datasets import Dataset
from safetensors.torch import load_file, save_file
from training import ROWS, TALK
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from dpo_wrap import evaluate, merge
from dpo_wrap.errors import DpoWrapError
from dpo_wrap.train import main

SMALL = {"vocab_size": 257, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 128}


def test_a_model_that_sees_what_follows_is_refused(run, tiny_model_dir, tmp_path, capsys):
    config = LlamaConfig(**SMALL, is_causal=False, initializer_range=0.3)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(tmp_path / "model")
    for options in [("--dry-run",), ()]:
        assert run(*options, model_path=str(tmp_path / "model"))[0] == 2
        error = capsys.readouterr().err
        assert "is a LlamaForCausalLM, whose predictions change by" in error


def test_an_adapter_without_some_of_its_weights_is_refused(run, tmp_path, capsys):
    _, first = run(output_dir=str(tmp_path / "first"))
    weights = load_file(first / "adapter_model.safetensors")
    kept = {name: value for name, value in weights.items() if ".h.1." not in name}
    save_file(kept, first / "adapter_model.safetensors", metadata={"format": "pt"})
    for options in [("--dry-run",), ()]:
        assert run(*options, adapter_path=str(first))[0] == 2
        assert "the adapter lacks some of its weights" in capsys.readouterr().err
    assert merge.main([str(first), str(tmp_path / "merged")]) == 2


@pytest.mark.parametrize(
    ("rows", "value", "message"),
    [
        (ROWS, '{"enable_thinking": false}', "has no effect on prompts that are text"),
        (TALK, "no json", "chat_template_kwargs is 'no json', not a mapping"),
        (TALK, '{"add_generation_prompt": true}', "the rows cannot be tokenized: TypeError"),
    ],
)
def test_arguments_of_rows_are_used_or_refused(run, tmp_path, capsys, rows, value, message):
    table = Dataset.from_list([row | {"chat_template_kwargs": value} for row in rows])
    table.save_to_disk(str(tmp_path / "data"))
    template = {} if rows is ROWS else {"chat_template": "chatml"}
    assert run("--dry-run", dataset_path=str(tmp_path / "data"), **template)[0] == 2
    assert message in capsys.readouterr().err


def test_a_config_with_a_mistyped_field_is_refused(run, tiny_model_dir, tmp_path, capsys):
    model = tmp_path / "model"
    model.mkdir()
    for file in tiny_model_dir.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"n_embd": "x"}))
    assert run(model_path=str(model))[0] == 2
    assert "has an unusable config" in capsys.readouterr().err


def test_the_config_of_a_run_directory_does_not_decide_on_trust(run, tmp_path, capsys):
    _, out = run()
    resolved = out / "config.resolved.yaml"
    resolved.write_text(resolved.read_text() + "trust_remote_code: true\n")
    assert main([str(resolved)]) == 0  # the same run as without the key
    assert "already finished with this config" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options", [{"split": "foo"}, {"samples": -1}, {"max_new_tokens": 0}, {"seed": -1}]
)
def test_the_function_checks_its_options_as_the_command_does(tmp_path, options):
    with pytest.raises(DpoWrapError) as caught:
        evaluate(tmp_path / "none.yaml", **options)
    assert f"--{next(iter(options)).replace('_', '-')}" in str(caught.value)


def test_rows_that_are_longer_than_the_context_are_cut_wherever_they_are_scored(run, tmp_path):
    rows = [row | {"prompt": "long " * 40 + row["prompt"]} for row in ROWS]
    (tmp_path / "long.json").write_text(json.dumps(rows))
    keys = {"dataset_path": str(tmp_path / "long.json"), "truncation_mode": "keep_end"}
    assert run("--dry-run", **keys)[0] == 0 and run(**keys)[0] == 0
    assert evaluate(tmp_path / "config.yaml", split="train", samples=1).figures["examples"] == 24
