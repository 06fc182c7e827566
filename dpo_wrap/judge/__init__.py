"""Which answers are better? A model judges eval's pairs: python -m dpo_wrap.judge to_judge.jsonl

Any OpenAI-compatible endpoint is asked, in both orders of each pair; what it does not say is
counted and never guessed, and what it has said is not asked again.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

from dpo_wrap.errors import DpoWrapError, RunError
from dpo_wrap.files import write_atomically
from dpo_wrap.judge import answers_file as kept
from dpo_wrap.judge import endpoint as asking
from dpo_wrap.judge.endpoint import Judge
from dpo_wrap.judge.questions import CRITERION, Question, read_criterion, read_questions
from dpo_wrap.signals import Stop

EXAMPLES = """The key is taken from the environment, OPENAI_API_KEY, and from nowhere else; a server
of your own needs none. OPENAI_BASE_URL stands for --base-url. What is sent: the texts of the file
and the criterion, to that endpoint alone.

FILE.jsonl has instruction, output_1 and output_2 (AlpacaEval's names); eval writes it as
to_judge.jsonl, with both orders of each pair, since judges favour a place. Every verdict is kept as
soon as it is there; the same command asks only what is missing. People and other programs need no
command: they fill in `preference`, 1 or 2, 1.5 for a tie.

examples:
  python -m dpo_wrap.judge runs/dpo/to_judge.jsonl --model NAME
  python -m dpo_wrap.judge runs/dpo/to_judge.jsonl --model NAME --base-url http://localhost:8000/v1
  python -m dpo_wrap.judge runs/dpo/to_judge.jsonl --model NAME --criterion-file summaries.txt
  python -m dpo_wrap.judge runs/dpo/to_judge.jsonl --model NAME --max-tokens 4096 --again
  python -m dpo_wrap.eval configs/dpo_config.yaml --verdicts runs/dpo/verdicts.jsonl

A criterion is best said for the task, as the authors of DPO did for theirs: of summaries for
instance that the better one has the post's main points, precisely and in few words.

exit status: 0 every question was answered, if only by replies without a verdict, which are counted;
1 requests failed, or it was stopped, and what was judged is kept; 2 refused."""

IN_A_ROW = 20
"""Failed requests after which the endpoint is taken to be gone."""
SET = {"model", "messages", "stream", "n"}


def parser() -> argparse.ArgumentParser:
    """The command line; no library is imported for its --help."""
    parser = argparse.ArgumentParser(
        prog="python -m dpo_wrap.judge",
        description="Ask a model which of two answers is better, for every record of a file.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("file", metavar="FILE.jsonl", help="the pairs to judge, eval's to_judge.jsonl")
    add("--model", required=True, metavar="NAME", help="the judge, as the endpoint names it")
    add("--base-url", metavar="URL", help="the endpoint, such as http://localhost:8000/v1")
    add(
        "-o",
        "--output",
        metavar="FILE",
        help=f"where the verdicts go (default {kept.VERDICTS} beside the input)",
    )
    criterion = parser.add_mutually_exclusive_group()
    criterion.add_argument(
        "--criterion",
        metavar="TEXT",
        help=f"what makes an answer the better one; default: {CRITERION}",
    )
    criterion.add_argument("--criterion-file", metavar="FILE", help="the same, from a text file")
    add(
        "--workers",
        type=_in_range(int, 1, 256),
        default=4,
        metavar="N",
        help="requests at once (4)",
    )
    add(
        "--max-retries",
        type=_in_range(int, 0, 100),
        default=5,
        metavar="N",
        help="how often the client repeats a request that failed, waiting longer each time (5)",
    )
    add(
        "--timeout",
        type=_in_range(float, 0.001, 86_400),
        default=120.0,
        metavar="S",
        help="seconds to wait for the endpoint's next word (120)",
    )
    add(
        "--temperature", type=_in_range(float, 0), default=0.0, metavar="T", help="of the judge (0)"
    )
    add(
        "--max-tokens",
        type=_in_range(int, 1, 10**6),
        default=1024,
        metavar="N",
        help="tokens at which a reply is cut off (1024)",
    )
    add(
        "--request",
        type=_fields,
        default={},
        metavar="JSON",
        help="fields of the request, put over the others; null leaves one out: "
        '\'{"max_tokens": null, "max_completion_tokens": 4096, "temperature": null}\'',
    )
    add("--again", action="store_true", help="ask again where a reply held no verdict")
    return parser


def _in_range(kind: type, least: float, most: float = math.inf) -> Callable[[str], float]:
    """The type of an option: an int or float of that range."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"a number expected, found {text!r}") from None
        if not (least <= value <= most and math.isfinite(value)):
            bounds = f"{least} or more" if most == math.inf else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"{text} is out of range; it must be {bounds}")
        return value

    return read


def _fields(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"a JSON object expected, found {text!r}")
    if taken := sorted(SET & value.keys()):
        raise argparse.ArgumentTypeError(f"{', '.join(taken)} cannot be set; leave it out")
    return value


def ask_all(
    judge: Judge,
    pending: list[Question],
    workers: int,
    said: dict[str, dict[str, Any]],
    file: BinaryIO,
) -> None:
    """Ask, and keep each verdict in `said` and at the end of the file as soon as it is there.

    Raises RunError where the endpoint refuses the first request, or is gone.
    """
    from tqdm import tqdm

    answered, failed = 0, 0
    with (
        closing(asking.replies(judge, pending, workers)) as arriving,
        tqdm(total=len(pending), unit="verdict", leave=False, disable=None) as bar,
    ):
        for question, reply in arriving:
            failed = failed + 1 if reply.failed else 0
            answered += not reply.failed
            if reply.hopeless and not answered:
                raise RunError(
                    f"{judge.client.base_url} did not take the first request for {judge.model} "
                    f"({reply.fault}); check --base-url, which mostly ends with /v1, --model and "
                    "OPENAI_API_KEY"
                )
            said[question.digest] = kept.verdict(question, judge.model, reply)
            file.write(kept.line(question, said[question.digest]))
            file.flush()
            bar.update()
            if failed == IN_A_ROW:
                raise RunError(
                    f"{judge.client.base_url}: {failed} times in a row {reply.fault}; "
                    f"what was judged is kept in {file.name}, and the same command asks the rest"
                )


def write(path: Path, questions: list[Question], said: dict[str, dict[str, Any]]) -> None:
    """The file anew: a line for each record that was judged, in the order of the input."""
    lines = [kept.line(q, said[q.digest]) for q in questions if q.digest in said]
    if lines:
        write_atomically(path, b"".join(lines))


def judge_file(arguments: argparse.Namespace, path: Path) -> int:
    """Judge what is not judged yet; returns the exit status. Raises DpoWrapError, OSError."""
    criterion = read_criterion(arguments.criterion, arguments.criterion_file)
    questions = read_questions(arguments.file, criterion)
    said = kept.read_kept(path, arguments.model, questions)
    if any(_is_pending(said.get(question.digest), arguments.again) for question in questions):
        base_url = asking.endpoint(arguments.base_url)
        client = asking.connect(base_url, arguments.timeout, arguments.max_retries)
        options = {"temperature": arguments.temperature, "max_tokens": arguments.max_tokens}
        options = {k: v for k, v in (options | arguments.request).items() if v is not None}
        judge = Judge(client, arguments.model, options)
        with kept.held(path) as file:
            said = _judged(judge, questions, arguments, path, file)
    print(kept.summary(questions, said, path))
    failed = sum(kept.is_failed(verdict) for verdict in said.values())
    if failed:
        print(
            f"{failed:,} of {len(said):,} questions were not answered; run the same command again "
            "to ask only those",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _judged(
    judge: Judge,
    questions: list[Question],
    arguments: argparse.Namespace,
    path: Path,
    file: BinaryIO,
) -> dict[str, dict[str, Any]]:
    """What the judge says, now or before; the file is read once more, since it is ours only now."""
    said = kept.read_kept(path, arguments.model, questions)
    pending = {q.digest: q for q in questions if _is_pending(said.get(q.digest), arguments.again)}
    print(
        f"asking {arguments.model} at {judge.client.base_url}: {len(pending):,} questions, "
        f"{len({q.digest for q in questions}) - len(pending):,} answered before",
        file=sys.stderr,
    )
    text = path.read_bytes()
    file.truncate(text.rfind(b"\n") + 1)  # without a line that was cut off
    try:
        if pending:
            ask_all(judge, [*pending.values()], arguments.workers, said, file)
    finally:
        write(path, questions, said)
    return said


def _is_pending(said: dict[str, Any] | None, again: bool) -> bool:
    return said is None or kept.is_failed(said) or (again and said["preference"] is None)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    path = None
    try:
        with Stop():
            path = kept.output_path(arguments.file, arguments.output)
            return judge_file(arguments, path)
    except DpoWrapError as error:
        print(error, file=sys.stderr)
        return error.status
    except OSError as error:
        print(f"{path}: cannot be written ({error.strerror}); name another -o", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"stopped; what was judged is kept in {path}, and the same command asks the rest",
            file=sys.stderr,
        )
        return 1
