"""YAML to Settings, once, with every fault of a file shown at once before torch is imported.

    settings = load_settings("configs/dpo_config.yaml", ["beta=0.2"])

TRL's and peft's options are checked against their installed sources (schema.py) and passed on under
their own names; what only those libraries can judge is judged in arguments.py.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from dpo_wrap.config_contradictions import Config, contradictions, refused
from dpo_wrap.config_keys import (
    ELSEWHERE,
    FILES,
    INNER_NAMES,
    RANGES,
    REMOVED,
    SHORT_NAMES,
    WORDS,
)
from dpo_wrap.config_relations import WITHOUT_EFFECT
from dpo_wrap.config_values import Complaint, nearest, settle
from dpo_wrap.errors import ConfigError
from dpo_wrap.library_fields import (
    Field,
    Kind,
    class_fields,
    inner_fields,
    lora_fields,
    trl_fields,
)
from dpo_wrap.yaml_lines import Entry, Fault, override_place, read_file, read_override


@dataclass(frozen=True)
class Settings:
    """One config, checked: own keys as fields, TRL's and peft's as their keyword arguments."""

    model_path: str
    """the base model: a local directory, or the name of a model on the Hub"""
    dataset_path: tuple[str, ...]
    """the data: a converted directory, a raw file, a Hub dataset, or a list of these"""
    output_dir: str
    """where the run is written; a raw file's conversion goes to output_dir/dataset"""
    adapter_path: str | None = None
    """a LoRA adapter to go on from; its frozen copy is then the reference"""
    chat_template: str | None = None
    """for conversational data and a tokenizer without a template: chatml, or a Jinja file"""
    overlength: Literal["truncate", "drop", "error"] = "truncate"
    """pairs of more than max_length tokens: cut, leave out, or refuse the run"""
    prefix_sharing: Literal["auto", "on", "off"] = "auto"
    """one forward pass per prompt for both answers: auto where it is proven, on or refuse, off"""
    load_in_4bit: bool = False
    """quantise the base model to 4 bits (QLoRA); needs the package bitsandbytes"""
    metrics: tuple[str, ...] = ()
    """local metric modules that eval scores sampled answers with, before and after"""
    early_stopping_patience: int | None = None
    """evaluations in a row without a better metric_for_best_model after which training ends"""
    logging_dir: str | None = None
    """TensorBoard's folder, used with report_to: tensorboard"""

    trl: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    lora: Mapping[str, Any] | None = field(default_factory=lambda: MappingProxyType({}))
    locations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    source: str = ""

    def own(self) -> dict[str, Any]:
        """The wrapper's own keys that the config gave, tuples as lists."""
        values = {name: getattr(self, name) for name in own_fields()[0] if name in self.locations}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    def option(self, name: str) -> Any:
        """TRL's option of that name: as the config gives it, else TRL's own default."""
        return self.trl[name] if name in self.trl else trl_fields()[name].default

    def where(self, name: str) -> str:
        """Where a key was given (`configs/x.yaml:10: max_seq_length`), for later faults."""
        return self.locations.get(name, self.source)


# Fields of Settings that are no keys of the config.
NOT_KEYS = {"trl", "lora", "locations", "source"}
REQUIRED = ("model_path", "dataset_path", "output_dir")


@cache
def own_fields() -> tuple[dict[str, Field], dict[str, str]]:
    """The wrapper's own keys by name, as Settings types them, and their meanings."""
    fields, meanings = class_fields("dpo_wrap", "config.py", "Settings")
    return {n: f for n, f in fields.items() if n not in NOT_KEYS}, meanings


@cache
def _every_field() -> dict[str, Field]:
    """Every key by its full name, `lora.r` for peft's."""
    adapter = {f"lora.{name}": field for name, field in lora_fields().items()}
    return {**trl_fields(), **adapter, **own_fields()[0]}


def load_settings(path: str, overrides: Sequence[str] = ()) -> Settings:
    """The config file with each `KEY=VALUE` of overrides put over it.

    Raises ConfigError, whose message has one line per fault; no library is imported for it.
    """
    entries, faults = read_file(path, groups=("lora",))
    given, more = _resolve(entries)
    faults += more
    entries = []
    for text in overrides:
        try:
            entries += _opened(read_override(text))
        except ConfigError as error:
            faults.append(Fault(override_place(text), str(error)))
    # Of one key set twice the last counts, as on any command line.
    replaced, more = _resolve(entries[::-1])
    faults += more
    if "lora" in replaced:
        given = {name: entry for name, entry in given.items() if not name.startswith("lora.")}
    given |= replaced
    values = {}
    for name, entry in given.items():
        try:
            values[name] = _value(name, entry.value)
        except Complaint as complaint:
            faults.append(Fault(entry.place, f"{entry.key}: {complaint}"))
    faults += contradictions(Config(values, given, _every_field()))
    faults += [
        Fault(path, f"required key {name!r} is missing; {own_fields()[1][name]}")
        for name in REQUIRED
        if name not in given
    ]
    if faults:
        lines = map(str, _in_order(faults, overrides))
        raise ConfigError("\n".join(dict.fromkeys(lines)))
    return _settings(values, given, path)


def _resolve(entries: list[Entry]) -> tuple[dict[str, Entry], list[Fault]]:
    """Entries by their option's full name, and a fault for each that has none or came twice."""
    given, faults = {}, []
    for entry in entries:
        name = SHORT_NAMES[entry.key][0] if entry.key in SHORT_NAMES else entry.key
        if not _known(name):
            faults.append(Fault(entry.place, _unknown(entry.key)))
        elif name in given and given[name].key != entry.key:
            first = given[name]
            text = f"{entry.key} and {first.key} ({first.place}) are the same option; keep one"
            faults.append(Fault(entry.place, text))
        else:
            given.setdefault(name, entry)
    return given, faults


def _opened(entry: Entry) -> list[Entry]:
    """`lora={r: 4}` as its group's entries, headed by the group itself, which it replaces whole."""
    if entry.key != "lora" or not isinstance(entry.value, dict):
        return [entry]
    inner = [Entry(f"lora.{key}", value, entry.place) for key, value in entry.value.items()]
    return [Entry("lora", True, entry.place), *inner]


def _known(name: str) -> bool:
    if name.startswith("lora."):
        return name.removeprefix("lora.") in lora_fields()
    return name == "lora" or name in own_fields()[0] or name in trl_fields()


def _unknown(key: str) -> str:
    if key.rpartition(".")[2] == "<<":
        return "merge keys (<<) are not read; write the keys out"
    if key in REMOVED:
        return f"key {key!r} no longer exists; {REMOVED[key]}"
    if key in ELSEWHERE:
        return f"key {key!r} is none of this command's; {ELSEWHERE[key]}"
    bare = key.rpartition(".")[2]
    if not key.startswith("lora.") and bare in lora_fields():
        return f"key {key!r} is a field of peft.LoraConfig; write it under lora:"
    if key.startswith("lora.") and (bare in SHORT_NAMES or _known(bare)):
        return f"key {key!r} is no field of peft.LoraConfig; write {bare!r} at top level"
    if key.startswith("lora."):
        # `alpha` for `lora_alpha` is nearer in meaning than in letters.
        prefixed = f"lora_{bare}"
        near = prefixed if prefixed in lora_fields() else nearest(bare, list(lora_fields()))
        like = near and f"lora.{near}"
    else:
        like = nearest(key, [*SHORT_NAMES, *own_fields()[0], *trl_fields(), "lora"])
    if like is None:
        return f"key {key!r} is unknown; neither TRL's DPOConfig nor this wrapper has one like it"
    return f"key {key!r} is unknown; did you mean {like!r}?"


def _value(name: str, value: Any) -> Any:
    """The value as TRL, peft or Settings takes it; raises Complaint."""
    if name == "lora":
        if isinstance(value, dict) and not value:
            return True
        if not isinstance(value, bool):
            raise Complaint("a mapping of peft.LoraConfig's fields, true or false expected")
        return value
    if name == "lora.r" and value == 0:
        raise Complaint("0 is out of range; write lora: false to train full weights")
    own = own_fields()[0]
    if name not in own:
        return _foreign(name, value)
    kind = own[name].kind
    if kind.element is not None:
        # A single text is a list of one.
        value = tuple(settle([value] if isinstance(value, str) else value, kind))
    else:
        value = settle(value, kind, RANGES.get(name))
    texts = value if isinstance(value, tuple) else (value,)
    if any(isinstance(text, str) and not text.strip() for text in texts) or (
        value == () and name in REQUIRED
    ):
        raise Complaint(f"empty; {own_fields()[1][name]}")
    return value


def _foreign(name: str, value: Any) -> Any:
    """The value of an option of TRL or peft; raises Complaint."""
    if name == "report_to" and value is None:
        return "none"
    kind = _every_field()[name].kind
    if name in WORDS:
        kind = Kind(kind.names - {"any"}, kind.element, WORDS[name])
    if isinstance(value, str) and {"dict", "str"} <= kind.names:
        value = _mapping(name, value)
    try:
        value = settle(value, kind, RANGES.get(name))
    except Complaint:
        if name in WITHOUT_EFFECT:
            # Mending the type would only lead to this.
            raise Complaint(f"it would have no effect: {WITHOUT_EFFECT[name]}") from None
        raise
    if name == "loss_type" and value == []:
        raise Complaint("empty; name at least one loss")
    if (refusal := refused(name, value)) is not None:
        raise Complaint(refusal)
    _check_inside(name, value)
    return value


def _check_inside(name: str, value: Any) -> None:
    """Raise Complaint for what a mapping of known names cannot hold; a file is not looked into."""
    fields = inner_fields(name)
    known = INNER_NAMES.get(name) or tuple(fields)
    if not known or value is None or name in FILES and isinstance(value, str):
        return
    if not isinstance(value, dict):
        raise Complaint("a mapping expected")
    for inner, held in value.items():
        if inner not in known:
            raise Complaint(f"{inner!r} is unknown; known: {', '.join(known)}")
        if inner in fields:
            try:
                settle(held, fields[inner].kind)
            except Complaint as complaint:
                raise Complaint(f"{inner}: {complaint}") from None


def _mapping(name: str, text: str) -> Any:
    """The mapping that a text stands for, where it is none itself: JSON, or the path of a file."""
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError:
            raise Complaint("the text is not valid JSON; write a YAML mapping") from None
    if name not in FILES:
        raise Complaint(f"a mapping expected, found the text {text!r}")
    if not Path(text).expanduser().is_file():
        raise Complaint(f"{text!r} is no file; write a mapping, or the path of a JSON file")
    return text


def _in_order(faults: list[Fault], overrides: Sequence[str]) -> list[Fault]:
    """By line of the file, then those of the command line, then those of no line."""
    said = {override_place(text): number for number, text in enumerate(overrides)}

    def order(fault: Fault) -> tuple[int, int]:
        if fault.place in said:
            return 1, said[fault.place]
        number = fault.place.rpartition(":")[2]
        return (0, int(number)) if number.isdecimal() else (2, 0)

    return sorted(faults, key=order)


def _settings(values: dict[str, Any], given: dict[str, Entry], path: str) -> Settings:
    own = {name: value for name, value in values.items() if name in own_fields()[0]}
    lora = {
        name.removeprefix("lora."): value
        for name, value in values.items()
        if name.startswith("lora.")
    }
    trl = {
        name: value for name, value in values.items() if name in trl_fields() and name not in own
    }
    return Settings(
        **own,
        trl=MappingProxyType(trl),
        lora=None if values.get("lora") is False else MappingProxyType(lora),
        locations=MappingProxyType(
            {name: f"{entry.place}: {entry.key}" for name, entry in given.items()}
        ),
        source=path,
    )


def documented_keys() -> list[tuple[str, str, str]]:
    """(key, what it stands for or its default, meaning) of the keys that are this wrapper's own."""
    fields, meanings = own_fields()
    rows = []
    for name, own in fields.items():
        rows.append(
            (
                name,
                "required" if name in REQUIRED else f"default {_yaml(own.default)}",
                meanings[name],
            )
        )
    return rows + [
        (name, f"TRL's {full}" if not full.startswith("lora.") else f"peft's {full}", meaning)
        for name, (full, meaning) in SHORT_NAMES.items()
    ]


def key_table() -> str:
    """The README's table of keys, in Markdown, with the defaults of the installed libraries."""
    lines = ["| key | stands for | default | meaning |", "|---|---|---|---|"]
    for name, stands_for, meaning in documented_keys():
        if name in SHORT_NAMES:
            full = SHORT_NAMES[name][0]
            fields = lora_fields() if full.startswith("lora.") else trl_fields()
            default = f"{fields[full.removeprefix('lora.')].default:g}"
            default = "" if name == "max_seq_length" else default
            lines.append(f"| `{name}` | `{full}` | {default} | {meaning} |")
        else:
            lines.append(f"| `{name}` | | {stands_for.removeprefix('default ')} | {meaning} |")
    return "\n".join(lines)


def _yaml(value: Any) -> str:
    return (
        {None: "none", False: "false", (): "none"}[value] if not isinstance(value, str) else value
    )
