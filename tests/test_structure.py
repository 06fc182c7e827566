"""Imports run one way, read from the sources: who may know whom."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(ROOT.glob("data_tools/**/*.py"))
WRAPPER = sorted(ROOT.glob("dpo_wrap/**/*.py"))

# A room of data_tools, and the other rooms that it may import; `conversion` may import them all.
MAY_KNOW = {
    "record": set(),
    "side": {"record"},
    "keys": {"record", "side"},
    "ranking": set(),
    "votes": {"record"},
    "agreement": set(),
    "strict_json": {"record"},
    "readers": {"record", "strict_json"},
    "formats": {"record", "side", "ranking", "strict_json"},
    "rules": {"record", "side"},
    "odd": {"record", "side"},
    "gather": {"record", "side", "keys", "ranking", "votes"},
    "settle": {"record", "keys"},
    "alike": set(),
    "layout": {"record", "side"},
    "parts": {"record", "side", "odd", "settle", "layout"},
    "writer": {"record", "layout", "parts"},
    "figures": {"record", "agreement", "odd"},
    "report": {"record", "odd"},
    "swap": {"record"},
    "target": {"record", "readers", "swap"},
    "block": {"record", "formats", "rules", "odd", "votes", "keys", "agreement"},
    "lean": set(),
    "workers": {"record", "lean"},
    "cluster": {"record"},
    "progress": set(),
    "columnar": {
        *("record", "side", "keys", "readers", "formats", "rules", "odd"),
        *("settle", "layout", "parts", "block"),
    },
    "first_pass": {
        *("record", "agreement", "readers", "block"),
        *("settle", "layout", "parts", "columnar"),
    },
    "blocks": {"record", "readers", "workers", "first_pass"},
    "second_pass": {
        *("record", "readers", "settle", "alike"),
        *("layout", "parts", "figures", "writer", "columnar"),
    },
    "recognise": {"record", "formats"},
    "options": {"record", "readers", "ranking", "votes"},
    "convert": {"record", "lean", "options", "formats", "conversion"},
}
OUTSIDE = {
    "pyarrow": {"layout", "parts", "writer", "columnar", "second_pass", "readers"},
    "numpy": {"settle", "alike", "figures", "parts", "columnar", "second_pass", "conversion"},
    "openpyxl": {"readers"},
    "tqdm": {"progress"},
    "distributed": {"cluster"},
    "dask": {"cluster"},
    "xxhash": {"keys", "settle", "writer", "odd", "columnar"},
}


# The same for dpo_wrap; its commands may import all of it, and eval and merge train's options.
WRAPPER_MAY_KNOW = {
    "errors": set(),
    "atomic": {"errors"},
    "signals": set(),
    "loss": set(),
    "conversions": set(),
    "metrics": set(),
    "sharing": {"errors"},
    "settings": {"errors"},
    "loading": {"errors", "atomic", "settings", "sharing"},
    "judging": {"errors", "atomic", "settings", "loading", "loss", "conversions", "metrics"},
    "win_rate": {"errors", "atomic", "judging"},
    "health": {"errors", "loading", "judging"},
    "faults": {"errors", "health"},
    "page": {"atomic", "conversions"},
    "running": {
        *("errors", "atomic", "signals", "faults", "loss", "sharing"),
        *("settings", "loading", "judging", "health", "page"),
    },
    "probes": {"loading"},
    "merging": {"errors", "atomic", "settings", "loading", "probes"},
}
COMMANDS = {"train", "eval", "merge", "judge", "suspects"}


def imported(path):
    """Every module that a source file imports, wherever in it, as dotted names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def room(path):
    """`data_tools/readers/text.py` stands in the room `readers`."""
    return path.relative_to(ROOT).with_suffix("").parts[1]


def test_every_room_of_data_tools_has_its_line():
    assert {room(path) for path in SOURCES} == {*MAY_KNOW, "conversion", "__init__"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_of_data_tools_knows_only_the_rooms_below_it(path):
    here = room(path)
    known = {name.split(".")[1] for name in imported(path) if name.startswith("data_tools.")}
    allowed = {*MAY_KNOW} - {"convert"} if here == "conversion" else MAY_KNOW.get(here, set())
    assert known <= {*allowed, here}


def test_every_room_of_dpo_wrap_has_its_line():
    assert {room(path) for path in WRAPPER} == {*WRAPPER_MAY_KNOW, *COMMANDS, "__init__"}


@pytest.mark.parametrize("path", WRAPPER, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_of_dpo_wrap_knows_only_the_rooms_below_it(path):
    here = room(path)
    known = {name.split(".")[1] for name in imported(path) if name.startswith("dpo_wrap.")}
    allowed = {*WRAPPER_MAY_KNOW, "train"} if here in COMMANDS else WRAPPER_MAY_KNOW.get(here, ())
    assert known <= {*allowed, here}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_data_tools_imports_the_standard_library_and_little_else(path):
    tops = {name.split(".")[0] for name in imported(path)} - {"data_tools"}
    foreign = tops - sys.stdlib_module_names
    assert foreign <= {name for name, rooms in OUTSIDE.items() if room(path) in rooms}


def loaded_by(code):
    """The top-level modules that a fresh interpreter holds after running `code`."""
    shown = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", shown], env=environment, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_importing_the_command_loads_nothing_heavy():
    heavy = {"pyarrow", "pandas", "numpy", "datasets", "torch", "transformers", "trl", "tqdm"}
    heavy |= {"dask", "distributed"}
    assert not heavy & loaded_by("import data_tools.convert")


def test_converting_loads_nothing_of_models(tmp_path):
    (tmp_path / "raw.csv").write_text("prompt,chosen,rejected\nP,C,R\n")
    arguments = [str(tmp_path / "raw.csv"), "-o", str(tmp_path / "out"), "--json"]
    code = (
        "import contextlib, io\nfrom data_tools.convert import main\n"
        f"with contextlib.redirect_stdout(io.StringIO()):\n    assert main({arguments!r}) == 0"
    )
    loaded = loaded_by(code)
    assert "pyarrow" in loaded
    assert not {"datasets", "torch", "transformers", "trl", "dpo_wrap"} & loaded


def test_the_definition_of_the_loss_knows_only_torch():
    tops = {name.split(".")[0] for name in imported(ROOT / "dpo_wrap/loss.py")}
    assert tops - sys.stdlib_module_names == {"torch"}


def test_one_file_of_dpo_wrap_is_the_bridge_to_data_tools():
    bridges = [
        str(path.relative_to(ROOT))
        for path in sorted(ROOT.glob("dpo_wrap/**/*.py"))
        if any(name.split(".")[0] == "data_tools" for name in imported(path))
    ]
    assert bridges == ["dpo_wrap/loading/data.py"]
