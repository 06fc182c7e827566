"""Paths that cannot be, and files that were damaged: one sentence, no traceback."""

import json
import pickle
import shutil

import pytest
from training import run_json

from dpo_wrap import eval as evaluation
from dpo_wrap import merge
from dpo_wrap.train import main

PATHS = {"~nosuchuser/x": "home directory", "a\0b": "null byte", "x" * 5000: "too long"}


@pytest.mark.parametrize("key", ["model_path", "dataset_path", "output_dir", "adapter_path"])
@pytest.mark.parametrize("path", PATHS, ids=["user", "nul", "long"])
def test_a_path_that_cannot_be_is_refused(run, capsys, key, path):
    assert run(**{key: path})[0] == 2
    error = capsys.readouterr().err
    assert f"{key}: " in error and PATHS[path] in error and len(error) < 500


@pytest.mark.parametrize("path", PATHS, ids=["user", "nul", "long"])
def test_a_path_on_the_command_line_that_cannot_be_is_refused(capsys, path):
    for command, arguments in (
        (main, [path]),
        (evaluation.main, [path]),
        (merge.main, [path, "x"]),
    ):
        with pytest.raises(SystemExit) as caught:
            command(arguments)
        assert caught.value.code == 2 and PATHS[path] in capsys.readouterr().err


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model_dir):
    from training import runner

    folder = tmp_path_factory.mktemp("damaged")
    assert runner(tiny_model_dir, folder)(save_strategy="no")[0] == 0
    return folder


@pytest.mark.parametrize("value", [None, 3, []])
@pytest.mark.parametrize("name", ["figures", "config", "data", "versions", "warnings", "verdict"])
def test_a_tampered_run_json_is_no_finished_run(finished, tmp_path, capsys, name, value):
    out = finished / "out"
    whole = (out / "run.json").read_bytes()
    if type(run_json(out)[name]) is type(value):
        return
    (out / "run.json").write_text(json.dumps(run_json(out) | {name: value}))
    try:
        assert evaluation.main([str(finished / "config.yaml")]) == 2
        assert "has no finished run" in capsys.readouterr().err
        assert main([str(finished / "config.yaml")]) == 2  # there is no checkpoint either
        assert merge.main([str(out), str(tmp_path / "merged")]) == 0
    finally:
        (out / "run.json").write_bytes(whole)


@pytest.mark.parametrize("text", ["", "[]", "{}", "\0"])
@pytest.mark.parametrize("name", ["adapter_config.json", "tokenizer_config.json"])
def test_a_damaged_file_of_an_adapter_is_named(finished, tmp_path, capsys, name, text):
    out = finished / "out"
    whole = (out / name).read_bytes()
    (out / name).write_text(text)
    try:
        assert evaluation.main([str(finished / "config.yaml"), "--samples", "0"]) == 2
        assert merge.main([str(out), str(tmp_path / "merged")]) == 2
    finally:
        (out / name).write_bytes(whole)


def test_a_pickle_in_place_of_weights_is_not_executed(run, tiny_model_dir, tmp_path, capsys):
    class Payload:
        def __reduce__(self):
            return (tmp_path.joinpath("executed").touch, ())

    model = shutil.copytree(tiny_model_dir, tmp_path / "model")
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Payload()}))
    assert run(model_path=str(model))[0] == 2
    assert "its weights could not be loaded" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()
