"""model, tokenizer, arguments: what a model must be, and the defaults that it sets."""

import importlib.metadata
import importlib.util
import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from dpo_wrap.arguments import build_arguments, refusal
from dpo_wrap.config import load_settings
from dpo_wrap.errors import ConfigError, ModelError
from dpo_wrap.model import load as model
from dpo_wrap.model.load import (
    context_length,
    load_adapter_config,
    load_base,
    load_config,
    load_policy,
)
from dpo_wrap.model.tokenizer import check_data_fit, load_tokenizer, stop_ids

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]


@pytest.fixture
def settings(tiny_model_dir, tmp_path):
    def make(**keys):
        keys = {"model_path": str(tiny_model_dir), "dataset_path": "d", "output_dir": "o"} | keys
        (tmp_path / "c.yaml").write_text(json.dumps(keys, indent=0))
        return load_settings(str(tmp_path / "c.yaml"))

    return make


@pytest.fixture
def model_copy(tiny_model_dir, tmp_path):
    return shutil.copytree(tiny_model_dir, tmp_path / "copy")


@pytest.fixture
def adapter(tiny_model_dir, tmp_path):
    """A LoRA adapter of rank 4 whose weights are not zero."""
    torch.manual_seed(0)
    lora = LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model_dir), lora)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def data(conversational, tools=False, calls=False):
    """As much of Splits as the tokenizer is held to."""
    return SimpleNamespace(conversational=conversational, tools=tools, calls=calls)


def refused(call, *args):
    with pytest.raises((ModelError, ConfigError)) as caught:
        call(*args)
    assert caught.value.status == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_name_of_the_hub_without_a_network_is_one_line_with_the_way_on(settings):
    said = refused(load_config, settings(model_path="gpt2"))
    assert "c.yaml:2: model_path 'gpt2' could not be loaded: it is no local path" in said
    assert "run once online" in said


def test_an_adapter_given_as_the_model_is_refused_with_that_word(settings, adapter, tiny_model_dir):
    said = refused(load_config, settings(model_path=str(adapter)))
    assert "is an adapter, not a model; give it as adapter_path" in said
    assert f"its base model ({tiny_model_dir}) as model_path" in said


def test_a_model_given_as_the_adapter_is_refused(settings, tiny_model_dir):
    said = refused(load_adapter_config, settings(adapter_path=str(tiny_model_dir)))
    assert "has no adapter_config.json, so it is no adapter" in said


def test_an_adapter_of_the_hub_without_a_network_is_one_line_with_the_way_on(settings):
    with pytest.raises(ModelError, match="adapter_path 'owner/name' could .*, or run once online"):
        load_adapter_config(settings(adapter_path="owner/name"))


def test_a_file_is_no_model(settings, tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"")
    assert "is a file; give the model's directory" in refused(
        load_config, settings(model_path=str(tmp_path / "model.gguf"))
    )


def test_a_directory_without_a_config_is_no_model(settings, model_copy):
    (model_copy / "config.json").unlink()
    said = refused(load_config, settings(model_path=str(model_copy)))
    assert "has no config.json" in said


def test_missing_weights_are_found_before_any_is_loaded(settings, model_copy):
    (model_copy / "model.safetensors").unlink()
    assert "has no weights" in refused(load_config, settings(model_path=str(model_copy)))
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (model_copy / "model.safetensors.index.json").write_text(json.dumps(index))
    said = refused(load_config, settings(model_path=str(model_copy)))
    assert "model-00001-of-00002.safetensors is missing" in said


def test_damaged_weights_are_found_before_any_is_loaded(settings, model_copy):
    file = model_copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    said = refused(load_config, settings(model_path=str(model_copy)))
    assert "model.safetensors is damaged" in said


def test_weights_that_lack_a_tensor_are_refused_rather_than_drawn_at_random(settings, model_copy):
    from safetensors.torch import load_file, save_file

    weights = load_file(model_copy / "model.safetensors")
    del weights["transformer.h.0.attn.c_attn.weight"]
    save_file(weights, model_copy / "model.safetensors", metadata={"format": "pt"})
    said = refused(load_base, settings(model_path=str(model_copy)))
    assert "lacks 1 of its weights (first transformer.h.0.attn.c_attn.weight)" in said


def test_a_broken_config_is_refused(settings, model_copy):
    (model_copy / "config.json").write_text('{"model_type": "no-such-thing"}')
    assert "strange config" in refused(load_config, settings(model_path=str(model_copy)))
    (model_copy / "config.json").write_text("{")
    refused(load_config, settings(model_path=str(model_copy)))


def test_a_model_without_a_tokenizer_is_refused(settings, model_copy):
    for file in model_copy.glob("*token*"):
        file.unlink()
    said = refused(load_tokenizer, settings(model_path=str(model_copy)))
    assert "the tokenizer's files belong beside the weights" in said


def test_the_base_model_is_loaded_in_single_precision(settings):
    assert load_base(settings()).dtype == torch.float32


def test_the_pad_token_falls_back_to_the_end_of_text(settings):
    tokenizer = load_tokenizer(settings())
    assert tokenizer.pad_token == tokenizer.eos_token == "<|endoftext|>"


def test_four_bits_without_bitsandbytes_are_refused(settings, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = refused(load_base, settings(load_in_4bit=True))
    assert "load_in_4bit needs the package bitsandbytes; pip install bitsandbytes" in said


def test_layers_that_bitsandbytes_would_pack_for_inference_stay_trainable(settings, monkeypatch):
    load = model.create_model_from_path

    def quantised(*args, **kwargs):
        made, loading = load(*args, **kwargs)
        made.transformer.h[0].mlp.c_fc.support_avx512bf16_for_cpu = True
        return made, loading

    monkeypatch.setattr(model, "create_model_from_path", quantised)
    layer = load_base(settings()).transformer.h[0].mlp.c_fc
    assert layer.support_avx512bf16_for_cpu is False


def test_what_bitsandbytes_objects_to_is_shown_with_the_key_that_asked_for_it(
    settings, monkeypatch
):
    def fail(*args, quantization_config, **kwargs):
        assert quantization_config.bnb_4bit_quant_type == "nf4"
        raise RuntimeError("None of the available devices are supported by bitsandbytes")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    # BitsAndBytesConfig asks for the version.
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.50.2")
    monkeypatch.setattr(model, "create_model_from_path", fail)
    said = refused(load_base, settings(load_in_4bit=True))
    assert "c.yaml:5: load_in_4bit, " in said
    assert "None of the available devices are supported by bitsandbytes" in said


# Chat templates


def test_conversations_without_a_template_are_refused_with_the_ways_on(settings):
    tokenizer = load_tokenizer(settings())
    said = refused(check_data_fit, settings(), tokenizer, data(True))
    assert "has no chat template; set chat_template: chatml, or the path of one" in said


def test_a_template_for_plain_text_has_no_effect_and_is_refused(settings):
    with_template = settings(chat_template="chatml")
    tokenizer = load_tokenizer(with_template)
    said = refused(check_data_fit, with_template, tokenizer, data(False))
    assert "chat_template: no effect, since the data are plain text" in said


def test_chatml_ends_answers_in_the_end_of_text_where_it_has_no_token_of_its_own(settings):
    tokenizer = load_tokenizer(settings(chat_template="chatml"))
    text = tokenizer.apply_chat_template(TALK, tokenize=False)
    assert text == ("<|im_start|>user\nHi<|endoftext|>\n<|im_start|>assistant\nHo<|endoftext|>")
    prompt = tokenizer.apply_chat_template(TALK[:1], tokenize=False, add_generation_prompt=True)
    assert text.startswith(prompt)
    ids = tokenizer.apply_chat_template(TALK, return_dict=True)["input_ids"]
    assert ids[-1] == tokenizer.eos_token_id
    assert stop_ids(tokenizer) == [tokenizer.eos_token_id]


def test_chatml_uses_its_own_end_of_turn_where_the_tokenizer_has_it(settings, model_copy):
    tokenizer = AutoTokenizer.from_pretrained(model_copy)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.save_pretrained(model_copy)
    tokenizer = load_tokenizer(settings(model_path=str(model_copy), chat_template="chatml"))
    text = tokenizer.apply_chat_template(TALK, tokenize=False)
    assert text.endswith("<|im_start|>assistant\nHo<|im_end|>")
    assert stop_ids(tokenizer) == [0, tokenizer.convert_tokens_to_ids("<|im_end|>")]


def test_chatml_has_no_words_for_tools(settings):
    chatml = settings(chat_template="chatml")
    said = refused(check_data_fit, chatml, load_tokenizer(chatml), data(True, tools=True))
    assert "the data have tools, which this chat template has no words for" in said
    said = refused(check_data_fit, chatml, load_tokenizer(chatml), data(True, calls=True))
    assert "the data have tool calls, which this chat template has no words for" in said


def test_a_template_that_renders_tools_takes_them(settings, tmp_path):
    file = tmp_path / "tools.jinja"
    file.write_text(
        "{{ (tools or []) | tojson }}{% for m in messages %}{{ m['content'] }}"
        "{{ (m['tool_calls'] or []) | tojson }}{% endfor %}"
    )
    given = settings(chat_template=str(file))
    check_data_fit(given, load_tokenizer(given), data(True, tools=True, calls=True))


def test_a_template_of_ones_own_is_read_from_its_file(settings, tmp_path):
    file = tmp_path / "mine.jinja"
    file.write_text("{% for m in messages %}[{{ m['content'] }}]{% endfor %}")
    tokenizer = load_tokenizer(settings(chat_template=str(file)))
    assert tokenizer.apply_chat_template(TALK, tokenize=False) == "[Hi][Ho]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is neither chatml nor a readable file"),
        ("{% for m in messages %}", "the template fails on a question and its answer"),
        ("{{ raise_exception('never') }}", "the template fails on a question and its answer"),
        ("hello", "the template leaves out what it is given"),
    ],
)
def test_a_broken_template_is_refused(settings, tmp_path, text, said):
    file = tmp_path / "mine.jinja"
    if text is not None:
        file.write_text(text)
    assert said in refused(load_tokenizer, settings(chat_template=str(file)))


# Adapters to go on from


def test_an_adapter_is_gone_on_with_as_it_is(settings, adapter):
    going_on = settings(adapter_path=str(adapter))
    config = load_adapter_config(going_on)
    model = load_policy(going_on, config)
    assert isinstance(model, PeftModel)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in name for name in trained)


def test_lora_keys_must_agree_with_the_adapter_but_for_dropout(settings, adapter):
    said = refused(load_adapter_config, settings(adapter_path=str(adapter), lora_r=8))
    assert "lora_r is 8, but the adapter" in said and "was made with 4" in said
    config = load_adapter_config(settings(adapter_path=str(adapter), lora_r=4, lora_dropout=0.2))
    assert (config.r, config.lora_dropout) == (4, 0.2)


def test_an_adapter_of_another_model_is_refused(settings, adapter, tmp_path):
    config = AutoConfig.from_pretrained(settings().model_path)
    config.n_embd = 64
    other = AutoModelForCausalLM.from_config(config)
    other.save_pretrained(tmp_path / "wide")
    going_on = settings(model_path=str(tmp_path / "wide"), adapter_path=str(adapter))
    said = refused(load_policy, going_on, load_adapter_config(going_on))
    assert "does not fit" in said


# Arguments


@pytest.fixture
def arguments(settings):
    def make(**keys):
        made = settings(**keys)
        return build_arguments(made, load_config(made))

    return make


def test_lora_takes_a_learning_rate_that_moves_it_and_says_so(arguments):
    made = arguments()
    assert made.dpo.learning_rate == made.chosen["learning_rate"] == 2e-4
    assert any("learning_rate: 0.0002 by default with LoRA" in note for note in made.notes)


def test_full_weights_and_given_values_keep_the_learning_rate_of_trl(arguments):
    assert arguments(lora=False).dpo.learning_rate == 1e-6
    made = arguments(learning_rate=3e-5)
    assert made.dpo.learning_rate == 3e-5
    assert not any("learning_rate" in note for note in made.notes)


def test_max_length_is_the_smaller_of_1024_and_the_context(arguments):
    made = arguments()
    assert made.dpo.max_length == made.chosen["max_length"] == 128
    assert "the smaller of 1024 and the model's context of 128 tokens" in " ".join(made.notes)
    assert arguments(max_seq_length=64).dpo.max_length == 64
    assert arguments(max_length=None).dpo.max_length is None


def test_a_max_length_beyond_the_context_is_refused_where_it_stands(arguments):
    said = refused(lambda: arguments(max_seq_length=512))
    assert "c.yaml:5: max_seq_length 512 is more than the model's context of 128 tokens" in said


def test_a_context_is_found_under_any_of_its_names():
    assert context_length(AutoConfig.for_model("gpt2", n_positions=77)) == 77
    assert context_length(AutoConfig.for_model("llama", max_position_embeddings=88)) == 88
    assert context_length(AutoConfig.for_model("bloom")) is None


def test_bf16_is_off_where_no_device_has_it(arguments, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    made = arguments()
    assert made.dpo.bf16 is False
    assert "bf16: false by default, no device here supports it" in made.notes
    made = arguments(use_cpu=True)
    assert made.dpo.bf16 is False
    assert "bf16: false by default, use_cpu" in made.notes
    assert "your setup doesn't support bf16" in refused(lambda: arguments(bf16=True)).lower()


def test_dropout_of_the_adapter_keeps_trl_from_switching_it_off(arguments):
    made = arguments(lora_dropout=0.1)
    assert made.dpo.disable_dropout is False
    assert made.lora_dropout == 0.1
    said = "lora_dropout: 0.1 acts on the adapter; the base model's dropout stays off"
    assert said in made.notes
    assert arguments().dpo.disable_dropout is True


def test_what_only_trl_can_judge_is_shown_in_the_same_form(arguments):
    said = refused(lambda: arguments(logging_steps=1.5))
    assert ": logging_steps: DPOConfig refuses it: --logging_steps must be an integer" in said
    said = refused(lambda: arguments(load_best_model_at_end=True, eval_strategy="epoch"))
    assert "load_best_model_at_end: DPOConfig refuses it: --load_best_model_at_end requires" in said


def test_a_key_that_a_library_names_beside_another_word_is_found(settings):
    error = ValueError("Your setup doesn't support bf16/gpu.")
    said = str(refusal("DPOConfig", error, settings(bf16=True)))
    assert said.endswith(
        "c.yaml:5: bf16: DPOConfig refuses it: Your setup doesn't support bf16/gpu."
    )


def test_what_only_peft_can_judge_is_shown_in_the_same_form(arguments):
    said = refused(lambda: arguments(lora={"target_modules": "c_attn", "layers_to_transform": [0]}))
    assert "LoraConfig refuses it: `layers_to_transform` cannot be used" in said
    assert "c.yaml" in said


def test_warnings_about_given_keys_are_notes(arguments):
    made = arguments(truncation_mode="keep_end")
    assert any("truncation_mode: DPOConfig warns: The `'keep_end'`" in n for n in made.notes)
    assert not any("warns" in note for note in arguments().notes)


def test_a_tracker_that_is_unknown_or_absent_is_refused(arguments):
    assert "report_to: 'tensorbord' is unknown; known: none, all" in refused(
        lambda: arguments(report_to="tensorbord")
    )
    assert "comet_ml is not installed" in refused(lambda: arguments(report_to=["comet_ml"]))


def test_trackers_are_off_unless_asked_for_and_an_unused_folder_is_said(arguments):
    made = arguments(logging_dir="logs")
    assert made.dpo.report_to == []
    assert any(note.startswith("logging_dir: logs is unused without") for note in made.notes)


def test_where_peft_has_no_choice_all_linear_layers_are_adapted(settings, tmp_path):
    config = AutoConfig.for_model("olmo2", hidden_size=16, num_attention_heads=2)
    made = build_arguments(settings(), config)
    assert made.lora.target_modules == "all-linear"
    assert made.chosen["lora.target_modules"] == "all-linear"
    assert build_arguments(settings(), AutoConfig.for_model("gpt2")).lora.target_modules is None
