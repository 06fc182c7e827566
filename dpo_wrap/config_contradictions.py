"""What is wrong between the keys of a config that are right one by one.

    faults = contradictions(values, given)

`values` holds what the config gives by TRL's names, as far as it has no fault of its own; `given`
the entries that it came from. The relations themselves are data: relations.py.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dpo_wrap.config_readers import divergence_losses, readers, schedule_arguments
from dpo_wrap.config_relations import (
    MORE_IS_BETTER,
    NEEDS,
    READ_WITH,
    REFUSED_VALUES,
    SAME,
    WITHOUT_EFFECT,
)
from dpo_wrap.config_values import GIVEN, Range, Reads, matches, nearest
from dpo_wrap.library_fields import UNKNOWN_DEFAULT, Field, logged_figures
from dpo_wrap.yaml_lines import Entry, Fault

FAULTY = object()
"""The value of a key that has a fault of its own: nothing more is said of it."""
# Where torch is new enough the default is the fused kind, which reads the same.
DEFAULT_OPTIMIZER = "adamw_torch"
SHOWN = 8
"""Words that a message lists of those that read a key."""


@dataclass(frozen=True)
class Config:
    """What a config says, over the libraries' defaults."""

    values: Mapping[str, Any]
    given: Mapping[str, Entry]
    fields: Mapping[str, Field]
    """Every key by its full name."""

    def value(self, name: str) -> Any:
        newer = next((new for new, old in SAME.items() if old == name and new in self.values), name)
        if newer in self.values:
            return self.values[newer]
        if newer in self.given:
            return FAULTY
        if name == "lora":
            return True
        default = self.fields[name].default
        return DEFAULT_OPTIMIZER if name == "optim" else default

    def changed(self, name: str) -> bool:
        """Whether the config gives the key, and not as what it is anyway."""
        if name not in self.values:
            return False
        default = self.fields[name].default if name in self.fields else True
        return default is UNKNOWN_DEFAULT or self.values[name] != default

    def fault(self, name: str, text: str) -> Fault:
        return Fault(self.given[name].place, f"{self.given[name].key}{text}")


def contradictions(config: Config) -> Iterator[Fault]:
    """A fault for every key that contradicts another or would have no effect beside it."""
    yield from _without_effect(config)
    yield from _unread(config)
    yield from _needs(config)
    yield from _twice(config)
    yield from _adapter(config)
    yield from _losses(config)
    yield from _schedule(config)
    yield from _trackers(config)
    yield from _best(config)


def refused(name: str, value: Any) -> str | None:
    """Why DPOTrainer cannot serve a value, or None."""
    for (key, wanted), why in REFUSED_VALUES.items():
        if key == name and matches(value, wanted):
            return f"refused: {why}" if wanted is GIVEN else f"{_word(value)} is refused: {why}"
    return None


def _without_effect(config: Config) -> Iterator[Fault]:
    for name, mend in WITHOUT_EFFECT.items():
        if config.changed(name):
            yield config.fault(name, f": it would have no effect: {mend}")


def _unread(config: Config) -> Iterator[Fault]:
    """Keys that another key's value keeps from being read."""
    for name, needs in READ_WITH.items():
        if not config.changed(name) or name.startswith("lora.") and config.value("lora") is False:
            continue
        lacking = next((need for need in needs if not _holds(config, need)), None)
        if lacking is not None:
            yield config.fault(name, f" has no effect {_lack(config, lacking)}")


def _needs(config: Config) -> Iterator[Fault]:
    """Values that cannot do without others."""
    for name, value, need, why in NEEDS:
        present = config.values.get(name)
        if matches(present, value) and not _holds(config, need):
            items = present if isinstance(present, list) else [present]
            met = next((_word(item) for item in items if matches(item, value)), "")
            word = "" if value is GIVEN else f": {met}"
            yield config.fault(name, f"{word} needs {_spoken(need)}; {why}")


def _twice(config: Config) -> Iterator[Fault]:
    for newer, older in SAME.items():
        if newer in config.given and older in config.given:
            where = config.given[older].place
            yield config.fault(newer, f" and {older} ({where}) are the same option; keep one")


def _adapter(config: Config) -> Iterator[Fault]:
    """Keys of an adapter beside full weights, and dropout that would not drop."""
    if config.value("lora") is False:
        where = config.given["lora"].place
        for name in config.given:
            if name.startswith("lora."):
                yield config.fault(name, f" has no effect under lora: false ({where}); remove one")
    if config.values.get("lora.lora_dropout") and config.values.get("disable_dropout"):
        text = ": true would switch off lora_dropout too; remove one of them"
        yield config.fault("disable_dropout", text)
    quantised = config.values.get("model_init_kwargs") or {}
    if config.values.get("load_in_4bit") and "quantization_config" in quantised:
        text = " and quantization_config in model_init_kwargs say the same thing; keep one"
        yield config.fault("load_in_4bit", text)


def _losses(config: Config) -> Iterator[Fault]:
    losses = config.value("loss_type")
    if losses is FAULTY:
        return
    losses = [losses] if isinstance(losses, str) else losses
    weights = config.values.get("loss_weights")
    if weights is not None and len(weights) != len(losses):
        text = f": {len(weights)} for {len(losses)} of loss_type ({', '.join(losses)})"
        yield config.fault("loss_weights", f"{text}; give one for each")
    other = [loss for loss in losses if loss not in divergence_losses()]
    if config.changed("f_divergence_type") and other:
        named = config.values["f_divergence_type"]
        text = f": {named} does not go with loss_type: {', '.join(other)}; those that it goes with "
        yield config.fault("f_divergence_type", f"{text}are {_some(sorted(divergence_losses()))}")


def _schedule(config: Config) -> Iterator[Fault]:
    """Arguments that a schedule does not take or lacks; training would fail when it starts."""
    word, given = config.value("lr_scheduler_type"), config.value("lr_scheduler_kwargs")
    if word is FAULTY or given is FAULTY or (known := schedule_arguments(word)) is None:
        return
    takes, needs = known
    if not config.changed("lr_scheduler_kwargs"):
        given = {}
    elif "scheduler_specific_kwargs" not in readers("lr_scheduler_type").get(word, ()):
        return  # said before
    for name in given:
        if name not in takes:
            like = f"did you mean {near!r}? " if (near := nearest(name, tuple(takes))) else ""
            text = f": {name!r} is unknown to {word}; {like}known: {', '.join(sorted(takes))}"
            yield config.fault("lr_scheduler_kwargs", text)
    if missing := sorted(needs - given.keys()):
        at = "lr_scheduler_kwargs" if "lr_scheduler_kwargs" in config.given else "lr_scheduler_type"
        text = f": {word} needs lr_scheduler_kwargs with {', '.join(missing)}"
        yield config.fault(at, text)


def _trackers(config: Config) -> Iterator[Fault]:
    known = ("none", "all", *readers("report_to")) if "report_to" in config.values else ()
    named = config.values.get("report_to") or []
    for tracker in [named] if isinstance(named, str) else named:
        if len(known) > 2 and tracker not in known:
            like = f"did you mean {near!r}? " if (near := nearest(tracker, known)) else ""
            yield config.fault(
                "report_to", f": {tracker!r} is unknown; {like}known: {', '.join(known)}"
            )


def _best(config: Config) -> Iterator[Fault]:
    """A figure to choose the best checkpoint by that no evaluation of DPOTrainer has."""
    name = config.value("metric_for_best_model")
    if name is FAULTY:
        return
    bare = (name or "loss").removeprefix("eval_")
    if bare not in logged_figures():
        like = nearest(bare, logged_figures()) or "rewards/accuracies"
        text = f": {name!r} is unknown; did you mean {f'eval_{like}'!r}?"
        yield config.fault("metric_for_best_model", text)
    greater = config.values.get("greater_is_better")
    if greater is not None and MORE_IS_BETTER.get(bare, greater) != greater:
        text = f": {_word(greater)} would keep the checkpoint whose eval_{bare} is worst; remove it"
        yield config.fault("greater_is_better", text)


def _holds(config: Config, need: Mapping[str, Any]) -> bool:
    """Whether any key of a need has any of the values that would do."""
    for name, wanted in need.items():
        value = config.value(name)
        if value is FAULTY or value is UNKNOWN_DEFAULT:
            return True
        if isinstance(wanted, Reads):
            if _is_read(readers(name), value, wanted):
                return True
        elif any(matches(value, one) for one in wanted):
            return True
    return False


def _is_read(known: Mapping[str, frozenset[str]], value: Any, wanted: Reads) -> bool:
    """Whether any of a key's words reads one of the names, as far as their code is known."""
    words = [value] if isinstance(value, str) else value or []
    words = [word for word in words if word != "none"]
    if not known or any(word not in known for word in words):
        return True
    return any(not known[word].isdisjoint(wanted.names) for word in words)


def _lack(config: Config, need: Mapping[str, Any]) -> str:
    """Why a key is not read, and the mend: what stands in its way, or what is missing."""
    name, wanted = next(iter(need.items()))
    if not isinstance(wanted, Reads):
        return f"without {_spoken(need)}; set it, or remove the key"
    value = config.value(name)
    words = _readers_of(name, wanted)
    more = " and others" if len(words) > SHOWN else ""
    present = value if isinstance(value, str) else ", ".join(value or ["none"])
    return f"with {name}: {present}; only {', '.join(words[:SHOWN])}{more} read it"


def _readers_of(name: str, wanted: Reads) -> list[str]:
    known = readers(name).items()
    return [word for word, read in known if not read.isdisjoint(wanted.names)]


def _spoken(need: Mapping[str, Any]) -> str:
    """`eval_strategy: steps or epoch`; keys parted by `or` as well."""
    parts = []
    for name, wanted in need.items():
        wanted = _readers_of(name, wanted) if isinstance(wanted, Reads) else wanted
        if GIVEN in wanted:
            parts.append(name)
        elif isinstance(wanted[0], Range):
            parts.append(f"{name} {wanted[0]}")
        else:
            parts.append(f"{name}: {_some([_word(word) for word in wanted if word is not None])}")
    return " or ".join(parts)


def _some(words: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
