"""YAML to Settings, with all errors of a file gathered and raised before torch is imported.

    settings = load_settings("configs/dpo_config.yaml", ["beta=0.2"])

Options of TRL and peft are checked against their installed sources (library_fields.py) and keep
their own names. What only those libraries can check is checked in arguments.py.
"""

import ast
import dataclasses
import inspect
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from dpo_wrap.config_keys import (
    CORRECTED_TYPES,
    FILES,
    FULL_NAMES,
    MAPPING_KEYS,
    PATTERNS,
    RANGES,
    SHORT_NAMES,
    UNSUPPORTED_KEYS,
    rule_errors,
    unsupported,
)
from dpo_wrap.errors import ConfigError
from dpo_wrap.files import path_problem
from dpo_wrap.library_fields import (
    Field,
    convert,
    lora_fields,
    nearest,
    trl_fields,
    unknown,
)
from dpo_wrap.other_names import REPLACED, other_loss, other_option
from dpo_wrap.ownership import CONFIG
from dpo_wrap.terminal import SECRET_NAME
from dpo_wrap.yaml_lines import Entry, read_file, read_override


@dataclass(frozen=True)
class Settings:
    """A checked config: the wrapper's own keys as fields, TRL's and peft's as keyword arguments."""

    model_path: str
    """the base model: a local directory, or the name of a model on the Hub"""
    dataset_path: tuple[str, ...]
    """the data: a converted directory, a raw file, a Hub dataset, or a list of these"""
    output_dir: str
    """where the run is written; a raw file's conversion goes to output_dir/dataset"""
    adapter_path: str | None = None
    """a LoRA adapter to continue from; its frozen copy is the reference"""
    chat_template: str | None = None
    """for conversational data: chatml, a Jinja file, or the name of a template of the tokenizer"""
    chat_template_kwargs: dict[str, Any] | None = None
    """arguments of the chat template, such as {enable_thinking: false}; a row's own come first"""
    overlength: Literal["truncate", "drop", "error"] = "truncate"
    """pairs of more than max_length tokens: cut them, drop them, or refuse the run"""
    prefix_sharing: Literal["auto", "on", "off"] = "auto"
    """one forward pass per prompt for both answers: auto where the model supports it, on, off"""
    load_in_4bit: bool = False
    """quantize the base model to 4 bits (QLoRA); needs the package bitsandbytes"""
    metrics: tuple[str, ...] = ()
    """local metric modules that eval scores sampled answers with, before and after"""
    early_stopping_patience: int | None = None
    """evaluations in a row without a better metric_for_best_model after which training ends"""
    logging_dir: str | None = None
    """TensorBoard's folder, used with report_to: tensorboard"""

    trl: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    # None with `lora: false`.
    lora: Mapping[str, Any] | None = field(default_factory=lambda: MappingProxyType({}))
    # The place of every key that is set, by full name: `configs/x.yaml:10: max_seq_length`.
    locations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    source: str = ""

    def own(self) -> dict[str, Any]:
        """The wrapper's own keys that the config sets, tuples as lists."""
        values = {name: getattr(self, name) for name in own_fields() if name in self.locations}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    def option(self, name: str) -> Any:
        """The value of an option of TRL: the config's, else TRL's default."""
        return self.trl[name] if name in self.trl else trl_fields()[name].default

    def where(self, name: str) -> str:
        """The place of a key for an error message; the config file for a key that is not set."""
        return self.locations.get(name, self.source)


def with_trust(options: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A run's options of TRL with trust_remote_code as in `own`, those of the user's own config.

    A directory that came from somewhere else must not decide that its model's code is run.
    """
    kwargs = dict(options.get("model_init_kwargs") or {})
    kwargs.pop("trust_remote_code", None)
    own_kwargs = own.get("model_init_kwargs") or {}
    trust = bool(own.get("trust_remote_code") or own_kwargs.get("trust_remote_code"))
    given = {"model_init_kwargs": kwargs} if "model_init_kwargs" in options else {}
    given |= {"trust_remote_code": True} if trust else {}
    others = {
        n: v for n, v in options.items() if n not in ("model_init_kwargs", "trust_remote_code")
    }
    return others | given


# Fields of Settings that are not keys of the config.
NOT_KEYS = {"trl", "lora", "locations", "source"}
REQUIRED = ("model_path", "dataset_path", "output_dir")
OVERRIDES, MISSING = 10**9, 2 * 10**9
"""Errors of `--set` and of missing keys are shown after those of the file's lines."""


@cache
def own_fields() -> dict[str, Field]:
    """The wrapper's own keys by name."""
    hints = typing.get_type_hints(Settings)
    hints |= dict.fromkeys(("dataset_path", "metrics"), str | list[str])
    return {
        one.name: Field(hints[one.name], one.default)
        for one in dataclasses.fields(Settings)
        if one.name not in NOT_KEYS
    }


@cache
def _all_fields() -> dict[str, Field]:
    """Every key by its full name, `lora.r` for peft's."""
    fields = {**trl_fields(), **{f"lora.{name}": one for name, one in lora_fields().items()}}
    for name, hint in CORRECTED_TYPES.items():
        fields[name] = dataclasses.replace(fields[name], type=hint)
    return {**fields, "lora": Field(bool, True), **own_fields()}


def is_key(name: str) -> bool:
    """Whether a config may have this key: a short name, TRL's, `lora.` and peft's, or our own."""
    return name in FULL_NAMES or name in _all_fields()


def load_settings(path: str, overrides: Sequence[str] = ()) -> Settings:
    """Read a config file, with each `KEY=VALUE` of overrides in place of the file's value.

    Raises ConfigError with one line per error. No library is imported for it.
    """
    entries, errors = read_file(path)
    given = _by_full_name(entries, errors)
    entries = []
    for number, text in enumerate(overrides):
        try:
            entries += read_override(text, OVERRIDES + number)
        except ConfigError as error:
            errors.append((OVERRIDES + number, str(error)))
    # Of one key set twice the last counts, as on any command line.
    replaced = _by_full_name(entries[::-1], errors)
    if "lora" in replaced:
        given = {name: entry for name, entry in given.items() if not name.startswith("lora.")}
    given |= replaced
    values = {}
    for name, entry in given.items():
        try:
            values[name] = _value(name, entry.value)
        except ValueError as error:
            text = str(error)
            if SECRET_NAME.search(name):
                text = text.partition(", found")[0]
            errors.append((entry.order, f"{entry.place}: {entry.key}: {text}"))
    defaults = {name: one.default for name, one in _all_fields().items()}
    for name, text in rule_errors(values, given, defaults):
        errors.append((given[name].order, f"{given[name].place}: {given[name].key}: {text}"))
    for name in REQUIRED:
        if name not in given:
            text = f"{path}: required key {name!r} is missing; {_meanings()[name]}"
            errors.append((MISSING, text))
    if errors:
        errors.sort(key=lambda error: error[0])
        raise ConfigError("\n".join(dict.fromkeys(text for _, text in errors)))
    settings = _settings(values, given, path)
    if Path(path).name != CONFIG:
        return settings
    own = {name: value for name, value in values.items() if name in replaced}
    return dataclasses.replace(settings, trl=MappingProxyType(with_trust(settings.trl, own)))


def _by_full_name(entries: list[Entry], errors: list[tuple[int, str]]) -> dict[str, Entry]:
    """The entries by TRL's and peft's names; adds an error for an unknown or repeated option."""
    given = {}
    for entry in entries:
        name = FULL_NAMES.get(entry.key, entry.key)
        first = given.setdefault(name, entry)
        if name not in _all_fields():
            del given[name]
            errors.append((entry.order, f"{entry.place}: {entry.key}: {_unknown(entry)}"))
        elif first.key != entry.key:
            text = f"{entry.key}: the same option as {first.key} ({first.place}); keep one"
            errors.append((entry.order, f"{entry.place}: {text}"))
    return given


def _unknown(entry: Entry) -> str:
    group, _, bare = entry.key.rpartition(".")
    names = lora_fields()
    if bare == "<<":
        return "YAML merge keys are not supported; write the keys out"
    if entry.key in REPLACED:
        return f"not a key of this command; {REPLACED[entry.key]}"
    if not group and (bare in names or bare.removeprefix("lora_") in names):
        name = bare if bare in names else bare.removeprefix("lora_")
        return f"a field of peft.LoraConfig; write {name} under lora:"
    if group == "lora" and (bare in SHORT_NAMES or bare in _all_fields()):
        return f"not a field of peft.LoraConfig; write {bare!r} at top level"
    if group == "lora":
        # `alpha` means `lora_alpha`, though other names are more similar.
        meant = (n for n in (f"lora_{bare}", bare.removeprefix("lora_")) if n in names)
        near = next(meant, nearest(bare, names))
        near = near and f"lora.{near}"
    elif isinstance(entry.value, dict):
        return "unknown key; lora: is the only group, so write its keys at top level"
    elif other := other_option(bare):
        return other
    else:
        usable = (n for n in _all_fields() if "." not in n and n not in UNSUPPORTED_KEYS)
        near = nearest(bare, [*SHORT_NAMES, *usable])
    fix = f"did you mean {near!r}?" if near else "no key has a similar name; remove it"
    return f"unknown key; {fix}"


def _value(name: str, value: Any) -> Any:
    """The value as TRL, peft or Settings takes it. Raises ValueError with what is wrong."""
    if name == "lora" and value == {}:
        return True
    if name == "lora" and not isinstance(value, bool):
        raise ValueError("a mapping of peft.LoraConfig's fields, true or false expected")
    if name == "lora.r" and value == 0:
        raise ValueError("0 is out of range; write lora: false to train full weights")
    if name == "report_to" and value is None:
        return "none"
    known = _all_fields()[name]
    if problem := unsupported(name, value, known.default):
        raise ValueError(problem)
    if name in ("dataset_path", "metrics") and isinstance(value, str):
        value = [value]
    texts = value if isinstance(value, list) else [value]
    for text in texts if name == "loss_type" else ():
        if isinstance(text, str) and (other := other_loss(text)):
            raise ValueError(f"{text!r} is not a loss of DPOTrainer; {other}")
    if name in PATTERNS:
        _check_patterns(name, value)
    value = convert(value, known.type)
    for number in _numbers(value):
        if name in RANGES and number not in RANGES[name]:
            raise ValueError(f"{number!r} is out of range; it must be {RANGES[name]}")
    if name in MAPPING_KEYS:
        for inner in value or ():
            if inner not in MAPPING_KEYS[name]:
                problem = unknown(str(inner), MAPPING_KEYS[name])
                raise ValueError(f"{problem} known: {', '.join(MAPPING_KEYS[name])}")
    if name in FILES and isinstance(value, str) and not Path(value).expanduser().is_file():
        raise ValueError(f"no file {value!r}; write a mapping, or the path of a JSON file")
    for text in texts if name in own_fields() else ():
        if isinstance(text, str) and (problem := path_problem(text)):
            raise ValueError(problem)
    blank = any(isinstance(text, str) and not text.strip() for text in texts)
    if (name in own_fields() and blank) or (value == [] and name in ("dataset_path", "loss_type")):
        raise ValueError(f"empty; {_meanings().get(name, 'name at least one loss')}")
    return value


def _check_patterns(name: str, value: Any) -> None:
    """Raise ValueError for a text that peft would match with nothing, or could not compile."""
    is_names = isinstance(value, list) and name in ("lora.target_modules", "lora.exclude_modules")
    for text in value if isinstance(value, dict | list) and not is_names else [value]:
        try:
            re.compile(text if isinstance(text, str) else "")
        except re.error as error:
            raise ValueError(f"{text!r} is not a regular expression: {error}") from None
    if name == "lora.target_modules" and isinstance(value, str):
        words = re.findall("[^ ,]+", value)
        if words == ["all"]:
            raise ValueError("'all' names no module; write all-linear")
        if not re.search(r"[^\w ,]", value):
            fix = f"write [{', '.join(words)}]" if words else "remove it"
            raise ValueError(f"text is a regular expression for a module's whole name; {fix}")


def _numbers(value: Any) -> list[int | float]:
    """The value if it is a number, else the numbers in its list or mapping."""
    inside = value.values() if isinstance(value, dict) else value
    items = inside if isinstance(value, dict | list) else [value]
    return [one for one in items if isinstance(one, int | float) and not isinstance(one, bool)]


def _settings(values: dict[str, Any], given: dict[str, Entry], path: str) -> Settings:
    own = {name: value for name, value in values.items() if name in own_fields()}
    trl = {n: value for n, value in values.items() if n in trl_fields() and n not in own}
    lora = {n.removeprefix("lora."): value for n, value in values.items() if n.startswith("lora.")}
    places = {name: f"{entry.place}: {entry.key}" for name, entry in given.items()}
    return Settings(
        **{name: tuple(v) if isinstance(v, list) else v for name, v in own.items()},
        trl=MappingProxyType(trl),
        lora=None if values.get("lora") is False else MappingProxyType(lora),
        locations=MappingProxyType(places),
        source=path,
    )


@cache
def _meanings() -> dict[str, str]:
    """The string under each field of Settings."""
    body = ast.parse(inspect.getsource(Settings)).body[0].body
    return {
        above.target.id: below.value.value
        for above, below in pairwise(body)
        if isinstance(above, ast.AnnAssign) and isinstance(below, ast.Expr)
    }


def documented_keys() -> list[tuple[str, str, str]]:
    """(key, its default and the option that it is short for, its meaning) of the wrapper's keys."""
    rows = []
    for name, own in own_fields().items():
        default = {False: "false", None: "none", (): "none"}.get(own.default, own.default)
        default = "required" if name in REQUIRED else f"default {default}"
        rows.append((name, default, _meanings()[name]))
    for name, (full, meaning) in SHORT_NAMES.items():
        owner = "peft" if full.startswith("lora.") else "TRL"
        default = f", default {_all_fields()[full].default:g}" if name != "max_seq_length" else ""
        rows.append((name, f"{owner}'s {full}{default}", meaning))
    return rows


def key_table() -> str:
    """The table of keys in the README, as Markdown."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for name, default, meaning in documented_keys():
        lines.append(f"| `{name}` | {default.removeprefix('default ')} | {meaning} |")
    return "\n".join(lines)
