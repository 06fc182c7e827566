"""Ask the judge what has no verdict yet, and keep each verdict as a line of a file."""

import argparse
import contextlib
import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

from dpo_wrap.errors import ConfigError, RunError
from dpo_wrap.evaluation.win_rate import FIRST, SECOND, TIE
from dpo_wrap.files import write_atomically
from dpo_wrap.judge.endpoint import FAILED, Judge, connect, replies
from dpo_wrap.judge.prompt import CUT_OFF, UNCLEAR, Question, read_criterion, read_questions

VERDICTS = "verdicts.jsonl"
MAX_REPLY = 2000
"""Characters of a reply that are kept."""
MAX_FAILURES = 20
"""Consecutive failed requests that end the run."""
KEYS = ("preference", "annotator", "reply", "fault", "question")
"""Keys of a line that the judge sets; `question` is the digest of the prompt."""
FIXES = {
    CUT_OFF: "raise --max-tokens and add --again",
    UNCLEAR: "see `reply` in the file; a larger model follows the form more often",
}
Verdict = dict[str, Any]
"""The values of KEYS; `fault` only where `preference` is null."""


def judge_file(arguments: argparse.Namespace) -> int:
    """Judge the records without a verdict; returns the exit status. Raises DpoWrapError."""
    path = _output_path(arguments.file, arguments.output)
    criterion = read_criterion(arguments.criterion, arguments.criterion_file)
    questions = read_questions(arguments.file, criterion)
    try:
        with _locked(path) as file:
            verdicts = _read(path, arguments.model, questions)
            pending = {
                question.digest: question
                for question in questions
                if _is_pending(verdicts.get(question.digest), arguments.again)
            }
            if pending:
                judge = _judge(arguments)
                print(
                    f"asking {arguments.model} at {judge.client.base_url}: {len(pending):,} "
                    f"questions, {len({q.digest for q in questions}) - len(pending):,} already "
                    f"answered; verdicts are kept in {path}",
                    file=sys.stderr,
                )
                file.truncate(path.read_bytes().rfind(b"\n") + 1)  # without an incomplete line
                try:
                    _ask_all(judge, [*pending.values()], arguments.workers, verdicts, file)
                finally:
                    lines = [_line(q, verdicts) for q in questions if q.digest in verdicts]
                    if lines:
                        write_atomically(path, b"".join(lines))
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror}); use another -o") from None
    print(_summary(questions, verdicts, path))
    failed = sum(_is_failed(verdict) for verdict in verdicts.values())
    if failed:
        print(
            f"{failed:,} of {len(verdicts):,} questions were not answered; run the same command "
            "again to ask only those",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _output_path(file: str, output: str | None) -> Path:
    """Where to keep the verdicts, by default next to the input. Raises ConfigError."""
    source = Path(file).expanduser()
    path = source.with_name(VERDICTS) if output is None else Path(output).expanduser()
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path}: is not a regular file; use another -o")
    if path.resolve() == source.resolve():
        raise ConfigError(f"{path}: the verdicts would replace the input; use another -o")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: the directory does not exist; create it, or use another -o")
    return path


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The file, open for appending and locked; removed afterwards if it is empty.

    Raises ConfigError if another process holds the lock.
    """
    with path.open("ab") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{path}: another judge is writing to it; wait for it, or use another -o"
            ) from None
        try:
            yield file
        finally:
            if not path.stat().st_size:
                path.unlink()


def _read(path: Path, model: str, questions: Iterable[Question]) -> dict[str, Verdict]:
    """The verdicts of an earlier run, by question; an incomplete last line is ignored.

    Raises ConfigError for verdicts of another judge or on other questions, and for other lines.
    """
    *lines, rest = path.read_bytes().split(b"\n")
    if rest and (not lines or _parse(rest) is not None):
        lines.append(rest)
    digests = {question.digest for question in questions}
    verdicts = {}
    for number, line in enumerate(lines, 1):
        verdict = _parse(line)
        if verdict is None:
            raise ConfigError(
                f"{path}:{number}: not a verdict written by this command; use another -o"
            )
        if verdict["annotator"] != model:
            raise ConfigError(
                f"{path}:{number}: a verdict of {verdict['annotator']!r}, not of {model!r}; use "
                "another -o for this judge"
            )
        if verdict["question"] not in digests:
            raise ConfigError(
                f"{path}:{number}: a verdict on another question (another criterion, or answers "
                "of another evaluation); use another -o, or move the file away"
            )
        verdicts[verdict["question"]] = verdict
    return verdicts


def _parse(line: bytes) -> Verdict | None:
    """The verdict in a line, or None for any other line."""
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("question"), str):
        return None
    if "annotator" not in record or record.get("preference", "") not in (FIRST, SECOND, TIE, None):
        return None
    return {key: record[key] for key in KEYS if key in record}


def _line(question: Question, verdicts: dict[str, Verdict]) -> bytes:
    """The record with its verdict, as a line of the file."""
    record = {key: value for key, value in question.record.items() if key not in KEYS}
    text = json.dumps(record | verdicts[question.digest], ensure_ascii=False)
    return f"{text}\n".encode(errors="backslashreplace")  # a lone surrogate as JSON's escape


def _judge(arguments: argparse.Namespace) -> Judge:
    client = connect(arguments.base_url, arguments.timeout, arguments.max_retries)
    options = {"temperature": arguments.temperature, "max_tokens": arguments.max_tokens}
    options |= arguments.request
    options = {name: value for name, value in options.items() if value is not None}
    return Judge(client, arguments.model, options)


def _ask_all(
    judge: Judge,
    questions: list[Question],
    workers: int,
    verdicts: dict[str, Verdict],
    file: BinaryIO,
) -> None:
    """Add each reply to `verdicts` and to the end of the file as soon as it arrives.

    Raises RunError if the endpoint refuses the first request or fails too often.
    """
    from tqdm import tqdm

    answered, failures = 0, 0
    with (
        contextlib.closing(replies(judge, questions, workers)) as arriving,
        tqdm(total=len(questions), unit="verdict", leave=False, disable=None) as bar,
    ):
        for question, reply in arriving:
            failures = failures + 1 if reply.failed else 0
            answered += not reply.failed
            if reply.fatal and not answered:
                raise RunError(
                    f"{judge.client.base_url} did not accept the first request for {judge.model} "
                    f"({reply.fault}); check --base-url, which usually ends with /v1, --model and "
                    "OPENAI_API_KEY"
                )
            verdict = {"preference": reply.preference, "annotator": judge.model}
            verdict |= {"reply": reply.text[:MAX_REPLY]}
            if reply.fault is not None:
                verdict["fault"] = reply.fault
            verdicts[question.digest] = verdict | {"question": question.digest}
            file.write(_line(question, verdicts))
            file.flush()
            bar.update()
            if failures == MAX_FAILURES:
                raise RunError(
                    f"{judge.client.base_url}: {failures} consecutive failures, the last: "
                    f"{reply.fault}; run the same command again to ask the remaining questions"
                )


def _is_failed(verdict: Verdict) -> bool:
    """Whether the request failed, so that the judge has not answered."""
    return verdict["preference"] is None and str(verdict.get("fault")).startswith(FAILED)


def _is_pending(verdict: Verdict | None, again: bool) -> bool:
    if verdict is None or _is_failed(verdict):
        return True
    return again and verdict["preference"] is None


def _summary(questions: list[Question], verdicts: dict[str, Verdict], path: Path) -> str:
    """The number of verdicts, the faults with their fixes, and the next command."""
    found = [verdicts[question.digest] for question in questions]
    faults = Counter(v.get("fault", UNCLEAR) for v in found if v["preference"] is None)
    judged = len(found) - faults.total()
    lines = [f"{judged:,} of {len(questions):,} records have a verdict, in {path}"]
    for fault, count in faults.most_common():
        fix = f"; {FIXES[fault]}" if fault in FIXES else ""
        lines.append(f"  {count:,} without: {fault}{fix}")
    lines.append(f"next: python -m dpo_wrap.eval CONFIG --verdicts {shlex.quote(str(path))}")
    return "\n".join(lines)
