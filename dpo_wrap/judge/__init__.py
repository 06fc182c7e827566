"""Ask a model which answers are better: python -m dpo_wrap.judge to_judge.jsonl --model NAME"""

import argparse
import contextlib
import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

from dpo_wrap import cli
from dpo_wrap.errors import ConfigError, RunError
from dpo_wrap.evaluation.win_rate import FIRST, SECOND, TIE, read_records
from dpo_wrap.files import write_atomically
from dpo_wrap.judge.endpoint import (
    CRITERION,
    CUT_OFF,
    FAILED,
    UNCLEAR,
    Judge,
    Question,
    connect,
    make_question,
    replies,
)
from dpo_wrap.terminal import show

EXAMPLES = """The key is read from the environment only, from OPENAI_API_KEY; a local server needs
none. OPENAI_BASE_URL replaces --base-url. The texts of the file and the criterion are sent to
that endpoint and nowhere else.

FILE.jsonl has instruction, output_1 and output_2 (AlpacaEval's names). eval writes it as
to_judge.jsonl, with each pair in both orders, because judges prefer a position. Every verdict is
saved when it arrives; the same command then sends only the missing questions. To judge by hand or
with another program, set `preference` to 1, 2, or 1.5 for a tie.

examples:
  python -m dpo_wrap.judge runs/dpo/to_judge.jsonl --model NAME
  python -m dpo_wrap.judge runs/dpo/to_judge.jsonl --model NAME --base-url http://localhost:8000/v1
  python -m dpo_wrap.judge runs/dpo/to_judge.jsonl --model NAME --criterion-file summaries.txt
  python -m dpo_wrap.judge runs/dpo/to_judge.jsonl --model NAME --max-tokens 4096 --again
  python -m dpo_wrap.eval configs/dpo_config.yaml --verdicts runs/dpo/verdicts.jsonl

Describe the criterion for your task, for example for summaries: the better one has the main points
of the post, precisely and in few words.

exit status: 0 every question was answered (replies without a verdict are counted); 1 requests
failed, or it was stopped, and all verdicts so far are saved; 2 refused."""

VERDICTS = "verdicts.jsonl"
MAX_REPLY = 2000
"""Characters of a reply that are saved."""
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


def parser() -> argparse.ArgumentParser:
    """The command line; no library is imported for its --help."""
    parser = argparse.ArgumentParser(
        prog="python -m dpo_wrap.judge",
        description="Ask a model which of two answers is better, for every record of a file.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_version(parser)
    add = parser.add_argument
    add("file", metavar="FILE.jsonl", help="the pairs to judge, eval's to_judge.jsonl")
    add("--model", required=True, metavar="NAME", help="the judge's model name")
    add("--base-url", metavar="URL", help="the endpoint, such as http://localhost:8000/v1")
    default = f"default {VERDICTS} next to the input"
    add("-o", "--output", metavar="FILE", help=f"where to save the verdicts ({default})")
    criterion = parser.add_mutually_exclusive_group()
    about = f"what makes an answer the better one; default: {CRITERION}"
    criterion.add_argument("--criterion", metavar="TEXT", help=about)
    criterion.add_argument("--criterion-file", metavar="FILE", help="the same, from a text file")
    add("--again", action="store_true", help="repeat questions whose reply had no verdict")
    for option, type_, default, metavar, about in (
        ("--workers", cli.number(int, 1, 256), 4, "N", "concurrent requests"),
        ("--max-retries", cli.number(int, 0, 100), 5, "N", "retries of a failed request"),
        ("--timeout", cli.number(float, 0.001, 86_400), 120.0, "S", "timeout in seconds"),
        ("--temperature", cli.number(float, 0), 0.0, "T", "sampling temperature"),
        ("--max-tokens", cli.number(int, 1, 10**6), 1024, "N", "maximum tokens of a reply"),
    ):
        about = f"{about} (default %(default)g)"
        add(option, type=type_, default=default, metavar=metavar, help=about)
    add(
        "--request",
        type=_request_fields,
        default={},
        metavar="JSON",
        help="fields to add to the request or to change; null removes one: "
        '\'{"max_tokens": null, "max_completion_tokens": 4096, "temperature": null}\'',
    )
    return parser


def _request_fields(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"expected a JSON object, found {text!r}")
    if fixed := sorted({"model", "messages", "stream", "n"} & value.keys()):
        raise argparse.ArgumentTypeError(f"{', '.join(fixed)} cannot be set; remove it")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    return cli.run(
        lambda stop: judge_file(arguments),
        stopped="stopped; all verdicts so far are saved; run the same command again for the rest",
    )


def judge_file(arguments: argparse.Namespace) -> int:
    """Judge the records without a verdict; returns the exit status. Raises DpoWrapError."""
    path = _output_path(arguments.file, arguments.output)
    questions = _questions(arguments)
    by_digest = {question.digest: question for question in questions}
    try:
        with _locked(path) as file:
            verdicts = _read(path, arguments.model, by_digest)
            done = {
                digest
                for digest, verdict in verdicts.items()
                if verdict["preference"] is not None or not (arguments.again or _is_failed(verdict))
            }
            pending = [question for digest, question in by_digest.items() if digest not in done]
            if pending:
                client = connect(arguments.base_url, arguments.timeout, arguments.max_retries)
                fields = {"temperature": arguments.temperature, "max_tokens": arguments.max_tokens}
                fields = {k: v for k, v in (fields | arguments.request).items() if v is not None}
                judge = Judge(client, arguments.model, fields)
                show(
                    f"judge {arguments.model} at {judge.client.base_url}: {len(pending):,} "
                    f"questions, {len(done):,} already answered; verdicts are "
                    f"saved in {path}",
                    file=sys.stderr,
                )
                file.truncate(path.read_bytes().rfind(b"\n") + 1)  # without an incomplete line
                try:
                    _ask_all(judge, pending, arguments.workers, verdicts, file)
                finally:
                    lines = [_line(q, verdicts) for q in questions if q.digest in verdicts]
                    if lines:
                        write_atomically(path, b"".join(lines))
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror}); use another -o") from None
    show(_summary(questions, verdicts, path))
    failed = sum(map(_is_failed, verdicts.values()))
    if failed:
        show(
            f"{failed:,} of {len(verdicts):,} questions were not answered; run the same command "
            "again to send only those",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _output_path(file: str, output: str | None) -> Path:
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


def _questions(arguments: argparse.Namespace) -> list[Question]:
    """A question for each record of the file, with the criterion of the options."""
    criterion, path = arguments.criterion, arguments.criterion_file
    if path is not None:
        try:
            criterion = Path(path).expanduser().read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not UTF-8"
            raise ConfigError(f"--criterion-file {path}: cannot be read: {why}") from None
    criterion = CRITERION if criterion is None else criterion
    if not criterion.strip():
        raise ConfigError("the criterion is empty; describe what makes an answer the better one")
    questions = []
    for place, record in read_records(arguments.file):
        try:
            questions.append(make_question(record, criterion))
        except UnicodeEncodeError:
            raise ConfigError(
                f"{place}: contains a lone surrogate, which is not text; fix or remove the record"
            ) from None
    return questions


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


def _read(path: Path, model: str, by_digest: dict[str, Question]) -> dict[str, Verdict]:
    """The verdicts of an earlier run, by digest; an incomplete last line is ignored.

    Raises ConfigError for verdicts of another judge or on other questions, and for other lines.
    """
    *lines, rest = path.read_bytes().split(b"\n")
    if rest and not _is_cut_off(rest, by_digest.values(), alone=not lines):
        lines.append(rest)
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
        if verdict["question"] not in by_digest:
            raise ConfigError(
                f"{path}:{number}: a verdict on another question (another criterion, or answers "
                "of another evaluation); use another -o, or move the file away"
            )
        verdicts[verdict["question"]] = verdict
    return verdicts


def _is_cut_off(rest: bytes, questions: Iterable[Question], alone: bool) -> bool:
    """Whether a last line without a line break is the beginning of a verdict on a question.

    As the only line it must hold a whole question, since any file may begin like one.
    """
    heads = [_line(question, {question.digest: {}})[: -len("}\n")] for question in questions]
    begun = any(rest.startswith(h) or (not alone and h.startswith(rest)) for h in heads)
    return begun and _parse(rest) is None


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
            verdict = {"preference": reply.preference, "annotator": judge.model}
            verdict["reply"] = reply.text[:MAX_REPLY]
            if reply.fault is not None:
                verdict["fault"] = reply.fault
            failures = failures + 1 if _is_failed(verdict) else 0
            answered += not failures
            if reply.fatal and not answered:
                raise RunError(
                    f"{judge.client.base_url} did not accept the first request for {judge.model} "
                    f"({reply.fault}); check --base-url, which usually ends with /v1, --model and "
                    "OPENAI_API_KEY"
                )
            verdicts[question.digest] = verdict | {"question": question.digest}
            file.write(_line(question, verdicts))
            file.flush()
            bar.update()
            if failures == MAX_FAILURES:
                raise RunError(
                    f"{judge.client.base_url}: {failures} consecutive failures, the last: "
                    f"{reply.fault}; run the same command again to send the remaining questions"
                )


def _is_failed(verdict: Verdict) -> bool:
    return verdict["preference"] is None and str(verdict.get("fault")).startswith(FAILED)


def _summary(questions: list[Question], verdicts: dict[str, Verdict], path: Path) -> str:
    """The number of verdicts, the faults with their fixes, and the next command."""
    found = [verdicts[question.digest] for question in questions]
    faults = Counter(v.get("fault", UNCLEAR) for v in found if v["preference"] is None)
    lines = [f"{len(found) - faults.total():,} of {len(found):,} records have a verdict, in {path}"]
    for fault, count in faults.most_common():
        fix = f"; {FIXES[fault]}" if fault in FIXES else ""
        lines.append(f"  {count:,} without: {fault}{fix}")
    lines.append(f"next: python -m dpo_wrap.eval CONFIG --verdicts {shlex.quote(str(path))}")
    return "\n".join(lines)
