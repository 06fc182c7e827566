"""answer_masks: only the assistant's tokens of an answer are scored, everywhere alike."""

import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import trl
from datasets import Dataset, DatasetDict
from evaluating import evaluated, lines_of, train_run
from sharing_models import assert_same_gradients, gradients
from transformers import AutoTokenizer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from dpo_wrap.config import load_settings
from dpo_wrap.data.answer_masks import MaskingCollator, add_answer_masks
from dpo_wrap.data.length_stats import kept_ids, kept_mask, scored_ids
from dpo_wrap.diagnostics.checks import measure_kl
from dpo_wrap.loss import dpo_loss, sequence_logps
from dpo_wrap.training.prepare import prepare
from dpo_wrap.training.session import make_trainer
from dpo_wrap.trl_hooks import tokenize_rows

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
ENDS = "<|endoftext|>"
# Each turn begins with the first letter of its role and ends in an end of text.
SHORT = (
    "{% for m in messages %}<{{ m['role'][0] }}>{{ m['content'] }}<|endoftext|>{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)
CALLS = [{"type": "function", "function": {"name": "find", "arguments": {"x": "1"}}}]


def turns(*texts, **last):
    """Messages of the assistant and, in between, of the user; `last` has more of the last one."""
    roles = itertools.cycle(("assistant", "user"))
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return [*messages[:-1], {**messages[-1], **last}]


CALLING = [
    turns("", tool_calls=CALLS)[0],
    {"role": "tool", "content": "res"},
    *turns("done"),
]


@pytest.fixture
def masked(tiny_model_dir):
    """Tokenize one pair with a template: (row, its counts, its chosen answer with marks)."""

    def make(template, chosen, rejected=None, stops=(), **row):
        tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
        tokenizer.add_special_tokens({"extra_special_tokens": list(stops)})
        tokenizer.chat_template = template
        row = {"prompt": [{"role": "user", "content": "ask"}], "chosen": chosen, **row}
        rows = Dataset.from_list([row | {"rejected": rejected or turns("no")}])
        tokens = tokenize_rows(rows, "train", tokenizer, SimpleNamespace(dataset_num_proc=None))
        made, counts, mixed = add_answer_masks(tokens, tokenizer)
        if mixed:
            return None, counts, "mixed"
        runs = zip(made[0]["chosen_ids"], kept_mask(made[0], "chosen", None, ""), strict=True)
        text = ""
        for scored, run in itertools.groupby(runs, lambda pair: pair[1]):
            part = tokenizer.decode([token for token, _ in run])
            text += f"[[{part}]]" if scored else part
        return made[0], counts, text

    return make


# Which tokens are scored


@pytest.mark.parametrize(
    ("name", "stop", "chosen", "text"),
    [
        (
            "qwen2_5",
            "<|im_end|>",
            turns("one", "two", "three"),
            "[[one<|im_end|>]]\n<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n"
            "[[three<|im_end|>\n]]",
        ),
        (
            "qwen2_5",
            "<|im_end|>",
            CALLING,
            '[[<tool_call>\n{"name": "find", "arguments": {"x": "1"}}\n</tool_call><|im_end|>]]\n'
            "<|im_start|>user\n<tool_response>\nres\n</tool_response><|im_end|>\n"
            "<|im_start|>assistant\n[[done<|im_end|>\n]]",
        ),
        (
            "llama3",
            "<|eot_id|>",
            turns("one", "two", "three"),
            "[[one<|eot_id|>]]<|start_header_id|>user<|end_header_id|>\n\ntwo<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n[[three<|eot_id|>]]",
        ),
        # Another end after the last turn of all.
        (
            "phi3",
            "<|end|>",
            turns("one", "two", "three"),
            "[[one<|end|>]]\n<|user|>\ntwo<|end|>\n<|assistant|>\n[[three<|end|>\n<|endoftext|>]]",
        ),
        (
            "gptoss",
            "<|return|>",
            turns("one", "two", "three"),
            "[[<|channel|>final<|message|>one]]<|end|><|start|>user<|message|>two<|end|>"
            "<|start|>assistant[[<|channel|>final<|message|>three<|return|>]]",
        ),
        # No token ends a turn.
        (
            "glm4moe",
            ENDS,
            turns("one", "two", "three"),
            "\n<think></think>\n[[one]]<|user|>\ntwo<|assistant|>\n<think></think>\n[[three]]",
        ),
        # Earlier turns lose their reasoning, and a prompt ends in what they do not begin with.
        (
            "qwen3",
            "<|im_end|>",
            turns("<think>\nhm\n</think>\n\none", "two", "three", reasoning_content="ah"),
            "[[one<|im_end|>]]\n<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n"
            "[[<think>\nah\n</think>\n\nthree<|im_end|>\n]]",
        ),
        (
            "deepseek_r1_distill",
            "<｜end▁of▁sentence｜>",
            turns("one", "two", "three"),
            "[[one<｜end▁of▁sentence｜>]]<｜User｜>two<｜Assistant｜>[[three<｜end▁of▁sentence｜>]]",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_other_turns_and_their_headers_are_not_scored(masked, name, stop, chosen, text):
    template = (TEMPLATES / f"{name}.jinja").read_text()
    _, counts, marked = masked(template, chosen, stops=[stop])
    assert marked == text
    assert counts["other_turns"] == 1


@pytest.mark.parametrize(
    ("name", "stop"),
    [("qwen2_5", "<|im_end|>"), ("llama3", "<|eot_id|>"), ("gptoss", "<|return|>")],
)
def test_an_answer_of_one_message_is_scored_whole_and_has_no_mask(masked, name, stop):
    template = (TEMPLATES / f"{name}.jinja").read_text()
    row, counts, _ = masked(template, turns("yes"), stops=[stop])
    assert not counts and not [column for column in row if "mask" in column]


BLOCK = "<think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    ("name", "chosen", "row", "text"),
    [
        ("qwen3", turns("yes"), {}, f"{BLOCK}[[yes<|im_end|>\n]]"),
        ("qwen3_5_think", turns("yes"), {}, "\n</think>\n\n[[yes<|im_end|>\n]]"),
        ("nemotron_3_nano", turns("yes"), {}, "</think>[[yes<|im_end|>\n]]"),
        # In the prompt.
        (
            "qwen3",
            turns("yes"),
            {"chat_template_kwargs": {"enable_thinking": False}},
            "[[yes<|im_end|>\n]]",
        ),
        # The data's own.
        ("qwen3", turns(f"{BLOCK}yes"), {}, f"[[{BLOCK}yes<|im_end|>\n]]"),
        (
            "qwen3",
            turns("yes", reasoning_content="hm"),
            {},
            "[[<think>\nhm\n</think>\n\nyes<|im_end|>\n]]",
        ),
        (
            "qwen3",
            turns("<think>hm</think>yes"),
            {},
            "[[<think>\nhm\n</think>\n\nyes<|im_end|>\n]]",
        ),
    ],
)
def test_an_empty_reasoning_block_of_the_template_is_not_scored(masked, name, chosen, row, text):
    template = (TEMPLATES / f"{name}.jinja").read_text()
    other = turns("no") if row else turns("no", reasoning_content="never")
    made, counts, marked = masked(template, chosen, other, stops=["<|im_end|>"], **row)
    assert marked == text
    assert counts["empty_reasoning"] == ("</think>" in text.partition("[[")[0])
    assert kept_mask(made, "rejected", None, "") == [True] * len(made["rejected_ids"])


STRIPS = (
    "{% for m in messages %}<{{ m['role'][0] }}>{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] if loop.last else m['content'] | upper }}{% endgeneration %}"
    "{% else %}{{ m['content'] }}{% endif %}|{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)


def test_a_template_that_changes_earlier_turns_needs_marks(masked, run, tmp_path, capsys):
    assert masked(STRIPS, turns("one", "two", "three"))[2] == "[[ONE]]|<u>two|<a>[[three|]]"
    bare = STRIPS.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    assert masked(bare, turns("one", "two", "three"))[2] == "mixed"
    (tmp_path / "bare.jinja").write_text(bare)
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TALKS))
    keys = {
        "dataset_path": str(tmp_path / "talks.jsonl"),
        "chat_template": f"{tmp_path}/bare.jinja",
    }
    assert run(**keys)[0] == 2
    error = capsys.readouterr().err
    # In the other rows the earlier turns have no letters.
    assert f"chat_template: in 3 of 12 pairs of train (first {tmp_path}/talks.jsonl:2)" in error


# The same tokens everywhere

TALKS = [
    {
        "prompt": [{"role": "user", "content": f"q{n}"}],
        "chosen": turns(f"{n}?", "bcd" * (n % 4), "yes") if n % 2 else turns("yes"),
        "rejected": turns("no", "why", f"{n}.", "ok", "end") if n % 4 == 1 else turns(f"no {n}"),
    }
    for n in range(12)
]


def by_hand(tokenizer, row, side):
    """(ids, mask) of one side: each turn of SHORT is `<r>`, then content and an end of text."""
    ids, mask = [], []
    for position, message in enumerate(row["prompt"] + row[side]):
        own = position > 0 and message["role"] == "assistant"
        for text, scored in ((f"<{message['role'][0]}>", False), (message["content"] + ENDS, own)):
            part = tokenizer(text)["input_ids"]
            ids, mask = ids + part, mask + [scored] * len(part)
    return ids, mask


@pytest.fixture
def talks(tmp_path):
    """Config keys of a run on TALKS, half of them held out."""
    (tmp_path / "short.jinja").write_text(SHORT)
    splits = {"train": Dataset.from_list(TALKS[:6]), "test": Dataset.from_list(TALKS[6:])}
    DatasetDict(splits).save_to_disk(str(tmp_path / "talks"))
    return {"dataset_path": str(tmp_path / "talks"), "chat_template": f"{tmp_path}/short.jinja"}


@pytest.fixture
def trainer(tiny_model_dir, tmp_path, talks):
    """A trainer on TALKS whose adapter differs from its reference, and its settings."""

    def make(**keys):
        keys = {
            "model_path": str(tiny_model_dir),
            "output_dir": str(tmp_path / "out"),
            "batch_size": 6,
            "beta": 1.0,
            "gradient_checkpointing": False,
            "report_to": "none",
            **talks,
            **keys,
        }
        (tmp_path / "c.yaml").write_text(json.dumps(keys))
        settings = load_settings(str(tmp_path / "c.yaml"))
        prepared = prepare(settings, tmp_path / "out", tmp_path / "data")
        made, _ = make_trainer(prepared)
        torch.manual_seed(1)
        with torch.no_grad():
            for name, parameter in made.model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=1)
        return made, prepared

    return make


@pytest.mark.parametrize("sharing", ["off", "on"])
@pytest.mark.parametrize(
    "cut", [{}, {"max_length": 24}, {"max_length": 24, "truncation_mode": "keep_end"}], ids=str
)
def test_loss_and_gradient_are_those_of_the_scored_tokens_alone(trainer, sharing, cut):
    made, prepared = trainer(prefix_sharing=sharing, **cut)
    model = made.model.train()
    loss = made.compute_loss(model, made.data_collator([*made.train_dataset]))
    loss.backward()
    found = gradients(model)
    model.zero_grad(set_to_none=True)
    kept = slice(-24, None) if "truncation_mode" in cut else slice(cut.get("max_length"))
    logps = {"policy": [], "reference": []}
    for side, row in itertools.product(("chosen", "rejected"), TALKS[:6]):
        ids, mask = (torch.tensor([v[kept]]) for v in by_hand(prepared.tokenizer, row, side))
        logps["policy"].append(sequence_logps(model(input_ids=ids).logits, ids, mask.long()))
        with torch.no_grad(), model.disable_adapter():
            logits = model(input_ids=ids).logits
            logps["reference"].append(sequence_logps(logits, ids, mask.long()))
    sides = [half for values in logps.values() for half in torch.cat(values).chunk(2)]
    expected = dpo_loss(*sides, beta=1.0).losses.mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert abs(loss.item() - math.log(2)) > 0.01
    expected.backward()
    assert_same_gradients(found, gradients(model))


def test_the_kl_is_that_of_the_scored_tokens(trainer):
    made, prepared = trainer(prefix_sharing="off")
    total = tokens = 0
    for row in TALKS[:6]:
        ids, mask = (torch.tensor(v) for v in by_hand(prepared.tokenizer, row, "chosen"))
        with torch.no_grad():
            policy = made.model.eval()(input_ids=ids[None]).logits[0].log_softmax(-1)
            with made.model.disable_adapter():
                reference = made.model(input_ids=ids[None]).logits[0].log_softmax(-1)
        total += (policy.exp() * (policy - reference)).sum(-1)[:-1][mask[1:]].sum().item()
        tokens += mask.sum().item()
    assert measure_kl(made, None, None).per_token == pytest.approx(total / tokens, abs=1e-5)


@pytest.mark.parametrize("ahead", [False, True])
def test_eval_scores_the_tokens_that_training_scores(tmp_path, tiny_model_dir, talks, ahead):
    keys = {**talks, "eval_strategy": "epoch", "per_device_eval_batch_size": 64, "batch_size": 2}
    keys |= {"precompute_ref_log_probs": ahead, "learning_rate": 3e-2}
    config = train_run(tmp_path, tiny_model_dir, talks["dataset_path"], **keys)
    found = evaluated(config, "--samples", "1")
    logged = [line for line in lines_of(tmp_path / "run/metrics.jsonl") if "eval_loss" in line][-1]
    assert abs(found["reward_margin"]) > 0.01
    for side in ("chosen", "rejected"):
        reward = 0.1 * found[f"{side}_log_ratio"]
        assert reward == pytest.approx(logged[f"eval_rewards/{side}"], abs=1e-4)
    table = pd.read_parquet(tmp_path / "run/examples.parquet")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run")
    for side in ("chosen", "rejected"):
        scored = [sum(by_hand(tokenizer, row, side)[1]) for row in TALKS[6:]]
        assert table[f"{side}_tokens"].tolist() == scored


def test_the_dry_run_marks_what_is_scored(run, talks, capsys):
    assert run("--dry-run", **talks)[0] == 0
    text = capsys.readouterr().out
    assert f": <u>q1{ENDS}<a>[[1?{ENDS}]]<u>bcd{ENDS}<a>[[yes{ENDS}]]\n" in text
    assert f": <u>q0{ENDS}<a>[[yes{ENDS}]]\n" in text
    line = "train: in 3 of 6 pairs an answer has turns of user or tool; only the assistant's"
    assert line in text and "no token that generation stops at" not in text


def test_plain_rows_get_no_columns_and_every_row_has_trls_batch(masked):
    row, *_ = masked(SHORT, turns("one", "two", "three"))
    plain = [{"prompt_ids": [1], "chosen_ids": [2, 3], "rejected_ids": [4]}, {**row}]
    for cut in ({}, {"max_length": 20}, {"max_length": 20, "truncation_mode": "keep_end"}):
        ours, trls = (
            kind(0, **cut)(plain) for kind in (MaskingCollator, DataCollatorForPreference)
        )
        for name in ("input_ids", "attention_mask"):
            assert torch.equal(ours[name], trls[name])
        assert torch.equal(ours["completion_mask"][0], trls["completion_mask"][0])
        scored = ours["input_ids"][1][ours["completion_mask"][1].bool()].tolist()
        cut = (row, "chosen", cut.get("max_length"), cut.get("truncation_mode", "keep_start"))
        assert scored == scored_ids(*cut) != kept_ids(*cut)[1]
