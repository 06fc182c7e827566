"""Open a stored dataset, in a directory or on the Hub, and return its train and test splits."""

import json
from pathlib import Path

import datasets
import pyarrow as pa
from datasets import Dataset

from dpo_wrap.config import Settings
from dpo_wrap.errors import DataError, one_line
from dpo_wrap.hub import load_failure

READ_ERRORS = (OSError, ValueError, LookupError, TypeError, RuntimeError, pa.ArrowException)
"""What `datasets` and pyarrow raise for files that they cannot read."""
SPLITS = ("train", "test")


def open_directory(directory: Path, path: str, notes: list[str]) -> dict[str, Dataset]:
    """Open what data_tools.convert or `save_to_disk` wrote; messages call it `path`."""
    saved = any((directory / name).is_file() for name in ("dataset_dict.json", "state.json"))
    tables = [*directory.glob("t*.parquet"), *directory.glob("t*.jsonl")]
    if not saved and not any(file.name.startswith("train") for file in tables):
        raise DataError(
            f"{path}: the directory has no converted dataset (no dataset_dict.json, train.parquet "
            f"or train.jsonl); convert it: python -m data_tools.convert {path}"
        )
    if empty := sorted(file.name for file in tables if not file.stat().st_size):
        raise DataError(f"{path}: {empty[0]} has no rows; remove it, or convert the data again")
    try:
        loaded = _load_saved(directory) if saved else datasets.load_dataset(str(directory))
    except READ_ERRORS as error:
        raise DataError(
            f"{path}: the dataset is damaged ({one_line(error)}); convert it again"
        ) from None
    return _train_and_test(loaded, path, notes)


def open_hub(settings: Settings, path: str, notes: list[str]) -> dict[str, Dataset]:
    """Open a dataset by its name on the Hub, or its earlier download."""
    try:
        return _train_and_test(datasets.load_dataset(path), path, notes)
    except READ_ERRORS as error:
        raise DataError(load_failure(settings, "dataset_path", path, error)) from None


def _load_saved(directory: Path) -> dict[str, Dataset | None]:
    """The splits of a saved dataset, None for one without rows and for one that is not read."""
    if not (directory / "dataset_dict.json").is_file():
        return {"train": _load_saved_split(directory)}
    names = json.loads((directory / "dataset_dict.json").read_text("utf-8"))["splits"]
    return {n: _load_saved_split(directory / n) if n in SPLITS else None for n in names}


def _load_saved_split(directory: Path) -> Dataset | None:
    # load_from_disk raises IndexError for a split without rows.
    files = json.loads((directory / "state.json").read_text("utf-8"))["_data_files"]
    return Dataset.load_from_disk(str(directory)) if files else None


def _train_and_test(
    loaded: dict[str, Dataset | None], path: str, notes: list[str]
) -> dict[str, Dataset]:
    if "train" not in loaded:
        raise DataError(
            f"{path}: no split is named train (found: {', '.join(loaded)}); save the splits to use "
            "as train and test, or convert the raw file"
        )
    if not loaded["train"]:
        raise DataError(f"{path}: its train split has no rows; convert the raw data")
    splits = {name: loaded[name] for name in SPLITS if loaded.get(name)}
    if "test" in loaded and "test" not in splits:
        notes.append(f"{path}: its test split has no rows")
    if unread := [name for name in loaded if name not in SPLITS]:
        fix = "" if "test" in splits else "; save one of them as test to evaluate on it"
        notes.append(f"{path}: only train and test are read, not {', '.join(unread)}{fix}")
    return splits
