"""What a finished run was trained with, asked about the data and metrics of now."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from dpo_wrap.config import Settings, load_settings
from dpo_wrap.errors import ConfigError, ModelError
from dpo_wrap.run_dir import CONFIG, read_run

# What the figures do not hang on, so that the config of now decides it.
READ = {
    *("beta", "max_length", "truncation_mode", "bf16", "fp16", "tf32", "use_cpu", "seed"),
    *("per_device_eval_batch_size", "dataset_num_proc", "model_init_kwargs", "trust_remote_code"),
}
NOT_JUDGED = {
    "sync_ref_model": "the reference that moved is not kept, and eval takes the one of the start",
    "ld_alpha": "eval scores whole answers alike",
}
SPEED = ("per_device_eval_batch_size", "dataset_num_proc", "use_cpu")
# What the figures hang on, beside every key under lora:.
FIXED = {
    *("model_path", "adapter_path", "chat_template", "overlength", "load_in_4bit", "lora"),
    *("beta", "max_length", "truncation_mode"),
}


def trained_settings(settings: Settings, dataset: str | None) -> Settings:
    """What the run was trained with, asked about the data and metrics that the config names now.

    Raises ModelError where no finished run stands, ConfigError where the config says otherwise now.
    """
    run = Path(settings.output_dir).expanduser()
    if read_run(run) is None:
        raise ModelError(
            f"{settings.where('output_dir')}: {settings.output_dir} holds no finished run; "
            f"train it: python -m dpo_wrap.train {settings.source}"
        )
    trained = load_settings(str(run / CONFIG))
    differing = [
        name for name in _given(settings) if _value(settings, name) != _value(trained, name)
    ]
    if differing:
        said = "; ".join(
            f"{settings.where(name)} {_value(settings, name)!r}, trained with "
            f"{_value(trained, name)!r}"
            for name in differing
        )
        raise ConfigError(f"the config is not the one of the run in {run}: {said}; train it anew")
    if dataset is not None and not dataset.strip():
        raise ConfigError("--dataset: empty; give the path of a dataset")
    # Schedules, savings and the choice of a best checkpoint are done with.
    for name, why in NOT_JUDGED.items():
        if trained.trl.get(name):
            print(f"{name}: {why}, so the trainer's own figures differ", file=sys.stderr)
    kept = {name: value for name, value in trained.trl.items() if name in READ}
    speed = {name: settings.trl[name] for name in SPEED if name in settings.trl}
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
        trl=kept | speed,
        chat_template=None,  # the run's tokenizer has it already
        early_stopping_patience=None,
    )


def _given(settings: Settings) -> list[str]:
    """The keys that the model's figures hang on, of those that the config gives."""
    return [name for name in settings.locations if name in FIXED or name.startswith("lora.")]


def _value(settings: Settings, name: str) -> Any:
    if name == "lora":
        return settings.lora is not None
    if name.startswith("lora."):
        return (settings.lora or {}).get(name.removeprefix("lora."))
    return getattr(settings, name) if hasattr(settings, name) else settings.option(name)


def other_settings(settings: Settings, run: str) -> Settings:
    """What another run was trained with, asked about the same data and metrics as this one.

    Raises ModelError where no finished run stands, ConfigError where it is this one.
    """
    directory = Path(run).expanduser()
    if read_run(directory) is None:
        raise ModelError(f"--against {run}: holds no finished run; give the output_dir of one")
    if directory.resolve() == Path(settings.output_dir).resolve():
        raise ConfigError(f"--against {run}: is this run itself; give the output_dir of another")
    other = load_settings(str(directory / CONFIG))
    other = trained_settings(dataclasses.replace(other, output_dir=str(directory)), None)
    return dataclasses.replace(
        other,
        dataset_path=settings.dataset_path,
        metrics=settings.metrics,
        locations={**other.locations, "dataset_path": settings.where("dataset_path")}
        | {"metrics": settings.where("metrics")},
    )
