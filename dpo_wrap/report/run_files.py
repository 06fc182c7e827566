"""What stands in a run directory, read for its page; a file that is missing or broken is empty."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpo_wrap import run_dir
from dpo_wrap.data import conversion_reports as conversions

# What the page shows of a conversion's report.json.
CONVERSION = (
    *("format", "evidence", "records", "pairs", "reasons", "warnings", "splits", "prompts"),
    *("chosen_longer", "chosen_shorter", "first_answer_wins", "ties", "notes"),
)


@dataclass(frozen=True)
class Pieces:
    """A run directory's files, as far as they can be read."""

    name: str
    run: dict[str, Any]
    metrics: list[dict[str, Any]]
    found: dict[str, Any]
    """What eval.json holds."""
    samples: list[dict[str, Any]]
    suspects: list[dict[str, Any]]
    search: dict[str, Any]
    """What suspects.json holds of how they were found."""
    config: str
    conversions: dict[str, dict[str, Any]]
    """By dataset, of those that were converted, the figures of report.json."""


def read_pieces(directory: Path, run: dict[str, Any] | None = None) -> Pieces:
    """The pieces of a page; `run` stands for a run.json that is yet to be written."""
    run = read_object(directory / run_dir.RUN) if run is None else run
    paths = a_dict(run.get("config")).get("dataset_path")
    return Pieces(
        name="/".join(directory.resolve().parts[-2:]),
        run=run,
        metrics=read_lines(directory / run_dir.METRICS),
        found=read_object(directory / run_dir.EVAL),
        samples=read_lines(directory / run_dir.SAMPLES),
        suspects=read_lines(directory / run_dir.SUSPECTS),
        search=read_object(directory / run_dir.SUSPECTS_FIGURES),
        config=_read(directory / run_dir.CONFIG),
        conversions=_conversions(directory, [paths] if isinstance(paths, str) else a_list(paths)),
    )


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    return _object(_read(path))


def a_dict(value: Any) -> dict[str, Any]:
    """The value where it is a dict, else an empty one."""
    return value if isinstance(value, dict) else {}


def a_list(value: Any) -> list[Any]:
    """The value where it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def _conversions(directory: Path, paths: list[Any]) -> dict[str, dict[str, Any]]:
    return {
        path: {name: report[name] for name in CONVERSION if report.get(name)}
        for path, report in conversions.reports(directory, list(map(str, paths))).items()
    }


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError):
        return ""


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects in a file, one a line."""
    # Not splitlines, which also parts a line at characters that JSON leaves as they are.
    return [found for line in _read(path).split("\n") if (found := _object(line))]


def _object(text: str) -> dict[str, Any]:
    try:
        return a_dict(json.loads(text))
    except (ValueError, RecursionError):
        return {}
