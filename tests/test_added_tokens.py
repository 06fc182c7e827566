"""Adapters that were trained with added tokens: they load with embeddings of their own size."""

import json

import pytest
import torch
from families import save_family
from peft import LoraConfig, get_peft_model
from training import adapter_weights, run_json, runner
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from dpo_wrap import eval as eval_command
from dpo_wrap import merge

IDS = torch.tensor([[*range(1, 30), 257, 258, 5]])
EMBEDDINGS = ["embed_tokens", "lm_head"]


@pytest.fixture(scope="module", params=["llama", "tied"])
def base(request, tmp_path_factory, tiny_model_dir):
    return save_family(request.param, tmp_path_factory.mktemp("base"), tiny_model_dir)


@pytest.fixture
def adapter(base, tmp_path):
    """A function that saves an adapter after two tokens were added: (directory, its logits)."""

    def make(rows=259, saving="auto", **keys):
        torch.manual_seed(0)
        tokenizer = AutoTokenizer.from_pretrained(base)
        tokenizer.add_tokens(["<think>", "</think>"])
        model = AutoModelForCausalLM.from_pretrained(base)
        model.resize_token_embeddings(rows)
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            layer.weight.data[257:] = torch.randn_like(layer.weight[257:])
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, **keys))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.05 * torch.randn_like(parameter)
        model.save_pretrained(tmp_path / "adapter", save_embedding_layers=saving)
        tokenizer.save_pretrained(tmp_path / "adapter")
        with torch.no_grad():
            return tmp_path / "adapter", model.eval()(IDS).logits

    return make


def assert_merges(adapter, out, logits=None):
    """Merge the adapter; the merged model has its tokens, and these logits if they are given."""
    assert merge.main([str(adapter), str(out)]) == 0
    merged = AutoModelForCausalLM.from_pretrained(out).eval()
    assert AutoTokenizer.from_pretrained(out).convert_tokens_to_ids("</think>") == 258
    with torch.no_grad():
        found = merged(IDS).logits
    assert (
        found.shape[-1] == merged.config.vocab_size == merged.get_input_embeddings().num_embeddings
    )
    if logits is not None:
        torch.testing.assert_close(found, logits, atol=1e-5, rtol=0)
    return found.shape[-1]


@pytest.mark.parametrize(
    "keys",
    [{}, {"rows": 264}, {"rows": 260, "modules_to_save": EMBEDDINGS}],
    ids=["saved by peft", "padded", "modules to save"],
)
def test_training_eval_and_merge_use_the_adapters_embeddings(base, adapter, tmp_path, keys):
    made, logits = adapter(**keys)
    rows = keys.get("rows", 259)
    assert assert_merges(made, tmp_path / "merged", logits) == rows
    status, out = runner(base, tmp_path)(max_steps=2, adapter_path=str(made))
    assert status == 0
    assert run_json(out)["step_0"]["fault"] is None
    command = [str(tmp_path / "config.yaml"), "--split", "train", "--samples", "1"]
    assert eval_command.main([*command, "--max-new-tokens", "4"]) == 0
    assert assert_merges(out, tmp_path / "trained") == rows


def test_embeddings_that_an_adapter_was_saved_with_are_saved_with_the_run(base, adapter, tmp_path):
    roomy = AutoModelForCausalLM.from_pretrained(base)
    roomy.resize_token_embeddings(264)
    roomy.save_pretrained(tmp_path / "roomy")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "roomy")
    made, _ = adapter(rows=264, saving=True)
    config = json.loads((made / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "roomy")  # of the same size
    (made / "adapter_config.json").write_text(json.dumps(config))
    status, out = runner(tmp_path / "roomy", tmp_path)(max_steps=1, adapter_path=str(made))
    assert status == 0
    before, after = adapter_weights(made), adapter_weights(out)
    name = "base_model.model.model.embed_tokens.weight"
    assert torch.equal(before[name], after[name])


def test_trained_tokens_keep_their_embeddings(base, adapter, tmp_path, capsys):
    made, logits = adapter(trainable_token_indices=[257, 258])
    assert assert_merges(made, tmp_path / "merged", logits) == 259
    status, _ = runner(base, tmp_path)(max_steps=1, adapter_path=str(made))
    tied = "trains tokens of embeddings that are the output layer too" in capsys.readouterr().err
    assert status == (2 if tied else 0)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (
            {"saving": False},
            "its tokenizer has 259 tokens, but it has no embeddings for them; save it again with "
            "save_embedding_layers=True\n",
        ),
        (
            {"target_modules": ["q_proj", "embed_tokens"]},
            "it has 259 embeddings, but no output layer of that size; train it again with "
            "modules_to_save: [lm_head]\n",
        ),
    ],
    ids=["none", "half"],
)
def test_an_adapter_without_the_embeddings_of_its_tokens_is_refused_with_both_sizes(
    base, adapter, tmp_path, capsys, keys, problem
):
    made, _ = adapter(**keys)
    status, _ = runner(base, tmp_path)("--dry-run", adapter_path=str(made))
    if "lm_head" in problem and AutoConfig.from_pretrained(base).tie_word_embeddings:
        assert status == 0  # the embeddings are the output layer
        return
    message = f"'{made}' does not fit '{base}', which has 257 embeddings: {problem}"
    assert status == 2 and message in capsys.readouterr().err
    assert merge.main([str(made), str(tmp_path / "merged")]) == 2
    assert message in capsys.readouterr().err
