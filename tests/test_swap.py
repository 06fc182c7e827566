"""A directory moved into place whole: nothing foreign is harmed, and nothing is ever half there."""

import errno
import fcntl
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from data_tools import swap
from data_tools.convert import main
from data_tools.record import ConvertError

KNOWN = frozenset({"train", "report.json"})


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def folder(name, **files):
    Path(name).mkdir(parents=True)
    for file, text in files.items():
        Path(name, file).write_text(text)


def tree():
    """Every file below here with its text."""
    return {str(path): path.read_text() for path in sorted(Path().rglob("*")) if path.is_file()}


def replace(target, text):
    with swap.written_aside(target) as part:
        Path(part, "train").write_text(text)
        swap.move_into_place(part, target)


def test_a_first_write_makes_the_folders_above_it_and_leaves_nothing_beside():
    replace("a/b/out", "new")
    assert tree() == {"a/b/out/train": "new"}
    assert os.listdir("a/b") == ["out"]


@pytest.mark.parametrize("atomic", [True, False])
def test_a_replacement_leaves_the_newer_alone(monkeypatch, atomic):
    if not atomic:
        monkeypatch.setattr(swap, "_exchange", lambda *_: False)
    replace("out", "old")
    replace("out", "new")
    assert tree() == {"out/train": "new"}
    assert os.listdir() == ["out"]


def test_a_failure_before_the_move_leaves_the_older_and_no_litter():
    replace("out", "old")
    with pytest.raises(RuntimeError), swap.written_aside("out") as part:
        Path(part, "train").write_text("half")
        raise RuntimeError
    assert tree() == {"out/train": "old"}
    assert os.listdir() == ["out"]


def test_a_system_without_the_exchange_is_told_from_one_that_fails(monkeypatch):
    class Libc:
        def __init__(self, *_, **__):
            pass

        def renameat2(self, *_):
            return -1

    monkeypatch.setattr(swap.ctypes, "CDLL", Libc)
    for code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        monkeypatch.setattr(swap.ctypes, "get_errno", lambda code=code: code)
        assert swap._exchange("a", "b") is False
    monkeypatch.setattr(swap.ctypes, "get_errno", lambda: errno.EACCES)
    with pytest.raises(PermissionError):
        swap._exchange("a", "b")
    monkeypatch.setattr(swap.ctypes, "CDLL", lambda *_, **__: object())
    assert swap._exchange("a", "b") is False


def test_the_directory_is_as_open_as_any_new_one():
    before = os.umask(0o027)
    try:
        replace("out", "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat("out").st_mode) == 0o750


def test_litter_of_a_run_that_was_killed_is_cleared():
    folder("out.part-abc", train="half")
    folder("out.part-def/train")
    folder("out.part-ghi")
    folder("outer.part-abc", train="another's")
    swap.clear_litter("out", KNOWN.__contains__)
    assert tree() == {"outer.part-abc/train": "another's"}
    assert os.listdir() == ["outer.part-abc"]


def test_what_only_looks_like_litter_is_left_alone():
    folder("out.part-1", **{"notes.txt": "mine"})
    Path("out.part-2").write_text("a file")
    folder("elsewhere", train="mine")
    Path("out.part-3").symlink_to("elsewhere")
    before = tree()
    swap.clear_litter("out", KNOWN.__contains__)
    assert tree() == before
    assert Path("out.part-3").is_symlink()


def test_the_part_of_a_run_that_still_writes_is_left_alone():
    with swap.written_aside("out") as part:
        swap.clear_litter("out", KNOWN.__contains__)
        assert os.path.isdir(part)


def test_a_lock_is_not_left_behind_on_what_was_moved():
    replace("out", "new")
    handle = os.open("out", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)


def test_a_run_killed_between_two_renames_is_repaired():
    folder("out.part-abc", train="new")
    folder("out.part-abc.older", train="old")
    swap.clear_litter("out", KNOWN.__contains__)
    assert tree() == {"out/train": "old"}


def test_a_run_killed_after_two_renames_keeps_the_newer():
    folder("out", train="new")
    folder("out.part-abc.older", train="old")
    swap.clear_litter("out", KNOWN.__contains__)
    assert tree() == {"out/train": "new"}
    assert os.listdir() == ["out"]


def test_a_name_full_of_patterns_is_only_a_name():
    folder("o[u]t*.part-abc", train="half")
    folder("out.part-abc", train="another's")
    swap.clear_litter("o[u]t*", KNOWN.__contains__)
    assert tree() == {"out.part-abc/train": "another's"}


@pytest.mark.parametrize(
    ("make", "ours", "what"),
    [
        (lambda: Path("out").write_text("x"), True, "and is no directory"),
        (lambda: (folder("d"), Path("out").symlink_to("d")), True, "and is a symbolic link"),
        (lambda: Path("out").symlink_to("gone"), True, "and is a symbolic link"),
    ],
)
def test_a_target_that_is_no_directory_is_refused(make, ours, what):
    make()
    with pytest.raises(ConvertError) as caught:
        swap.refuse_foreign("out", KNOWN.__contains__, lambda _: ours)
    assert str(caught.value) == f"out: exists {what}; choose another place with -o"
    assert caught.value.status == 2


def test_a_foreign_directory_is_refused_by_what_it_holds():
    folder("out", **{"train": "x", "thesis.tex": "x"})
    with pytest.raises(ConvertError, match="out: exists, and it holds thesis.tex; it is left al"):
        swap.refuse_foreign("out", KNOWN.__contains__, lambda _: True)
    folder("other", train="x")
    with pytest.raises(ConvertError, match="other: exists, and it was not written by this command"):
        swap.refuse_foreign("other", KNOWN.__contains__, lambda _: False)


def test_nothing_an_empty_directory_and_our_own_are_no_foreign_ones():
    folder("empty")
    folder("ours", train="x")
    for target in ("absent", "empty", "ours"):
        swap.refuse_foreign(target, KNOWN.__contains__, lambda name: name == "ours")


# The command killed for good at one point of its way, in a process of its own.

KILLED = """
import os, signal, sys
from data_tools import convert, first_pass, parts, second_pass, settle, swap, writer

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def exchange_then_kill(one, other, exchange=swap._exchange):
    exchange(one, other)
    kill()

def kill_at_rename(number):
    move, rename, count = swap.move_into_place, os.rename, [0]

    def counted(source, target):
        count[0] += 1
        kill() if count[0] == number else rename(source, target)

    def moved(part, target):
        os.rename, swap._exchange = counted, lambda *_: False
        move(part, target)

    swap.move_into_place = moved

def kill_after(room, name):
    plain = getattr(room, name)
    setattr(room, name, lambda *arguments: (plain(*arguments), kill()))

point = sys.argv.pop(1)
ways = {
    "checking": lambda: setattr(first_pass.block, "parts_of", kill),
    "a part is written": lambda: kill_after(parts, "write"),
    "settling": lambda: setattr(settle.Settlement, "finish", kill),
    "writing": lambda: setattr(writer.ShardSink, "keep", kill),
    "a shard is written": lambda: kill_after(second_pass, "run"),
    "naming": lambda: setattr(writer, "finish", kill),
    "named": lambda: kill_after(writer, "finish"),
    "complete": lambda: setattr(swap, "move_into_place", kill),
    "exchanged": lambda: setattr(swap, "_exchange", exchange_then_kill),
}
ways[point]() if point in ways else kill_at_rename(int(point))
convert.main(sys.argv[1:])
"""


def raw(name, text):
    Path(name).write_text(json.dumps({"prompt": "P", "chosen": text, "rejected": "R"}) + "\n")
    return [name, "-o", "out"]


def killed_at(point, *arguments):
    root = Path(__file__).parents[1]
    code = subprocess.run(
        [sys.executable, "-c", KILLED, point, *arguments],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        check=False,
    ).returncode
    assert code == -9


def whole(directory="out"):
    """The files of a dataset, for comparison."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in Path(directory).rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("point", "left"),
    [
        ("checking", "older"),
        ("a part is written", "older"),
        ("settling", "older"),
        ("writing", "older"),
        ("a shard is written", "older"),
        ("naming", "older"),
        ("named", "older"),
        ("complete", "older"),
        ("exchanged", "newer"),
        ("1", "older"),
        ("2", "neither"),
        ("3", "newer"),
    ],
)
def test_after_a_kill_the_older_or_the_newer_is_whole_and_the_next_run_repairs(point, left, capsys):
    datasets = {}
    for name in ("older", "newer"):
        assert main(raw(f"{name}.jsonl", name)) == 0
        datasets[name] = whole()
    assert main(raw("older.jsonl", "older")) == 0
    killed_at(point, *raw("newer.jsonl", "newer"))
    parts = [path for path in Path().glob("out.part-*")]
    assert 1 <= len(parts) <= 2
    if left != "neither":
        assert whole() == datasets[left]
    else:
        assert not Path("out").exists()
        assert whole(next(path for path in parts if path.suffix == ".older")) == datasets["older"]
    capsys.readouterr()
    assert main(raw("same.jsonl", "R")) == 1  # it fails, so the older stands again
    assert whole() == datasets["newer" if left == "newer" else "older"]
    assert not list(Path().glob("out.part-*"))


def test_after_a_kill_a_first_write_leaves_nothing_where_a_dataset_is_expected():
    killed_at("complete", *raw("newer.jsonl", "newer"))
    assert not Path("out").exists()
    assert main(raw("newer.jsonl", "newer")) == 0
    assert sorted(os.listdir()) == ["newer.jsonl", "out"]
