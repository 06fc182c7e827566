"""An installed wheel: its commands from any directory, and the functions of the same names."""

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from importlib.metadata import requires
from inspect import signature
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from training import ROWS

import data_tools
import dpo_wrap
from data_tools import convert
from data_tools.record import ConvertError
from dpo_wrap import DpoWrapError, evaluate, merge, train
from dpo_wrap import eval as eval_command

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMMANDS = {"convert", "train", "eval", "merge", "judge", "suspects"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A directory with the commands of a wheel, which has the libraries of this environment."""
    folder = tmp_path_factory.mktemp("installed")
    build = ["-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-w", folder]
    subprocess.run([sys.executable, *build, "-q"], check=True)
    venv.create(folder / "venv", symlinks=True)
    libraries = folder / f"venv/lib/python{sysconfig.get_python_version()}/site-packages"
    (wheel,) = folder.glob("*.whl")
    install = ["-m", "pip", "--python", folder / "venv/bin/python", "install", "--no-deps", wheel]
    subprocess.run([sys.executable, *install, "-q"], check=True)
    (libraries / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "venv/bin"


def call(program, *arguments, cwd):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [program, *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )


def test_a_wheel_has_the_commands_and_they_work_from_any_directory(installed, tmp_path):
    assert PROJECT["scripts"].keys() == {f"dpo-{name}" for name in COMMANDS}
    for name in COMMANDS:
        done = call(installed / f"dpo-{name}", "--version", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, f"dpo-wrap {dpo_wrap.__version__}\n")
    (tmp_path / "raw.csv").write_text("prompt,chosen,rejected\nP,<b>C,R\n")
    done = call(installed / "dpo-convert", "raw.csv", cwd=tmp_path)
    assert done.returncode == 0 and "html" in done.stdout
    assert (tmp_path / "data/raw/dataset_dict.json").is_file()
    assert call(installed / "dpo-convert", "none.csv", cwd=tmp_path).returncode == 2
    assert call(installed / "dpo-train", "none.yaml", cwd=tmp_path).returncode == 2


@pytest.mark.slow
def test_an_installed_train_writes_a_report(installed, tmp_path, tiny_model_dir):
    (tmp_path / "pairs.json").write_text(json.dumps(ROWS))
    text = (
        f"model_path: {tiny_model_dir}\ndataset_path: pairs.json\noutput_dir: out\nmax_steps: 2\n"
    )
    (tmp_path / "dpo.yaml").write_text(text)
    done = call(installed / "dpo-train", "dpo.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "<html" in (tmp_path / "out/report.html").read_text()


def test_the_ranges_of_the_dependencies_hold_the_tested_versions():
    pinned = {}
    for name in ("requirements.txt", "requirements-judge.txt", "requirements-dask.txt"):
        for line in (ROOT / name).read_text().splitlines():
            if line and not line.startswith(("#", "-r")):
                package, _, version = line.partition("#")[0].strip().partition("==")
                pinned[package] = version
    extras = PROJECT["optional-dependencies"]
    given = [Requirement(r) for r in (*PROJECT["dependencies"], *extras["judge"], *extras["dask"])]
    assert {requirement.name for requirement in given} == pinned.keys()
    assert all(requirement.specifier.contains(pinned[requirement.name]) for requirement in given)
    assert data_tools.__version__ == dpo_wrap.__version__
    assert requires("trl")  # the metadata of packages are readable here


def test_convert_is_a_function_too(tmp_path):
    raw = tmp_path / "raw.csv"
    raw.write_text("prompt,chosen,rejected\n" + "".join(f"P{n},C,R\n" for n in range(20)))
    report = convert(raw, output=tmp_path / "out", test_size=0.5)
    assert report.figures["pairs"]["kept"] == 20 and report.figures["splits"]["test"] > 1
    assert "<pre>format" in report._repr_html_()
    raw.write_text("prompt,chosen,rejected\nP,C,C\n")
    with pytest.raises(ConvertError, match="no pair was kept") as caught:
        convert(str(raw), output=tmp_path / "none")
    assert caught.value.status == 1 and caught.value.report.figures["pairs"]["rejected"] == 1
    with pytest.raises(ConvertError) as caught:
        convert(str(tmp_path / "missing.csv"))
    assert caught.value.status == 2


def test_train_and_merge_are_functions_too(run, tmp_path):
    assert run("--dry-run")[0] == 0
    config = tmp_path / "config.yaml"
    assert train(config, dry_run=True) is None
    done = train(config, {"beta": 0.2, "lora.r": 4})
    assert done.record["config"]["beta"] == 0.2 and done.record["config"]["lora"]["r"] == 4
    assert done.verdict in done._repr_html_() and done.figures["loss"] < 0.7
    merged = merge(done.directory, tmp_path / "merged")
    assert (merged / "model.safetensors").is_file()
    with pytest.raises(DpoWrapError, match="beta") as caught:
        train(config, {"beta": -1})
    assert caught.value.status == 2


def test_evaluate_is_a_function_too(trained, tmp_path):
    done = evaluate(trained, samples=2, max_new_tokens=4)
    assert len(done.samples) == 2 and len(done.examples) == done.figures["examples"]
    assert "reward accuracy" in done._repr_html_()
    with pytest.raises(DpoWrapError) as caught:
        evaluate(tmp_path)
    assert caught.value.status == 2 and "config.resolved.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("function", "command"),
    [(train, train), (merge, merge), (evaluate, eval_command)],
    ids=["train", "merge", "eval"],
)
def test_a_function_has_the_options_of_its_command(function, command):
    others = {"help", "version", "config_option", "overrides"}
    options = {
        action.dest: action.default
        for action in command.parser()._actions
        if action.option_strings and action.dest not in others
    }
    given = signature(function).parameters.values()
    assert options == {p.name: p.default for p in given if p.kind is p.KEYWORD_ONLY}
