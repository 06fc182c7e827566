"""Which checkpoints can be gone on from: each complete one carries a mark, written last."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from dpo_wrap.files import write_atomically

MARK = "dpo_wrap.json"
# Of the mark itself. A checkpoint with another one is skipped, not misread.
FORMAT = 1
FOLDER = re.compile(r"checkpoint-(\d+)\Z")
# Files up to this size are read whole before they are trusted; of larger ones these many places.
READ_WHOLE = 256 * 1024 * 1024
PLACES, PLACE = 256, 4096


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is whole."""

    path: Path
    step: int
    identity: dict[str, Any]
    """`config`, `data` and `step_0` of the run that wrote it."""
    num_tokens: int
    """What TRL logs under this name: tokens trained on so far, which it does not save itself."""


def write_mark(folder: Path, identity: dict[str, Any], resumable: bool, num_tokens: int) -> None:
    """Declare the checkpoint complete: its files with their sizes and digests, and its run."""
    mark = {"format": FORMAT, "resumable": resumable, "num_tokens": num_tokens}
    mark |= {"identity": identity, "files": _files(folder)}
    write_atomically(folder / MARK, json.dumps(mark, indent=1) + "\n")


def find(directory: Path) -> list[Path]:
    """The checkpoint folders of a run, newest first, whole or not."""
    if not directory.is_dir():
        return []
    found = [path for path in directory.iterdir() if path.is_dir() and FOLDER.match(path.name)]
    return sorted(found, key=lambda path: int(FOLDER.match(path.name)[1]), reverse=True)


def read(folder: Path) -> Checkpoint | str:
    """The checkpoint, or what is wrong with it."""
    try:
        mark = json.loads((folder / MARK).read_text("utf-8"))
        if mark.get("format") != FORMAT:
            return "was written by another version of this program"
        if not mark["resumable"]:
            return "has weights alone (save_only_model), which cannot be gone on from"
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
    """Hex digest of a file; of a large one it samples places over the whole of it."""
    size = path.stat().st_size
    if size <= READ_WHOLE:
        return xxhash.xxh3_128(path.read_bytes()).hexdigest()
    found = xxhash.xxh3_128()
    with path.open("rb") as file:
        for number in range(PLACES):
            file.seek((size - PLACE) * number // (PLACES - 1))
            found.update(file.read(PLACE))
    return found.hexdigest()


def _files(folder: Path) -> dict[str, list[Any]]:
    """[size in bytes, digest] by path relative to the folder."""
    return {
        str(path.relative_to(folder)): [path.stat().st_size, digest(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MARK
    }
