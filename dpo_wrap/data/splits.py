"""Load `dataset_path` as train and test splits: converted directories, raw files, Hub datasets.

The only module that imports data_tools; what is not needed for every run is imported in the
function that needs it. Nothing is written next to the user's data.
"""

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import xxhash
from datasets import Dataset, concatenate_datasets

from data_tools.keys import pair_key
from dpo_wrap.config import Settings
from dpo_wrap.data.columns import check_columns, check_context, count_fields
from dpo_wrap.data.overlap import drop_train_test_overlap
from dpo_wrap.errors import DataError, one_line
from dpo_wrap.files import OWN, clear_own, make_own
from dpo_wrap.hub import is_local, load_failure

TRAINED = ("prompt", "chosen", "rejected", "tools", "chat_template_kwargs")
"""The columns that the trainer reads; `source` finds a row again in the raw file."""
KEPT = "kept:"
"""Prefix of the other text columns, which eval can group by."""
SPLITS = ("train", "test")
READ_ERRORS = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError)
READ_ERRORS += (pa.ArrowException,)
"""What `datasets` and pyarrow raise for files that they cannot read."""


@dataclass(frozen=True)
class Splits:
    """The data of a run: each row a prompt and two answers, all text or all messages."""

    train: Dataset
    test: Dataset | None
    conversational: bool
    fields: Counter[tuple[str, str]]
    """Messages by the (field, role) that have a value; see `count_fields`."""
    fingerprint: str
    """Hex digest of the rows of both splits in their order."""
    notes: list[str]


def load_splits(
    settings: Settings, run_directory: Path, temp_dir: Path, kept: bool = False
) -> Splits:
    """Load, check and join the datasets of dataset_path. Raises DataError.

    A raw file is converted into `temp_dir` unless `run_directory` has its conversion already;
    `move_into_run` moves it there once the run is accepted. With `kept`, the other text columns of
    a single dataset are included, their names prefixed with KEPT.
    """
    paths, place = settings.dataset_path, settings.where("dataset_path")
    targets = [str(Path(p).expanduser().resolve()) if is_local(p) else p for p in paths]
    twice = [p for p, target in zip(paths, targets, strict=True) if targets.count(target) > 1]
    if twice:
        raise DataError(f"{place}: {' and '.join(map(repr, twice))} are the same; remove one")
    notes: list[str] = []
    parts, kinds = [], {}
    for position, path in enumerate(paths):
        name = f"dataset-{position + 1}" if len(paths) > 1 else "dataset"
        part = _open(settings, path, run_directory / name, temp_dir / name, notes)
        kinds[path] = {check_columns(rows, path, split) for split, rows in part.items()}
        _check_context(part, path, notes)
        parts.append(part)
    if len(set.union(*kinds.values())) > 1:
        described = ", ".join(f"{path} has {' and '.join(found)}" for path, found in kinds.items())
        raise DataError(
            f"{place}: text and messages are mixed ({described}); convert them together"
        )
    kept = kept and len(parts) == 1
    parts = [{split: _columns(rows, kept) for split, rows in part.items()} for part in parts]
    if len(parts) > 1:
        parts = drop_train_test_overlap(parts, paths, _pair_key, notes)
    if "messages" not in kinds[paths[0]]:
        for name in ("tools", "chat_template_kwargs"):
            if any(any(rows[name]) for rows in _with_column(parts, name)):
                raise DataError(
                    f"{place}: the column {name!r} has no effect on prompts that are text; make "
                    "them lists of messages, or remove the column"
                )
    train = _joined([part["train"] for part in parts], settings)
    tests = [part["test"] for part in parts if "test" in part]
    test = _joined(tests, settings) if tests else None
    if not len(train):
        raise DataError(f"{place}: no rows are left to train on")
    if test is None and settings.option("eval_strategy") != "no":
        raise DataError(
            f"{settings.where('eval_strategy')}: the data have no test split to evaluate on; "
            "convert with --test-size above 0, save a split as test, or remove the key"
        )
    both = [train] if test is None else [train, test]
    return Splits(
        train=train,
        test=test,
        conversational="messages" in kinds[paths[0]],
        fields=sum(map(count_fields, both), Counter()),
        fingerprint=_fingerprint(both),
        notes=notes,
    )


def _with_column(parts: list[dict[str, Dataset]], name: str) -> Iterator[Dataset]:
    """The splits that have a column."""
    yield from (rows for part in parts for rows in part.values() if name in rows.column_names)


def move_into_run(run_directory: Path, temp_dir: Path) -> None:
    """Move what was made in temp_dir into the run directory, replacing what has the same name."""
    for part in sorted(temp_dir.iterdir()) if temp_dir.is_dir() else []:
        if part.name == OWN:
            continue
        target = run_directory / part.name
        if part.is_dir():
            _stamp(target).unlink(missing_ok=True)
            clear_own(target)
        os.replace(part, target)


@contextlib.contextmanager
def caching_disabled() -> Iterator[None]:
    """Keep `datasets` from caching the results of `map` next to the user's files."""
    enabled = datasets.is_caching_enabled()
    datasets.disable_caching()
    try:
        yield
    finally:
        if enabled:
            datasets.enable_caching()


def _open(
    settings: Settings, path: str, converted: Path, temp_converted: Path, notes: list[str]
) -> dict[str, Dataset]:
    """The train split, and the test split if it has rows."""
    local = Path(path).expanduser()
    if local.is_dir():
        loaded = _load_directory(local, path)
    elif local.is_file():
        loaded = _load_directory(_convert(local, converted, temp_converted, notes), path)
    else:
        try:
            loaded = datasets.load_dataset(path)
        except READ_ERRORS as error:
            raise DataError(load_failure(settings, "dataset_path", path, error)) from None
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


def _load_directory(directory: Path, path: str) -> dict[str, Dataset | None]:
    """The splits that convert or `save_to_disk` wrote; None for one without rows or not read."""
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
        if not saved:
            return datasets.load_dataset(str(directory))
        if not (directory / "dataset_dict.json").is_file():
            return {"train": _load_saved_split(directory)}
        names = json.loads((directory / "dataset_dict.json").read_text("utf-8"))["splits"]
        return {n: _load_saved_split(directory / n) if n in SPLITS else None for n in names}
    except READ_ERRORS as error:
        raise DataError(
            f"{path}: the dataset is damaged ({one_line(error)}); convert it again"
        ) from None


def _load_saved_split(directory: Path) -> Dataset | None:
    # load_from_disk raises IndexError for a split without rows.
    files = json.loads((directory / "state.json").read_text("utf-8"))["_data_files"]
    return Dataset.load_from_disk(str(directory)) if files else None


def _convert(raw: Path, converted: Path, temp_converted: Path, notes: list[str]) -> Path:
    """The directory with the conversion of a raw file, which is repeated if the file changed."""
    try:
        with raw.open("rb") as file:
            digest = hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
    except OSError as error:
        raise DataError(f"{raw}: cannot be read ({error.strerror})") from None
    if converted.exists() and (
        not (converted / OWN).is_file() or converted.resolve() in raw.resolve().parents
    ):
        raise DataError(
            f"{converted}: needed for the conversion of {raw}, but it holds other files; move "
            "them, or name another output_dir"
        )
    # Another process of the same run may have converted the file into temp_converted just now.
    for directory in (converted, temp_converted):
        stamp = _stamp(directory)
        whole = stamp.is_file() and (directory / "report.json").is_file()
        if whole and digest in stamp.read_text("utf-8"):
            return directory
    # Imported here, because few runs convert.
    from data_tools.convert import convert
    from data_tools.record import ConvertError

    make_own(temp_converted.parent)
    show_rejects = f"python -m data_tools.convert --check {raw}"
    try:
        report = convert((str(raw),), output=str(temp_converted), workers=1)
    except ConvertError as error:
        if error.report is None:
            raise DataError(str(error)) from None
        reasons = ", ".join(f"{code} {n}" for code, n in error.report.figures["reasons"].items())
        raise DataError(
            f"{raw}: no pair could be kept ({reasons}); see why with {show_rejects}"
        ) from None
    pairs = report.figures["pairs"]
    make_own(temp_converted)
    note = f"{raw}: converted, {pairs['kept']} of {pairs['made']} pairs kept"
    if report.figures["records"]["rejected"]:
        note += f"; {show_rejects} shows why the others were rejected"
    notes.append(note)
    _stamp(temp_converted).write_text(
        json.dumps({"raw": str(raw), "xxh3_128": digest}) + "\n", "utf-8"
    )
    return temp_converted


def _stamp(converted: Path) -> Path:
    """The file next to a conversion that has the digest of the raw file; it is written last."""
    return converted.with_name(f"{converted.name}.stamp.json")


def _check_context(splits: dict[str, Dataset], path: str, notes: list[str]) -> None:
    """Check and note the columns that are not trained on, if convert did not write the dataset."""
    local, columns = Path(path).expanduser(), {n for s in splits.values() for n in s.column_names}
    if local.is_file() or "source" in columns and (local / "report.json").is_file():
        return
    from data_tools.column_kinds import kind_of

    for split, rows in splits.items():
        check_context(rows, path, split, kind_of)
    if unread := sorted(columns - {*TRAINED, "source"}):
        notes.append(f"{path}: columns not trained on: {', '.join(map(repr, unread))}")


def _columns(rows: Dataset, kept: bool) -> Dataset:
    own = [name for name in (*TRAINED, "source") if name in rows.column_names]
    texts = [name for name, kind in rows.features.items() if kind == datasets.Value("string")]
    others = [name for name in texts if kept and name not in own]
    return rows.select_columns([*own, *others]).rename_columns({n: KEPT + n for n in others})


def _pair_key(row: dict[str, Any]) -> tuple[bytes, bool]:
    return pair_key(**{name: row[name] for name in TRAINED if name in row})


def _joined(parts: list[Dataset], settings: Settings) -> Dataset:
    place = settings.where("dataset_path")
    if len({frozenset(part.column_names) - {"source"} for part in parts}) > 1:
        raise DataError(
            f"{place}: only some of the datasets have tools or chat_template_kwargs; convert them "
            "together"
        )
    try:
        joined = concatenate_datasets(parts) if len(parts) > 1 else parts[0]
    except READ_ERRORS as error:
        raise DataError(
            f"{place}: the datasets cannot be joined ({one_line(error)}); convert them together"
        ) from None
    name, common = "chat_template_kwargs", settings.chat_template_kwargs or {}
    if name not in joined.column_names and not common:
        return joined
    with caching_disabled():
        # TRL takes only mappings, and a row without arguments has null.
        return joined.map(lambda row: {name: common | _arguments(row.get(name) or {}, place)})


def _arguments(found: Any, place: str) -> dict[str, Any]:
    """A row's own arguments, perhaps as JSON, without the nulls that Arrow adds for other rows.

    Raises DataError.
    """
    with contextlib.suppress(ValueError):
        found = json.loads(found) if isinstance(found, str) else found
    if not isinstance(found, dict):
        raise DataError(f"{place}: chat_template_kwargs is {found!r}, not a mapping; fix the rows")
    return {name: value for name, value in found.items() if value is not None}


def _fingerprint(splits: list[Dataset]) -> str:
    digest = xxhash.xxh3_128()
    for rows in splits:
        columns = [name for name in TRAINED if name in rows.column_names]
        digest.update(f"{len(rows)} {columns}".encode())
        # In batches of a fixed size, so that the chunks of the file make no difference.
        for table in rows.select_columns(columns).with_format("arrow").iter(batch_size=1000):
            for column in table.combine_chunks().columns:
                sink = pa.BufferOutputStream()
                unnamed = pa.table({"": column})
                with pa.ipc.new_stream(sink, unnamed.schema) as writer:
                    writer.write_table(unnamed)
                digest.update(sink.getvalue())
    return digest.hexdigest()
