"""The run directory: its file names, how it is read, and whether its run can be resumed."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import xxhash
import yaml

from dpo_wrap import checkpoints
from dpo_wrap.checkpoints import Checkpoint
from dpo_wrap.config import Settings
from dpo_wrap.errors import ConfigError
from dpo_wrap.files import write_atomically
from dpo_wrap.library_fields import lora_fields, trl_fields
from dpo_wrap.ownership import CONFIG, MARKER, is_run
from dpo_wrap.terminal import masked

# Written by train after CONFIG; RUN is the last file, so a run without it is not finished.
RUN, METRICS = "run.json", "metrics.jsonl"
RUN_TYPES = {
    **dict.fromkeys(("figures", "config", "data", "versions", "prefix_sharing"), dict),
    "step_0": dict | None,
    "reference": dict | None,
    "verdict": str,
    "steps": int,
    **dict.fromkeys(("warnings", "notes"), list),
}
"""The types of values in RUN."""
# Written by train, and again by eval and suspects.
REPORT = "report.html"
# Written by eval.
EVAL, SAMPLES = "eval.json", "samples.jsonl"
TO_JUDGE, EXAMPLES_TABLE = "to_judge.jsonl", "examples.parquet"
# Written by suspects.
SUSPECTS, SUSPECTS_FIGURES = "suspects.jsonl", "suspects.json"
SUSPECTS_SCORES = "out_of_fold.parquet"
WEIGHTS = ("adapter_model*.safetensors", "model*.safetensors", "pytorch_model*.bin")

# Keys that may change on resume: they change no weight, or only by rounding.
FREE = {
    *("output_dir", "report_to", "logging_dir", "save_total_limit", "push_to_hub", "metrics"),
    "precompute_ref_log_probs",
}
# Keys that may grow on resume.
EXTENDABLE = ("max_steps", "num_train_epochs")
# Learning rate schedules that do not depend on the length of the run.
ENDLESS = {"constant", "constant_with_warmup", "inverse_sqrt", "reduce_lr_on_plateau", "greedy"}
# Never written to a file: a rerun would take the placeholder for a token.
SECRET = {"hub_token", "token", "use_auth_token"}
VERSIONED = ("torch", "transformers", "trl", "peft", "datasets", "accelerate")


@dataclass(frozen=True)
class Start:
    """Where a run starts."""

    checkpoint: Checkpoint | None = None
    """The checkpoint to resume from; None starts at step 0."""
    finished: dict[str, Any] | None = None
    """run.json of a finished run with the same config and data."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """A finished run: its directory, and the content of run.json."""

    directory: Path
    record: dict[str, Any]

    @property
    def verdict(self) -> str:
        """What happened, in sentences."""
        return self.record["verdict"]

    @property
    def figures(self) -> dict[str, Any]:
        """The final figures by name."""
        return self.record["figures"]

    def _repr_html_(self) -> str:
        """Verdict and figures, in a notebook."""
        lines = [f"{name:<24} {value}" for name, value in self.figures.items()]
        text = "\n".join([f"run in {self.directory}", self.verdict, *lines])
        return f"<pre>{escape(text)}</pre>"


def read_run(directory: Path) -> dict[str, Any] | None:
    """run.json of a finished run; None if it is missing or damaged."""
    run = read_object(directory / RUN)
    complete = all(isinstance(run.get(name), kind) for name, kind in RUN_TYPES.items())
    return run if complete and {"fingerprint", "chat_template"} <= run["data"].keys() else None


def resolved(settings: Settings, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The config that repeats the run: the user's keys under TRL's names, and chosen defaults.

    `chosen` holds the wrapper's defaults under TRL's names, those of peft as `lora.NAME`.
    """
    lora: Any = settings.lora is not None and dict(settings.lora)
    top = {name: value for name, value in chosen.items() if not name.startswith("lora.")}
    if lora is not False:
        inner = {n.removeprefix("lora."): v for n, v in chosen.items() if n not in top}
        lora = {**lora, **inner} or True
    return _without_secrets({**settings.own(), **settings.trl, **top, "lora": lora})


def identity(
    config: dict[str, Any], fingerprint: str, template: str | None, processes: int
) -> dict[str, Any]:
    """What must match for a resume: config, data, initial weights and number of processes."""
    digest = template and xxhash.xxh3_128(template.encode()).hexdigest()
    return {
        "config": config,
        "processes": processes,
        "weights": weight_digests(config["model_path"], config.get("adapter_path")),
        "data": {"fingerprint": fingerprint, "chat_template": digest},
    }


def resume_digest(identity: dict[str, Any]) -> str:
    """Digest of the parts of an identity that a resume may not change, and of the libraries."""
    config = identity["config"].items()
    fixed = {name: v for name, v in config if not _is_free(name) and name not in EXTENDABLE}
    text = json.dumps({**identity, "config": fixed, "versions": versions()}, sort_keys=True)
    return xxhash.xxh3_128(text.encode()).hexdigest()


def where_to_start(directory: Path, resume: str, identity: dict[str, Any]) -> Start:
    """Decide between resuming, starting at step 0 and doing nothing.

    `resume` is `auto` or the path of a checkpoint. Raises ConfigError if the run in the directory
    has another config or other data, or has weights but no checkpoint.
    """
    if resume != "auto":
        named = _named_checkpoint(Path(resume).expanduser(), directory, identity)
        return Start(named, notes=tuple(_schedule_note(named.identity, identity)))
    finished, notes = read_run(directory), []
    if finished is not None:
        changed = _check_match(directory, finished, identity)
        if not _has_weights(directory):
            notes.append(f"{directory}: the run is finished, but its weights are missing")
        elif not changed:
            return Start(finished=finished)
    for folder in checkpoints.find(directory):
        found = checkpoints.read(folder)
        if isinstance(found, Checkpoint):
            _check_match(directory, found.identity, identity)
            notes += [f"resuming from {folder}", *_schedule_note(found.identity, identity)]
            return Start(checkpoint=found, notes=tuple(notes))
        notes.append(f"{folder} {found}; skipped")
    if finished is not None or _has_weights(directory):
        why = f" ({'; '.join(notes)})" if notes else ""
        raise ConfigError(
            f"{directory}: holds trained weights and no checkpoint to resume from{why}; choose "
            "another output_dir, or pass --resume never, which renames the old run"
        )
    if is_run(directory):
        notes.append(f"{directory}: an earlier run left no complete checkpoint; starting at step 0")
    return Start(notes=tuple(notes))


def rename_old(directory: Path) -> Path:
    """Rename the run to DIRECTORY.old-N, with the first N that is free."""
    number = 1
    while (target := directory.with_name(f"{directory.name}.old-{number}")).exists():
        number += 1
    os.rename(directory, target)
    return target


def begin(directory: Path, config: dict[str, Any]) -> None:
    """Write the config and remove run.json, so that the run does not count as finished."""
    (directory / RUN).unlink(missing_ok=True)
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    write_atomically(directory / CONFIG, MARKER + text)


def finish(directory: Path, run: dict[str, Any]) -> None:
    """Write run.json, which makes the run a finished one."""
    write_atomically(directory / RUN, json.dumps(run, indent=2) + "\n")


def versions() -> dict[str, str]:
    """Versions of the libraries that determine a run's weights."""
    return {package: version(package) for package in VERSIONED}


def _named_checkpoint(path: Path, directory: Path, identity: dict[str, Any]) -> Checkpoint:
    found = checkpoints.read(path) if path.is_dir() else "does not exist"
    if inside := checkpoints.find(path):
        raise ConfigError(
            f"--resume {path}: a run, not a checkpoint; it has {', '.join(map(str, inside))}, and "
            "--resume auto takes the newest complete one"
        )
    if path.is_dir() and path.resolve().parent != directory.resolve() and is_run(directory):
        raise ConfigError(
            f"--resume {path}: output_dir {directory} holds another run; choose another "
            "output_dir, or move that run"
        )
    if isinstance(found, str):
        others = [str(folder) for folder in checkpoints.find(directory) if folder != path]
        known = f"; there are {', '.join(others)}" if others else ""
        raise ConfigError(f"--resume {path}: the checkpoint {found}{known}")
    _check_match(path, found.identity, identity)
    return found


def _check_match(where: Path, old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The keys that only make the run longer; raises ConfigError if anything else differs."""
    changed = _changed_keys(old["config"], new["config"])
    longer = {name: values for name, values in changed.items() if _is_longer(name, *values)}
    differing = []
    for name in changed.keys() - longer.keys():
        before, after = ("not set" if value is None else value for value in changed[name])
        differing.append(f"{name} ({before} there, {after} here)")
    differing.sort()
    if old["data"]["fingerprint"] != new["data"]["fingerprint"]:
        differing.append("the data")
    if old["data"]["chat_template"] != new["data"]["chat_template"]:
        differing.append("the chat template")
    if old.get("weights", new["weights"]) != new["weights"]:
        differing.append("the initial weights")
    # run.json has no `processes`, since a finished run needs no further step.
    if (processes := old.get("processes", new["processes"])) != new["processes"]:
        differing.append(f"processes ({processes} there, {new['processes']} here)")
    if differing:
        raise ConfigError(
            f"{where}: cannot resume, because the run there differs in {', '.join(differing)}; "
            "undo the change, choose another output_dir, or pass --resume never, which renames "
            "the old run"
        )
    return longer


def _changed_keys(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """(before, after) by key, of the keys that matter for a resume; defaults are filled in."""
    before, after = _flat(old), _flat(new)
    names = sorted(name for name in before.keys() | after.keys() if not _is_free(name))
    pairs = {name: (_value(before, name), _value(after, name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _is_longer(name: str, before: Any, after: Any) -> bool:
    # max_steps: -1 means that num_train_epochs counts, so replacing it makes no longer run.
    return name in EXTENDABLE and 0 < before < after


def _schedule_note(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """A note that a longer run changes the learning rate schedule, if it does."""
    changed = _changed_keys(old["config"], new["config"])
    grown = [name for name, values in changed.items() if _is_longer(name, *values)]
    if not grown or new["config"].get("lr_scheduler_type") in ENDLESS:
        return []
    values = ", ".join(f"{n} was {changed[n][0]} and is {changed[n][1]}" for n in grown)
    return [
        f"{values}: learning_rate follows the schedule of the longer run from here, so the weights "
        "will differ from those of a run that had this length from the start"
    ]


def _is_free(name: str) -> bool:
    return name in FREE or name.startswith("hub_")


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """The config with the lora group's keys as `lora.NAME`, and `lora` itself as a boolean."""
    lora = config.get("lora")
    inner = lora if isinstance(lora, dict) else {}
    return {**config, "lora": lora is not False} | {f"lora.{n}": v for n, v in inner.items()}


def _value(flat: dict[str, Any], name: str) -> Any:
    if name in flat:
        return flat[name]
    fields = lora_fields() if name.startswith("lora.") else trl_fields()
    bare = name.removeprefix("lora.")
    return fields[bare].default if bare in fields else None


def _has_weights(directory: Path) -> bool:
    return any(any(directory.glob(name)) for name in WEIGHTS)


def weight_digests(*directories: str | None) -> dict[str, str]:
    """Digests of local weight files, by file name; models on the Hub have none."""
    local = [Path(name).expanduser() for name in directories if name]
    found = sorted(path for folder in local for name in WEIGHTS for path in folder.glob(name))
    return {path.name: checkpoints.digest(path) for path in found}


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_secrets(v) for k, v in value.items() if k not in SECRET}
    if isinstance(value, str):
        return masked(value)
    return [_without_secrets(item) for item in value] if isinstance(value, list | tuple) else value


def read_text(path: Path) -> str:
    """The text of a file, "" if it is missing or not UTF-8."""
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError):
        return ""


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file, {} if the file is missing or damaged."""
    return _object(read_text(path))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file; a line that was cut off is left out."""
    # str.splitlines would also split at U+2028 and others, which JSON allows within a string.
    return [found for line in read_text(path).split("\n") if (found := _object(line))]


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def conversion_reports(directory: Path, dataset_paths: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The report.json of each dataset that data_tools.convert made, by dataset path.

    A converted directory holds its own report. A raw file was converted by the training run, into
    `dataset` in the run directory, or `dataset-N` where it is the Nth of several.
    """
    found = {}
    for position, path in enumerate(dataset_paths, 1):
        converted = directory / (f"dataset-{position}" if len(dataset_paths) > 1 else "dataset")
        given = Path(path).expanduser()
        report = read_object((given if given.is_dir() else converted) / "report.json")
        # A dataset of another origin may have a report.json of its own.
        parts = [report.get(name) for name in ("records", "pairs")]
        if "format" in report and all(isinstance(part, dict) for part in parts):
            found[path] = report
    return found
