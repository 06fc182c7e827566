"""tokens: the ids are TRL's own, and whatever max_length does to a pair is counted."""

import json
import shutil

import pytest
from datasets import Dataset
from transformers import AutoConfig

from dpo_wrap.arguments import build_arguments
from dpo_wrap.config import load_settings
from dpo_wrap.data.length_stats import kept_ids, lengths_line, spoken
from dpo_wrap.data.tokenize import tokenize
from dpo_wrap.errors import DataError
from dpo_wrap.model.tokenizer import load_tokenizer

# The tiny model's tokens are bytes, so lengths can be read off; an answer gains its end of text.
ROWS = [
    {"prompt": "ab", "chosen": "cd", "rejected": "e"},
    {"prompt": "ab", "chosen": "c" * 20, "rejected": "d"},
    {"prompt": "p" * 10, "chosen": "c", "rejected": "d"},
    {"prompt": "p" * 12, "chosen": "c", "rejected": "d"},
    {"prompt": "abcdefgh", "chosen": "same-x", "rejected": "same-y"},
]


@pytest.fixture
def tokens(tiny_model_dir, tmp_path):
    """tokenize() of rows under these keys: (dataset, fit, DPOConfig)."""

    def make(rows, **keys):
        keys = {
            "model_path": str(tiny_model_dir),
            "dataset_path": "d",
            "output_dir": str(tmp_path / "o"),
        } | keys
        (tmp_path / "c.yaml").write_text(json.dumps(keys))
        settings = load_settings(str(tmp_path / "c.yaml"))
        config = AutoConfig.from_pretrained(keys["model_path"])
        dpo = build_arguments(settings, config).dpo
        tokenizer = load_tokenizer(settings)
        made, fit = tokenize(settings, Dataset.from_list(rows), "train", tokenizer, dpo, config)
        return made, fit, dpo

    return make


def test_the_ids_are_those_that_trl_itself_makes(tokens, tiny_model_dir):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOTrainer

    made, _, dpo = tokens(ROWS, max_length=64)
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_model_dir),
        args=dpo,
        train_dataset=Dataset.from_list(ROWS),
        processing_class=AutoTokenizer.from_pretrained(tiny_model_dir),
    )
    for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
        assert made[name][:] == trainer.train_dataset[name][:]


def test_truncation_is_counted_and_pairs_without_a_signal_are_dropped(tokens):
    made, fit, _ = tokens(ROWS, max_length=12)
    assert (fit.pairs, fit.too_long, fit.longest) == (5, 3, 23)
    assert (fit.prompt_fills, fit.identical, fit.kept) == (1, 1, 3)
    assert made["prompt"][:] == ["ab", "ab", "p" * 10]
    assert spoken("train", fit, 12, "truncate") == [
        "train: 3 of 5 pairs have more than 12 tokens (longest 23): their answers cut, 1 of them "
        "dropped (the prompt alone fills it), 1 of them without their end of text; 1 dropped, as "
        "both answers are the same tokens"
    ]


def test_what_is_kept_is_what_the_collator_of_trl_leaves(tokens):
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    made, _, _ = tokens(ROWS, max_length=12)
    for mode in ("keep_start", "keep_end"):
        collator = DataCollatorForPreference(0, max_length=12, truncation_mode=mode)
        for row in made:
            batch = collator([row])
            for side, number in (("chosen", 0), ("rejected", 1)):
                whole = batch["attention_mask"][number].bool()
                answer = batch["completion_mask"][number].bool()
                prompt_ids, answer_ids = kept_ids(row, side, 12, mode)
                assert batch["input_ids"][number][whole].tolist() == prompt_ids + answer_ids
                assert batch["input_ids"][number][answer].tolist() == answer_ids


def test_dropping_leaves_out_every_pair_that_is_too_long(tokens):
    made, fit, _ = tokens(ROWS, max_length=12, overlength="drop")
    assert made["prompt"][:] == ["ab", "p" * 10]
    assert fit.kept == 2
    assert spoken("train", fit, 12, "drop")[0].endswith("(longest 23): dropped")


def test_overlength_as_an_error_refuses_with_the_counts(tokens):
    with pytest.raises(DataError, match="in train 3 of 5 pairs have more than 12 tokens"):
        tokens(ROWS, max_length=12, overlength="error")
    assert tokens(ROWS, max_length=23, overlength="error")[1].kept == 5


def test_nothing_left_is_refused(tokens):
    with pytest.raises(DataError, match="nothing is left of train"):
        tokens(ROWS[3:4], max_length=5)


def test_without_max_length_what_exceeds_the_context_is_refused(tokens):
    with pytest.raises(DataError, match="more than 128 tokens.*the model's context"):
        tokens([ROWS[0], ROWS[0] | {"chosen": "c" * 200}], max_length=None)
    assert tokens(ROWS, max_length=None)[1].kept == 5


def test_where_everything_fits_nothing_is_said(tokens):
    made, fit, _ = tokens(ROWS)
    assert fit.kept == len(made) == 5
    assert spoken("train", fit, 128, "truncate") == []
    assert fit.lengths["prompt"] == (8, 12, 12, 12)
    assert lengths_line("train", fit) == (
        "train: tokens of prompt and longer answer: median 14, 95 % 23, 99 % 23, longest 23"
    )


def test_a_tokenizer_of_another_model_is_refused(tokens, tiny_model_dir, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tiny_model_dir, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"vocab_size": 50}))
    with pytest.raises(DataError, match="its embeddings end at 49"):
        tokens(ROWS, model_path=str(other))


def test_a_row_that_the_chat_template_refuses_is_named(tokens, tmp_path):
    """As Gemma's and Mistral's do a system turn."""
    template = tmp_path / "strict.jinja"
    template.write_text(
        "{% for m in messages %}{% if m['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}{{ m['content'] }}"
        "{% endfor %}"
    )
    sides = {n: [{"role": "assistant", "content": n}] for n in ("chosen", "rejected")}
    ask = {"role": "user", "content": "ask"}
    rows = [
        {"prompt": [ask], "source": "raw.jsonl:1"} | sides,
        {"prompt": [{"role": "system", "content": "be"}, ask], "source": "raw.jsonl:2"} | sides,
    ]
    with pytest.raises(DataError) as refused:
        tokens(rows, chat_template=str(template))
    assert str(refused.value) == (
        "raw.jsonl:2: the chat template refuses its turns (system user assistant): System role not "
        "supported; mend or leave out such rows, or give a chat_template that takes them"
    )


def test_answers_that_render_alike_are_not_blamed_on_their_length(tokens):
    with pytest.raises(DataError, match="have the same tokens twice; the template may have no"):
        tokens([ROWS[0] | {"chosen": "x", "rejected": "x"}])
