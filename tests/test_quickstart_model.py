"""The quickstart's base model: the same bytes each time, whole or not there, built once."""

import json
import os
import subprocess
import sys

import pytest

from quickstart import build_model

FIGURES = {"parameters": 1, "loss": 1.0, "well_formed": 1.0, "true_reward": 0.0}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def builds(monkeypatch):
    """Replace the training, in tests of what is done around it; lists the settings built."""
    built = []

    def build(settings, folder):
        built.append(settings)
        (folder / "model.safetensors").write_text(str(settings), encoding="utf-8")
        return FIGURES

    monkeypatch.setattr(build_model, "build", build)
    return built


@pytest.fixture(scope="module")
def short_build(tmp_path_factory):
    out = tmp_path_factory.mktemp("short") / "model"
    assert build_model.main([str(out), "--steps", "3"]) == 0
    return out


@pytest.fixture
def three_threads():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    assert torch.get_num_threads() == 3  # as it was found
    torch.set_num_threads(before)


def test_one_seed_gives_the_same_bytes_on_any_number_of_threads(
    short_build, tmp_path, three_threads
):
    assert build_model.main([str(tmp_path / "again"), "--steps", "3"]) == 0
    again = contents(tmp_path / "again")
    assert again == contents(short_build)
    assert {"model.safetensors", "config.json", "tokenizer.json", build_model.STAMP} <= set(again)


def test_the_tokenizer_takes_any_text_and_has_no_template(short_build):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(short_build)
    text = 'Çà et là — 你好, "quoted"\n\n\ttabs  and\x00 \U0001f600 don\'t . ,'
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.chat_template is None
    assert tokenizer.eos_token == tokenizer.bos_token == tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer("a")["input_ids"][-1] != tokenizer.eos_token_id


def test_the_model_has_room_for_long_dialogues_and_no_dropout(short_build):
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(short_build)
    assert config.n_positions == 1024
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.0, 0.0, 0.0)


def test_the_figures_are_printed_and_stored(builds, tmp_path, capsys):
    assert build_model.main([str(tmp_path / "model")]) == 0
    assert "loss 1.000; of 512 sampled reviews 100.0% well formed" in capsys.readouterr().out
    stored = json.loads((tmp_path / "model" / build_model.STAMP).read_text(encoding="utf-8"))
    assert stored["figures"] == FIGURES


def test_the_same_build_is_not_made_twice(builds, tmp_path, capsys):
    out = tmp_path / "model"
    assert build_model.main([str(out)]) == build_model.main([str(out)]) == 0
    assert len(builds) == 1
    assert capsys.readouterr().out.splitlines()[-1] == f"{out}: this very model is there already"


def test_other_settings_replace_an_older_build(builds, tmp_path):
    out = tmp_path / "model"
    assert build_model.main([str(out)]) == 0
    assert build_model.main([str(out), "--seed", "1"]) == 0
    assert [settings.seed for settings in builds] == [0, 1]
    assert "seed=1" in (out / "model.safetensors").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_directory_that_holds_something_else_is_refused_untouched(builds, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert build_model.main([str(tmp_path)]) == 2
    assert "exists and is no model of this script; name another place" in capsys.readouterr().err
    assert contents(tmp_path) == {"notes.txt": b"mine"} and not builds


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_build_that_fails_leaves_the_older_one_and_no_part(
    builds, tmp_path, monkeypatch, capsys, error
):
    out = tmp_path / "model"
    assert build_model.main([str(out)]) == 0
    before = contents(out)

    def broken(settings, folder):
        (folder / "model.safetensors").write_text("half", encoding="utf-8")
        raise error

    monkeypatch.setattr(build_model, "build", broken)
    if isinstance(error, OSError):
        assert build_model.main([str(out), "--seed", "1"]) == 1
        assert "cannot be written: No space left on device" in capsys.readouterr().err
    else:
        with pytest.raises(KeyboardInterrupt):
            build_model.main([str(out), "--seed", "1"])
    assert contents(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_a_killed_build_left_goes_and_what_a_running_one_writes_stays(builds, tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f"model.part-{ended.pid}").mkdir()
    running = tmp_path / f"model.part-{os.getppid()}"
    running.mkdir()
    assert build_model.main([str(tmp_path / "model")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", running.name]


def test_fewer_than_one_step_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        build_model.main([str(tmp_path / "model"), "--steps", "0"])
    assert stopped.value.code == 2
    assert "--steps must be at least 1, not 0" in capsys.readouterr().err


@pytest.mark.slow
def test_the_model_of_the_quickstart_writes_reviews_of_mixed_opinion(tmp_path):
    assert build_model.main([str(tmp_path / "model")]) == 0
    stored = json.loads((tmp_path / "model" / build_model.STAMP).read_text(encoding="utf-8"))
    # 0.97 to 0.98 over seeds and numbers of threads; 512 samples are uncertain by 0.01
    assert stored["figures"]["well_formed"] > 0.95
    assert abs(stored["figures"]["true_reward"]) < 0.1
