"""A dataset as it stands in a directory or on the Hub, opened: its splits, and what is amiss."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets import Dataset

from dpo_wrap.config import Settings
from dpo_wrap.errors import DataError, one_line
from dpo_wrap.hub import unreachable

# How `datasets` and pyarrow object to what they read; StopIteration is an empty file of JSON Lines.
FAILURES = (OSError, ValueError, LookupError, TypeError, RuntimeError, pa.ArrowException)
EMPTY = re.compile(r'Instruction "(\w+)" corresponds to no data')
READ = ("train", "test")


@dataclass(frozen=True)
class Stored:
    """The splits that a run reads: `train`, and `test` where it has rows."""

    splits: dict[str, Dataset]
    unread: tuple[str, ...]
    """The names of the dataset's other splits."""
    notes: tuple[str, ...]


def from_directory(directory: Path, path: str) -> Stored:
    """What data_tools.convert or `save_to_disk` wrote; `path` is what messages call it."""
    saved = any((directory / name).is_file() for name in ("dataset_dict.json", "state.json"))
    tables = [*directory.glob("train*.parquet"), *directory.glob("train*.jsonl")]
    if not saved and not tables:
        raise DataError(
            f"{path}: a directory without a converted dataset (no dataset_dict.json, "
            "train.parquet or train.jsonl); convert it: "
            f"python -m data_tools.convert {path}"
        )
    try:
        return _stored(_from_disk(directory) if saved else _from_tables(directory, path), path)
    except FAILURES as error:
        raise DataError(
            f"{path}: the dataset is damaged ({one_line(error)}); convert it again"
        ) from None


def from_hub(settings: Settings, path: str) -> Stored:
    """A dataset by its name on the Hub, or its earlier download."""
    try:
        return _stored(datasets.load_dataset(path), path)
    except FAILURES as error:
        text = one_line(error)
        if datasets.config.HF_HUB_OFFLINE or "reach" in text or "onnect" in text:
            text = unreachable(settings, "dataset_path", path, "a file or a converted directory")
            raise DataError(text) from None
        raise DataError(
            f"{settings.where('dataset_path')} {path!r} could not be loaded from the Hub: {text}"
        ) from None


def _from_disk(directory: Path) -> dict[str, Dataset | None]:
    """The splits of a saved dataset; None for one that has no rows or is not read.

    `load_from_disk` of a split without rows ends in an IndexError, so its files are asked first.
    """
    if not (directory / "dataset_dict.json").is_file():
        return {"train": _saved(directory)}
    names = json.loads((directory / "dataset_dict.json").read_text("utf-8"))["splits"]
    return {name: _saved(directory / name) if name in READ else None for name in names}


def _saved(directory: Path) -> Dataset | None:
    files: Any = json.loads((directory / "state.json").read_text("utf-8"))["_data_files"]
    return Dataset.load_from_disk(str(directory)) if files else None


def _from_tables(directory: Path, path: str) -> dict[str, Dataset]:
    try:
        return datasets.load_dataset(str(directory))
    except StopIteration:
        raise DataError(f"{path}: its files hold no rows; convert it again") from None
    except ValueError as error:
        if found := EMPTY.search(str(error)):
            raise DataError(
                f"{path}: the file of its {found[1]} split holds no rows; remove it"
            ) from None
        raise


def _stored(loaded: dict[str, Dataset | None], path: str) -> Stored:
    if "train" not in loaded:
        raise DataError(
            f"{path}: no split is called train; there are {', '.join(loaded)}; save those that "
            "you want as train and test, or convert the raw file"
        )
    splits = {name: loaded[name] for name in READ if loaded.get(name)}
    if "train" not in splits:
        raise DataError(f"{path}: its train split has no rows; convert the raw data")
    unread, notes = tuple(name for name in loaded if name not in READ), []
    if "test" in loaded and "test" not in splits:
        notes.append(f"{path}: its test split has no rows")
    if unread:
        way_on = "" if "test" in splits else "; save one of them as test to evaluate on it"
        notes.append(f"{path}: only train and test are read, not {', '.join(unread)}{way_on}")
    return Stored(splits, unread, tuple(notes))
