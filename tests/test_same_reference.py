"""The reference of eval is the one of training, and eval proves it."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from evaluating import evaluated, keys_of, run_of, train_run, write_pairs
from peft import PeftModel
from torch import nn
from training import metrics, run_json
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from dpo_wrap import eval as eval_command
from dpo_wrap.errors import RunError
from dpo_wrap.evaluation import same_reference

SAVED = {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}
NO_SAMPLES = ("--samples", "0")


@pytest.fixture(scope="module")
def tied(tmp_path_factory, tiny_model_dir):
    """A saved two-layer model whose output layer is its embeddings, with the tiny tokenizer."""
    folder = tmp_path_factory.mktemp("tied") / "qwen2"
    torch.manual_seed(0)
    sizes = {"vocab_size": 257, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    ids = {"bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": True}
    Qwen2ForCausalLM(Qwen2Config(**sizes, **heads, **ids)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(folder)
    return folder


def logps_by_hand(model, answer):
    """log p of a recorded answer, by a loop over its tokens."""
    ids = [int(token) for token in answer["ids"].split()]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(logits[i - 1, ids[i]].item() for i in range(len(ids) - answer["tokens"], len(ids)))


@pytest.mark.parametrize("keys", [{}, {"precompute_ref_log_probs": False}], ids=str)
@pytest.mark.parametrize(
    "lora", [SAVED, {"target_modules": ["q_proj", "embed_tokens"]}], ids=["saved", "adapted"]
)
def test_an_adapter_on_tied_embeddings_is_its_own_reference_in_training_and_in_eval(
    tmp_path, tied, lora, keys
):
    """peft ties a second adapter only by the first one's config; TRL copies embeddings' late."""
    (tmp_path / "first").mkdir()
    data = write_pairs(tmp_path / "pairs.jsonl", 120)
    first = train_run(tmp_path / "first", tied, data, lora=lora, learning_rate=1e-2)
    evaluated(first, *NO_SAMPLES)  # peft changed lora.modules_to_save in place
    each = {"eval_strategy": "epoch", "per_device_eval_batch_size": 1}
    more = train_run(tmp_path, tied, data, adapter_path=str(run_of(first)), **each, **keys)
    run = run_json(run_of(more))
    assert run["step_0"]["margin"] == pytest.approx(0, abs=1e-5)
    trained = metrics(run_of(more))[-1]["eval_rewards/margins"]
    assert evaluated(more, *NO_SAMPLES)["reward_margin"] == pytest.approx(trained, abs=1e-5)
    assert abs(trained) > 0.01
    base = AutoModelForCausalLM.from_pretrained(tied)
    alone = PeftModel.from_pretrained(base, run_of(first)).eval()
    answers = run["reference"]["answers"]
    assert [answer["row"].rpartition(" ")[2] for answer in answers] == [
        "(chosen)",
        "(rejected)",
    ] * 2
    for answer in answers:
        assert answer["logps"] == pytest.approx(logps_by_hand(alone, answer), abs=1e-4)


def test_eval_refuses_a_base_model_whose_weights_changed(tmp_path, tiny_model_dir, capsys):
    base = tmp_path / "base"
    shutil.copytree(tiny_model_dir, base)
    config = train_run(tmp_path, base, write_pairs(tmp_path / "pairs.jsonl", 60))
    model = AutoModelForCausalLM.from_pretrained(base)
    model.transformer.h[0].attn.c_attn.weight.data *= 1.1
    model.save_pretrained(base)
    capsys.readouterr()
    assert eval_command.main([str(config), *NO_SAMPLES]) == 1
    error = capsys.readouterr().err
    assert f"{run_of(config)}: its reference is not that of training: log p of " in error
    assert "pairs.jsonl:" in error and "(chosen) was -" in error
    assert f"changed since: model.safetensors; restore {base} and the libraries as they" in error
    assert not (run_of(config) / "eval.json").exists()
    shutil.copy(tiny_model_dir / "model.safetensors", base)
    evaluated(config, *NO_SAMPLES)


def test_the_record_is_of_step_0_also_for_full_weights_and_after_a_resume(run, tiny_model_dir):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()
    keys = {"lora": False, "learning_rate": 1e-3, "precompute_ref_log_probs": True, "save_steps": 2}
    status, out = run(max_steps=2, **keys)
    recorded = run_json(out)["reference"]
    assert status == 0 and len(recorded["answers"]) == 4
    for answer in recorded["answers"]:
        assert answer["logps"] == pytest.approx(logps_by_hand(model, answer), abs=1e-4)
    assert run(max_steps=4, **keys)[0] == 0
    assert run_json(out)["steps"] == 4 and run_json(out)["reference"] == recorded


def test_a_run_without_a_record_is_evaluated_with_a_note(trained, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run_of(trained), copy)
    found = run_json(copy)
    assert found.pop("reference")
    (copy / "run.json").write_text(json.dumps(found))
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(keys_of(trained) | {"output_dir": str(copy)}))
    evaluated(config, *NO_SAMPLES)
    assert "so it is not checked that the reference is still the same" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("then", "now", "nats", "accepted"),
    [
        ({}, {}, 0.0005, True),
        ({}, {}, 0.002, False),
        ({}, {"device": "H200"}, 0.005, True),
        ({}, {"device": "H200"}, 0.02, False),
        ({"half_precision": True}, {"half_precision": True}, 0.05, True),
        ({"half_precision": True}, {"half_precision": True}, 0.2, False),
        ({"half_precision": True}, {"half_precision": True, "device": "H200"}, 0.6, True),
        ({"half_precision": True}, {"half_precision": True, "torch": "3.0"}, 0.6, True),
        ({"half_precision": True}, {}, 0.6, True),
        ({"half_precision": True}, {}, 0.9, False),
        ({}, {}, float("nan"), False),
    ],
)
def test_rounding_of_another_device_or_dtype_is_no_other_reference(
    monkeypatch, then, now, nats, accepted
):
    one = {"row": "a:1 (chosen)", "ids": "1 2 3", "tokens": 2, "logps": -5.0}
    place = {"device": "cpu", "half_precision": False, "torch": "2.13.0"}
    run = {"reference": {"measured_on": place | then, "answers": [one]}}
    monkeypatch.setattr(same_reference, "_logps", lambda *_: -5.0 + nats)
    monkeypatch.setattr(same_reference, "_measured_on", lambda *_: place | now)
    settings = SimpleNamespace(output_dir="out", model_path="/no/model", adapter_path=None)
    if accepted:
        assert same_reference.check(nn.Identity(), run, settings, None) is None
        return
    with pytest.raises(RunError, match="log p of a:1 .chosen. was -5.0000 nats and is ") as caught:
        same_reference.check(nn.Identity(), run, settings, None)
    changed = ", ".join(now) or "no file and no library that run.json names"
    if "half_precision" not in then:
        assert f"changed since: {changed}; restore /no/model and" in str(caught.value)
