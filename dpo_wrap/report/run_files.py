"""Read the JSON files of a run directory; a file that is missing or damaged reads as empty."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file."""
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError):
        return ""


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file."""
    return _parse(read_text(path))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON Lines file."""
    # str.splitlines would also split at U+2028 and others, which JSON allows within a string.
    return [found for line in read_text(path).split("\n") if (found := _parse(line))]


def _parse(text: str) -> dict[str, Any]:
    try:
        return as_object(json.loads(text))
    except (ValueError, RecursionError):
        return {}


def as_object(value: Any, *path: str) -> dict[str, Any]:
    """Return the object at this path of nested objects, {} where there is none."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """Return the value if it is a list, else []."""
    return value if isinstance(value, list) else []


def conversion_reports(run_dir: Path, dataset_paths: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the report.json of each dataset that data_tools.convert made, by dataset path.

    A converted directory holds its own report. A raw file was converted by the training run, into
    `dataset` in the run directory, or `dataset-N` where it is the Nth of several.
    """
    found = {}
    for position, path in enumerate(dataset_paths, 1):
        converted = run_dir / (f"dataset-{position}" if len(dataset_paths) > 1 else "dataset")
        given = Path(path).expanduser()
        try:
            directory = given if given.is_dir() else converted
        except OSError:  # too long for a path
            continue
        if report := read_object(directory / "report.json"):
            found[path] = report
    return found


def first_shown_wins(reports: Sequence[dict[str, Any]], split: str) -> tuple[int, int]:
    """Return (pairs of known presentation order, pairs whose first answer won) of a split."""
    parts = [as_object(report, "order_by_split", split) for report in reports]
    return sum(p.get("pairs", 0) for p in parts), sum(p.get("first_wins", 0) for p in parts)


def annotator_agreement(reports: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return how often annotators agree with the majority of the others, None where unknown.

    `share` is over all `judgements` that other annotators judged too. It bounds the accuracy that
    can be expected of a model: a label that the next annotator would invert can only be guessed.
    """
    known = [found for report in reports if (found := as_object(report, "agreement"))]
    rows = [row for found in known for row in found["per_annotator"] if row["compared"]]
    judgements = sum(row["compared"] for row in rows)
    if not judgements:
        return None
    agreed = sum(row["compared"] * (1 - row["differs"]) for row in rows)
    alpha = known[0]["alpha"] if len(known) == 1 else None
    return {"share": agreed / judgements, "judgements": judgements, "alpha": alpha}
