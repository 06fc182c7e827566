"""A YAML config as entries that know their line, so that a fault is shown where it stands."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dpo_wrap.errors import ConfigError

INT, FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
MAPPING = "tag:yaml.org,2002:map"


@dataclass(frozen=True)
class Entry:
    """One key as the user wrote it, `lora.r` for a key in a group."""

    key: str
    value: Any
    place: str
    """`configs/x.yaml:3`, or `--set beta=1`."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with an entry, and the mend."""

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


class _Loader(yaml.SafeLoader):
    """Safe YAML with the numbers of YAML 1.2: PyYAML's own rules read 1e-6 as text and 010 as 8."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in rules if tag not in (INT, FLOAT)]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(INT, re.compile(r"[-+]?[0-9]+\Z"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    FLOAT,
    re.compile(
        r"(?:[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
    ),
    list("-+.0123456789"),
)
_Loader.add_constructor(INT, lambda loader, node: int(loader.construct_scalar(node)))


def _refuse_tag(loader: yaml.SafeLoader, node: yaml.Node) -> None:
    tag = node.tag.replace("tag:yaml.org,2002:", "!!")
    problem = f"the tag {tag} is refused; text, numbers, lists and mappings alone are read"
    raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)


# Everything that SafeLoader has no constructor for, and of what it has those that are no JSON.
for _tag in (None, *(f"tag:yaml.org,2002:{name}" for name in ("binary", "set", "omap", "pairs"))):
    _Loader.add_constructor(_tag, _refuse_tag)


def read_file(path: str, groups: Iterable[str]) -> tuple[list[Entry], list[Fault]]:
    """The entries of a config file, those of the named groups one by one, and faults of its form.

    Raises ConfigError where there is no mapping to read at all.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
        loader = _Loader(text)
        root = loader.get_single_node()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: a directory, not a config file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{_where(path, error)}: not valid YAML: {_problem(error)}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply to be read") from None
    if root is None:
        raise ConfigError(f"{path}: empty; write at least model_path, dataset_path and output_dir")
    if not isinstance(root, yaml.MappingNode) or root.tag != MAPPING:
        raise ConfigError(f"{path}: not a mapping; write lines of `key: value`")
    entries, faults = [], _duplicates(root, path)
    for key_node, node in root.value:
        key = _text(key_node)
        if key in groups and node.tag == MAPPING and node.value:
            found = [(f"{key}.{_text(inner)}", inner, below) for inner, below in node.value]
        else:
            found = [(key, key_node, node)]
        for name, name_node, value_node in found:
            place = _line(path, name_node)
            try:
                entries.append(Entry(name, loader.construct_object(value_node, deep=True), place))
            except (yaml.YAMLError, ValueError, RecursionError) as error:
                faults.append(Fault(place, f"{name} cannot be read: {_problem(error)}"))
    return entries, faults


def read_override(text: str) -> Entry:
    """`KEY=VALUE` as an entry, the value read as YAML; raises ConfigError where it is none."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError("KEY=VALUE expected")
    try:
        root = _Loader(value).get_single_node()
        if root is not None and (faults := _duplicates(root, "")):
            raise ConfigError(faults[0].text.partition(",")[0])
        return Entry(key.strip(), yaml.load(value, Loader=_Loader), override_place(text))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"the value is not valid YAML: {_problem(error)}") from None


def override_place(text: str) -> str:
    """How an override is named in notes and messages, which must not hold anybody's token."""
    return f"--set {text.partition('=')[0] if 'token' in text.lower() else text}"


def _duplicates(node: yaml.Node, path: str) -> list[Fault]:
    """Keys that stand twice in one mapping, at any depth; PyYAML would keep the last, silently."""
    faults, seen, waiting = [], set(), [node]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            first = {}
            for key_node, below in node.value:
                waiting.append(below)
                key = _text(key_node)
                if key in first:
                    text = f"key {key!r} stands twice, first in line {first[key]}; remove one"
                    faults.append(Fault(_line(path, key_node), text))
                first.setdefault(key, key_node.start_mark.line + 1)
    return faults


def _text(node: yaml.Node) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else "a key that is no text"


def _line(path: str, node: yaml.Node) -> str:
    return f"{path}:{node.start_mark.line + 1}"


def _where(path: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return f"{path}:{mark.line + 1}" if mark else path


def _problem(error: Exception) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return " ".join(str(problem).split())
