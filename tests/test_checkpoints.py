"""checkpoints: only what is whole is gone on from, whatever happened to the others."""

import json
import resource
import shutil
from pathlib import Path

import pytest
from training import adapter_weights, metrics, runner, same

from dpo_wrap.training import checkpoints, session, trainer


@pytest.fixture(scope="module")
def finished(tiny_model_dir, tmp_path_factory):
    """A finished run with three checkpoints, as a function that starts it, and its directory."""
    run = runner(tiny_model_dir, tmp_path_factory.mktemp("finished"))
    return run(save_steps=2)[1]


@pytest.fixture
def checkpoint(finished, tmp_path):
    return shutil.copytree(finished / "checkpoint-4", tmp_path / "checkpoint-4")


@pytest.fixture
def run(tiny_model_dir, tmp_path):
    return runner(tiny_model_dir, tmp_path)


def edit_mark(folder, change):
    mark = json.loads((folder / "dpo_wrap.json").read_text())
    change(mark)
    (folder / "dpo_wrap.json").write_text(json.dumps(mark))


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda f: cut(f / "optimizer.pt"), "is damaged (optimizer.pt)"),
        (lambda f: (f / "optimizer.pt").unlink(), "is damaged (optimizer.pt)"),
        (lambda f: (f / "rng_state.pth").write_bytes(b""), "is damaged (rng_state.pth)"),
        (lambda f: (f / "trainer_state.json").write_text(""), "is damaged (trainer_state.json)"),
        (lambda f: (f / "trainer_state.json").unlink(), "is damaged (trainer_state.json)"),
        (lambda f: (f / "dpo_wrap.json").unlink(), "is not complete"),
        (lambda f: (f / "dpo_wrap.json").write_bytes(b"\xff\x00"), "is damaged (dpo_wrap.json)"),
        (lambda f: (f / "dpo_wrap.json").write_text("[]"), "is damaged (dpo_wrap.json)"),
        (lambda f: edit_mark(f, lambda m: m.update(files=3)), "is damaged (dpo_wrap.json)"),
        (lambda f: edit_mark(f, lambda m: m["identity"].pop("data")), "is damaged (dpo_wrap.json)"),
        (
            lambda f: edit_mark(f, lambda m: m.pop("format")),
            "was written by another version of this program",
        ),
        (
            lambda f: edit_mark(f, lambda m: m.update(resumable=False)),
            "has weights alone (save_only_model), which cannot be gone on from",
        ),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_said(checkpoint, spoil, said):
    assert checkpoints.read(checkpoint).step == 4
    spoil(checkpoint)
    assert checkpoints.read(checkpoint) == said


def test_a_large_file_is_sampled_from_its_first_to_its_last_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "READ_WHOLE", 1 << 20)
    empty = bytes(3 << 20)
    file, seen = tmp_path / "weights", set()
    middle = empty[: 1 << 20] + b"w" * (1 << 20) + empty[2 << 20 :]
    for content in (empty, b"w" + empty[1:], empty[1:] + b"w", middle):
        file.write_bytes(content)
        seen.add(checkpoints.digest(file))
    assert len(seen) == 4


def test_a_file_named_like_a_checkpoint_is_none(finished, tmp_path):
    (tmp_path / "checkpoint-9").write_text("")
    shutil.copytree(finished / "checkpoint-2", tmp_path / "checkpoint-2")
    (tmp_path / "checkpoint-x").mkdir()
    assert checkpoints.find(tmp_path) == [tmp_path / "checkpoint-2"]


def test_an_older_checkpoint_goes_only_when_the_newer_one_is_whole(run, monkeypatch):
    standing = []

    def rotate(out, *options, **more):
        whole = [checkpoints.read(path) for path in checkpoints.find(Path(out))]
        standing.append([checkpoint.step for checkpoint in whole])
        rotate_checkpoints(out, *options, **more)

    rotate_checkpoints = trainer.rotate_checkpoints
    monkeypatch.setattr(trainer, "rotate_checkpoints", rotate)
    _, out = run(save_steps=2, save_total_limit=1)
    assert standing == [[2], [4, 2], [6, 4]]
    assert [path.name for path in checkpoints.find(out)] == ["checkpoint-6"]


@pytest.mark.parametrize("limit", [1000, 7000, 18000], ids=["metrics", "safetensors", "optimizer"])
def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(run, monkeypatch, capsys, limit):
    """A file that may not grow past a size stands for the disk; what fails then is the same."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Full(session.Progress):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 3:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))

    _, whole = run(save_steps=2, logging_steps=1)
    shutil.move(whole, whole.with_name("whole"))
    capsys.readouterr()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(session, "Progress", Full)
            status, out = run(save_steps=2, logging_steps=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 1
    said = capsys.readouterr().err.splitlines()
    print(said)
    assert len([line for line in said if not line.startswith("step ")]) == 1
    assert said[-1].startswith(str(out))
    assert said[-1].endswith("and the same command goes on from the newest checkpoint")
    assert run(save_steps=2, logging_steps=1)[0] == 0
    said = capsys.readouterr().out
    assert f"going on from {out / 'checkpoint-2'}" in said
    assert same(adapter_weights(whole.with_name("whole")), adapter_weights(out))
    assert metrics(out) == metrics(whole.with_name("whole"))
