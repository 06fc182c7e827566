"""The run directory: what stands in it, whether it may be gone on with, what a run leaves there."""

import json
import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import xxhash
import yaml

from dpo_wrap.arguments import Arguments
from dpo_wrap.config import Settings
from dpo_wrap.errors import ConfigError
from dpo_wrap.files import write_atomically
from dpo_wrap.library_fields import lora_fields, trl_fields
from dpo_wrap.training import checkpoints
from dpo_wrap.training.checkpoints import Checkpoint

RUN, CONFIG, METRICS = "run.json", "config.resolved.yaml", "metrics.jsonl"
# May differ between a run and its continuation: where figures and copies go changes no weight, when
# the reference is asked changes figures by rounding alone, and metrics are eval's.
FREE = {
    *("output_dir", "report_to", "logging_dir", "save_total_limit", "push_to_hub", "metrics"),
    "precompute_ref_log_probs",
}
# May grow.
EXTENDABLE = ("max_steps", "num_train_epochs")
# Schedules of the learning rate that do not hang on how long the run is.
ENDLESS = {"constant", "constant_with_warmup", "inverse_sqrt", "reduce_lr_on_plateau", "greedy"}
# Never written: a rerun would take it for a token of its own.
SECRET = {"hub_token", "token", "use_auth_token"}
WEIGHTS = ("adapter_model*.safetensors", "model*.safetensors", "pytorch_model*.bin")
VERSIONED = ("torch", "transformers", "trl", "peft", "datasets", "accelerate")


@dataclass(frozen=True)
class Start:
    """Where a run begins."""

    checkpoint: Checkpoint | None = None
    """Continue from here; None starts at step 0."""
    finished: dict[str, Any] | None = None
    """run.json of the finished run that already is what was asked for."""
    notes: tuple[str, ...] = ()


def resolved(settings: Settings, arguments: Arguments) -> dict[str, Any]:
    """The config that repeats the run: the user's keys by TRL's names, and the defaults chosen."""
    lora: Any = settings.lora is not None and dict(settings.lora)
    top = {n: value for n, value in arguments.chosen.items() if not n.startswith("lora.")}
    if lora is not False:
        below = {n.removeprefix("lora."): v for n, v in arguments.chosen.items() if n not in top}
        lora = {**lora, **below} or True
    whole = {**settings.own(), **settings.trl, **top, "lora": lora}
    return _without_secrets(whole)


def is_run(directory: Path) -> bool:
    """Whether a run stands here that must not be written over."""
    names = (RUN, METRICS, CONFIG)
    return directory.is_dir() and (
        any((directory / name).is_file() for name in names)
        or bool(checkpoints.find(directory))
        or _has_weights(directory)
    )


def move_aside(directory: Path) -> Path:
    """Rename the run to DIRECTORY.old-N, N being the first that is free."""
    number = 1
    while (target := directory.with_name(f"{directory.name}.old-{number}")).exists():
        number += 1
    os.rename(directory, target)
    return target


def identity(
    config: dict[str, Any], fingerprint: str, template: str | None, processes: int
) -> dict[str, Any]:
    """What makes a run this one: its config, what it starts from, and in how many processes."""
    digest = template and xxhash.xxh3_128(template.encode()).hexdigest()
    return {
        "config": config,
        "processes": processes,
        "weights": _weights(config["model_path"], config.get("adapter_path")),
        "data": {"fingerprint": fingerprint, "chat_template": digest},
    }


def where_to_start(directory: Path, resume: str, identity: dict[str, Any]) -> Start:
    """Continue, start anew or do nothing, for `--resume auto` or the path of a checkpoint.

    Raises ConfigError where going on would mix two configs or two datasets.
    """
    if resume != "auto":
        named = _named(Path(resume).expanduser(), directory, identity)
        return Start(named, notes=tuple(_stretched(named.identity["config"], identity["config"])))
    finished, notes = _read_run(directory), []
    if finished is not None:
        _match(directory, finished, identity)
        if not _has_weights(directory):
            notes.append(f"{directory}: finished before, but its weights are gone")
        elif not _extended(finished["config"], identity["config"]):
            return Start(finished=finished)
    for folder in checkpoints.find(directory):
        found = checkpoints.read(folder)
        if isinstance(found, Checkpoint):
            _match(directory, found.identity, identity)
            notes += [f"going on from {folder}"]
            notes += _stretched(found.identity["config"], identity["config"])
            return Start(checkpoint=found, notes=tuple(notes))
        notes.append(f"{folder} {found}; skipped")
    if finished is not None or _has_weights(directory):
        raise ConfigError(
            f"{directory}: holds trained weights and no checkpoint to go on from; choose another "
            "output_dir, or --resume never, which moves it aside"
        )
    if is_run(directory):
        notes.append(f"{directory}: an earlier run left nothing to go on from; starting at step 0")
    return Start(notes=tuple(notes))


def lasting_digest(identity: dict[str, Any]) -> str:
    """A digest of all of an identity that no continuation may change, and of the libraries."""
    config = identity["config"].items()
    lasting = {n: value for n, value in config if not _free(n) and n not in EXTENDABLE}
    text = json.dumps({**identity, "config": lasting, "versions": versions()}, sort_keys=True)
    return xxhash.xxh3_128(text.encode()).hexdigest()


def begin(directory: Path, config: dict[str, Any]) -> None:
    """Write the config, and take back the claim of an older run to be finished."""
    (directory / RUN).unlink(missing_ok=True)
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    write_atomically(directory / CONFIG, text)


def finish(directory: Path, run: dict[str, Any]) -> None:
    """Write run.json, the last file of a run: without it a run is not finished."""
    write_atomically(directory / RUN, json.dumps(run, indent=2) + "\n")


def versions() -> dict[str, str]:
    """The versions that a run's weights hang on."""
    return {package: version(package) for package in VERSIONED}


def _named(path: Path, directory: Path, identity: dict[str, Any]) -> Checkpoint:
    found = checkpoints.read(path) if path.is_dir() else "does not exist"
    if inside := checkpoints.find(path):
        raise ConfigError(
            f"--resume {path}: a run, not one of its checkpoints; there are "
            f"{', '.join(map(str, inside))}, and --resume auto takes the newest that is whole"
        )
    if path.resolve().parent != directory.resolve() and is_run(directory):
        raise ConfigError(
            f"--resume {path}: another run stands in output_dir {directory}; choose another "
            "output_dir, or move that run away"
        )
    if isinstance(found, str):
        others = [str(folder) for folder in checkpoints.find(directory) if folder != path]
        known = f"; there are {', '.join(others)}" if others else ""
        raise ConfigError(f"--resume {path}: the checkpoint {found}{known}")
    _match(path, found.identity, identity)
    return found


def _match(where: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raise ConfigError naming what differs between the run that stands and the one asked for."""
    before, after = _flat(old["config"]), _flat(new["config"])
    differing = [
        f"{name} ({_shown(before, name)} there, {_shown(after, name)} here)"
        for name in sorted(before.keys() | after.keys())
        if _value(before, name) != _value(after, name)
        and not _free(name)
        and not _grows(before, after, name)
    ]
    if old["data"]["fingerprint"] != new["data"]["fingerprint"]:
        differing.append("the data")
    if old["data"]["chat_template"] != new["data"]["chat_template"]:
        differing.append("the chat template")
    if old.get("weights", new["weights"]) != new["weights"]:
        differing.append("the weights that it starts from")
    # What has finished is finished, but a step of other processes is a step of another batch.
    if (there := old.get("processes", new["processes"])) != new["processes"]:
        differing.append(f"processes ({there} there, {new['processes']} here)")
    if differing:
        raise ConfigError(
            f"{where}: the run there was made with others: {', '.join(differing)}; take "
            "those back, choose another output_dir, or --resume never, which moves that run aside"
        )


def _free(name: str) -> bool:
    return name in FREE or name.startswith("hub_")


def _extended(old: dict[str, Any], new: dict[str, Any]) -> bool:
    before, after = _flat(old), _flat(new)
    return any(_grows(before, after, name) for name in EXTENDABLE)


def _stretched(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What a longer run means for the learning rate, in a line where it means something."""
    before, after = _flat(old), _flat(new)
    grown = [name for name in EXTENDABLE if _grows(before, after, name)]
    if not grown or _value(after, "lr_scheduler_type") in ENDLESS:
        return []
    said = ", ".join(f"{n} {_value(before, n)} before, {_value(after, n)} now" for n in grown)
    return [
        f"{said}: learning_rate goes on by the schedule of the longer run, so the weights will not "
        "be those of a run that had this length from the start"
    ]


def _grows(before: dict[str, Any], after: dict[str, Any], name: str) -> bool:
    # max_steps: -1 means that num_train_epochs counts, so leaving it is no growth.
    return name in EXTENDABLE and 0 < _value(before, name) < _value(after, name)


def _value(flat: dict[str, Any], name: str) -> Any:
    """As the run takes it: a key that is left out has its default."""
    if name in flat:
        return flat[name]
    fields = lora_fields() if name.startswith("lora.") else trl_fields()
    bare = name.removeprefix("lora.")
    return fields[bare].default if bare in fields else None


def _shown(flat: dict[str, Any], name: str) -> str:
    return str(_value(flat, name)) if name in flat or _value(flat, name) is not None else "not set"


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """Keys of the lora group beside the others, as `lora.r`; `lora` itself says on or off."""
    lora = config.get("lora")
    inner = lora if isinstance(lora, dict) else {}
    return {
        **config,
        "lora": lora is not False,
        **{f"lora.{name}": value for name, value in inner.items()},
    }


def _read_run(directory: Path) -> dict[str, Any] | None:
    try:
        run = json.loads((directory / RUN).read_text("utf-8"))
        whole = "config" in run and {"fingerprint", "chat_template"} <= run["data"].keys()
        return run if whole else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _has_weights(directory: Path) -> bool:
    return any(any(directory.glob(name)) for name in WEIGHTS)


def _weights(*directories: str | None) -> dict[str, str]:
    """Digests of the local weights, by file name; a name on the Hub stands for its own."""
    local = [Path(name).expanduser() for name in directories if name]
    found = sorted(path for place in local for name in WEIGHTS for path in place.glob(name))
    return {path.name: checkpoints.digest(path) for path in found}


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_secrets(v) for k, v in value.items() if k not in SECRET}
    return [_without_secrets(item) for item in value] if isinstance(value, list | tuple) else value
