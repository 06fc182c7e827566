"""Weights of a checkpoint: all of them load, or the checkpoint is not used."""

import json
import shutil

import pytest
import torch
import transformers
from datasets import Dataset, DatasetDict
from safetensors.torch import load_file, save_file
from training import ROWS, metrics, runner, same

from dpo_wrap import checkpoints

SIZES = {
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "num_experts_per_tok": 2,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
HALF = {"moe_intermediate_size": 16}
LATENT = {
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "num_key_value_heads": 4,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
EXPERTS = {
    "Qwen3Moe": HALF | {"num_experts": 4, "head_dim": 8},
    "Mixtral": {"num_local_experts": 4},
    "DeepseekV3": HALF | LATENT | {"n_routed_experts": 4},
    "GraniteMoe": {"num_local_experts": 4},
    "GptOss": {"num_local_experts": 4, "head_dim": 8},
}
"""Mixtures of experts, whose names or shapes in files and in memory differ in most cases."""

FULL = {
    "lora": False,
    "router_aux_loss_coef": 0.0,
    "max_steps": 4,
    "logging_steps": 1,
    "save_steps": 2,
    "learning_rate": 1e-3,
}


def experts(family, tokenizer_dir, folder):
    """The directory of a saved mixture of experts with random weights."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SIZES | EXPERTS[family])
    model = transformers.AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if "experts" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tokenizer_dir).save_pretrained(folder)
    return folder


def weights(out):
    return load_file(out / "model.safetensors")


def forget_after(out, step):
    """Make the run in `out` one that was stopped after a step."""
    for path in checkpoints.find(out):
        if checkpoints.FOLDER.match(path.name)[1] != str(step):
            shutil.rmtree(path)
    for name in ("run.json", "model.safetensors", "adapter_model.safetensors"):
        (out / name).unlink(missing_ok=True)


@pytest.mark.parametrize("family", EXPERTS)
def test_a_mixture_of_experts_resumes_to_the_same_weights(family, tiny_model_dir, tmp_path, capsys):
    run = runner(experts(family, tiny_model_dir, tmp_path / "experts"), tmp_path)
    assert run(**FULL)[0] == 0
    out = tmp_path / "out"
    whole, lines = weights(out), metrics(out)
    base = weights(tmp_path / "experts")
    assert not any(torch.equal(whole[name], base[name]) for name in base if ".down_proj" in name)
    forget_after(out, 2)
    assert run(**FULL)[0] == 0
    assert f"resuming from {out / 'checkpoint-2'}" in capsys.readouterr().out
    assert same(weights(out), whole) and metrics(out) == lines
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    saved = transformers.AutoModelForCausalLM.from_pretrained(out / "checkpoint-4")
    ids = torch.arange(12)[None]
    assert torch.equal(model(ids).logits, saved(ids).logits)


def test_the_best_checkpoint_of_a_mixture_of_experts_is_loaded_whole(tiny_model_dir, tmp_path):
    run = runner(experts("Qwen3Moe", tiny_model_dir, tmp_path / "experts"), tmp_path)
    # The held-out labels are reversed, so that the first checkpoint is the best.
    reversed_rows = [
        row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in ROWS[18:]
    ]
    splits = {"train": Dataset.from_list(ROWS[:18]), "test": Dataset.from_list(reversed_rows)}
    DatasetDict(splits).save_to_disk(str(tmp_path / "data"))
    keys = {
        "dataset_path": str(tmp_path / "data"),
        "eval_strategy": "steps",
        "eval_steps": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
    }
    status, out = run(**FULL | keys)
    assert status == 0
    best, last = weights(out / "checkpoint-2"), weights(out / "checkpoint-4")
    assert same(weights(out), best) and not same(best, last)


def test_a_reference_that_follows_the_policy_is_resumed(run, capsys):
    keys = {"lora": False, "sync_ref_model": True, "ref_model_sync_steps": 1, "logging_steps": 1}
    keys |= {"max_steps": 4, "save_steps": 2, "learning_rate": 1e-3}
    assert run(**keys)[0] == 0
    _, out = run(**keys)
    whole, lines = weights(out), metrics(out)
    forget_after(out, 2)
    assert run(**keys)[0] == 0
    assert "resuming from" in capsys.readouterr().out
    assert same(weights(out), whole) and metrics(out) == lines


@pytest.fixture(scope="module", params=[True, False], ids=["adapter", "full weights"])
def stopped(request, tiny_model_dir, tmp_path_factory):
    """The run, its directory, its keys and the name of its weights' file, after step 2."""
    folder = tmp_path_factory.mktemp("stopped")
    run = runner(tiny_model_dir, folder)
    keys = {"lora": request.param, "max_steps": 4, "save_steps": 2, "learning_rate": 1e-3}
    _, out = run(**keys)
    forget_after(out, 2)
    return run, out, keys, "adapter_model.safetensors" if request.param else "model.safetensors"


def rename_first(tensors):
    first = sorted(tensors)[0]
    return {name + ("s" if name == first else ""): tensor for name, tensor in tensors.items()}


def drop_last(tensors):
    return {name: tensors[name] for name in sorted(tensors)[:-1]}


@pytest.mark.parametrize("damage", [rename_first, drop_last])
def test_a_checkpoint_whose_weights_do_not_all_load_is_not_resumed_from(stopped, damage, capsys):
    run, out, keys, file = stopped
    checkpoint = out / "checkpoint-2"
    tensors = load_file(checkpoint / file)
    mark = json.loads((checkpoint / checkpoints.MARK).read_text())
    try:
        save_file(damage(tensors), checkpoint / file, {"format": "pt"})
        checkpoints.write_mark(checkpoint, mark["identity"], True, mark["num_tokens"])
        for options in (["--dry-run"], []):
            assert run(*options, **keys)[0] == 1
            error = capsys.readouterr().err.splitlines()[-1]
            assert error.startswith(f"{checkpoint}: its weights do not all load (missing")
            assert error.endswith("and the same command resumes from an older one")
    finally:
        save_file(tensors, checkpoint / file, {"format": "pt"})


def test_a_dry_run_loads_the_checkpoint(stopped, capsys):
    run, out, keys, file = stopped
    checkpoint = out / "checkpoint-2"
    mark = json.loads((checkpoint / checkpoints.MARK).read_text())
    checkpoints.write_mark(checkpoint, mark["identity"], True, mark["num_tokens"])
    assert run("--dry-run", **keys)[0] == 0
    assert "steps: 4, of which 2 are done" in capsys.readouterr().out
