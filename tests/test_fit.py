"""fit: what the tokens of a split say of its texts: ends, starts, lengths, boundaries."""

import random
import shutil

import numpy as np
import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from dpo_wrap.data.length_stats import SHARES, SpecialTokens, fitted, kept_ids, spoken, table
from dpo_wrap.data.tokenize import moved_boundaries
from dpo_wrap.model.tokenizer import end_of_turn

ENDS, STARTS = "<|endoftext|>", "<|start|>"


@pytest.fixture
def tokenizer(tiny_model_dir):
    return AutoTokenizer.from_pretrained(tiny_model_dir)


@pytest.fixture
def starting(tiny_model_dir, tmp_path):
    """A tokenizer that puts a begin-of-text token before plain text, as Llama's do."""
    from tokenizers.processors import TemplateProcessing

    shutil.copytree(tiny_model_dir, tmp_path / "starting")
    made = AutoTokenizer.from_pretrained(tmp_path / "starting")
    made.add_special_tokens({"bos_token": STARTS})
    start = made.convert_tokens_to_ids(STARTS)
    made._tokenizer.post_processor = TemplateProcessing(
        single=f"{STARTS} $A", special_tokens=[(STARTS, start)]
    )
    return made


def rows(tokenizer, *triples):
    """Rows of ids of (prompt, chosen, rejected), marks written out."""
    names = ("prompt_ids", "chosen_ids", "rejected_ids")

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    return Dataset.from_list([dict(zip(names, map(ids, t), strict=True)) for t in triples])


def fit_of(tokenizer, *triples, limit=None, mode="keep_start"):
    made = rows(tokenizer, *triples)
    return fitted(made, SpecialTokens.of(tokenizer), (0, ""), limit, mode, "truncate")[1]


def test_an_answer_must_end_in_a_token_that_generation_stops_at(tokenizer):
    fit = fit_of(
        tokenizer,
        ("p", f"a{ENDS}", f"b{ENDS}"),
        ("p", f"a{ENDS}\n", f"b{ENDS} "),
        ("p", "a", f"b{ENDS}"),
        ("p", f"a{ENDS}more", f"b{ENDS}"),
    )
    assert fit.endless == 2
    assert spoken("train", fit, None, "truncate") == [
        "train: in 2 of 4 pairs an answer ends in no token that generation stops at, so the model "
        "is not taught to stop there; give a chat_template that ends a turn in one"
    ]


def test_two_ends_of_text_are_counted(tokenizer):
    fit = fit_of(tokenizer, ("p", f"a{ENDS}{ENDS}", f"b{ENDS}"), ("p", f"a{ENDS}", f"b{ENDS}"))
    assert (fit.two_ends, fit.endless) == (1, 0)
    assert "in 1 of 2 pairs an answer ends in two ends of text" in spoken("t", fit, None, "drop")[0]


def test_prompts_begin_with_one_start_of_text_where_the_tokenizer_has_one(starting, tokenizer):
    triples = [(f"{mark}p", f"a{ENDS}", f"b{ENDS}") for mark in (STARTS, STARTS * 2, "")]
    fit = fit_of(starting, *triples)
    assert (fit.two_starts, fit.no_start) == (1, 1)
    said = spoken("train", fit, None, "truncate")
    assert said[0].startswith("train: 1 of 3 prompts begin with two begin-of-text tokens")
    assert said[1].startswith("train: 1 of 3 prompts lack the begin-of-text token")
    # GPT-2's tokenizers have such a token and do not put it before texts.
    assert (fit_of(tokenizer, ("p", "a", "b")).no_start) == 0


@pytest.mark.parametrize(
    ("turn", "token"),
    [("<|im_end|>\n", "<|im_end|>"), ("<|eot_id|>", "<|eot_id|>"), ("\n", None)],
)
def test_the_end_of_a_turn_is_read_off_the_template(tokenizer, turn, token):
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_end|>", "<|eot_id|>"]})
    tokenizer.chat_template = (
        "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}"
        + turn.replace("\n", "{{ '\\n' }}")
        + "{% endfor %}"
    )
    assert end_of_turn(tokenizer) == (token and tokenizer.convert_tokens_to_ids(token))
    fit = fit_of(tokenizer, ("p", f"a{turn}", f"b{turn}"))
    assert fit.endless == (token is None)


def test_a_cut_that_takes_the_end_of_text_is_counted(tokenizer):
    triples = [("pp", "aaaaaa" + ENDS, f"b{ENDS}"), ("pp", f"a{ENDS}", f"b{ENDS}")]
    assert fit_of(tokenizer, *triples, limit=5).end_cut == 1
    assert fit_of(tokenizer, *triples, limit=5, mode="keep_end").end_cut == 0


def test_the_lengths_are_percentiles_by_nearest_rank():
    dice = random.Random(3)
    lengths = [tuple(dice.randint(1, 60) for _ in range(3)) for _ in range(237)]
    made = Dataset.from_list(
        [
            {
                n: [1] * k
                for n, k in zip(("prompt_ids", "chosen_ids", "rejected_ids"), t, strict=True)
            }
            for t in lengths
        ]
    )

    class Nothing:
        start, closes = None, False
        ends = ends_twice = staticmethod(lambda answer: True)

    fit = fitted(made, Nothing, (0, ""), None, "keep_start", "truncate")[1]
    wholes = {
        "prompt": [p for p, _, _ in lengths],
        "chosen": [c for _, c, _ in lengths],
        "rejected": [r for _, _, r in lengths],
        "pair": [p + max(c, r) for p, c, r in lengths],
    }
    for name, values in wholes.items():
        ordered = sorted(values)
        nearest = [ordered[int(np.ceil(share / 100 * len(values))) - 1] for share in SHARES]
        assert fit.lengths[name] == tuple(nearest)
    lines = table(fit)
    assert lines[0].split() == ["tokens", "50", "%", "95", "%", "99", "%", "longest"]
    assert lines[4].split() == ["pair", *(str(n) for n in fit.lengths["pair"])]


def test_a_prompt_whose_tokens_run_into_the_answer_is_counted_and_shown():
    """With a tokenizer of words a trailing space joins the answer's first word."""
    from tokenizers import Tokenizer, decoders, models, trainers
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[ENDS], initial_alphabet=ByteLevel.alphabet()
    )
    plain.train_from_iterator(["it was lovely and it was awful"] * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token=ENDS, pad_token=ENDS)
    made = Dataset.from_list(
        [
            {"prompt": "it was", "prompt_ids": tokenizer("it was")["input_ids"]},
            {"prompt": "it was ", "prompt_ids": tokenizer("it was")["input_ids"]},
        ]
    )
    assert moved_boundaries(made, tokenizer) == (1, " ")


def test_a_template_that_renders_a_lone_prompt_otherwise_is_counted(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{{ chat_template_kwargs_extra or '' }}{% endif %}"
    )
    prompt = [{"role": "user", "content": "ask"}]
    whole = tokenizer("[user]ask[assistant]")["input_ids"]
    row = {"prompt": prompt, "prompt_ids": whole, "chat_template_kwargs": {}}
    think = row | {"chat_template_kwargs": {"chat_template_kwargs_extra": "<think>"}}
    assert moved_boundaries(Dataset.from_list([row, row]), tokenizer) == (0, "")
    assert moved_boundaries(Dataset.from_list([think]), tokenizer) == (1, "<think>")


@pytest.mark.parametrize("mode", ["keep_start", "keep_end"])
def test_what_is_kept_never_exceeds_the_limit(mode):
    dice = random.Random(7)
    for _ in range(300):
        row = {
            "prompt_ids": [1] * dice.randint(0, 9),
            "chosen_ids": [2] * dice.randint(1, 9),
            "rejected_ids": [3] * dice.randint(1, 9),
        }
        limit = dice.randint(1, 12)
        prompt, answer = kept_ids(row, "chosen", limit, mode)
        whole = row["prompt_ids"] + row["chosen_ids"]
        expected = whole[:limit] if mode == "keep_start" else whole[max(0, len(whole) - limit) :]
        assert prompt + answer == expected


def test_a_cut_at_the_beginning_says_what_becomes_of_the_prompts(tokenizer):
    triples = [("pppp", "aaaaa" + ENDS, f"b{ENDS}"), ("pp", f"a{ENDS}", f"b{ENDS}")]
    fit = fit_of(tokenizer, *triples, limit=6, mode="keep_end")
    assert (fit.too_long, fit.prompt_cut, fit.prompt_gone, fit.end_cut) == (1, 1, 1, 0)
    assert spoken("train", fit, 6, "truncate") == [
        "train: 1 of 2 pairs have more than 6 tokens (longest 10): their beginnings cut, 1 of them "
        "without any prompt on a side (truncation_mode: keep_end; keep_start keeps both sides' "
        "prompt alike)"
    ]


def test_a_tokenizer_that_closes_every_text_is_named_as_the_cause(tokenizer):
    from tokenizers.processors import TemplateProcessing

    end = tokenizer.eos_token_id
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single=f"$A {ENDS}", special_tokens=[(ENDS, end)]
    )
    fit = fit_of(tokenizer, ("p", f"a{ENDS}{ENDS}", f"b{ENDS}{ENDS}"))
    assert spoken("train", fit, None, "truncate") == [
        "train: the tokenizer puts an end of text after every text, also after prompts and twice "
        "after answers; set add_eos_token: false in its tokenizer_config.json"
    ]
