"""Whether the Hub is asked at all: settled before any Hugging Face library is imported.

Those libraries read their environment on import, retry an unreachable Hub for half a minute, and
look it up for telemetry even where model and data are local.
"""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from dpo_wrap.config import Settings
from dpo_wrap.errors import ConfigError

PATIENCE = 3.0
"""Seconds after which the Hub counts as unreachable."""
# What ends like a file and does not exist is a mistyped path, not the name of something on the Hub.
FILE_ENDINGS = (
    *(".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".xlsx", ".arrow"),
    *(".gz", ".zst", ".bz2", ".xz", ".zip"),
    *(".txt", ".yaml", ".yml", ".bin", ".pt", ".gguf", ".safetensors"),
)


def check_paths(settings: Settings) -> None:
    """Raise ConfigError for paths that can only be mistaken, all at once."""
    faults = [
        f"{settings.where(key)} {name!r} does not exist; give the path of {what}"
        for key, name, what in _named(settings)
        if not is_local(name) and not is_hub_name(name)
    ]
    faults += [
        f"{settings.where('metrics')}: {name!r} does not exist; give the path of a metric module"
        for name in settings.metrics
        if not is_local(name)
    ]
    faults += _output_faults(settings)
    if faults:
        raise ConfigError("\n".join(faults))


def check_moving(settings: Settings) -> None:
    """Raise ConfigError where `--resume never` would move aside what the new run is made from."""
    run = Path(settings.output_dir).expanduser().resolve()
    for key, name, _ in _named(settings):
        if is_local(name) and run in Path(name).expanduser().resolve().parents:
            raise ConfigError(
                f"{settings.where(key)} {name!r} lies in {settings.output_dir}, which --resume "
                "never would move aside; choose another output_dir, or move it out first"
            )


def settle_environment(settings: Settings) -> None:
    """Switch telemetry off, and the Hub too where nothing named is on it or it is out of reach."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    remote = settings.option("push_to_hub") or not all(
        is_local(name) for _, name, _ in _named(settings)
    )
    if "HF_HUB_OFFLINE" not in os.environ and not (remote and _reachable()):
        os.environ["HF_HUB_OFFLINE"] = "1"


def check_push(settings: Settings) -> None:
    """Raise ConfigError where push_to_hub cannot be done; called once the environment is settled.

    Left to the trainer it would end a run in its first steps.
    """
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    if settings.option("push_to_hub") and offline:
        raise ConfigError(
            f"{settings.where('push_to_hub')}: the Hub cannot be reached, or HF_HUB_OFFLINE is "
            "set; remove it, and push the finished run later: hf upload REPOSITORY "
            f"{settings.output_dir}"
        )


def is_local(name: str) -> bool:
    """Whether the name is a path that exists."""
    return Path(name).expanduser().exists()


def located(name: str) -> str:
    """The name as libraries take it: a local path with its ~ filled in, anything else as it is."""
    return str(Path(name).expanduser()) if is_local(name) else name


def is_hub_name(name: str) -> bool:
    """Whether a path that does not exist can name something on the Hub: `gpt2`, `owner/name`."""
    parts = name.split("/")
    return (
        len(parts) <= 2
        and all(part and not part.startswith((".", "~")) for part in parts)
        and not name.lower().endswith(FILE_ENDINGS)
        and "\\" not in name
    )


def unreachable(settings: Settings, key: str, name: str, what: str) -> str:
    """One line for something that is neither here nor to be had."""
    return (
        f"{settings.where(key)} {name!r} could not be loaded: it is no local path, no earlier "
        "download of it is kept, and the Hub cannot be reached; "
        f"give the path of {what}, or run once online (downloads are kept under HF_HOME)"
    )


def _output_faults(settings: Settings) -> Iterator[str]:
    """Why no run can be written to output_dir: a run has a directory to itself."""
    place, here = settings.where("output_dir"), Path.cwd()
    run = Path(settings.output_dir).expanduser().resolve()
    standing = next(path for path in (run, *run.parents) if path.exists())
    if not standing.is_dir():
        yield f"{place}: {standing} is a file; name a directory"
    elif not os.access(standing, os.W_OK):
        yield f"{place}: {standing} may not be written to; name another directory"
    elif run == here or run in here.parents:
        yield f"{place} {settings.output_dir!r} holds more than a run; name a directory of its own"
    for key, name, _ in _named(settings):
        given = Path(name).expanduser().resolve()
        # A converted dataset is a folder of files that are opened together.
        if is_local(name) and (run == given or key == "dataset_path" and given in run.parents):
            yield f"{place} {settings.output_dir!r} is or lies in {key} {name!r}; name another"


def _named(settings: Settings) -> list[tuple[str, str, str]]:
    """(key, path or name, what it should be) of everything that a config asks to be loaded."""
    named = [("model_path", settings.model_path, "a model's directory")]
    if settings.adapter_path is not None:
        named.append(("adapter_path", settings.adapter_path, "an adapter's directory"))
    return named + [("dataset_path", path, "a dataset") for path in settings.dataset_path]


def _reachable() -> bool:
    """Whether the Hub, or the proxy on the way to it, takes a connection within PATIENCE."""
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    target = urlsplit(proxy or endpoint)
    port = target.port or (80 if target.scheme == "http" else 443)
    answers = []

    def knock() -> None:
        try:
            socket.create_connection((target.hostname, port), timeout=PATIENCE).close()
            answers.append(True)
        except OSError:
            answers.append(False)

    # Name resolution has no timeout of its own, hence the thread.
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return bool(answers and answers[0])
