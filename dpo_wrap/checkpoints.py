"""Checkpoints that can be resumed from: each complete one has a mark, written last."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from dpo_wrap.files import write_atomically

MARK = "dpo_wrap.json"
FORMAT = 1
"""Version of the mark; a checkpoint with another one is skipped."""
FOLDER = re.compile(r"checkpoint-(\d+)\Z")
READ_WHOLE = 256 * 1024 * 1024
"""Files up to this many bytes are digested whole; of larger ones, evenly spaced samples are."""
SAMPLES, SAMPLE_BYTES = 256, 4096


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint."""

    path: Path
    step: int
    identity: dict[str, Any]
    """The identity (see run_dir.py) and `step_0` of the run that wrote it."""
    num_tokens: int
    """Tokens trained on so far; TRL logs this number but does not save it."""


def write_mark(folder: Path, identity: dict[str, Any], resumable: bool, num_tokens: int) -> None:
    """Mark the checkpoint as complete, with its run's identity and the digests of its files."""
    mark = {"format": FORMAT, "resumable": resumable, "num_tokens": num_tokens}
    mark |= {"identity": identity, "files": _files(folder)}
    write_atomically(folder / MARK, json.dumps(mark, indent=1) + "\n")


def find(directory: Path) -> list[Path]:
    """The checkpoint folders of a run, newest first, complete or not."""
    if not directory.is_dir():
        return []
    found = [path for path in directory.iterdir() if path.is_dir() and FOLDER.match(path.name)]
    return sorted(found, key=lambda path: int(FOLDER.match(path.name)[1]), reverse=True)


def read(folder: Path) -> Checkpoint | str:
    """The checkpoint, or a phrase that says why it cannot be resumed from."""
    try:
        mark = json.loads((folder / MARK).read_text("utf-8"))
        if mark.get("format") != FORMAT:
            return "was written by another version of this program"
        if not mark["resumable"]:
            return "has only weights (save_only_model), so it cannot be resumed from"
        found, files = _files(folder), mark["files"]
        broken = sorted(name for name in files if found.get(name) != files[name])
        if broken:
            return f"is damaged ({broken[0]})"
        state = json.loads((folder / "trainer_state.json").read_text("utf-8"))
        identity = mark["identity"]
        if not {"config", "data", "step_0"} <= identity.keys():
            return f"is damaged ({MARK})"
        return Checkpoint(folder, state["global_step"], identity, mark["num_tokens"])
    except FileNotFoundError:
        return "is not complete"
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return f"is damaged ({MARK})"


def digest(path: Path) -> str:
    """Hex digest of a file; of a large one, of samples over its whole length."""
    size = path.stat().st_size
    if size <= READ_WHOLE:
        return xxhash.xxh3_128(path.read_bytes()).hexdigest()
    found = xxhash.xxh3_128()
    with path.open("rb") as file:
        for number in range(SAMPLES):
            file.seek((size - SAMPLE_BYTES) * number // (SAMPLES - 1))
            found.update(file.read(SAMPLE_BYTES))
    return found.hexdigest()


def _files(folder: Path) -> dict[str, list[Any]]:
    """[size in bytes, digest] by path relative to the folder."""
    return {
        str(path.relative_to(folder)): [path.stat().st_size, digest(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MARK
    }
