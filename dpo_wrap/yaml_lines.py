"""A YAML file as entries that know their line, so that an error can name it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dpo_wrap.errors import ConfigError
from dpo_wrap.terminal import SECRET_NAME

INT, FLOAT, DATE, MAPPING = (
    f"tag:yaml.org,2002:{name}" for name in ("int", "float", "timestamp", "map")
)
MOST_NODES = 10_000
"""Values of a config; aliases of aliases may stand for any number of them."""
GROUP = "lora"
"""The key whose mapping is read as entries of its own, `lora.r`."""


@dataclass(frozen=True)
class Entry:
    """One key as the user wrote it, `lora.r` for a key in the group."""

    key: str
    value: Any
    place: str
    """`configs/x.yaml:3`, or `--set beta=1`."""
    order: int
    """The line, or a number after all lines for `--set`; errors are shown in this order."""


class _Loader(yaml.SafeLoader):
    """Safe YAML with the scalars of YAML 1.2: PyYAML reads 1e-6 as text, 010 as 8, and dates."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in rules if tag not in (INT, FLOAT, DATE)]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


NUMBER = r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
NOT_FINITE = r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
_Loader.add_implicit_resolver(INT, re.compile(r"[-+]?[0-9]+\Z"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    FLOAT, re.compile(rf"(?:{NUMBER}|{NOT_FINITE})\Z"), list("-+.0123456789")
)
_Loader.add_constructor(INT, lambda loader, node: int(loader.construct_scalar(node)))


def _reject_tag(loader: yaml.SafeLoader, node: yaml.Node) -> None:
    tag = node.tag.replace("tag:yaml.org,2002:", "!!")
    problem = f"the tag {tag} is not supported; write text, a number, a list or a mapping"
    raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)


# Every tag that SafeLoader does not know, and those of its own that JSON has no equivalent of.
for _tag in (
    *(None, DATE),
    *(f"tag:yaml.org,2002:{name}" for name in ("binary", "set", "omap", "pairs")),
):
    _Loader.add_constructor(_tag, _reject_tag)


def read_file(path: str) -> tuple[list[Entry], list[tuple[int, str]]]:
    """The entries of a config file, and (line, message) for each key that cannot be read.

    Raises ConfigError for a file that is not a mapping.
    """
    try:
        loader = _Loader(Path(path).read_bytes().decode("utf-8-sig"))
        root = loader.get_single_node()
        size = 0 if root is None else _size(root, {})
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give the path of a YAML file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else path
        raise ConfigError(f"{place}: not valid YAML: {_problem(error)}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply to be read") from None
    if root is None:
        raise ConfigError(f"{path}: empty; write at least model_path, dataset_path and output_dir")
    if size > MOST_NODES:
        raise ConfigError(f"{path}: its aliases (*name) expand to too much; write the values out")
    if not _is_mapping(root):
        raise ConfigError(f"{path}: not a mapping; write lines of `key: value`")
    entries = []
    errors = [(line, f"{path}:{line}: {text}") for line, text in _duplicates(root)]
    for name, key_node, value_node in _flatten(root):
        line = key_node.start_mark.line + 1
        try:
            value = loader.construct_object(value_node, deep=True)
            entries.append(Entry(name, value, f"{path}:{line}", line))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            errors.append((line, f"{path}:{line}: {name}: cannot be read: {_problem(error)}"))
    return entries, errors


def read_override(text: str, order: int) -> list[Entry]:
    """The entries of `KEY=VALUE`, the value read as YAML. Raises ConfigError for anything else.

    `lora={r: 4}` is an entry `lora: true`, which replaces the file's group, and those in the group.
    """
    key, equals, value = text.partition("=")
    key, place = key.strip(), f"--set {key if SECRET_NAME.search(text) else text}"
    if not equals or not key:
        raise ConfigError(f"{place}: KEY=VALUE expected")
    try:
        loader = _Loader(value)
        root = loader.get_single_node()
        for _, problem in _duplicates(root):
            raise ConfigError(f"{place}: {problem}")
        loaded = None if root is None else loader.construct_document(root)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{place}: the value is not valid YAML: {_problem(error)}") from None
    if key != GROUP or not isinstance(loaded, dict):
        return [Entry(key, loaded, place, order)]
    inner = [Entry(f"{GROUP}.{name}", value, place, order) for name, value in loaded.items()]
    return [Entry(GROUP, True, place, order), *inner]


def _flatten(root: yaml.MappingNode) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    for key_node, value_node in root.value:
        key = _text(key_node)
        if key == GROUP and _is_mapping(value_node) and value_node.value:
            yield from ((f"{key}.{_text(inner)}", inner, node) for inner, node in value_node.value)
        else:
            yield key, key_node, value_node


def _duplicates(root: yaml.Node | None) -> Iterator[tuple[int, str]]:
    """(line, message) for each key that a mapping has twice, at any depth."""
    seen, pending = set(), [root]
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            pending += node.value
        elif isinstance(node, yaml.MappingNode):
            first = {}
            for key_node, value_node in node.value:
                pending.append(value_node)
                key, line = _text(key_node), key_node.start_mark.line + 1
                if key in first:
                    yield line, f"duplicate key {key!r}, first in line {first[key]}; remove one"
                first.setdefault(key, line)


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """The nodes below a node, those of an alias counted each time that it is used."""
    if id(node) not in sizes:
        sizes[id(node)] = 0  # of an alias within itself, which is refused elsewhere
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        inner = [part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
        sizes[id(node)] = 1 + sum(_size(part, sizes) for part in inner)
    return sizes[id(node)]


def _is_mapping(node: yaml.Node) -> bool:
    return isinstance(node, yaml.MappingNode) and node.tag == MAPPING


def _text(node: yaml.Node) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else "a key that is not text"


def _problem(error: Exception) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return " ".join(str(problem).split())
