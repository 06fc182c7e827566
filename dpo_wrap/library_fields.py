"""The keyword arguments of trl.DPOConfig and peft.LoraConfig, and the YAML values they accept.

Names, types and defaults are parsed from the installed sources: importing trl takes seconds,
parsing a tenth of one, and an option of a new release needs no change here.
"""

import ast
import difflib
import importlib.util
import math
import re
import types
import typing
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from dpo_wrap.errors import DpoWrapError

# (package, file, class); a class overrides the fields of those before it.
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
ENUM_FILES = (("transformers", "training_args.py"), ("transformers", "trainer_utils.py"))
TRAINER = ("trl", "trainer/dpo_trainer.py")

UNKNOWN_DEFAULT = object()
"""The default of a field whose source is not a literal."""

# The names that an annotation is evaluated with.
TYPES = {
    **{kind.__name__: kind for kind in (int, float, bool, str, list, tuple, dict)},
    **{name: getattr(typing, name) for name in ("Any", "Literal", "Optional", "Union")},
}
EXPECTED = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
}
# YAML 1.1 reads these words as booleans.
BOOLEAN_WORDS = {False: ("no", "off"), True: ("on", "yes")}
MAX_SHOWN = 80
"""Characters of a value that a message shows."""


@dataclass(frozen=True)
class Field:
    """One keyword argument."""

    type: Any
    """A type hint, such as `int | None`, `list[str]` or `Literal["no", "steps", "epoch"]`."""
    default: Any


@dataclass(frozen=True)
class Range:
    """The numbers that a key accepts: at least `ge`, above `gt`, at most `le`, below `lt`."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    also: float | None = None
    """A value outside the range that has a meaning of its own."""

    def __contains__(self, number: float) -> bool:
        return number == self.also or (
            (self.ge is None or number >= self.ge)
            and (self.gt is None or number > self.gt)
            and (self.le is None or number <= self.le)
            and (self.lt is None or number < self.lt)
        )

    def __str__(self) -> str:
        ends = {"at least": self.ge, "above": self.gt, "at most": self.le, "below": self.lt}
        text = " and ".join(f"{word} {end:.12g}" for word, end in ends.items() if end is not None)
        return text if self.also is None else f"{text} or {self.also:g}"


@cache
def trl_fields() -> dict[str, Field]:
    """Every field of trl.DPOConfig by name."""
    fields = _fields(TRL_CLASSES)
    losses, divergences = _compared_words("loss_type"), _compared_words("f_divergence_type")
    return fields | {
        "loss_type": replace(fields["loss_type"], type=losses | list[losses]),
        "f_divergence_type": replace(fields["f_divergence_type"], type=divergences),
    }


@cache
def lora_fields() -> dict[str, Field]:
    """Every field of peft.LoraConfig by name."""
    return _fields(LORA_CLASSES)


def convert(value: Any, hint: Any) -> Any:
    """Return a YAML value as the type hint accepts it. Raises ValueError with what is wrong.

    A boolean becomes the word (`no`, `on`) that it was written as where the hint lists that word.
    """
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    alternatives = typing.get_args(hint) if is_union else (hint,)
    kinds = {typing.get_origin(one) or one for one in alternatives}
    listed = [w for one in alternatives if typing.get_origin(one) is Literal for w in one.__args__]
    words = [word for word in listed if isinstance(word, str)]
    expected = f"{_expected(kinds, words)} expected, found {_found(value)}"
    if Any in kinds or (value is None and types.NoneType in kinds):
        return value
    if isinstance(value, bool):
        if bool in kinds or any(value is one for one in listed):
            return value
        meant = next((word for word in BOOLEAN_WORDS[value] if word in words), None)
        if meant is None:
            quotes = "; put the word in quotes" if str in kinds and not words else ""
            raise ValueError(expected + quotes)
        return meant
    if isinstance(value, int | float) and kinds & {int, float}:
        return _number(value, kinds, expected)
    if isinstance(value, str) and words:
        if value not in words:
            raise ValueError(f"{unknown(value, words)} known: {', '.join(words)}")
        return value
    if isinstance(value, str) and str in kinds:
        return value
    if isinstance(value, list) and kinds & {list, tuple}:
        inner = next(
            one for one in alternatives if (typing.get_origin(one) or one) in (list, tuple)
        )
        element = (typing.get_args(inner) or (Any,))[0]
        return [convert(item, element) for item in value]
    if isinstance(value, dict) and dict in kinds:
        return value
    if isinstance(value, str) and kinds & {int, float} and _is_number(value):
        raise ValueError(f"{expected}; remove the quotes")
    if isinstance(value, int | float) and str in kinds and not words:
        raise ValueError(f"{expected}; put it in quotes")
    raise ValueError(expected)


def unknown(word: str, known: Collection[str]) -> str:
    """`'cosin' is unknown; did you mean 'cosine'?`, or `'zzz' is unknown;` without a near name."""
    near = nearest(word, known)
    return f"{shorten(word)} is unknown;" + (f" did you mean {near!r}?" if near else "")


def nearest(word: str, known: Collection[str]) -> str | None:
    """The known name most like the word, ignoring case, or None.

    Every word of `word` must be like one of the name's, or all letters like all of the name's.
    """
    words, best = _words(word), (math.inf, 0.0, None)
    for name in known if words else ():
        others = _words(name)
        if (ratio := _ratio("".join(words), "".join(others))) >= 0.9:
            best = min(best, (0, -ratio, name), key=lambda found: found[:2])
            continue
        extra = len(others) - len(words)
        # The more words the name has, the more some of them are like others by chance.
        least = 0.75 if extra <= 0 else 0.85
        if extra <= 2 and all(any(_is_typo(one, n, least) for n in others) for one in words):
            ratio = sum(max(_ratio(one, other) for other in others) for one in words) / len(words)
            best = min(best, (extra, -ratio, name), key=lambda found: found[:2])
    return best[2]


def _is_typo(one: str, other: str, least: float) -> bool:
    """Whether one word is the other with a letter wrong or letters swapped, or begins it."""
    shorter, longer = sorted((one, other), key=len)
    begins = len(shorter) >= 3 and longer.startswith(shorter)
    return begins or sorted(one) == sorted(other) or _ratio(one, other) >= least


def _words(name: str) -> list[str]:
    return re.findall("[a-z0-9]+", name.lower())


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def shorten(value: Any) -> str:
    """The repr of a value, cut after MAX_SHOWN characters."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _number(value: int | float, kinds: set[Any], expected: str) -> int | float:
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError(f"{shorten(value)} is out of range; it must be below 2**63")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"a finite number expected, found {value}")
    if isinstance(value, float) and float not in kinds:
        raise ValueError(expected)
    return value


def _is_number(text: str) -> bool:
    try:
        # Python reads 1_000 as a number, YAML 1.2 does not.
        return math.isfinite(float(text)) and "_" not in text
    except ValueError:
        return False


def _expected(kinds: set[Any], words: list[str]) -> str:
    if words:
        return f"one of {', '.join(words)}"
    shown = kinds - ({int} if float in kinds else set())
    return " or ".join(text for kind, text in EXPECTED.items() if kind in shown)


def _found(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | dict):
        return EXPECTED[type(value)]
    return f"the text {shorten(value)}" if isinstance(value, str) else shorten(value)


def _fields(classes: tuple[tuple[str, str, str], ...]) -> dict[str, Field]:
    fields = {}
    for package, file, name in classes:
        body = _class_body(package, file, name)
        if not body:
            raise DpoWrapError(
                f"{package}/{file} has no class {name}: this version does not work with the "
                f"installed {package}; run pip install -r requirements.txt"
            )
        for line in body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                fields[line.target.id] = _field(line)
    return fields


def _field(line: ast.AnnAssign) -> Field:
    hint = _hint(line.annotation)
    if not isinstance(line.value, ast.Call):
        return Field(hint, _literal(line.value))
    arguments = {word.arg: word.value for word in line.value.keywords}
    if isinstance(metadata := arguments.get("metadata"), ast.Dict):
        entries = zip(map(_literal, metadata.keys), map(_literal, metadata.values), strict=True)
        choices = dict(entries).get("choices", UNKNOWN_DEFAULT)
        hint = hint if choices is UNKNOWN_DEFAULT else Literal[*choices] | hint
    factory = arguments.get("default_factory")
    if isinstance(factory, ast.Lambda):
        return Field(hint, _literal(factory.body))
    if isinstance(factory, ast.Name) and factory.id in ("list", "dict"):
        return Field(hint, [] if factory.id == "list" else {})
    return Field(hint, _literal(arguments.get("default")))


def _hint(annotation: ast.expr) -> Any:
    """Evaluate an annotation, with the words of an enumeration and a mapping for another class."""
    names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    classes = {name: _enum(name) for name in names - TYPES.keys()}
    return eval(ast.unparse(annotation), {**TYPES, **classes})


@cache
def _enum(name: str) -> Any:
    """The Literal of the words of one of transformers' enumerations; dict for another class."""
    for package, file in ENUM_FILES:
        lines = [line for line in _class_body(package, file, name) if isinstance(line, ast.Assign)]
        if lines:
            return Literal[*(_literal(line.value) for line in lines)]
    return dict


def _compared_words(name: str) -> Any:
    """The Literal of the words that DPOTrainer compares an option with; str if none is found."""
    words = re.findall(rf'\b{name} == "(\w+)"', source(*TRAINER))
    return Literal[*dict.fromkeys(words)] if words else str


def _class_body(package: str, file: str, name: str) -> list[ast.stmt]:
    classes = (node for node in _tree(package, file).body if isinstance(node, ast.ClassDef))
    return next((node.body for node in classes if node.name == name), [])


def _literal(node: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        return UNKNOWN_DEFAULT


@cache
def _tree(package: str, file: str) -> ast.Module:
    return ast.parse(source(package, file))


def source(package: str, file: str) -> str:
    """The text of a file of an installed package, without importing the package."""
    spec = importlib.util.find_spec(package)
    path = Path(spec.submodule_search_locations[0], file) if spec else None
    if path is None or not path.is_file():
        raise DpoWrapError(f"{package} has no {file}; run pip install -r requirements.txt")
    return path.read_text("utf-8")
