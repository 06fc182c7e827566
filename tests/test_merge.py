"""The merge command: the merged model equals the adapter, or nothing is written."""

import json
import os
import resource
import shutil

import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from test_structure import loaded_by
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpo_wrap import merge, merge_adapter
from dpo_wrap.files import make_own
from tests.training import TALK, runner

QUESTION = [{"role": "user", "content": "Day 3: it was"}]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_model_dir):
    """A finished LoRA run on conversations, with a checkpoint."""
    folder = tmp_path_factory.mktemp("merge")
    start = runner(tiny_model_dir, folder)
    (folder / "talk.json").write_text(json.dumps(TALK))
    status, out = start(
        dataset_path=str(folder / "talk.json"), chat_template="chatml", save_steps=6
    )
    assert status == 0
    return out


@pytest.fixture
def adapter(tiny_model_dir, tmp_path):
    """A function that saves an adapter of random weights, scaled, on the tiny model or another."""

    def make(base=tiny_model_dir, scale=1.0, **keys):
        torch.manual_seed(0)
        lora = LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **keys)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_" not in name:
                parameter.data += 0.1 * torch.randn_like(parameter)
            elif parameter.requires_grad:
                parameter.data *= scale
        model.save_pretrained(tmp_path / "adapter")
        AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "adapter")
        return tmp_path / "adapter"

    return make


def logits(model):
    with torch.no_grad():
        return model.eval()(torch.arange(60)[None]).logits


def merged_and_adapter(run, out, base):
    """The logits of both, loaded with transformers and peft only."""
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), run)
    return logits(AutoModelForCausalLM.from_pretrained(out)), logits(adapted)


def refused(capsys, *words, status=2):
    capsys.readouterr()
    assert merge.main([str(word) for word in words]) == status
    message = capsys.readouterr().err
    assert message.count("\n") == 1, message
    return message


def nothing_left(tmp_path):
    return not list(tmp_path.glob("merged*"))


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_merged_model_is_the_adapter_on_its_base(trained, tiny_model_dir, tmp_path, capsys):
    out = tmp_path / "merged"
    assert merge.main([str(trained), str(out)]) == 0
    merged, adapted = merged_and_adapter(trained, out, tiny_model_dir)
    assert torch.allclose(merged, adapted, atol=1e-5)
    base = logits(AutoModelForCausalLM.from_pretrained(tiny_model_dir))
    assert (adapted - base).abs().max() > 0.01  # otherwise the comparison shows nothing
    assert sorted(path.name for path in out.iterdir()) == [
        *("README.md", "chat_template.jinja", "config.json", "generation_config.json"),
        *("model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    ]
    card = (out / "README.md").read_text()
    assert "with a LoRA adapter merged into it, saved in float32" in card and "## Training" in card
    one, other = (AutoTokenizer.from_pretrained(path) for path in (trained, out))
    assert one.apply_chat_template(QUESTION) == other.apply_chat_template(QUESTION)
    config = json.loads((out / "config.json").read_text())
    assert not config.keys() & {"quantization_config", "peft_config", "base_model_name_or_path"}
    assert config["dtype"] == "float32"
    message = capsys.readouterr().out
    assert " nats; training changed them by up to " in message
    assert f"  vllm serve {out}\n" in message and "no chat template" not in message


@pytest.mark.parametrize(
    "keys",
    [
        {"use_dora": True},
        {"use_rslora": True, "target_modules": "all-linear", "rank_pattern": {"c_fc": 2}},
        {"modules_to_save": ["lm_head"]},  # the tiny model's is tied to its embeddings
        {"trainable_token_indices": [3, 5]},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_every_kind_of_adapter_merges_exactly(adapter, tiny_model_dir, tmp_path, capsys, keys):
    made, out = adapter(**keys), tmp_path / "with space"
    assert merge.main([str(made), str(out)]) == 0
    merged, adapted = merged_and_adapter(made, out, tiny_model_dir)
    message = capsys.readouterr().out
    assert f"  vllm serve '{out}'\n" in message
    assert "it has no chat template: query it through /v1/completions" in message
    assert torch.allclose(merged, adapted, atol=1e-4)


def test_weights_are_saved_in_the_given_dtype_or_that_of_training(
    adapter, tiny_model_dir, tmp_path
):
    made = adapter(scale=0.3)
    assert merge.main([str(made), str(tmp_path / "half"), "--dtype", "bfloat16"]) == 0
    config = {"model_path": str(tiny_model_dir), "dataset_path": "gone", "output_dir": str(made)}
    config["model_init_kwargs"] = {"dtype": "float16", "attn_implementation": "none of these"}
    (made / merge.CONFIG).write_text(yaml.safe_dump(config))
    assert merge.main([str(made), str(tmp_path / "as-trained")]) == 0
    for name, dtype in (("half", torch.bfloat16), ("as-trained", torch.float16)):
        saved = load_file(tmp_path / name / "model.safetensors")
        assert {weight.dtype for weight in saved.values()} == {dtype}
        assert AutoModelForCausalLM.from_pretrained(tmp_path / name).dtype == dtype


def test_a_difference_past_the_tolerance_is_refused_and_nothing_is_left(adapter, tmp_path, capsys):
    # The default tolerance is then its minimum, 0.001, and bfloat16 rounds by more than that.
    made, out = adapter(scale=1e-3), tmp_path / "new/merged"
    message = refused(capsys, made, out, "--dtype", "bfloat16", status=1)
    assert message.startswith("the merged model differs from the adapter by 0.0")
    assert "the tolerance of 0.001; nothing was written; bfloat16 rounds too much" in message
    assert not out.parent.exists()
    message = refused(capsys, made, out, "--tolerance", "0", status=1)
    assert "the tolerance of 0; nothing was written" in message
    assert merge.main([str(made), str(out)]) == 0


@pytest.mark.parametrize(
    ("keys", "status", "expected"),
    [
        ({"target_modules": ["c_attn", "wte"]}, 1, "this adapter cannot be merged into this model"),
        ({"alora_invocation_tokens": [5]}, 2, "aLoRA does not support safe merging"),
    ],
    ids=["tied embeddings", "aLoRA"],
)
def test_an_adapter_that_cannot_be_merged_is_refused_with_the_command_to_serve_it(
    adapter, tiny_model_dir, tmp_path, capsys, keys, status, expected
):
    made = adapter(**keys)
    message = refused(capsys, made, tmp_path / "merged", status=status)
    assert expected in message
    assert f"vllm serve {tiny_model_dir} --enable-lora --lora-modules tuned={made}" in message
    assert nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda w: w[min(w)].fill_(float("nan")), "the model with this adapter returns NaN"),
        (lambda w: w.pop(min(w)), "the adapter lacks some of its weights, or belongs to"),
    ],
)
def test_spoiled_weights_are_refused(adapter, tmp_path, capsys, spoil, expected):
    made = adapter()
    weights = load_file(made / merge.WEIGHTS)
    spoil(weights)
    save_file(weights, made / merge.WEIGHTS, metadata={"format": "pt"})
    assert expected in refused(capsys, made, tmp_path / "merged")
    assert nothing_left(tmp_path)


def test_a_checkpoint_merges_into_the_unquantized_base_of_its_run(trained, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    config = yaml.safe_load((run / merge.CONFIG).read_text())
    (run / merge.CONFIG).write_text(yaml.safe_dump(config | {"load_in_4bit": True}))
    change_json(run / "checkpoint-6" / merge.ADAPTER, base_model_name_or_path="/gone/base")
    for source, name in ((run, "merged"), (run / "checkpoint-6", "merged-6")):
        assert merge.main([str(source), str(tmp_path / name)]) == 0
        message = capsys.readouterr().out
        assert "load_in_4bit: the adapter is merged into the unquantized base model" in message
    one, other = (load_file(tmp_path / n / "model.safetensors") for n in ("merged", "merged-6"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_generation_stops_at_the_end_of_turn_of_the_template(tiny_model_dir, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.save_pretrained(model)
    grown = AutoModelForCausalLM.from_pretrained(model)
    grown.resize_token_embeddings(len(tokenizer))
    grown.save_pretrained(model)
    (tmp_path / "talk.json").write_text(json.dumps(TALK))
    status, run = runner(model, tmp_path)(
        dataset_path=str(tmp_path / "talk.json"), chat_template="chatml", max_steps=1
    )
    assert status == 0
    assert merge.main([str(run), str(tmp_path / "merged")]) == 0
    config = json.loads((tmp_path / "merged/generation_config.json").read_text())
    assert config["eos_token_id"] == [0, tokenizer.convert_tokens_to_ids("<|im_end|>")]


def test_a_directory_without_an_adapter_is_refused(trained, tiny_model_dir, tmp_path, capsys):
    out = tmp_path / "merged"
    message = refused(capsys, tmp_path / "gone", out)
    assert "gone is not a directory; give the output_dir of a run" in message
    message = refused(capsys, tiny_model_dir, out)
    assert message == f"RUN_DIR {tiny_model_dir} is already a model; there is nothing to merge\n"
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / merge.WEIGHTS).unlink()
    assert "has no adapter_model.safetensors; train it again" in refused(capsys, run, out)
    (run / merge.ADAPTER).unlink()
    message = refused(capsys, run, out)
    assert f"its run is not finished; finish it, or merge {run}/checkpoint-6" in message
    assert nothing_left(tmp_path)


def test_a_damaged_or_foreign_adapter_is_refused(adapter, tmp_path, capsys):
    made, out = adapter(), tmp_path / "merged"
    weights = made / merge.WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    message = refused(capsys, made, out)
    assert message.startswith(f"RUN_DIR: {weights} is damaged (")
    weights.write_bytes(whole)
    change_json(made / merge.ADAPTER, peft_type="IA3")
    assert "IA3" in refused(capsys, made, out)
    change_json(made / merge.ADAPTER, peft_type="LORA", base_model_name_or_path=None)
    assert "base_model_name_or_path is not set; set it to the path" in refused(capsys, made, out)
    (made / merge.ADAPTER).write_text("{")
    assert "adapter_config.json is damaged; fetch the adapter again" in refused(capsys, made, out)


def test_a_missing_or_quantized_base_is_refused_with_its_location(
    trained, tiny_model_dir, tmp_path, capsys
):
    run, base = tmp_path / "run", tmp_path / "base"
    shutil.copytree(trained, run)
    config = yaml.safe_load((run / merge.CONFIG).read_text())
    (run / merge.CONFIG).write_text(yaml.safe_dump(config | {"model_path": str(base)}))
    message = refused(capsys, run, tmp_path / "merged")
    assert f"model_path '{base}' does not exist" in message
    assert message.startswith(f"{run}/config.resolved.yaml:")
    shutil.copytree(tiny_model_dir, base)
    change_json(base / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    message = refused(capsys, run, tmp_path / "merged")
    assert "is stored quantized, so a merge would round it again; set it to the path" in message


def test_existing_files_are_never_overwritten(trained, tiny_model_dir, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note").write_text("mine")
    message = refused(capsys, trained, tmp_path / "full")
    assert message == f"OUT_DIR {tmp_path}/full is not empty; give an empty or new directory\n"
    assert (tmp_path / "full/note").read_text() == "mine"
    assert "is a file" in refused(capsys, trained, tmp_path / "full/note")
    assert "is inside RUN_DIR" in refused(capsys, trained, trained / "merged")
    assert "is inside the base model" in refused(capsys, trained, tiny_model_dir / "merged")
    (tmp_path / "merged.part").mkdir()
    (tmp_path / "merged.part/note").write_text("mine")
    assert "merged.part: needed as a temporary" in refused(capsys, trained, tmp_path / "merged")
    assert (tmp_path / "merged.part/note").read_text() == "mine"


@pytest.mark.parametrize("text", ["-1", "nan"])
def test_an_invalid_tolerance_is_refused(text, capsys):
    with pytest.raises(SystemExit, match="2"):
        merge.main(["run", "out", "--tolerance", text])
    assert "--tolerance: expected a number of 0 or more" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_nothing_is_left(trained, tmp_path, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        message = refused(capsys, trained, tmp_path / "merged", status=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in message and "fix that, and run the same command again" in message
    assert nothing_left(tmp_path)


def test_a_signal_leaves_nothing(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(merge_adapter, "default_tolerance", lambda *_: os.kill(os.getpid(), 15))
    message = refused(capsys, trained, tmp_path / "merged", status=1)
    assert message == "stopped; nothing was written\n" and nothing_left(tmp_path)


def test_a_link_is_followed_and_the_directory_of_a_killed_merge_replaced(trained, tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    make_own(tmp_path / "target.part")
    (tmp_path / "target.part/model-00001-of-00009.safetensors").write_text("half")
    assert merge.main([str(trained), str(tmp_path / "link")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "target"]
    assert [p.name for p in (tmp_path / "target").glob("*.safetensors")] == ["model.safetensors"]


def test_help_imports_no_library():
    heavy = {"torch", "transformers", "peft", "trl", "datasets", "numpy", "openai"}
    assert not heavy & loaded_by("from dpo_wrap import merge\nmerge.parser().format_help()")


def test_the_largest_difference_ignores_masked_tokens_and_keeps_nan():
    adapted = torch.tensor([[-0.5, -2.0, -torch.inf]])
    assert merge_adapter.largest_difference(adapted - torch.tensor([[0, 0.25, 0]]), adapted) == 0.25
    assert not merge_adapter.largest_difference(adapted * torch.nan, adapted) <= 1e9


@pytest.mark.parametrize(
    ("trained_by", "dtype", "tolerance"),
    [
        (2.0, "bfloat16", 0.2),
        (0.3, "bfloat16", 0.15),
        (0, "bfloat16", 1e-3),
        (5.0, "float32", 1e-3),
    ],
)
def test_the_default_tolerance_is_at_most_half_of_what_training_changed(
    trained_by, dtype, tolerance
):
    assert merge_adapter.default_tolerance(trained_by, dtype) == tolerance


def test_a_base_model_that_changed_after_the_training_is_refused(tiny_model_dir, tmp_path, capsys):
    base = shutil.copytree(tiny_model_dir, tmp_path / "base")
    status, out = runner(base, tmp_path)()
    assert status == 0
    weights = load_file(base / "model.safetensors")
    weights["transformer.wpe.weight"] += 0.1
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    assert merge.main([str(out), str(tmp_path / "merged")]) == 2
    assert "model.safetensors changed after the training" in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()
