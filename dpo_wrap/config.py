"""YAML to Settings, once, with every fault of a file shown at once before torch is imported.

    settings = load_settings("configs/dpo_config.yaml", ["beta=0.2"])

TRL's and peft's options are checked against their installed sources (schema.py) and passed on under
their own names; what only those libraries can judge is judged in arguments.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, Literal

from dpo_wrap.errors import ConfigError
from dpo_wrap.keys import (
    LOSS_OPTIONS,
    RANGES,
    READ_WITH,
    REFUSED_VALUES,
    REMOVED,
    SHORT_NAMES,
    WITHOUT_EFFECT,
)
from dpo_wrap.schema import (
    Field,
    class_fields,
    logged_figures,
    lora_fields,
    loss_readers,
    trl_fields,
)
from dpo_wrap.values import Complaint, nearest, settle
from dpo_wrap.yaml_lines import Entry, Fault, read_file, read_override


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
    """one forward pass per prompt for both answers; auto and off are TRL's own two"""
    load_in_4bit: bool = False
    """quantise the base model to 4 bits (QLoRA); needs a GPU and bitsandbytes"""
    metrics: tuple[str, ...] = ()
    """local metric modules that eval scores sampled answers with, before and after"""
    logging_dir: str | None = None
    """TensorBoard's folder, used with report_to: tensorboard"""

    trl: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    lora: Mapping[str, Any] | None = field(default_factory=lambda: MappingProxyType({}))
    places: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    source: str = ""

    def own(self) -> dict[str, Any]:
        """The wrapper's own keys that the config gave, tuples as lists."""
        values = {name: getattr(self, name) for name in own_fields()[0] if name in self.places}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    def option(self, name: str) -> Any:
        """TRL's option of that name: as the config gives it, else TRL's own default."""
        return self.trl[name] if name in self.trl else trl_fields()[name].default

    def place(self, name: str) -> str:
        """Where a key was given (`configs/x.yaml:10: max_seq_length`), for later faults."""
        return self.places.get(name, self.source)


# Fields of Settings that are no keys of the config.
NOT_KEYS = {"trl", "lora", "places", "source"}
REQUIRED = ("model_path", "dataset_path", "output_dir")


@cache
def own_fields() -> tuple[dict[str, Field], dict[str, str]]:
    """The wrapper's own keys by name, as Settings types them, and their meanings."""
    fields, meanings = class_fields("dpo_wrap", "config.py", "Settings")
    return {n: f for n, f in fields.items() if n not in NOT_KEYS}, meanings


def load_settings(path: str, overrides: Sequence[str] = ()) -> Settings:
    """The config file with each `KEY=VALUE` of overrides put over it.

    Raises ConfigError, whose message has one line per fault; no library is imported for it.
    """
    entries, faults = read_file(path, groups=("lora",))
    given, more = _resolve(entries)
    faults += more
    for text in overrides:
        try:
            replaced, more = _resolve(_opened(read_override(text)))
        except ConfigError as error:
            faults.append(Fault("", str(error)))
            continue
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
    faults += _together(values, given)
    faults += [
        Fault(path, f"required key {name!r} is missing; {own_fields()[1][name]}")
        for name in REQUIRED
        if name not in given
    ]
    if faults:
        lines = (str(fault).removeprefix(": ") for fault in _in_order(faults))
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
    if key in REMOVED:
        return f"key {key!r} no longer exists; {REMOVED[key]}"
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
    fields = own if name in own else lora_fields() if name.startswith("lora.") else trl_fields()
    kind = fields[name.removeprefix("lora.")].kind
    if name not in own:
        value = settle(value, kind, RANGES.get(name))
        if name == "loss_type" and value == []:
            raise Complaint("empty; name at least one loss")
        if (refusal := _refused(name, value)) is not None:
            raise Complaint(refusal)
        return value
    if kind.element is not None:
        # A single text is a list of one.
        value = tuple(settle([value] if isinstance(value, str) else value, kind))
    else:
        value = settle(value, kind)
    if name == "prefix_sharing" and value == "on":
        raise Complaint("on is not available in this version; write auto or off")
    if value == "" or value == () and name in REQUIRED or isinstance(value, tuple) and "" in value:
        raise Complaint(f"empty; {own_fields()[1][name]}")
    return value


def _refused(name: str, value: Any) -> str | None:
    if name in WITHOUT_EFFECT and value not in (False, 0, None):
        return f"it would have no effect: {WITHOUT_EFFECT[name]}"
    if isinstance(value, str | bool) and (name, value) in REFUSED_VALUES:
        return f"{value!r} is refused: {REFUSED_VALUES[name, value]}"
    return None


def _together(values: dict[str, Any], given: dict[str, Entry]) -> Iterator[Fault]:
    """What is wrong between keys that are right one by one."""
    lora = [name for name in given if name.startswith("lora.")]
    if values.get("lora") is False:
        for name in lora:
            text = f"{given[name].key} has no effect under lora: false ({given['lora'].place})"
            yield Fault(given[name].place, f"{text}; remove one")
    if (
        values.get("lora.lora_dropout")
        and "disable_dropout" in values
        and values["disable_dropout"]
    ):
        text = "disable_dropout: true would switch off lora_dropout too; remove one of them"
        yield Fault(given["disable_dropout"].place, text)
    if "adapter_path" in values and values["adapter_path"] and values.get("lora") is False:
        yield Fault(given["adapter_path"].place, "adapter_path is refused beside lora: false")
    yield from _best(values, given)
    yield from _unread(values, given)
    if "loss_type" in given and "loss_type" not in values:
        return
    losses = values["loss_type"] if "loss_type" in values else trl_fields()["loss_type"].default
    losses = [losses] if isinstance(losses, str) else losses
    for name in LOSS_OPTIONS:
        readers = [loss for loss, read in loss_readers().items() if name in read]
        default = trl_fields()[name].default
        if values.get(name, default) != default and not set(losses) & set(readers):
            text = f"{name} has no effect with loss_type {', '.join(losses)}"
            yield Fault(given[name].place, f"{text}; only {', '.join(readers)} read it")
    if "exo_pair" in losses and not values.get("label_smoothing"):
        text = "loss_type exo_pair needs label_smoothing above 0; its paper recommends 1e-3"
        yield Fault(given["loss_type"].place, text)


def _best(values: dict[str, Any], given: dict[str, Entry]) -> Iterator[Fault]:
    """A figure to choose the best checkpoint by that no evaluation of DPOTrainer has."""
    name = values.get("metric_for_best_model")
    if name is not None and (bare := name.removeprefix("eval_")) not in logged_figures():
        like = nearest(bare, logged_figures()) or "rewards/accuracies"
        text = f"metric_for_best_model: {name!r} is unknown; did you mean {f'eval_{like}'!r}?"
        yield Fault(given["metric_for_best_model"].place, text)


def _unread(values: dict[str, Any], given: dict[str, Entry]) -> Iterator[Fault]:
    """Keys that another key's value keeps from being read."""
    fields = trl_fields()
    for name, (other, needed) in READ_WITH.items():
        if values.get(name, fields[name].default) == fields[name].default:
            continue
        # A faulty value has its own fault.
        if (other in values or other not in given) and (
            values.get(other, fields[other].default) != needed
        ):
            word = str(needed).lower()
            text = f"{given[name].key} has no effect without {other}: {word}"
            yield Fault(given[name].place, f"{text}; set it, or remove the key")


def _in_order(faults: list[Fault]) -> list[Fault]:
    """By line of the file, then those of the command line."""

    def line(fault: Fault) -> float:
        number = fault.place.rpartition(":")[2]
        return int(number) if number.isdecimal() else float("inf")

    return sorted(faults, key=line)


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
        places=MappingProxyType(
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
