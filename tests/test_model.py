"""model: which models, adapters, tokenizers and chat templates are accepted."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import trl
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig

from dpo_wrap.config import load_settings
from dpo_wrap.data.tokenize import check_data_fit
from dpo_wrap.errors import ConfigError, ModelError
from dpo_wrap.model import load as model
from dpo_wrap.model.load import (
    context_length,
    load_adapter_config,
    load_base,
    load_config,
    load_policy,
)
from dpo_wrap.model.tokenizer import choose_template, load_tokenizer, stop_ids
from tests.training import TALK as CONVERSATIONS
from tests.training import runner

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
CALLS = ("tool_calls", "assistant")
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


def refused(call, *args):
    """The one-line message with which a call refuses, with exit status 2."""
    with pytest.raises((ModelError, ConfigError)) as caught:
        call(*args)
    assert caught.value.status == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The model's files


@pytest.mark.parametrize(
    ("load", "key", "name"),
    [(load_config, "model_path", "gpt2"), (load_adapter_config, "adapter_path", "owner/name")],
)
def test_a_hub_name_without_a_network_is_refused_with_what_to_do(settings, load, key, name):
    message = refused(load, settings(**{key: name}))
    assert f": {key} {name!r} could not be loaded: it is not a local path" in message
    assert "c.yaml:" in message and "or run once online" in message


def test_an_adapter_given_as_the_model_is_refused(settings, adapter):
    message = refused(load_config, settings(model_path=str(adapter)))
    assert "is an adapter, not a model; set adapter_path to it, and model_path to the b" in message


def test_a_model_given_as_the_adapter_is_refused(settings, tiny_model_dir):
    message = refused(load_adapter_config, settings(adapter_path=str(tiny_model_dir)))
    assert "is not an adapter: it has no adapter_config.json" in message


def remove(name):
    return lambda folder: (folder / name).unlink()


def truncate(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def write(name, content):
    return lambda folder: (folder / name).write_text(json.dumps(content))


INDEX = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("config.json"), "has no config.json"),
        (remove("model.safetensors"), "has no weights"),
        (
            write("model.safetensors.index.json", INDEX),
            "model-00001-of-00002.safetensors is missing",
        ),
        (write("model.safetensors.index.json", []), "index.json is damaged"),
        (truncate, "model.safetensors is damaged"),
        (write("config.json", {"model_type": "no-such-thing"}), "unusable config"),
        (write("config.json", ["{"]), "c.yaml:2: model_path"),
        (write("config.json", {"model_type": "t5"}), "is an encoder-decoder"),
        (
            write("config.json", {"model_type": "gpt2", "vocab_size": 257, "pad_token_id": 257}),
            "has pad_token_id 257, but its embeddings end at 256; set pad_token_id there to null",
        ),
        (
            write("config.json", {"model_type": "llama"}),
            'config.json has no architectures; add the name of its class, "architectures": '
            '["LlamaForCausalLM"]',
        ),
        (
            write("config.json", {"model_type": "llama", "architectures": ["LlamaModel"]}),
            "is a LlamaModel, which does not generate text; set model_path to a causal language "
            "model, such as a LlamaForCausalLM",
        ),
        (
            write(
                "config.json",
                {"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]},
            ),
            "is a LlamaForSequenceClassification, which does not generate text",
        ),
        (
            write("config.json", {"model_type": "bert", "architectures": ["BertForMaskedLM"]}),
            "is a BertForMaskedLM, which does not generate text; set model_path to a causal",
        ),
        (
            write("config.json", {"model_type": "bert", "architectures": ["BertLMHeadModel"]}),
            "is a BertLMHeadModel that sees the whole text, also what follows a token; set",
        ),
        (
            write("config.json", {"model_type": "clip", "architectures": ["Other"]}),
            "is a Other, which transformers",
        ),
    ],
)
def test_files_that_cannot_be_loaded_are_refused_before_weights_are_read(
    settings, model_copy, change, message
):
    change(model_copy)
    assert message in refused(load_config, settings(model_path=str(model_copy)))


def test_a_file_is_not_a_model(settings, tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"")
    message = refused(load_config, settings(model_path=str(tmp_path / "model.gguf")))
    assert "is a file; give the model's directory" in message


def test_a_missing_tensor_is_refused_and_not_initialized_at_random(settings, model_copy):
    weights = load_file(model_copy / "model.safetensors")
    del weights["transformer.h.0.attn.c_attn.weight"]
    save_file(weights, model_copy / "model.safetensors", metadata={"format": "pt"})
    message = refused(load_base, settings(model_path=str(model_copy)))
    assert "lacks 1 of its weights (first transformer.h.0.attn.c_attn.weight)" in message


def test_the_base_model_is_loaded_in_single_precision(settings):
    assert load_base(settings()).dtype == torch.float32


def test_the_context_is_that_of_the_config_if_it_has_one():
    assert context_length(AutoConfig.for_model("gpt2", n_positions=77)) == 77
    assert context_length(AutoConfig.for_model("llama", max_position_embeddings=88)) == 88
    assert context_length(PretrainedConfig(max_seq_len=99)) == 99
    assert context_length(AutoConfig.for_model("bloom")) is None


def test_layers_that_bitsandbytes_would_pack_for_inference_stay_trainable(settings, monkeypatch):
    load = model.create_model_from_path

    def quantized(*args, **kwargs):
        made, loading = load(*args, **kwargs)
        made.transformer.h[0].mlp.c_fc.support_avx512bf16_for_cpu = True
        return made, loading

    monkeypatch.setattr(model, "create_model_from_path", quantized)
    layer = load_base(settings()).transformer.h[0].mlp.c_fc
    assert layer.support_avx512bf16_for_cpu is False


# Tokenizers and chat templates


def test_a_model_without_a_tokenizer_is_refused(settings, model_copy):
    for file in model_copy.glob("*token*"):
        file.unlink()
    message = refused(load_tokenizer, settings(model_path=str(model_copy)))
    assert "put the tokenizer's files next to the weights" in message


def test_the_pad_token_falls_back_to_the_end_of_text(settings):
    tokenizer = load_tokenizer(settings())
    assert tokenizer.pad_token == tokenizer.eos_token == "<|endoftext|>"


def test_a_pad_token_without_an_embedding_is_replaced_by_the_end_of_text(
    model_copy, tmp_path, capsys
):
    tokenizer = AutoTokenizer.from_pretrained(model_copy)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(model_copy)
    status, out = runner(model_copy, tmp_path)(batch_size=3, max_steps=1)
    assert status == 0
    note = "the pad token <pad> has no embedding, since the model has 257; padding, which is masked"
    assert f"{note}, uses <|endoftext|> instead" in capsys.readouterr().out
    assert AutoTokenizer.from_pretrained(out).pad_token == "<|endoftext|>"


def of_another_version(folder):
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model": {"type": "new"}}))


def lfs_pointer(folder):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (folder / "tokenizer.json").write_text(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lfs_pointer, "tokenizer.json is a Git LFS pointer; run git lfs pull in that directory"),
        (
            lambda folder: (folder / "tokenizer.json").write_text(""),
            "tokenizer.json is empty; down",
        ),
        (of_another_version, "data did not match any variant of untagged enum"),
        (write("tokenizer_config.json", []), "'list' object has no attribute 'get'; put the tok"),
    ],
)
def test_a_tokenizer_that_cannot_be_read_is_refused(settings, model_copy, change, message):
    change(model_copy)
    error = refused(load_tokenizer, settings(model_path=str(model_copy)))
    assert f"{model_copy}: its tokenizer cannot be loaded: " in error and message in error


TURNS = "{% for m in messages %}[{{ m['content'] }}{{ eos_token }}{% endfor %}"
NAMED = {name: f"{name}: {TURNS}" for name in ("default", "rag", "tool_use")}


@pytest.fixture
def named(model_copy, tmp_path):
    """A function that runs one step on conversations with named templates: (status, template)."""
    (tmp_path / "talk.json").write_text(json.dumps(CONVERSATIONS))

    def run(*names, **keys):
        tokenizer = AutoTokenizer.from_pretrained(model_copy)
        tokenizer.chat_template = {name: NAMED[name] for name in names}
        tokenizer.save_pretrained(model_copy)
        keys = {"max_steps": 1, "dataset_path": str(tmp_path / "talk.json")} | keys
        status, out = runner(model_copy, tmp_path)(**keys)
        return status, AutoTokenizer.from_pretrained(out).chat_template if status == 0 else None

    return run


def test_of_named_templates_the_default_is_used_and_saved(named, capsys):
    assert named("default", "rag") == (0, NAMED["default"])
    assert "chat_template: default, of the tokenizer's own default, rag" in capsys.readouterr().out


def test_a_named_template_can_be_picked(named, capsys):
    assert named("default", "rag", chat_template="rag") == (0, NAMED["rag"])
    assert "replaces the template" not in capsys.readouterr().out


def test_named_templates_without_a_default_are_refused_with_their_names(named, capsys):
    assert named("tool_use", "rag") == (2, None)
    assert "no default; set chat_template to one of rag, tool_use" in capsys.readouterr().err
    assert named("tool_use", "rag", chat_template="rga") == (2, None)
    assert "nor one of the known templates: chatml, rag, tool_use" in capsys.readouterr().err


def test_data_with_tools_use_the_template_for_tools(settings):
    tokenizer, notes = load_tokenizer(settings()), []
    tokenizer.chat_template = dict(NAMED)
    choose_template(settings(), tokenizer, True, notes)
    assert tokenizer.chat_template == NAMED["tool_use"]
    assert notes == ["chat_template: tool_use, of the tokenizer's own default, rag, tool_use"]


@pytest.mark.parametrize(
    ("template", "data", "message"),
    [
        (None, {}, "has no chat template; set chat_template: chatml, or to the path"),
        ("chatml", None, "chat_template: no effect, because the data are plain text"),
        ("chatml", {("tools", ""): 7}, "the data have tools (7 rows), which this chat template"),
        ("chatml", {CALLS: 1200}, "the data have tool calls (1,200 messages), which this chat"),
    ],
)
def test_a_template_that_cannot_render_the_data_is_refused(settings, template, data, message):
    made = settings(chat_template=template)
    splits = SimpleNamespace(conversational=data is not None, fields=data)
    assert message in refused(check_data_fit, made, load_tokenizer(made), splits)


def test_a_template_file_that_renders_tools_is_accepted(settings, tmp_path):
    (tmp_path / "tools.jinja").write_text(
        "{{ (tools or []) | tojson }}{% for m in messages %}[{{ m['content'] }}]"
        "{{ (m['tool_calls'] or []) | tojson if m['tool_calls'] }}{% endfor %}"
    )
    made = settings(chat_template=str(tmp_path / "tools.jinja"))
    tokenizer = load_tokenizer(made)
    splits = SimpleNamespace(conversational=True, fields={("tools", ""): 1, CALLS: 1})
    assert check_data_fit(made, tokenizer, splits) == []
    assert tokenizer.apply_chat_template(TALK, tokenize=False) == "[][Hi][Ho]"


@pytest.mark.parametrize(
    ("name", "unrendered"),
    [
        ("llama3_1", "name (3 messages of tool), name (4 messages of user), reasoning_content"),
        ("qwen3", "name (3 messages of tool), name (4 messages of user), tool_call_id (3"),
        ("muse_glimmer", "name (4 messages of user)"),
    ],
)
def test_fields_that_a_template_does_not_render_are_counted(settings, name, unrendered):
    made = settings()
    tokenizer = load_tokenizer(made)
    tokenizer.chat_template = (TEMPLATES / f"{name}.jinja").read_text()
    fields = {("name", "user"): 4, ("name", "tool"): 3, ("tool_call_id", "tool"): 3, CALLS: 3}
    fields |= {("tools", ""): 1, ("reasoning_content", "assistant"): 5}
    splits = SimpleNamespace(conversational=True, fields=fields)
    (line,) = check_data_fit(made, tokenizer, splits)
    assert line.startswith(
        f"the chat template does not render these fields of the data: {unrendered}"
    )
    assert ("reasoning_content" in line) == (name == "llama3_1")


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("qwen3", {"enable_thinking": False}, None),
        ("nemotron_3_nano", {"enable_thinking": False, "truncate_history_thinking": False}, None),
        ("lfm2_2_5", {"preserve_thinking": True}, None),
        ("qwen3", {"thinking": False}, "does not read 'thinking'; it reads enable_thinking"),
        ("llama3", {"messages": []}, "does not read 'messages'; it reads no argument"),
        (None, {"enable_thinking": False}, "no effect, because the data are plain text"),
    ],
)
def test_arguments_that_the_template_does_not_read_are_refused(settings, name, keys, message):
    made = settings(chat_template_kwargs=keys)
    tokenizer = load_tokenizer(made)
    tokenizer.chat_template = name and (TEMPLATES / f"{name}.jinja").read_text()
    splits = SimpleNamespace(conversational=name is not None, fields={})
    if message is None:
        assert check_data_fit(made, tokenizer, splits) == []
        return
    text = refused(check_data_fit, made, tokenizer, splits)
    assert "chat_template_kwargs: " in text and message in text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}{{ m.content", "the template fails on a question and its answer"),
        ("{{ messages[-1].content }}", "the question 'ask' and the answer 'tell' as 'tell'"),
        ("", "the question 'ask' and the answer 'tell' as ''"),
    ],
)
def test_a_template_that_omits_messages_is_refused_at_its_key(
    settings, tmp_path, template, message
):
    (tmp_path / "mine.jinja").write_text(template)
    error = refused(load_tokenizer, settings(chat_template=str(tmp_path / "mine.jinja")))
    assert ": chat_template: the template " in error and message in error


def test_a_template_that_cannot_be_read_is_refused(settings, tmp_path):
    message = refused(load_tokenizer, settings(chat_template=str(tmp_path / "none.jinja")))
    assert "is neither a readable file ([Errno 2]" in message
    assert message.endswith("nor one of the known templates: chatml")


def test_chatml_ends_answers_in_the_end_of_text_if_it_has_no_token_of_its_own(settings):
    tokenizer = load_tokenizer(settings(chat_template="chatml"))
    text = tokenizer.apply_chat_template(TALK, tokenize=False)
    assert text == "<|im_start|>user\nHi<|endoftext|>\n<|im_start|>assistant\nHo<|endoftext|>"
    prompt = tokenizer.apply_chat_template(TALK[:1], tokenize=False, add_generation_prompt=True)
    assert text.startswith(prompt)
    ids = tokenizer.apply_chat_template(TALK, return_dict=True)["input_ids"]
    assert [ids[-1]] == stop_ids(tokenizer) == [tokenizer.eos_token_id]


def test_chatml_uses_its_own_end_of_turn_if_the_tokenizer_has_it(settings, model_copy):
    tokenizer = AutoTokenizer.from_pretrained(model_copy)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.save_pretrained(model_copy)
    tokenizer = load_tokenizer(settings(model_path=str(model_copy), chat_template="chatml"))
    text = tokenizer.apply_chat_template(TALK, tokenize=False)
    assert text.endswith("<|im_start|>assistant\nHo<|im_end|>")
    assert stop_ids(tokenizer) == [0, tokenizer.convert_tokens_to_ids("<|im_end|>")]


# The adapter in adapter_path


def test_lora_keys_must_agree_with_the_adapter_except_for_dropout(settings, adapter):
    message = refused(load_adapter_config, settings(adapter_path=str(adapter), lora_r=8))
    assert "lora_r is 8, but the adapter" in message and "was made with 4" in message
    config = load_adapter_config(settings(adapter_path=str(adapter), lora_r=4, lora_dropout=0.2))
    assert (config.r, config.lora_dropout) == (4, 0.2)


def test_an_adapter_of_another_model_is_refused(settings, adapter, tmp_path):
    config = AutoConfig.from_pretrained(settings().model_path)
    config.n_embd = 64
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "wide")
    made = settings(model_path=str(tmp_path / "wide"), adapter_path=str(adapter))
    message = refused(load_policy, made, load_adapter_config(made))
    assert "does not fit" in message
    assert "size mismatch for " in message and message.count("torch.Size") >= 4  # quoted whole
