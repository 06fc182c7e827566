"""trl_hooks: the list of private names is complete, and the names exist."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

from dpo_wrap.trl_hooks import PRIVATE_NAMES, PreparedTrainer

ROOT = Path(__file__).parents[1]
SOURCES = sorted(ROOT.glob("dpo_wrap/**/*.py"))
NAMES = [(owner, name) for owner, names in PRIVATE_NAMES.items() for name in names]
LISTED = {name for _, name in NAMES}
# os._exit, atexit._run_exitfuncs, argparse's _actions and torch's Tensor._version.
OTHERS = {"_exit", "_run_exitfuncs", "_actions", "_version"}
PRIVATE = re.compile(r"_[A-Za-z]\w*")


def found(owner):
    """The module, or the class in it, of a dotted name."""
    try:
        return importlib.import_module(owner)
    except ModuleNotFoundError:
        module, _, name = owner.rpartition(".")
        return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(("owner", "name"), NAMES, ids=[name for _, name in NAMES])
def test_a_listed_name_exists_and_its_test_does(owner, name):
    at = found(owner)
    # Attributes that a constructor sets are not on the class.
    assert hasattr(at, name) or f"self.{name} =" in inspect.getsource(at)
    assert any(ROOT.glob(f"tests/{PRIVATE_NAMES[owner][name].split(': ')[-1]}*.py"))


def test_every_private_method_that_the_trainer_overrides_is_listed():
    base = {name for parent in PreparedTrainer.__mro__[1:] for name in vars(parent)}
    overridden = {n for n in vars(PreparedTrainer) if PRIVATE.fullmatch(n) and n in base}
    assert len(overridden) > 3 and overridden <= LISTED


def private_uses(tree):
    """Private names in a source that belong to other objects than self and cls."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Attribute):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            names = [] if own else [node.attr]
        elif isinstance(node, ast.keyword):
            names = [node.arg or ""]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith("attr"):
            names = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        elif isinstance(node, ast.Constant) and not str(node.value).islower():
            names = [node.value]  # of a class or a constant that is looked up by its name
        elif isinstance(node, ast.ImportFrom) and not node.module.startswith("dpo_wrap"):
            names = [alias.name for alias in node.names]
        yield from (name for name in names if PRIVATE.fullmatch(str(name)))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_private_name_is_used_that_is_not_listed(path):
    tree = ast.parse(path.read_text("utf-8"))
    own = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    assert set(private_uses(tree)) - own <= LISTED | OTHERS
