"""Check the paths of a config, and decide whether the Hugging Face Hub is used at all.

Nothing here imports a Hugging Face library: those read their environment variables on import, and
spend 23 seconds a file on retries when the Hub cannot be reached, whatever their timeouts are.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from dpo_wrap.config import Settings
from dpo_wrap.errors import ConfigError, one_line
from dpo_wrap.ownership import is_written

CONNECT_SECONDS = 3.0
# A missing path that ends like a file is a mistyped path, not the name of something on the Hub.
FILE_ENDINGS = (
    *(".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".xlsx", ".arrow"),
    *(".gz", ".zst", ".bz2", ".xz", ".zip"),
    *(".txt", ".yaml", ".yml", ".bin", ".pt", ".gguf", ".safetensors"),
)


def check_paths(settings: Settings) -> None:
    """Raise ConfigError with a line for each input or output path that cannot be right."""
    metrics = [("metrics", name, "a metric module") for name in settings.metrics]
    errors = [
        f"{settings.where(key)} {name!r} does not exist; give the path of {what}"
        for key, name, what in [*_inputs(settings), *metrics]
        if not is_local(name) and (key == "metrics" or not is_hub_name(name))
    ]
    errors += _output_errors(settings)
    if errors:
        raise ConfigError("\n".join(errors))


def check_moving(settings: Settings) -> None:
    """Raise ConfigError where `--resume never` would move an input away with the older run."""
    run = _resolved(settings.output_dir)
    inputs = [(settings.where(key), name) for key, name, _ in _inputs(settings)]
    for place, name in [*inputs, ("the config", settings.source)]:
        if is_local(name) and run in _resolved(name).parents:
            raise ConfigError(
                f"{place} {name!r} is inside {settings.output_dir}, which --resume "
                "never renames; choose another output_dir, or move the input out of it"
            )


def configure_environment(settings: Settings) -> None:
    """Disable telemetry, and the Hub too if nothing is needed from it or it is unreachable."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "HF_HUB_OFFLINE" in os.environ:
        return
    all_local = all(is_local(name) for _, name, _ in _inputs(settings))
    if all_local and not settings.option("push_to_hub") or not _hub_is_reachable():
        os.environ["HF_HUB_OFFLINE"] = "1"


def check_push(settings: Settings) -> None:
    """Raise ConfigError for push_to_hub without a Hub; call it after configure_environment.

    The trainer would fail at its first steps instead.
    """
    if settings.option("push_to_hub") and _is_offline():
        raise ConfigError(
            f"{settings.where('push_to_hub')}: the Hub cannot be reached, or HF_HUB_OFFLINE is "
            "set; remove the key, and push the finished run later: hf upload REPOSITORY "
            f"{settings.output_dir}"
        )


def is_local(name: str) -> bool:
    """Whether the name is a path that exists."""
    return Path(name).expanduser().exists()


def located(name: str) -> str:
    """The name for a library: a local path with `~` expanded, a Hub name unchanged."""
    return str(Path(name).expanduser()) if is_local(name) else name


def is_hub_name(name: str) -> bool:
    """Whether a path that does not exist can be a name on the Hub: `gpt2`, `owner/name`."""
    parts = name.split("/")
    return (
        len(parts) <= 2
        and all(part and not part.startswith((".", "~")) for part in parts)
        and not name.lower().endswith(FILE_ENDINGS)
        and "\\" not in name
    )


def load_failure(settings: Settings, key: str, name: str, error: Exception) -> str:
    """The message for a model, adapter or dataset that a library could not load."""
    reason = one_line(error)
    if not is_local(name) and _is_offline():
        reason = (
            "it is not a local path and was not downloaded before, and the Hub is unreachable or "
            "HF_HUB_OFFLINE is set; give a local path, or run once online"
        )
    return f"{settings.where(key)} {name!r} could not be loaded: {reason}"


def _output_errors(settings: Settings) -> Iterator[str]:
    """Why output_dir cannot be the directory of this run and of nothing else."""
    place, here = settings.where("output_dir"), Path.cwd()
    run = _resolved(settings.output_dir)
    existing = next(path for path in (run, *run.parents) if path.exists())
    if not existing.is_dir():
        yield f"{place}: {existing} is a file; name a directory"
    elif not os.access(existing, os.W_OK):
        yield f"{place}: {existing} is not writable; name another directory"
    elif run == here or run in here.parents:
        yield f"{place} {settings.output_dir!r} holds more than a run; name a directory of its own"
    for key, name, _ in _inputs(settings):
        given = _resolved(name)
        # Every file in the directory of a converted dataset is part of that dataset.
        if is_local(name) and (run == given or key == "dataset_path" and given in run.parents):
            yield f"{place} {settings.output_dir!r} is {key} {name!r} or inside it; name another"
        elif is_local(name) and run in given.parents and is_written(given.relative_to(run)):
            yield (
                f"{place} {settings.output_dir!r} has {key} {name!r} where training writes; name "
                "another directory, or move the input"
            )


def _resolved(name: str) -> Path:
    return Path(name).expanduser().resolve()


def _inputs(settings: Settings) -> list[tuple[str, str, str]]:
    """(key, path or Hub name, what it must be) of the model, the adapter and the datasets."""
    inputs = [("model_path", settings.model_path, "a model's directory")]
    if settings.adapter_path is not None:
        inputs.append(("adapter_path", settings.adapter_path, "an adapter's directory"))
    return inputs + [("dataset_path", path, "a dataset") for path in settings.dataset_path]


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _hub_is_reachable() -> bool:
    """Whether the Hub, or the proxy in front of it, accepts a connection in CONNECT_SECONDS."""
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    target = urlsplit(proxy or os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    port = target.port or (80 if target.scheme == "http" else 443)
    connected = threading.Event()

    def connect() -> None:
        with contextlib.suppress(OSError):
            socket.create_connection((target.hostname, port), timeout=CONNECT_SECONDS).close()
            connected.set()

    # In a thread, because name resolution has no timeout of its own.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    return connected.is_set()
