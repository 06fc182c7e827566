"""`dataset_path` to checked splits: converted directories, raw files, Hub datasets, lists of these.

The one bridge to data_tools. Nothing is written beside the user's data: a raw file is converted
into the run directory, and what `datasets` would keep beside its files goes to a temporary folder.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import xxhash
from datasets import Dataset, concatenate_datasets

from data_tools.column_kinds import kind_of
from data_tools.convert import convert
from data_tools.keys import pair_key, prompt_key
from data_tools.record import ConvertError
from dpo_wrap.config import Settings
from dpo_wrap.data import stored
from dpo_wrap.data.columns import check_columns, check_context
from dpo_wrap.data.overlap import drop_train_test_overlap
from dpo_wrap.data.stored import FAILURES, Stored
from dpo_wrap.errors import DataError, one_line
from dpo_wrap.files import OWN, make_own

# What the trainer reads; `source` finds a row again in the raw file.
TRAINED = ("prompt", "chosen", "rejected", "tools", "chat_template_kwargs")
KEPT = "kept:"
"""What stands before the name of a column that neither the trainer nor we give a meaning."""


@dataclass(frozen=True)
class Splits:
    """The data of a run: each row an explicit prompt and two answers, all text or all messages."""

    train: Dataset
    test: Dataset | None
    conversational: bool
    tools: bool
    calls: bool
    """Whether any row brings tools, or calls them, which a chat template must have words for."""
    fingerprint: str
    """Hex digest of what is trained and tested on: the rows, in their order."""
    notes: list[str]


def load_splits(settings: Settings, standing: Path, aside: Path, kept: bool = False) -> Splits:
    """Load, check and join what dataset_path names. Raises DataError.

    A raw file is converted into `aside`, unless `standing` (the run directory) holds its conversion
    already; `adopt` moves the former into the latter once the run is accepted. With `kept`, the
    further text columns of a single dataset come along, their names after KEPT.
    """
    paths, place = settings.dataset_path, settings.where("dataset_path")
    _check_distinct(settings)
    opened, notes = [], []
    for position, path in enumerate(paths):
        name = f"dataset-{position + 1}" if len(paths) > 1 else "dataset"
        opened.append(_load(settings, path, standing / name, aside / name, notes))
        notes += opened[-1].notes
    parts = [one.splits for one in opened]
    kinds = [
        {split: check_columns(rows, path, split) for split, rows in part.items()}
        for path, part in zip(paths, parts, strict=True)
    ]
    for path, part in zip(paths, parts, strict=True):
        notes += _check_context(part, path)
    every = [kind for part in kinds for kind in part.values()]
    if len({kind.conversational for kind in every}) > 1:
        described = (
            f"{path} has {'messages' if part['train'].conversational else 'text'}"
            for path, part in zip(paths, kinds, strict=True)
        )
        raise DataError(
            f"{place}: text and messages cannot be mixed "
            f"({', '.join(described)}); convert them together"
        )
    kept = kept and len(parts) == 1
    parts = [{split: _columns(rows, kept) for split, rows in part.items()} for part in parts]
    if len(parts) > 1:
        parts = drop_train_test_overlap(parts, paths, prompt_key, _comparison_key, notes)
    train = _joined([part["train"] for part in parts], settings)
    tests = [part["test"] for part in parts if "test" in part]
    test = _joined(tests, settings) if tests else None
    if not len(train):
        raise DataError(f"{place}: no rows are left to train on")
    if test is None and settings.option("eval_strategy") != "no":
        unread = sorted({name for one in opened for name in one.unread})
        others = f" (not read: {', '.join(unread)})" if unread else ""
        raise DataError(
            f"{settings.where('eval_strategy')}: the data have no test split to evaluate on"
            f"{others}; convert with --test-size above 0, or remove it"
        )
    fingerprint = _fingerprint([train] + ([test] if test is not None else []))
    tools = any(kind.tools for kind in every)
    calls = any(kind.calls for kind in every)
    return Splits(train, test, every[0].conversational, tools, calls, fingerprint, notes)


def adopt(standing: Path, aside: Path) -> None:
    """Move what was made aside into the run directory, in place of what stands there."""
    for part in sorted(aside.iterdir()) if aside.is_dir() else []:
        if part.name == OWN:
            continue
        target = standing / part.name
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(part, target)


@contextlib.contextmanager
def nothing_kept() -> Iterator[None]:
    """`datasets` keeps what `map` makes beside the files it read, the user's; here it does not."""
    kept = datasets.is_caching_enabled()
    datasets.disable_caching()
    try:
        yield
    finally:
        if kept:
            datasets.enable_caching()


def _check_distinct(settings: Settings) -> None:
    """Raise DataError for a dataset that is named twice: its every row would count double."""
    seen: dict[str, str] = {}
    for path in settings.dataset_path:
        local = Path(path).expanduser()
        one = str(local.resolve()) if local.exists() else path
        if one in seen:
            raise DataError(
                f"{settings.where('dataset_path')}: {path!r} is the same dataset as {seen[one]!r}; "
                "name it once"
            )
        seen[one] = path


def _load(settings: Settings, path: str, standing: Path, aside: Path, notes: list[str]) -> Stored:
    local = Path(path).expanduser()
    if local.is_file():
        return stored.from_directory(_converted(local, standing, aside, notes), path)
    if local.is_dir():
        return stored.from_directory(local, path)
    return stored.from_hub(settings, path)


def _check_context(splits: dict[str, Dataset], path: str) -> list[str]:
    """What is not trained on of a dataset that convert did not write, in a line."""
    local, columns = Path(path).expanduser(), {n for s in splits.values() for n in s.column_names}
    if local.is_file() or "source" in columns and (local / "report.json").is_file():
        return []
    for split, rows in splits.items():
        check_context(rows, path, split, kind_of)
    unread = sorted(columns - {*TRAINED, "source"})
    return [f"{path}: columns not trained on: {', '.join(map(repr, unread))}"] if unread else []


def _converted(raw: Path, standing: Path, aside: Path, notes: list[str]) -> Path:
    """Where the conversion of a raw file stands; made anew when the file has changed."""
    digest = _file_digest(raw)
    for place in (standing, aside):
        # Aside: another process of this run has just made it.
        if _stamp(place) == digest:
            return place
    make_own(aside.parent)
    try:
        report = convert((str(raw),), output=str(aside), workers=1)
    except ConvertError as error:
        raise DataError(str(error)) from None
    pairs = report.figures["pairs"]
    if report.status:
        reasons = ", ".join(f"{code} {n}" for code, n in report.figures["reasons"].items())
        raise DataError(
            f"{raw}: no pair could be kept ({reasons}); see why with "
            f"python -m data_tools.convert --check {raw}"
        )
    said = f"{raw}: converted, {pairs['kept']} of {pairs['made']} pairs kept"
    if report.figures["records"]["rejected"]:
        said += f"; python -m data_tools.convert --check {raw} says why the others were not"
    notes.append(said)
    (aside.parent / f"{aside.name}.stamp.json").write_text(
        json.dumps({"raw": str(raw), "xxh3_128": digest}) + "\n", "utf-8"
    )
    return aside


def _stamp(standing: Path) -> str | None:
    """The digest of the raw file that a conversion came from; None where none stands."""
    try:
        text = (standing.parent / f"{standing.name}.stamp.json").read_text("utf-8")
        return json.loads(text)["xxh3_128"] if (standing / "report.json").is_file() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _file_digest(path: Path) -> str:
    digest = xxhash.xxh3_128()
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()


def _columns(rows: Dataset, kept: bool) -> Dataset:
    own = [name for name in (*TRAINED, "source") if name in rows.column_names]
    further = [n for n, kind in rows.features.items() if kept and n not in own and _is_text(kind)]
    return rows.select_columns([*own, *further]).rename_columns({n: KEPT + n for n in further})


def _is_text(kind: Any) -> bool:
    return isinstance(kind, datasets.Value) and kind.dtype == "string"


def _comparison_key(row: dict[str, Any]) -> tuple[bytes, bool]:
    return pair_key(**{name: row[name] for name in TRAINED if name in row})


def _joined(parts: list[Dataset], settings: Settings) -> Dataset:
    if len({frozenset(part.column_names) - {"source"} for part in parts}) > 1:
        raise DataError(
            f"{settings.where('dataset_path')}: only some of the datasets have tools or "
            "chat_template_kwargs; convert them together"
        )
    try:
        joined = concatenate_datasets(parts) if len(parts) > 1 else parts[0]
    except FAILURES as error:
        raise DataError(
            f"{settings.where('dataset_path')}: the datasets cannot be joined ({one_line(error)}); "
            "convert them together"
        ) from None
    if "chat_template_kwargs" not in joined.column_names:
        return joined
    with nothing_kept():
        # A row without is null here, and TRL takes only mappings.
        return joined.map(lambda row: {"chat_template_kwargs": row["chat_template_kwargs"] or {}})


def _fingerprint(splits: list[Dataset]) -> str:
    digest = xxhash.xxh3_128()
    for rows in splits:
        columns = [name for name in TRAINED if name in rows.column_names]
        digest.update(f"{len(rows)} {columns}".encode())
        # Batches of a fixed size, so that how the file was cut into pieces does not count.
        for table in rows.select_columns(columns).with_format("arrow").iter(batch_size=1000):
            for column in table.combine_chunks().columns:
                sink = pa.BufferOutputStream()
                plain = pa.table({"": column})
                with pa.ipc.new_stream(sink, plain.schema) as writer:
                    writer.write_table(plain)
                digest.update(sink.getvalue())
    return digest.hexdigest()
