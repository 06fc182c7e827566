"""checkpoints: only complete ones are resumed from, whatever happened to the others."""

import json
import resource
import shutil
from pathlib import Path

import pytest
from training import adapter_weights, metrics, runner, same

from dpo_wrap import checkpoints, trl_hooks
from dpo_wrap.training import session


@pytest.fixture(scope="module")
def finished(tiny_model_dir, tmp_path_factory):
    """The directory of a finished run with three checkpoints."""
    return runner(tiny_model_dir, tmp_path_factory.mktemp("finished"))(save_steps=2)[1]


@pytest.fixture
def checkpoint(finished, tmp_path):
    return shutil.copytree(finished / "checkpoint-4", tmp_path / "checkpoint-4")


def edit_mark(folder, change):
    mark = json.loads((folder / "dpo_wrap.json").read_text())
    change(mark)
    (folder / "dpo_wrap.json").write_text(json.dumps(mark))


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    "damage, expected",
    [
        (lambda f: cut(f / "optimizer.pt"), "is damaged (optimizer.pt)"),
        (lambda f: (f / "rng_state.pth").write_bytes(b""), "is damaged (rng_state.pth)"),
        (lambda f: (f / "trainer_state.json").unlink(), "is damaged (trainer_state.json)"),
        (lambda f: (f / "dpo_wrap.json").unlink(), "is not complete"),
        (lambda f: (f / "dpo_wrap.json").write_text("[]"), "is damaged (dpo_wrap.json)"),
        (lambda f: edit_mark(f, lambda m: m.update(files=3)), "is damaged (dpo_wrap.json)"),
        (lambda f: edit_mark(f, lambda m: m["identity"].pop("data")), "is damaged (dpo_wrap.json)"),
        (
            lambda f: edit_mark(f, lambda m: m.pop("format")),
            "was written by another version of this program",
        ),
        (
            lambda f: edit_mark(f, lambda m: m.update(resumable=False)),
            "has only weights (save_only_model), so it cannot be resumed from",
        ),
    ],
)
def test_a_checkpoint_that_cannot_be_resumed_from_says_why(checkpoint, damage, expected):
    assert checkpoints.read(checkpoint).step == 4
    damage(checkpoint)
    assert checkpoints.read(checkpoint) == expected


def test_a_large_file_is_sampled_from_its_first_to_its_last_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "READ_WHOLE", 1 << 20)
    empty = bytes(3 << 20)
    file, seen = tmp_path / "weights", set()
    middle = empty[: 1 << 20] + b"w" * (1 << 20) + empty[2 << 20 :]
    for content in (empty, b"w" + empty[1:], empty[1:] + b"w", middle):
        file.write_bytes(content)
        seen.add(checkpoints.digest(file))
    assert len(seen) == 4


def test_only_directories_named_for_a_step_are_checkpoints(checkpoint):
    (checkpoint.parent / "checkpoint-9").write_text("")
    (checkpoint.parent / "checkpoint-x").mkdir()
    assert checkpoints.find(checkpoint.parent) == [checkpoint]


def test_an_old_checkpoint_is_deleted_only_when_the_new_one_is_complete(run, monkeypatch):
    complete, rotate_checkpoints = [], trl_hooks.rotate_checkpoints

    def rotate(out, *options, **more):
        found = [checkpoints.read(path) for path in checkpoints.find(Path(out))]
        complete.append([checkpoint.step for checkpoint in found])
        rotate_checkpoints(out, *options, **more)

    monkeypatch.setattr(trl_hooks, "rotate_checkpoints", rotate)
    _, out = run(save_steps=2, save_total_limit=1, hub_token="hf_secret")
    assert complete == [[2], [4, 2], [6, 4]]
    assert [path.name for path in checkpoints.find(out)] == ["checkpoint-6"]
    assert (out / "checkpoint-6/optimizer.pt").is_file()
    files = [path for path in out.rglob("*") if path.is_file()]
    assert not [path for path in files if b"hf_secret" in path.read_bytes()]


@pytest.mark.parametrize("limit", [1000, 7000, 18000], ids=["metrics", "safetensors", "optimizer"])
def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(run, monkeypatch, capsys, limit):
    """A limit on the size of a file simulates the full disk; the same operations fail."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Full(session.Progress):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 3:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))

    keys = {"save_steps": 2, "logging_steps": 1}
    _, out = run(**keys)
    whole = shutil.move(out, out.with_name("whole"))
    capsys.readouterr()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(session, "Progress", Full)
            assert run(**keys)[0] == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    lines = capsys.readouterr().err.splitlines()
    (error,) = [line for line in lines if not line.startswith("step ")]
    assert error == lines[-1] and error.startswith(str(out))
    assert error.endswith("and the same command resumes from the newest checkpoint")
    assert run(**keys)[0] == 0
    assert f"resuming from {out / 'checkpoint-2'}" in capsys.readouterr().out
    assert same(adapter_weights(whole), adapter_weights(out))
    assert metrics(out) == metrics(whole)
