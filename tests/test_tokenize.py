"""tokenize, length_stats: the ids are TRL's own, and what happens to each pair is counted."""

import json
import shutil

import pytest
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, trainers
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)
from trl import DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from dpo_wrap.arguments import build_arguments
from dpo_wrap.config import load_settings
from dpo_wrap.data.length_stats import (
    IDS,
    SpecialTokens,
    kept_ids,
    length_stats,
    lengths_line,
    report_lines,
)
from dpo_wrap.data.tokenize import moved_boundaries, tokenize
from dpo_wrap.errors import DataError
from dpo_wrap.model.tokenizer import end_of_turn, load_tokenizer

ENDS, STARTS = "<|endoftext|>", "<|start|>"
# The tiny model's tokens are bytes; an answer gets an end of text.
ROWS = [
    {"prompt": "ab", "chosen": "cd", "rejected": "e"},
    {"prompt": "ab", "chosen": "c" * 20, "rejected": "d"},
    {"prompt": "p" * 10, "chosen": "c", "rejected": "d"},
    {"prompt": "p" * 12, "chosen": "c", "rejected": "d"},
    {"prompt": "abcdefgh", "chosen": "same-x", "rejected": "same-y"},
]


@pytest.fixture
def tokens(tiny_model_dir, tmp_path):
    """tokenize() of rows under these keys: (dataset, length stats, DPOConfig)."""

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
        made, stats = tokenize(settings, Dataset.from_list(rows), "train", tokenizer, dpo, config)
        return made, stats, dpo

    return make


@pytest.fixture
def tokenizer(tiny_model_dir):
    return AutoTokenizer.from_pretrained(tiny_model_dir)


@pytest.fixture
def stats_of():
    """length_stats() of texts (prompt, chosen, rejected), in which special tokens are written."""

    def make(tokenizer, *triples, limit=None, mode="keep_start"):
        def ids(text):
            return tokenizer(text, add_special_tokens=False)["input_ids"]

        rows = [dict(zip(IDS, map(ids, texts), strict=True)) for texts in triples]
        special = SpecialTokens(tokenizer)
        return length_stats(Dataset.from_list(rows), special, (0, ""), limit, mode, "truncate")[1]

    return make


def test_the_ids_are_those_that_trl_itself_makes(tokens, tiny_model_dir):
    made, _, dpo = tokens(ROWS, max_length=64)
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_model_dir),
        args=dpo,
        train_dataset=Dataset.from_list(ROWS),
        processing_class=AutoTokenizer.from_pretrained(tiny_model_dir),
    )
    for name in IDS:
        assert made[name][:] == trainer.train_dataset[name][:]


# What max_length does


def test_truncation_is_counted_and_pairs_without_a_signal_are_dropped(tokens):
    made, stats, _ = tokens(ROWS, max_length=12)
    assert (stats.pairs, stats.kept, stats.longest) == (5, 3, 23)
    assert +stats.counts == {"too_long": 3, "prompt_fills": 1, "identical": 1, "end_cut": 1}
    assert made["prompt"][:] == ["ab", "ab", "p" * 10]
    assert report_lines("train", stats, 12, "truncate") == [
        "train: 3 of 5 pairs have more than 12 tokens in the prompt and the longer answer (longest "
        "23; overlength: truncate)",
        "train: 1 pairs dropped, because the prompt alone has max_length tokens",
        "train: 1 pairs dropped, because both answers are the same tokens",
        "train: 1 pairs kept without the end of an answer, and so without its end of text",
    ]


def test_the_record_in_run_json_has_every_figure(tokens):
    record = tokens(ROWS, max_length=12)[1].as_record()
    assert " ".join(record) == (
        "pairs too_long prompt_fills identical unscored end_cut prompt_cut prompt_gone endless "
        "two_ends own_end two_starts no_start moved other_turns empty_reasoning moved_text closes "
        "kept lengths"
    )
    assert (record["too_long"], record["endless"], record["kept"]) == (3, 0, 3)


@pytest.mark.parametrize("mode", ["keep_start", "keep_end"])
def test_a_pair_is_cut_as_the_collator_of_trl_cuts_it(tokens, mode):
    made, _, _ = tokens(ROWS, max_length=12)
    collator = DataCollatorForPreference(0, max_length=12, truncation_mode=mode)
    for row in made:
        batch = collator([row])
        for number, side in enumerate(("chosen", "rejected")):
            whole = batch["attention_mask"][number].bool()
            answer = batch["completion_mask"][number].bool()
            prompt_ids, answer_ids = kept_ids(row, side, 12, mode)
            assert batch["input_ids"][number][whole].tolist() == prompt_ids + answer_ids
            assert batch["input_ids"][number][answer].tolist() == answer_ids


def test_a_cut_at_the_beginning_counts_what_is_left_of_the_prompts(tokenizer, stats_of):
    triples = [("pppp", "aaaaa" + ENDS, f"b{ENDS}"), ("pp", f"a{ENDS}", f"b{ENDS}")]
    stats = stats_of(tokenizer, *triples, limit=6, mode="keep_end")
    assert +stats.counts == {"too_long": 1, "prompt_cut": 1, "prompt_gone": 1}
    assert report_lines("train", stats, 6, "truncate")[-1] == (
        "train: 1 of these pairs have no prompt left on a side; set truncation_mode: keep_start"
    )


def test_overlength_drop_drops_every_pair_that_is_too_long(tokens):
    made, stats, _ = tokens(ROWS, max_length=12, overlength="drop")
    assert made["prompt"][:] == ["ab", "p" * 10]
    assert stats.kept == 2
    assert report_lines("train", stats, 12, "drop")[0].endswith("(longest 23; overlength: drop)")


@pytest.mark.parametrize(
    ("rows", "keys", "message"),
    [
        (
            ROWS,
            {"max_length": 12, "overlength": "error"},
            "in train 3 of 5 pairs have more than 12 tokens",
        ),
        (ROWS[3:4], {"max_length": 5}, "no pair of train can be trained on"),
        (
            [ROWS[0], ROWS[0] | {"chosen": "c" * 200}],
            {"max_length": None},
            "more than 128 tokens.*the model's context",
        ),
        (
            [ROWS[0] | {"chosen": "x", "rejected": "x"}],
            {},
            "have answers of the same tokens; the template may not render them",
        ),
    ],
)
def test_pairs_that_cannot_be_trained_on_are_refused(tokens, rows, keys, message):
    with pytest.raises(DataError, match=message):
        tokens(rows, **keys)


@pytest.mark.parametrize("keys", [{"max_length": None}, {"max_length": 23, "overlength": "error"}])
def test_pairs_that_fit_are_kept_and_nothing_is_reported(tokens, keys):
    made, stats, _ = tokens(ROWS, **keys)
    assert stats.kept == len(made) == 5
    assert report_lines("train", stats, 128, "truncate") == []
    assert stats.lengths["prompt"] == (8, 12, 12, 12)
    assert lengths_line("train", stats) == (
        "train: tokens of prompt and longer answer: median 14, 95 % 23, 99 % 23, longest 23"
    )


def test_the_lengths_are_percentiles_by_nearest_rank(tokenizer):
    sizes = [(n, 2, 3) for n in range(1, 41)]
    rows = [{name: [1] * n for name, n in zip(IDS, triple, strict=True)} for triple in sizes]
    special = SpecialTokens(tokenizer)
    stats = length_stats(Dataset.from_list(rows), special, (0, ""), None, "keep_start", "drop")[1]
    assert stats.lengths["prompt"] == (20, 38, 40, 40)
    assert stats.lengths["pair"] == (23, 41, 43, 43)


# How texts begin and end


@pytest.mark.parametrize(
    ("chosen", "counts", "message"),
    [
        (f"a{ENDS}", {}, ""),
        (f"a{ENDS}\n", {}, ""),
        ("a", {"endless": 1}, "train: in 1 of 1 pairs an answer ends in no token that generation"),
        (f"a{ENDS}more", {"endless": 1}, "train: in 1 of 1 pairs an answer ends in no token"),
        (f"a{ENDS}{ENDS}", {"two_ends": 1}, "train: in 1 of 1 pairs an answer ends in two ends"),
        (f"a{ENDS}\n{ENDS}\n", {"two_ends": 1}, "train: in 1 of 1 pairs an answer ends in two"),
    ],
)
def test_an_answer_must_end_in_one_token_that_generation_stops_at(
    tokenizer, stats_of, chosen, counts, message
):
    stats = stats_of(tokenizer, ("p", chosen, f"b{ENDS}"))
    assert +stats.counts == counts
    assert "\n".join(report_lines("train", stats, None, "truncate")).startswith(message)


@pytest.mark.parametrize(
    ("chosen", "trained", "counts"),
    [
        (f"cd{ENDS}\n", f"cd{ENDS}\n", {"own_end": 1}),
        (f"cd{ENDS}", f"cd{ENDS}", {}),
        ("cd\n", f"cd\n{ENDS}", {}),
        (f"cd{ENDS} e", f"cd{ENDS} e{ENDS}", {}),
    ],
)
def test_a_text_that_ends_before_white_space_gets_no_second_end(
    tokens, tokenizer, chosen, trained, counts
):
    made, stats, _ = tokens([ROWS[0], ROWS[0] | {"chosen": chosen}])
    texts = [tokenizer.decode(ids) for name in IDS[1:] for ids in made[name]]
    assert texts == [f"cd{ENDS}", trained, f"e{ENDS}", f"e{ENDS}"]
    assert +stats.counts == counts


@pytest.mark.parametrize(
    ("turn", "token"),
    [("<|im_end|>\n", "<|im_end|>"), ("<|eot_id|>", "<|eot_id|>"), ("\n", None)],
)
def test_the_end_of_a_turn_is_found_in_the_template(tokenizer, stats_of, turn, token):
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_end|>", "<|eot_id|>"]})
    tokenizer.chat_template = (
        "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}"
        + turn.replace("\n", "{{ '\\n' }}")
        + "{% endfor %}"
    )
    assert end_of_turn(tokenizer) == (token and tokenizer.convert_tokens_to_ids(token))
    stats = stats_of(tokenizer, ("p", f"a{turn}", f"b{turn}"))
    assert stats.counts["endless"] == (token is None)


def test_a_prompt_begins_with_one_start_of_text_if_the_tokenizer_adds_one(tokenizer, stats_of):
    triples = [(f"{start}p", f"a{ENDS}", f"b{ENDS}") for start in (STARTS, STARTS * 2, "")]
    # GPT-2's tokenizer has such a token and does not add it, Llama's does.
    assert not +stats_of(tokenizer, *triples).counts
    tokenizer.add_special_tokens({"bos_token": STARTS})
    start = tokenizer.convert_tokens_to_ids(STARTS)
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single=f"{STARTS} $A", special_tokens=[(STARTS, start)]
    )
    stats = stats_of(tokenizer, *triples)
    assert +stats.counts == {"two_starts": 1, "no_start": 1}
    lines = report_lines("train", stats, None, "truncate")
    assert lines[0].startswith("train: 1 of 3 prompts begin with two begin-of-text tokens")
    assert lines[1].startswith("train: 1 of 3 prompts lack the begin-of-text token")


def test_a_tokenizer_that_ends_every_text_is_named_as_the_cause(tokenizer, stats_of):
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single=f"$A {ENDS}", special_tokens=[(ENDS, tokenizer.eos_token_id)]
    )
    stats = stats_of(tokenizer, ("p", f"a{ENDS}{ENDS}", f"b{ENDS}{ENDS}"))
    assert report_lines("train", stats, None, "truncate") == [
        "train: the tokenizer adds an end of text to every text, also to prompts and twice to "
        "answers; set add_eos_token: false in its tokenizer_config.json"
    ]


def test_a_prompt_whose_last_token_reaches_into_the_answer_is_counted_and_shown():
    """With a tokenizer of words a trailing space joins the answer's first word."""
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[ENDS], initial_alphabet=ByteLevel.alphabet()
    )
    plain.train_from_iterator(["it was lovely and it was awful"] * 9, trainer)
    words = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token=ENDS, pad_token=ENDS)
    ids = words("it was")["input_ids"]
    rows = [{"prompt": prompt, "prompt_ids": ids} for prompt in ("it was", "it was ")]
    assert moved_boundaries(Dataset.from_list(rows), words) == (1, " ")


def test_a_template_that_renders_a_prompt_without_answer_differently_is_counted(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{{ extra or '' }}{% endif %}"
    )
    ids = tokenizer("[user]ask[assistant]")["input_ids"]
    row = {"prompt": [{"role": "user", "content": "ask"}], "prompt_ids": ids}
    same, thinking = (row | {"chat_template_kwargs": {"extra": text}} for text in ("", "<think>"))
    assert moved_boundaries(Dataset.from_list([same, same]), tokenizer) == (0, "")
    assert moved_boundaries(Dataset.from_list([thinking]), tokenizer) == (1, "<think>")


# Tokenizers and templates that do not belong to the data


def test_a_tokenizer_of_another_model_is_refused(tokens, tiny_model_dir, tmp_path):
    other = shutil.copytree(tiny_model_dir, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"vocab_size": 50}))
    with pytest.raises(DataError, match="its embeddings end at 49"):
        tokens(ROWS, model_path=str(other))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{% for m in messages %}{% if m['role'] == 'system' %}"
            "{{ raise_exception('System role not supported') }}{% endif %}{{ m['content'] }}"
            "{% endfor %}",
            "raw.jsonl:2: the chat template cannot render its turns (system user assistant): "
            "System role not supported; fix or remove such rows, or set another chat_template",
        ),
    ],
)
def test_a_chat_template_that_cannot_render_the_data_is_refused(
    tokens, tmp_path, template, message
):
    (tmp_path / "mine.jinja").write_text(template)
    sides = {n: [{"role": "assistant", "content": n}] for n in ("chosen", "rejected")}
    ask = {"role": "user", "content": "ask"}
    rows = [
        {"prompt": [ask], "source": "raw.jsonl:1"} | sides,
        {"prompt": [{"role": "system", "content": "be"}, ask], "source": "raw.jsonl:2"} | sides,
    ]
    with pytest.raises(DataError) as refused:
        tokens(rows, chat_template=str(tmp_path / "mine.jinja"))
    assert message in str(refused.value)
