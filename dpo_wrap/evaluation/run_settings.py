"""The settings that a finished run is evaluated with: those it was trained with, on given data."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from dpo_wrap.config import Settings, load_settings, with_trust
from dpo_wrap.errors import ConfigError, ModelError
from dpo_wrap.run_dir import CONFIG, read_run
from dpo_wrap.terminal import show

# Taken from the current config: they change speed and memory, but no figure.
CURRENT = ("per_device_eval_batch_size", "dataset_num_proc", "use_cpu")
# Taken from the run; its other options are of the training alone.
FROM_RUN = {
    *("beta", "max_length", "truncation_mode", "bf16", "fp16", "tf32", "use_cpu", "seed"),
    *("per_device_eval_batch_size", "dataset_num_proc", "model_init_kwargs"),
}
# Keys on which the figures depend, next to every key under lora:.
FIXED = {
    *("model_path", "adapter_path", "chat_template", "overlength", "load_in_4bit", "lora"),
    *("beta", "max_length", "truncation_mode", "chat_template_kwargs"),
}
NOT_EVALUATED = {
    "sync_ref_model": "eval compares with the reference at the start, since the updated one is not "
    "kept",
    "ld_alpha": "eval weighs all tokens of an answer alike",
}


def run_settings(settings: Settings, dataset: str | None) -> Settings:
    """The run's settings, with the data and metrics of `settings`, or with `dataset`.

    Raises ModelError if output_dir has no finished run, ConfigError if `settings` differ from the
    run's in a key on which the figures depend.
    """
    run = Path(settings.output_dir).expanduser()
    if read_run(run) is None:
        raise ModelError(
            f"{settings.where('output_dir')}: {settings.output_dir} has no finished run; "
            f"train it: python -m dpo_wrap.train {settings.source}"
        )
    trained = load_settings(str(run / CONFIG))
    _check_same(settings, trained, run)
    if dataset is not None and not dataset.strip():
        raise ConfigError("--dataset: empty; give the path of a dataset")
    for name, reason in NOT_EVALUATED.items():
        if trained.trl.get(name):
            show(f"{name}: {reason}, so the trainer's own figures differ", file=sys.stderr)
    options = {name: value for name, value in trained.trl.items() if name in FROM_RUN}
    options |= {name: settings.trl[name] for name in CURRENT if name in settings.trl}
    options = with_trust(options, settings.trl)
    paths, locations = settings.dataset_path, settings.locations
    if dataset:
        paths, locations = (dataset,), {**locations, "dataset_path": "--dataset"}
    return dataclasses.replace(
        trained,
        output_dir=str(run),
        dataset_path=paths,
        metrics=settings.metrics,
        locations=locations,
        source=settings.source,
        trl=options,
        chat_template=None,  # the run's tokenizer has it already
        early_stopping_patience=None,
    )


def other_run_settings(settings: Settings, run: str) -> Settings:
    """The settings of another run, with the same data and metrics as `settings`.

    Raises ModelError if `run` has no finished run, ConfigError if it is the same run.
    """
    directory = Path(run).expanduser()
    if read_run(directory) is None:
        raise ModelError(f"--against {run}: no finished run there; give the output_dir of one")
    if directory.resolve() == Path(settings.output_dir).resolve():
        raise ConfigError(f"--against {run}: this is the same run; give the output_dir of another")
    other = load_settings(str(directory / CONFIG))
    data = {name: settings.where(name) for name in ("dataset_path", "metrics")}
    other = dataclasses.replace(
        other,
        output_dir=str(directory),
        dataset_path=settings.dataset_path,
        metrics=settings.metrics,
        locations={**other.locations, **data},
        trl=with_trust(other.trl, settings.trl),
    )
    return run_settings(other, None)


def _check_same(settings: Settings, trained: Settings, run: Path) -> None:
    names = [name for name in settings.locations if name in FIXED or name.startswith("lora.")]
    values = {name: (_value(settings, name), _value(trained, name)) for name in names}
    changed = [
        f"{settings.where(name)} is {now!r}, but the run was trained with {before!r}"
        for name, (now, before) in values.items()
        if now != before
    ]
    if changed:
        raise ConfigError(
            f"the config is not that of the run in {run}: {'; '.join(changed)}; restore the values "
            "or train again"
        )


def _value(settings: Settings, name: str) -> Any:
    if name == "lora":
        return settings.lora is not None
    if name.startswith("lora."):
        return (settings.lora or {}).get(name.removeprefix("lora."))
    return getattr(settings, name) if hasattr(settings, name) else settings.option(name)
