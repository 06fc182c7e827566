"""configs/recipes: each does what its first lines say, on the tiny model and in a few steps.

Those of the paper are followed to the letter: the commands that their first lines show are run in a
folder of their own, on records in the shape of the public data, with fewer steps and pairs.
"""

import glob
import gzip
import importlib.util
import json
import math
import re
import shlex
import shutil
import signal
from pathlib import Path

import pytest
import torch
from datasets import load_from_disk
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_tools import convert
from dpo_wrap import eval as eval_command
from dpo_wrap.config import load_settings
from dpo_wrap.train import main
from tests.training import ROWS, adapter_weights, metrics, same

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "configs/recipes"
PAPER = {"sentiment": 0.1, "summarization": 0.5, "dialogue": 0.1}
"""The paper's three tasks and its beta for each: Rafailov et al. 2023, appendix B."""
PROGRAMS = {
    "data_tools.convert": convert.main,
    "dpo_wrap.train": main,
    "dpo_wrap.eval": eval_command.main,
}
# One token a letter and 128 positions: what the tiny model wants said otherwise than the recipes.
SMALL = {
    "max_seq_length": 128,
    "max_steps": 3,
    "warmup_steps": 1,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "logging_steps": 1,
}
FEW = {
    "data_tools.convert": ["--test-size", "0.3", "--workers", "1"],
    "dpo_wrap.eval": ["--samples", "2", "--max-new-tokens", "8"],
}


def sets(**keys):
    return [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture
def follow(tiny_model_dir, tmp_path):
    """Run a recipe in a folder of its own: the run's output directory."""
    (tmp_path / "pairs.json").write_text(json.dumps(ROWS))

    def start(name, out, **keys):
        keys = {
            "model_path": tiny_model_dir,
            "dataset_path": tmp_path / "pairs.json",
            "output_dir": tmp_path / out,
            "max_seq_length": 64,
            "logging_steps": 1,
        } | keys
        assert main([str(RECIPES / name), *sets(**keys)]) == 0
        return tmp_path / out

    return start


# The paper's three tasks

# Records as the public files have them, down to the spaces that answers begin with.
RATED = [
    {
        "instruction": f"Film {number} was",
        "generations": [" fine.", " a long bore.", " bright and kind.", " over at last."],
        "ratings": [0.81, 0.04, 0.98, 0.35],
    }
    for number in range(12)
]
COMPARED = [
    {
        "info": {"id": f"t3_{number}", "post": f"My cat {number} is lost.", "title": "Cat"}
        | {"subreddit": "pets"},
        "summaries": [
            {"text": " Cat is gone, help.", "policy": "sup4", "note": None},
            {"text": " Something happened.", "policy": "ref", "note": "says little"},
        ],
        "choice": 0,
        "worker": "w1",
        "batch": "batch3",
        "split": "train",
        "extra": {"confidence": 8},
    }
    for number in range(16)
]
SPOKEN = [
    {
        side: f"\n\nHuman: Hi {number}\n\nAssistant: Yes?"
        f"\n\nHuman: Is tea a herb?\n\nAssistant: {answer}"
        for side, answer in (("chosen", "A shrub's leaf."), ("rejected", "No idea."))
    }
    for number in range(16)
]


def lines(records):
    return "".join(json.dumps(record) + "\n" for record in records)


def write_public_files(name, folder):
    """What the user downloads or makes before the first command of the recipe."""
    if name == "sentiment":
        (folder / "imdb-rated.jsonl").write_text(lines(RATED))
    elif name == "summarization":
        (folder / "comparisons").mkdir()
        for batch, records in (("batch3", COMPARED[:8]), ("batch10", COMPARED[8:])):
            (folder / f"comparisons/{batch}.json").write_text(lines(records))
        # Of the evaluation, and not to be trained on.
        (folder / "comparisons/batch11.json").write_text("not read")
    else:
        for part, records in (("harmless-base", SPOKEN[:8]), ("helpful-base", SPOKEN[8:])):
            (folder / "hh-rlhf" / part).mkdir(parents=True)
            (folder / "hh-rlhf" / part / "train.jsonl.gz").write_bytes(
                gzip.compress(lines(records).encode())
            )


def shown(name):
    """The commands of a recipe's first lines, in their order: (program, its words)."""
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    found = re.findall(r"^#   python -m (\S+) (.+)$", text, re.MULTILINE)
    return [(program, shlex.split(rest)) for program, rest in found]


@pytest.fixture
def start_of(tiny_model_dir, tmp_path, monkeypatch):
    """Stand in a folder with the public files of a recipe: a function that runs a shown command."""
    for part in ("configs", "dpo_wrap"):
        (tmp_path / part).symlink_to(ROOT / part)
    monkeypatch.chdir(tmp_path)

    def start(name):
        write_public_files(name, tmp_path)
        if name == "sentiment":
            shutil.copytree(tiny_model_dir, "checkpoints/imdb-sft")
        downloaded = [] if name != "summarization" else sets(model_path=tiny_model_dir)

        def run(program, words, **more):
            words = [found for word in words for found in sorted(glob.glob(word)) or [word]]
            if program != "data_tools.convert":
                words += sets(**SMALL | more) + downloaded
                if "model_path=EleutherAI/pythia-2.8b" in words:
                    words += sets(model_path=tiny_model_dir)
            return PROGRAMS[program]([*words, *FEW.get(program, ())])

        return run

    return start


@pytest.mark.parametrize("name", PAPER)
def test_the_recipe_has_the_hyperparameters_of_the_paper(name):
    """Appendix B; the schedule, length and clipping are those of the authors' code."""
    given = load_settings(str(RECIPES / f"{name}.yaml"))
    assert given.lora is None
    assert given.option("beta") == PAPER[name]
    assert given.option("optim") == "rmsprop"
    assert given.option("learning_rate") == 1e-6
    assert given.option("warmup_steps") == 150
    batch, times = (
        given.option(key) for key in ("per_device_train_batch_size", "gradient_accumulation_steps")
    )
    assert batch * times == 64
    assert given.option("lr_scheduler_type") == "constant_with_warmup"
    assert given.option("max_length") == 512
    assert given.option("max_grad_norm") == 10.0
    assert given.option("num_train_epochs") == 1


def converted(name):
    program, words = shown(name)[0]
    assert program == "data_tools.convert"
    return program, words


def pairs_of(folder):
    return [row for split in load_from_disk(folder).values() for row in split]


def test_four_rated_completions_make_the_six_pairs_of_the_paper(start_of):
    run = start_of("sentiment")
    assert run(*converted("sentiment")) == 0
    pairs = pairs_of("data/imdb")
    assert len(pairs) == 6 * len(RATED)
    of_one = {(p["chosen"], p["rejected"]) for p in pairs if p["prompt"] == "Film 3 was"}
    assert len(of_one) == 6 and (" bright and kind.", " fine.") in of_one
    assert not any(chosen == " a long bore." for chosen, _ in of_one)


def test_comparisons_become_text_that_ends_in_tldr(start_of):
    run = start_of("summarization")
    assert run(*converted("summarization")) == 0
    pairs = pairs_of("data/tldr")
    assert len(pairs) == len(COMPARED)
    assert (
        "SUBREDDIT: r/pets\n\nTITLE: Cat\n\nPOST: My cat 3 is lost.\n\nTL;DR:",
        " Cat is gone, help.",
        " Something happened.",
    ) in {(p["prompt"], p["chosen"], p["rejected"]) for p in pairs}


def test_the_template_writes_transcripts_as_they_were(start_of, tiny_model_dir):
    run = start_of("dialogue")
    assert run(*converted("dialogue")) == 0
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    tokenizer.chat_template = Path(
        load_settings("configs/recipes/dialogue.yaml").chat_template
    ).read_text("utf-8")

    def text(messages, **more):
        return tokenizer.apply_chat_template(messages, tokenize=False, **more)

    pairs = pairs_of("data/hh")
    written = {tuple(text(p["prompt"] + p[side]) for side in ("chosen", "rejected")) for p in pairs}
    end = tokenizer.eos_token
    assert written == {(r["chosen"] + end, r["rejected"] + end) for r in SPOKEN}
    # What an answer is asked for with is where the authors' code cuts: behind the last colon.
    asked = text(pairs[0]["prompt"], add_generation_prompt=True)
    assert asked.endswith("Is tea a herb?\n\nAssistant:")
    assert text(pairs[0]["prompt"] + pairs[0]["chosen"]).startswith(asked)


def weights(folder):
    return load_file(Path(folder) / "model.safetensors")


@pytest.mark.parametrize("name", PAPER)
def test_the_commands_of_the_recipe_lead_from_public_files_to_figures(
    name, start_of, tiny_model_dir
):
    run = start_of(name)
    *commands, (_, adapted) = shown(name)
    assert "lora=true" in adapted
    for program, words in commands:
        assert run(program, words) == 0, words
    given = load_settings(f"configs/recipes/{name}.yaml")
    out = Path(given.output_dir)
    begun = tiny_model_dir if name == "summarization" else given.model_path
    assert not same(weights(begun), weights(out))
    ran = json.loads((out / "run.json").read_text())
    assert ran["steps"] == SMALL["max_steps"]
    assert ran["step_0"]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    steps = [line for line in metrics(out) if "loss" in line]
    # Warmed up, it stays where it is: TRL's own schedule would fall to 0.
    assert [line["learning_rate"] for line in steps] == pytest.approx([0, 1e-6, 1e-6])
    figures = json.loads((out / "eval.json").read_text())
    assert figures["examples"] > 0 and figures["kl_per_token"] is not None
    if name == "summarization":
        assert {"rouge1", "rouge2", "rougeL"} <= figures["metrics"].keys()
    if name == "dialogue":
        sft = json.loads(Path("checkpoints/hh-sft/run.json").read_text())
        assert "no margin is to be expected" in sft["verdict"]
        assert not same(weights(tiny_model_dir), weights("checkpoints/hh-sft"))


@pytest.mark.parametrize("name", PAPER)
def test_the_adapter_that_the_recipe_offers_instead_trains(name, start_of, tiny_model_dir):
    run = start_of(name)
    run(*converted(name))
    out = Path(load_settings(f"configs/recipes/{name}.yaml").output_dir)
    more = {"model_path": tiny_model_dir} if name == "dialogue" else {}
    assert run(*shown(name)[-1], **more) == 0
    assert any(tensor.any() for key, tensor in adapter_weights(out).items() if "lora_B" in key)


# QLoRA


def test_qlora_without_bitsandbytes_is_refused_by_its_name(
    tiny_model_dir, tmp_path, monkeypatch, capsys
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "bitsandbytes" else find(name, *rest),
    )
    (tmp_path / "pairs.json").write_text(json.dumps(ROWS))
    keys = {"dataset_path": tmp_path / "pairs.json", "output_dir": tmp_path / "out"}
    path = str(RECIPES / "qlora.yaml")
    assert main([path, *sets(model_path=tiny_model_dir, max_seq_length=64, **keys)]) == 2
    said = capsys.readouterr().err
    assert "load_in_4bit needs the package bitsandbytes; pip install bitsandbytes" in said
    assert not (tmp_path / "out/run.json").exists()


def test_all_of_qlora_but_the_four_bits_trains_here(follow):
    """And with them where bitsandbytes is installed, which is none of the requirements."""
    assert load_settings(str(RECIPES / "qlora.yaml")).load_in_4bit
    quantised = importlib.util.find_spec("bitsandbytes") is not None
    out = follow("qlora.yaml", "qlora", load_in_4bit=quantised, max_steps=3)
    adapted = {key.split(".")[-3] for key in adapter_weights(out)}
    assert adapted == {"c_attn", "c_proj", "c_fc"}  # every linear layer but the head
    ran = json.loads((out / "run.json").read_text())
    assert ran["steps"] == 3 and ran["step_0"]["margin"] == pytest.approx(0)


# Other starts and ends


def test_an_adapter_made_elsewhere_is_continued_against_its_frozen_copy(
    follow, tiny_model_dir, tmp_path, capsys
):
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    torch.manual_seed(1)
    made = get_peft_model(
        base,
        LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False),
    )
    made.save_pretrained(tmp_path / "made")
    out = follow("continue-from-sft.yaml", "out", adapter_path=tmp_path / "made", max_steps=4)
    said = capsys.readouterr().out
    assert "with a frozen copy of that adapter" in said and "step 0: loss 0.6931 = ln 2" in said
    before, after = adapter_weights(tmp_path / "made"), adapter_weights(out)
    assert before.keys() == after.keys() and not same(before, after)
    # Few small steps away from where it stood, and not begun anew.
    assert max((before[name] - after[name]).abs().max() for name in before) < 1e-3


def test_sft_then_dpo_continues_the_sft_adapter_against_its_frozen_copy(follow, capsys):
    sft = follow("sft-then-dpo/1-sft.yaml", "sft", learning_rate=1e-2, max_steps=12)
    losses = [line["loss"] for line in metrics(sft)]
    assert losses[-1] < losses[0] - 0.05
    run = json.loads((sft / "run.json").read_text())
    assert "no margin is to be expected" in run["verdict"]

    capsys.readouterr()
    dpo = follow("sft-then-dpo/2-dpo.yaml", "dpo", adapter_path=sft, max_steps=4)
    said = capsys.readouterr().out
    assert "with a frozen copy of that adapter" in said and "step 0: loss 0.6931 = ln 2" in said
    assert json.loads((dpo / "run.json").read_text())["step_0"]["margin"] == pytest.approx(0)
    assert not same(adapter_weights(sft), adapter_weights(dpo))


def test_the_best_checkpoint_is_kept_and_training_stops_where_nothing_improves(follow):
    out = follow(
        "early-stopping.yaml",
        "best",
        eval_steps=1,
        save_steps=1,
        num_epochs=10,
        learning_rate=1e-9,
    )
    held_out = [line["eval_rewards/accuracies"] for line in metrics(out)]
    best = held_out.index(max(held_out)) + 1
    assert len(held_out) == json.loads((out / "run.json").read_text())["steps"] == best + 3
    assert {p.name for p in out.glob("checkpoint-*")} == {
        f"checkpoint-{n}" for n in (best, best + 3)
    }
    assert same(adapter_weights(out), adapter_weights(out / f"checkpoint-{best}"))


def test_early_stopping_counts_on_where_a_checkpoint_stood(follow, tmp_path, monkeypatch):
    """Stopped by a signal after its second step, it takes as many steps as if it had not been."""
    from dpo_wrap.training import session

    names = {"eval_steps": 1, "save_steps": 1, "learning_rate": 1e-2}
    whole = follow("early-stopping.yaml", "whole", **names)
    steps = json.loads((whole / "run.json").read_text())["steps"]

    class Interrupt(session.Progress):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == steps - 1:
                signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(session, "Progress", Interrupt)
        with pytest.raises(AssertionError):
            follow("early-stopping.yaml", "cut", **names)
    again = follow("early-stopping.yaml", "cut", **names)
    assert json.loads((again / "run.json").read_text())["steps"] == steps
    assert same(adapter_weights(whole), adapter_weights(again))
