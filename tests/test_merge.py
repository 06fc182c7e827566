"""The merge command: the merged model is the adapter's, or it is refused and nothing is left."""

import json
import os
import resource
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpo_wrap import merge, probes
from dpo_wrap import merge_adapter as merging
from dpo_wrap.files import make_own
from tests.training import TALK, runner

QUESTION = [{"role": "user", "content": "Day 3: it was"}]
ANSWER = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
talk = [{"role": "user", "content": "Day 3: it was"}]
ids = tokenizer.apply_chat_template(talk, add_generation_prompt=True)["input_ids"]
answer = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=20)[0].tolist()
print(json.dumps([ids, answer]))
"""


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
    """The logits of both, each loaded by its own library alone."""
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), run)
    return logits(AutoModelForCausalLM.from_pretrained(out)), logits(adapted)


def refused(capsys, *words, status=2):
    capsys.readouterr()
    assert merge.main([str(word) for word in words]) == status
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


def nothing_left(tmp_path):
    return not list(tmp_path.glob("merged*"))


def test_the_merged_model_is_the_adapter_on_its_base(trained, tiny_model_dir, tmp_path, capsys):
    out = tmp_path / "merged"
    assert merge.main([str(trained), str(out)]) == 0
    merged, adapted = merged_and_adapter(trained, out, tiny_model_dir)
    assert torch.allclose(merged, adapted, atol=1e-5)
    base = logits(AutoModelForCausalLM.from_pretrained(tiny_model_dir))
    assert (adapted - base).abs().max() > 0.01  # else the comparison would say nothing
    assert sorted(path.name for path in out.iterdir()) == [
        *("chat_template.jinja", "config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json"),
    ]
    config = json.loads((out / "config.json").read_text())
    assert not config.keys() & {"quantization_config", "peft_config", "base_model_name_or_path"}
    assert config["dtype"] == "float32"
    said = capsys.readouterr().out
    assert "nats, where training changed them by up to" in said
    assert "the likeliest token is the same at" in said


@pytest.mark.slow
def test_a_fresh_process_gives_the_same_prompt_ids_and_greedy_answers(
    trained, tiny_model_dir, tmp_path
):
    out = tmp_path / "merged"
    assert merge.main([str(trained), str(out)]) == 0
    done = subprocess.run(
        [sys.executable, "-c", ANSWER, str(out)], capture_output=True, text=True, check=True
    )
    ids, answer = json.loads(done.stdout)
    tokenizer = AutoTokenizer.from_pretrained(trained)
    prompt = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True)["input_ids"]
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    policy = PeftModel.from_pretrained(base, trained)
    made = policy.generate(input_ids=torch.tensor([prompt]), do_sample=False, max_new_tokens=20)
    assert ids == prompt
    assert answer == made[0].tolist()
    assert len(answer) > len(ids)


def test_it_prints_the_lines_that_serve_the_model(trained, adapter, tmp_path, capsys):
    assert merge.main([str(trained), str(tmp_path / "merged")]) == 0
    said = capsys.readouterr().out
    assert f"  vllm serve {tmp_path}/merged\n" in said
    assert (
        f"  python convert_hf_to_gguf.py {tmp_path}/merged --outfile {tmp_path}/merged.gguf" in said
    )
    assert "no chat template" not in said
    assert merge.main([str(adapter()), str(tmp_path / "with space")]) == 0
    said = capsys.readouterr().out
    assert f"  vllm serve '{tmp_path}/with space'\n" in said
    assert "it has no chat template: ask it through /v1/completions" in said


@pytest.mark.parametrize(
    "keys",
    [
        {"use_dora": True},
        {"use_rslora": True, "r": 4, "lora_alpha": 16},
        {"target_modules": "all-linear", "rank_pattern": {"c_fc": 2}},
        {"modules_to_save": ["lm_head"]},  # the tiny model's is tied to its embeddings
        {"trainable_token_indices": [3, 5]},
        {"layers_to_transform": [1], "target_modules": ["c_attn"]},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_every_kind_of_adapter_merges_exactly(adapter, tiny_model_dir, tmp_path, keys):
    made = adapter(**keys)
    assert merge.main([str(made), str(tmp_path / "merged")]) == 0
    merged, adapted = merged_and_adapter(made, tmp_path / "merged", tiny_model_dir)
    assert torch.allclose(merged, adapted, atol=1e-4)


def test_a_run_that_went_on_from_an_adapter_merges_whole(trained, tiny_model_dir, tmp_path):
    start = runner(tiny_model_dir, tmp_path)
    (tmp_path / "talk.json").write_text(json.dumps(TALK))
    status, run = start(dataset_path=str(tmp_path / "talk.json"), adapter_path=str(trained))
    assert status == 0
    assert merge.main([str(run), str(tmp_path / "merged")]) == 0
    merged, adapted = merged_and_adapter(run, tmp_path / "merged", tiny_model_dir)
    assert torch.allclose(merged, adapted, atol=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template


def test_weights_are_saved_in_the_dtype_asked_for_or_trained_in(adapter, tmp_path):
    made = adapter(scale=0.3)
    assert merge.main([str(made), str(tmp_path / "half"), "--dtype", "bfloat16"]) == 0
    (made / merge.CONFIG).write_text(
        yaml.safe_dump(
            {
                "model_path": json.loads((made / merge.ADAPTER).read_text())[
                    "base_model_name_or_path"
                ],
                "dataset_path": "gone",
                "output_dir": str(made),
                "model_init_kwargs": {"dtype": "float16", "attn_implementation": "none of these"},
            }
        )
    )
    assert merge.main([str(made), str(tmp_path / "as-trained")]) == 0
    for name, dtype in (("half", torch.bfloat16), ("as-trained", torch.float16)):
        saved = load_file(tmp_path / name / "model.safetensors")
        assert {weight.dtype for weight in saved.values()} == {dtype}
        assert AutoModelForCausalLM.from_pretrained(tmp_path / name).dtype == dtype


def test_a_difference_past_the_tolerance_is_refused_and_nothing_is_left(trained, tmp_path, capsys):
    options = ("--dtype", "bfloat16", "--tolerance", "0")
    said = refused(capsys, trained, tmp_path / "merged", *options, status=1)
    assert said.startswith("the merged model is not the adapter's: 0.0")
    assert (
        " nats apart, and 0 is tolerated; nothing was written; bfloat16 rounds too much away"
        in said
    )
    assert nothing_left(tmp_path)


def test_rounding_that_outweighs_what_training_changed_is_refused(adapter, tmp_path, capsys):
    # 1e-3 is the least that is ever tolerated; bfloat16 rounds by more than that here.
    made = adapter(scale=1e-3)
    said = refused(capsys, made, tmp_path / "merged", "--dtype", "bfloat16", status=1)
    assert "and 0.001 is tolerated" in said and "--dtype float32" in said
    assert merge.main([str(made), str(tmp_path / "merged")]) == 0


def test_an_adapter_on_tied_embeddings_is_refused_with_the_way_to_serve_it(
    adapter, tiny_model_dir, tmp_path, capsys
):
    made = adapter(target_modules=["c_attn", "wte"])
    said = refused(capsys, made, tmp_path / "merged", status=1)
    assert "this adapter cannot be merged into this model" in said
    assert f"vllm serve {tiny_model_dir} --enable-lora --lora-modules tuned={made}" in said
    assert nothing_left(tmp_path)


def test_weights_that_are_no_numbers_are_refused(adapter, tmp_path, capsys):
    made = adapter()
    weights = load_file(made / merge.WEIGHTS)
    next(iter(weights.values()))[0, 0] = float("nan")
    save_file(weights, made / merge.WEIGHTS, metadata={"format": "pt"})
    said = refused(capsys, made, tmp_path / "merged")
    assert "with this adapter the model's probabilities are no numbers (NaN); train it" in said
    assert nothing_left(tmp_path)


def test_an_adapter_without_some_of_its_weights_is_refused(adapter, tmp_path, capsys):
    made = adapter()
    weights = load_file(made / merge.WEIGHTS)
    del weights[sorted(weights)[0]]
    save_file(weights, made / merge.WEIGHTS, metadata={"format": "pt"})
    said = refused(capsys, made, tmp_path / "merged")
    assert "the adapter lacks some of its weights, or is of another model" in said


def test_an_adapter_made_on_a_grown_vocabulary_is_refused(
    adapter, tiny_model_dir, tmp_path, capsys
):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    model.resize_token_embeddings(260)
    shutil.copytree(tiny_model_dir, tmp_path / "grown")
    model.save_pretrained(tmp_path / "grown")
    made = adapter(tmp_path / "grown", modules_to_save=["wte", "lm_head"])
    config = json.loads((made / merge.ADAPTER).read_text())
    config["base_model_name_or_path"] = str(tiny_model_dir)
    (made / merge.ADAPTER).write_text(json.dumps(config))
    assert "does not fit" in refused(capsys, made, tmp_path / "merged")


def test_a_checkpoint_merges_into_the_base_that_its_run_names(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    checkpoint = run / "checkpoint-6"
    config = json.loads((checkpoint / merge.ADAPTER).read_text())
    config["base_model_name_or_path"] = "/gone/base"
    (checkpoint / merge.ADAPTER).write_text(json.dumps(config))
    for source, name in ((run, "merged"), (checkpoint, "merged-6")):
        assert merge.main([str(source), str(tmp_path / name)]) == 0
    one, other = (load_file(tmp_path / n / "model.safetensors") for n in ("merged", "merged-6"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_base_quantised_in_training_is_merged_unquantised_and_that_is_said(
    trained, tmp_path, capsys
):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    config = yaml.safe_load((run / merge.CONFIG).read_text())
    (run / merge.CONFIG).write_text(yaml.safe_dump(config | {"load_in_4bit": True}))
    assert merge.main([str(run), str(tmp_path / "merged")]) == 0
    assert "load_in_4bit: the adapter is merged into the base as it is unquantised" in (
        capsys.readouterr().out
    )


def test_answers_end_with_the_turn_that_the_template_ends(tiny_model_dir, tmp_path):
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


# Refusals


def test_full_weights_are_a_model_already(tiny_model_dir, tmp_path, capsys):
    status, run = runner(tiny_model_dir, tmp_path)(lora=False, max_steps=1)
    assert status == 0
    said = refused(capsys, run, tmp_path / "merged")
    assert said == f"RUN_DIR {run} is a model already; there is nothing to merge\n"


def test_what_has_no_adapter_is_refused_saying_what_it_is(trained, tmp_path, capsys):
    out = tmp_path / "merged"
    assert "gone is no directory; name the output_dir" in refused(capsys, tmp_path / "gone", out)
    (tmp_path / "empty").mkdir()
    said = refused(capsys, tmp_path / "empty", out)
    assert "has no adapter_config.json; name the output_dir of a run" in said
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / merge.WEIGHTS).unlink()
    assert "(adapter_model.safetensors) are gone; train it again" in refused(capsys, run, out)
    (run / merge.ADAPTER).unlink()
    said = refused(capsys, run, out)
    assert f"its run is not finished; let it finish, or merge {run}/checkpoint-6" in said
    assert nothing_left(tmp_path)


def test_a_damaged_or_foreign_adapter_is_refused(adapter, tmp_path, capsys):
    made, out = adapter(), tmp_path / "merged"
    weights = made / merge.WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    said = refused(capsys, made, out)
    assert said.startswith(f"RUN_DIR: {weights} is damaged (")
    weights.write_bytes(whole)
    config = json.loads((made / merge.ADAPTER).read_text())
    (made / merge.ADAPTER).write_text(json.dumps({**config, "peft_type": "IA3"}))
    assert "is no LoRA adapter but" in refused(capsys, made, out)
    (made / merge.ADAPTER).write_text(json.dumps({**config, "base_model_name_or_path": None}))
    assert "base_model_name_or_path is not set; put the base" in refused(capsys, made, out)
    (made / merge.ADAPTER).write_text("{")
    assert "adapter_config.json is damaged; fetch the adapter again" in refused(capsys, made, out)


def test_a_base_that_is_gone_or_quantised_is_refused_where_it_is_named(
    trained, tiny_model_dir, tmp_path, capsys
):
    run, base = tmp_path / "run", tmp_path / "base"
    shutil.copytree(trained, run)
    config = yaml.safe_load((run / merge.CONFIG).read_text())
    (run / merge.CONFIG).write_text(yaml.safe_dump(config | {"model_path": str(base)}))
    said = refused(capsys, run, tmp_path / "merged")
    assert f"model_path '{base}' does not exist; give the path of a model's directory" in said
    assert said.startswith(f"{run}/config.resolved.yaml:")
    shutil.copytree(tiny_model_dir, base)
    kept = json.loads((base / "config.json").read_text())
    quantised = kept | {"quantization_config": {"quant_method": "bitsandbytes"}}
    (base / "config.json").write_text(json.dumps(quantised))
    said = refused(capsys, run, tmp_path / "merged")
    assert "is stored quantised, and a merge would round it again; put the path of its" in said


def test_nothing_is_written_over_or_into_what_stands(trained, tiny_model_dir, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note").write_text("mine")
    said = refused(capsys, trained, tmp_path / "full")
    assert said == f"OUT_DIR {tmp_path}/full is not empty; name a directory that is, or a new one\n"
    assert (tmp_path / "full/note").read_text() == "mine"
    said = refused(capsys, trained, tmp_path / "full/note")
    assert "note is a file; name a directory" in said
    assert "lies in RUN_DIR" in refused(capsys, trained, trained / "merged")
    assert "lies in the base model" in refused(capsys, trained, tiny_model_dir / "merged")
    assert "name another" in refused(capsys, trained, trained)
    (tmp_path / "empty").mkdir()
    assert merge.main([str(trained), str(tmp_path / "empty")]) == 0


def test_what_peft_cannot_merge_is_refused_with_the_way_to_serve_it(adapter, tmp_path, capsys):
    made = adapter(alora_invocation_tokens=[5])
    said = refused(capsys, made, tmp_path / "merged")
    assert said.startswith("peft cannot merge this adapter: aLoRA does not support safe merging;")
    assert "serve the two as they are: vllm serve " in said
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "little"])
def test_a_tolerance_that_is_none_is_refused(text, capsys):
    with pytest.raises(SystemExit) as caught:
        merge.main(["run", "out", "--tolerance", text])
    assert caught.value.code == 2
    assert "--tolerance" in capsys.readouterr().err


# Interruption


def test_a_full_disk_is_one_line_and_nothing_is_left(trained, tmp_path, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        said = refused(capsys, trained, tmp_path / "merged", status=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in said and "mend that, and run the same command again" in said
    assert nothing_left(tmp_path)


def test_a_signal_leaves_nothing(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(merging, "compare", lambda *_: os.kill(os.getpid(), 15))
    assert refused(capsys, trained, tmp_path / "merged", status=1) == (
        "stopped; nothing was written\n"
    )
    assert nothing_left(tmp_path)


def test_what_a_killed_merge_left_is_replaced(trained, tmp_path):
    make_own(tmp_path / "merged.part")
    (tmp_path / "merged.part/model-00001-of-00009.safetensors").write_text("half")
    assert merge.main([str(trained), str(tmp_path / "merged")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged"]
    assert len(list((tmp_path / "merged").glob("*.safetensors"))) == 1


def test_a_folder_of_somebody_elses_is_not_cleared_away(trained, tmp_path, capsys):
    (tmp_path / "merged.part").mkdir()
    (tmp_path / "merged.part/thesis.txt").write_text("mine")
    assert merge.main([str(trained), str(tmp_path / "merged")]) == 2
    assert "merged.part: needed as a temporary directory" in capsys.readouterr().err
    assert (tmp_path / "merged.part/thesis.txt").read_text() == "mine"


def test_past_tolerance_no_new_folder_stays_and_a_link_is_followed(trained, tmp_path):
    deep = tmp_path / "new" / "deep" / "merged"
    assert merge.main([str(trained), str(deep), "--tolerance", "0"]) == 1
    assert not (tmp_path / "new").exists()
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    assert merge.main([str(trained), str(tmp_path / "link")]) == 0
    assert (tmp_path / "there/model.safetensors").is_file()


def test_help_imports_no_library():
    code = (
        "import sys\nfrom dpo_wrap import merge\n"
        "try:\n    merge.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'transformers', 'peft', 'trl'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for words in ("RUN_DIR", "OUT_DIR", "--dtype", "--tolerance", "exit status: 0 merged"):
        assert words in done.stdout


# The comparison


def test_the_comparison_sees_the_largest_difference_and_what_is_no_number():
    base = torch.tensor([[-1.0, -2.0, -torch.inf]])
    adapted = base + torch.tensor([[0.5, 0.0, 0.0]])
    found = probes.compare(adapted - torch.tensor([[0.0, 0.25, 0.0]]), adapted, base)
    assert (found.difference, found.alike, found.positions) == (0.25, 1, 1)
    broken = probes.compare(adapted * torch.nan, adapted, base)
    assert not broken.difference <= 1e9


def test_rounding_is_tolerated_by_dtype_up_to_half_of_what_training_changed():
    def tolerated(effect, dtype):
        return probes.tolerated(probes.Agreement(0.0, effect, 1, 1), dtype)

    assert tolerated(2.0, "bfloat16") == 0.2
    assert tolerated(0.3, "bfloat16") == 0.15
    assert tolerated(0.0, "bfloat16") == tolerated(5.0, "float32") == 1e-3
