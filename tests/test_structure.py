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
PACKAGES = ["data_tools", "dpo_wrap"]

# The modules and packages of data_tools; each may import those of the lines above its own.
LAYERS = (
    {"record", "keys", "column_kinds", "ranking", "arrays"},
    {"readers", "annotators", "checks", "dedupe", "splits", "targets", "workers"},
    {"formats", "schema", "report"},
    {"pointers", "context"},
    {"sample"},
    {"detect", "options", "output_dir", "block_files"},
    {"block", "figures", "dataset"},
    {"first_pass", "grouping", "shards"},
    {"pipeline"},
    {"convert"},
)
OUTSIDE = {
    "numpy": "arrays keys dedupe block_files figures grouping shards pipeline",
    "pyarrow": "arrays readers schema block_files figures dataset grouping shards",
    "jiter": "readers",
    "openpyxl": "readers",
    "huggingface_hub": "readers",
    "xxhash": "keys dataset",
    "tqdm": "workers",
    "dask": "workers",
    "distributed": "workers",
}


# The modules and packages of dpo_wrap; its commands may import all of it, and each other's options.
WRAPPER_MAY_KNOW = {
    "errors": set(),
    "terminal": set(),
    "cli": {"errors", "files", "terminal", "config"},
    "loss": set(),
    "logps": {"loss"},
    "metrics": set(),
    "files": {"errors"},
    "library_fields": {"errors"},
    "ownership": {"errors", "files"},
    "hub": {"errors", "config", "ownership"},
    "yaml_lines": {"errors", "terminal"},
    "other_names": set(),
    "config_keys": {"library_fields", "other_names"},
    "config": {
        *("errors", "files", "ownership", "terminal", "library_fields", "yaml_lines"),
        *("config_keys", "other_names"),
    },
    "checkpoints": {"files"},
    "run_dir": {
        *("errors", "terminal", "files", "config", "library_fields", "checkpoints", "ownership"),
    },
    "trl_hooks": {"errors", "files", "checkpoints", "model"},
    "arguments": {"errors", "config", "library_fields", "model"},
    "data": {"errors", "files", "config", "hub", "model", "trl_hooks"},
    "model": {"errors", "config", "hub", "run_dir"},
    "prefix_sharing": {"errors", "config", "model", "data"},
    "evaluation": {
        "errors",
        "files",
        "config",
        "hub",
        "arguments",
        "model",
        "data",
        "logps",
        "metrics",
        "run_dir",
        "terminal",
    },
    "diagnostics": {
        "errors",
        "terminal",
        "data",
        "model",
        "logps",
        "evaluation",
        "training",
        "trl_hooks",
    },
    "system_errors": {"errors", "diagnostics"},
    "report": {"files", "hub", "run_dir", "evaluation"},
    "training": {
        *("errors", "files", "cli", "system_errors", "loss", "prefix_sharing", "hub", "report"),
        *("config", "run_dir", "arguments", "model", "data", "evaluation", "diagnostics"),
        *("logps", "trl_hooks", "ownership", "terminal"),
    },
    "merge_adapter": {
        *("errors", "terminal", "files", "config", "hub", "model", "logps", "run_dir", "report"),
    },
}
COMMANDS = {"train", "eval", "merge", "judge", "suspects"}


def imported(path):
    """Every module that a source file imports, wherever in it, as dotted names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            if path.parent.name == "metrics" and node.level == 1:
                continue  # evaluate copies a metric with what it imports by a relative name
            assert node.level == 0, f"{path}: imports are written in full"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def room(path):
    """The module or package that a file belongs to: `data_tools/readers/text.py` to `readers`."""
    return path.relative_to(ROOT).with_suffix("").parts[1]


def test_every_module_of_data_tools_is_in_one_layer():
    names = [name for layer in LAYERS for name in layer]
    assert sorted(names) == sorted({room(path) for path in SOURCES} - {"__init__"})


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_of_data_tools_imports_only_the_layers_above_its_line(path):
    here, above = room(path), set()
    for layer in LAYERS:
        if here in layer:
            break
        above |= layer
    known = {name.split(".")[1] for name in imported(path) if name.startswith("data_tools.")}
    known -= {"__version__"}
    assert known <= above | {here}
    if here in ("keys", "column_kinds"):
        assert not known


@pytest.mark.parametrize("sources", [SOURCES, WRAPPER], ids=PACKAGES)
def test_no_two_modules_of_a_package_have_one_name(sources):
    names = [path.stem for path in sources if not path.stem.startswith("__")]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("sources", [SOURCES, WRAPPER], ids=PACKAGES)
def test_no_file_is_longer_than_350_lines(sources):
    lengths = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in sources}
    assert {name: count for name, count in lengths.items() if count > 350} == {}


@pytest.mark.parametrize("sources", [SOURCES, WRAPPER], ids=PACKAGES)
def test_no_dataclass_has_more_than_ten_fields(sources):
    found = {}
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and "dataclass" in map(_name, node.decorator_list):
                found[node.name] = sum(isinstance(line, ast.AnnAssign) for line in node.body)
    assert len(found) > 10
    many = {name: count for name, count in found.items() if count > 10}
    # Settings has a field for each key of the wrapper, Terms one for each input of a loss.
    assert many.keys() <= {"Settings", "Terms"}, many


def _name(decorator):
    return getattr(getattr(decorator, "func", decorator), "id", "")


def test_every_room_of_dpo_wrap_has_its_line():
    assert {room(path) for path in WRAPPER} == {*WRAPPER_MAY_KNOW, *COMMANDS, "__init__"}


@pytest.mark.parametrize("path", WRAPPER, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_of_dpo_wrap_knows_only_the_rooms_below_it(path):
    here = room(path)
    known = {name.split(".")[1] for name in imported(path) if name.startswith("dpo_wrap.")}
    allowed = {*WRAPPER_MAY_KNOW.get(here, ()), "__version__"}
    if here == "__init__" or here in COMMANDS:
        allowed |= {*WRAPPER_MAY_KNOW, *COMMANDS}
    assert known <= {*allowed, here}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_data_tools_imports_the_standard_library_and_little_else(path):
    tops = {name.split(".")[0] for name in imported(path)} - {"data_tools"}
    foreign = tops - sys.stdlib_module_names
    assert foreign <= {name for name, rooms in OUTSIDE.items() if room(path) in rooms.split()}


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
    heavy |= {"dask", "distributed", "openpyxl"}
    assert not heavy & loaded_by("import data_tools.convert")


@pytest.mark.parametrize("to", ["arrow", "jsonl"])
def test_converting_loads_nothing_of_models_and_no_pandas(tmp_path, to):
    (tmp_path / "raw.csv").write_text("prompt,chosen,rejected\nP,C,R\n")
    (tmp_path / "more.jsonl").write_text('{"prompt": "Q", "chosen": "C", "rejected": "R"}\n')
    inputs = [str(tmp_path / name) for name in ("raw.csv", "more.jsonl")]
    arguments = [*inputs, "-o", str(tmp_path / "out"), "--json", "--to", to]
    code = (
        "import contextlib, io\nfrom data_tools.convert import main\n"
        f"with contextlib.redirect_stdout(io.StringIO()):\n    assert main({arguments!r}) == 0"
    )
    loaded = loaded_by(code)
    assert "pyarrow" in loaded
    assert not {"datasets", "torch", "transformers", "trl", "pandas", "dpo_wrap"} & loaded


def test_the_definition_of_the_loss_knows_only_torch():
    tops = {name.split(".")[0] for name in imported(ROOT / "dpo_wrap/loss.py")}
    assert tops - sys.stdlib_module_names == {"torch"}


def test_one_file_of_dpo_wrap_is_the_bridge_to_data_tools():
    bridges = [
        str(path.relative_to(ROOT))
        for path in sorted(ROOT.glob("dpo_wrap/**/*.py"))
        if any(name.split(".")[0] == "data_tools" for name in imported(path))
    ]
    assert bridges == ["dpo_wrap/data/splits.py"]
