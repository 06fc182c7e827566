"""What trl, transformers and peft accept, read from their installed sources and never imported.

Importing trl takes seconds, parsing these files a tenth of one; so a wrong config is refused at
once, and a field that a new release adds is known the day that release is installed.
"""

import ast
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dpo_wrap.errors import DpoWrapError

# (package, file, class), each class overriding the fields of those before it.
TRL_CLASSES = (
    ("transformers", "training_args.py", "TrainingArguments"),
    ("trl", "trainer/base_config.py", "_BaseConfig"),
    ("trl", "trainer/dpo_config.py", "DPOConfig"),
)
LORA_CLASSES = (
    ("peft", "config.py", "PeftConfigMixin"),
    ("peft", "config.py", "PeftConfig"),
    ("peft", "tuners/lora/config.py", "LoraConfig"),
)
ACCELERATOR = ("transformers", "trainer_pt_utils.py", "AcceleratorConfig")
# Where the classes named in annotations are looked up: (package, file).
ENUM_FILES = (("transformers", "training_args.py"), ("transformers", "trainer_utils.py"))
TRAINER = ("trl", "trainer/dpo_trainer.py")

UNKNOWN_DEFAULT = object()
"""The default of a field whose source is no literal."""

PLAIN = {"int": "int", "float": "float", "bool": "bool", "str": "str", "None": "null"}
HOLDERS = {"list": "list", "List": "list", "tuple": "list", "dict": "dict", "Dict": "dict"}


@dataclass(frozen=True)
class Kind:
    """The YAML values that an annotation admits."""

    names: frozenset[str]
    """Of int, float, bool, str, null, list, dict, any."""
    element: "Kind | None" = None
    """What a list holds, where the annotation says so."""
    choices: tuple[str, ...] = ()
    """The only words allowed, as patterns; empty where any text is."""


@dataclass(frozen=True)
class Field:
    """One keyword argument of DPOConfig or LoraConfig."""

    name: str
    kind: Kind
    default: Any


@cache
def trl_fields() -> dict[str, Field]:
    """Every field of trl.DPOConfig by name."""
    fields = _fields(TRL_CLASSES)
    # Not written in the annotations: the trainer itself lists the words that it compares with, and
    # DPOConfig turns a single loss into a list of one.
    losses = Kind(frozenset({"str"}), choices=tuple(loss_branches()))
    divergences = tuple(dict.fromkeys(_compared_words("f_divergence_type")))
    return fields | {
        "loss_type": Field(
            "loss_type",
            Kind(frozenset({"str", "list"}), losses, losses.choices),
            fields["loss_type"].default,
        ),
        "f_divergence_type": Field(
            "f_divergence_type",
            Kind(frozenset({"str"}), choices=divergences),
            fields["f_divergence_type"].default,
        ),
    }


@cache
def lora_fields() -> dict[str, Field]:
    """Every field of peft.LoraConfig by name."""
    return _fields(LORA_CLASSES)


@cache
def inner_fields(name: str) -> dict[str, Field]:
    """The fields of the dataclass that a key's mapping is made into; none where it is no such."""
    where = [ACCELERATOR] if name == "accelerator_config" else []
    if name.startswith("lora."):
        line = next(n for n in _lines(LORA_CLASSES) if n.target.id == name.removeprefix("lora."))
        words = [part.id for part in ast.walk(line.annotation) if isinstance(part, ast.Name)]
        where = [(*LORA_CLASSES[-1][:2], word) for word in words if word.endswith("Config")]
    return _fields(tuple(where))


def class_fields(package: str, file: str, name: str) -> tuple[dict[str, Field], dict[str, str]]:
    """The fields of a dataclass by name, and the strings that stand under them."""
    body = _class(tree(package, file), name).body
    meanings = {
        above.target.id: " ".join(below.value.value.split())
        for above, below in zip(body, body[1:], strict=False)
        if isinstance(above, ast.AnnAssign)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
    }
    return _fields(((package, file, name),)), meanings


@cache
def loss_branches() -> dict[str, list[ast.stmt]]:
    """Each loss of DPOTrainer, in the trainer's order, with the lines that compute it."""
    return {
        word: node.body
        for node in ast.walk(tree(*TRAINER))
        if isinstance(node, ast.If)
        for word in _words_compared(node.test, "loss_type")
    }


@cache
def logged_figures() -> tuple[str, ...]:
    """The names that an evaluation logs its figures by, less their `eval_`."""
    stored = (
        literal(node.slice)
        for node in ast.walk(tree(*TRAINER))
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Subscript)
    )
    speed = ("runtime", "samples_per_second", "steps_per_second")
    return ("loss", *dict.fromkeys(name for name in stored if isinstance(name, str)), *speed)


def _fields(classes: tuple[tuple[str, str, str], ...]) -> dict[str, Field]:
    return {line.target.id: _field(line) for line in _lines(classes)}


def _lines(classes: tuple[tuple[str, str, str], ...]) -> Iterator[ast.AnnAssign]:
    """The lines that declare the classes' fields."""
    for package, file, name in classes:
        body = _class(tree(package, file), name)
        if body is None:
            raise DpoWrapError(
                f"{package}/{file} has no class {name}: this version does not work with the "
                f"installed {package}; run pip install -r requirements.txt"
            )
        for line in body.body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                yield line


def _field(line: ast.AnnAssign) -> Field:
    kind, default = _kind(line.annotation), literal(line.value)
    if isinstance(line.value, ast.Call):
        arguments = {word.arg: word.value for word in line.value.keywords}
        default = _default(arguments)
        metadata = _metadata(arguments["metadata"]) if "metadata" in arguments else {}
        if "choices" in metadata:
            kind = Kind(kind.names, kind.element, tuple(metadata["choices"]))
        if "const" in metadata:
            # A flag that the command line may give without a value, so true is one of its values.
            kind = Kind(kind.names | {"bool"}, kind.element, kind.choices)
    return Field(line.target.id, kind, default)


def _default(arguments: dict[str, ast.expr]) -> Any:
    if "default" in arguments:
        return literal(arguments["default"])
    factory = arguments.get("default_factory")
    if isinstance(factory, ast.Lambda):
        return literal(factory.body)
    if isinstance(factory, ast.Name) and factory.id in ("list", "dict"):
        return [] if factory.id == "list" else {}
    return UNKNOWN_DEFAULT


def _metadata(node: ast.expr) -> dict[str, Any]:
    """The literal entries of a field's metadata; those that are code are left out."""
    if not isinstance(node, ast.Dict):
        return {}
    pairs = zip(map(literal, node.keys), map(literal, node.values), strict=True)
    return {key: value for key, value in pairs if value is not UNKNOWN_DEFAULT}


def _kind(node: ast.expr) -> Kind:
    """What an annotation admits; `any` where its class is none that YAML can spell."""
    if isinstance(node, ast.Constant) and node.value is None:
        return Kind(frozenset({"null"}))
    if isinstance(node, ast.BinOp):
        return _union([_kind(node.left), _kind(node.right)])
    if isinstance(node, ast.Name):
        if node.id in PLAIN:
            return Kind(frozenset({PLAIN[node.id]}))
        if node.id in HOLDERS:
            return Kind(frozenset({HOLDERS[node.id]}))
        words = tuple(enum_words(node.id).values())
        return Kind(frozenset({"str"}), choices=words) if words else Kind(frozenset({"any"}))
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if node.value.id == "Optional":
            return _union([_kind(inner[0]), Kind(frozenset({"null"}))])
        if node.value.id == "Union":
            return _union([_kind(part) for part in inner])
        if node.value.id == "Literal":
            return _literal_kind([literal(part) for part in inner])
        if node.value.id in HOLDERS:
            element = _kind(inner[0]) if HOLDERS[node.value.id] == "list" else None
            return Kind(frozenset({HOLDERS[node.value.id]}), element)
    return Kind(frozenset({"any"}))


def _literal_kind(values: list[Any]) -> Kind:
    if not all(isinstance(value, str) for value in values):
        return Kind(frozenset({"bool"}))
    # peft writes "pissa_niter_[number of iters]".
    return Kind(frozenset({"str"}), choices=tuple(re.sub(r"\[.*\]", "*", v) for v in values))


def _union(kinds: list[Kind]) -> Kind:
    names = frozenset().union(*(kind.names for kind in kinds))
    element = next((kind.element for kind in kinds if kind.element), None)
    choices = next((kind.choices for kind in kinds if kind.choices), ())
    return Kind(names, element, choices)


@cache
def enum_words(name: str) -> dict[str, str]:
    """The words of one of transformers' enumerations by their members' names."""
    for package, file in ENUM_FILES:
        if body := _class(tree(package, file), name):
            lines = (line for line in body.body if isinstance(line, ast.Assign))
            return {line.targets[0].id: literal(line.value) for line in lines}
    return {}


def _compared_words(name: str) -> Iterator[str]:
    for node in ast.walk(tree(*TRAINER)):
        yield from _words_compared(node, name)


def _words_compared(node: ast.AST, name: str) -> Iterator[str]:
    """The word in `name == "word"` or `self.name == "word"`."""
    if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq):
        left = node.left
        spelled = left.attr if isinstance(left, ast.Attribute) else getattr(left, "id", "")
        if spelled == name and isinstance(word := literal(node.comparators[0]), str):
            yield word


def _class(tree: ast.Module, name: str) -> ast.ClassDef | None:
    return next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name), None)


def literal(node: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        return UNKNOWN_DEFAULT


@cache
def tree(package: str, file: str) -> ast.Module:
    spec = importlib.util.find_spec(package)
    path = Path(spec.submodule_search_locations[0], file) if spec else None
    if path is None or not path.is_file():
        raise DpoWrapError(f"{package} has no {file}; run pip install -r requirements.txt")
    return ast.parse(path.read_text("utf-8"))
