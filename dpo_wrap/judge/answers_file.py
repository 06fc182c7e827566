"""What a judge has said so far, a line a verdict, so that nothing is asked twice."""

import contextlib
import json
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # not on this system
    fcntl = None

from dpo_wrap.errors import ConfigError
from dpo_wrap.evaluation.win_rate import FIRST, SECOND, TIE
from dpo_wrap.judge.endpoint import CUT, FAILED, UNCLEAR, Reply
from dpo_wrap.judge.questions import Question

VERDICTS = "verdicts.jsonl"
CLIPPED = 2000
"""Characters of a reply that are kept."""
OWN = ("preference", "annotator", "reply", "fault", "question")
"""The keys of a line that are the judge's; the others are the record's."""

MENDS = {
    CUT: "raise --max-tokens and add --again",
    UNCLEAR: "look at `reply` in the file; a larger model keeps to the form",
}


def output_path(file: str, output: str | None) -> Path:
    """Where the verdicts go, beside the input by default. Raises ConfigError where they cannot."""
    source = Path(file).expanduser()
    path = source.with_name(VERDICTS) if output is None else Path(output).expanduser()
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path}: is no file that verdicts could be kept in; name another -o")
    if path.resolve() == source.resolve():
        raise ConfigError(f"{path}: the verdicts would replace what is judged; name another -o")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.parent}; make it, or name another -o")
    return path


def verdict(question: Question, model: str, reply: Reply) -> dict[str, Any]:
    """What is kept of a reply; `fault` stands where there is no preference."""
    said = {"preference": reply.preference, "annotator": model, "reply": reply.text[:CLIPPED]}
    if reply.fault is not None:
        said["fault"] = reply.fault
    return said | {"question": question.digest}


def line(question: Question, said: dict[str, Any]) -> bytes:
    """The record with its verdict, as a line of the file."""
    record = {key: value for key, value in question.record.items() if key not in OWN}
    text = json.dumps(record | said, ensure_ascii=False)
    # Half a surrogate pair becomes the escape that JSON has for it.
    return f"{text}\n".encode(errors="backslashreplace")


def is_failed(said: dict[str, Any]) -> bool:
    """Whether the request failed, so that the judge has not been heard."""
    return said["preference"] is None and str(said.get("fault")).startswith(FAILED)


@contextlib.contextmanager
def held(path: Path) -> Iterator[BinaryIO]:
    """The file, open at its end, for this process alone. Raises ConfigError where another has it.

    A file that is still empty afterwards is removed.
    """
    with path.open("ab") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"{path}: another judge is writing there; wait for it, or name another -o"
                ) from None
        try:
            yield file
        finally:
            if not path.stat().st_size:
                path.unlink()


def read_kept(path: Path, model: str, questions: Iterable[Question]) -> dict[str, dict[str, Any]]:
    """The verdicts of an earlier run by question; none where there is no file.

    A last line that was cut off is left out. Raises ConfigError where the file is of another judge,
    of other questions, or not this command's.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name another -o") from None
    asked = {question.digest: question for question in questions}
    if _is_begun(lines[-1], asked.values(), alone=len(lines) == 1):
        del lines[-1]
    kept = {}
    for number, raw in enumerate(lines, 1):
        said = _said(raw)
        if said is None:
            raise ConfigError(
                f"{path}:{number}: not a verdict that this command wrote; name another -o"
            )
        if said["annotator"] != model:
            raise ConfigError(
                f"{path}:{number}: a verdict of {said['annotator']!r}, not of {model!r}; name "
                "another -o for this judge"
            )
        if said["question"] not in asked:
            raise ConfigError(
                f"{path}:{number}: a verdict on another question (another criterion, or answers "
                "of another evaluation); name another -o, or move the file away"
            )
        kept[said["question"]] = said
    return kept


def summary(questions: list[Question], said: dict[str, dict[str, Any]], path: Path) -> str:
    """How many verdicts there are, the faults by kind with their mends, and where to go next."""
    found = [said[question.digest] for question in questions]
    faults = Counter(v.get("fault", UNCLEAR) for v in found if v["preference"] is None)
    verdicts = len(found) - faults.total()
    lines = [f"{verdicts:,} of {len(questions):,} records have a verdict, in {path}"]
    for fault, count in faults.most_common():
        mend = f"; {MENDS[fault]}" if fault in MENDS else ""
        lines.append(f"  {count:,} without: {fault}{mend}")
    next_one = f"python -m dpo_wrap.eval CONFIG --verdicts {shlex.quote(str(path))}"
    return "\n".join([*lines, f"next: {next_one}"])


def _is_begun(raw: bytes, questions: Iterable[Question], alone: bool) -> bool:
    """Whether the file's last line, which no line end closes, is nothing or one of ours cut off.

    Where it stands alone it must reach our first key: its beginning could be anybody's.
    """
    if not raw or _said(raw) is not None:
        return not raw
    heads = [line(question, {})[: -len("}\n")] for question in questions]
    if any(raw.startswith(head + b', "preference"') for head in heads):
        return True
    return not alone and any(h.startswith(raw) or raw.startswith(h) for h in heads)


def _said(raw: bytes) -> dict[str, Any] | None:
    """The judge's part of a line, None for anything else."""
    try:
        value = json.loads(raw.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("question"), str):
        return None
    if value.get("preference", "") not in (FIRST, SECOND, TIE, None):
        return None
    return {key: value[key] for key in OWN if key in value} if "annotator" in value else None
