"""Which model's answers win: pairs put before any judge in both orders, and what comes back.

The records are AlpacaEval's, so that people, its annotators and dpo_wrap.judge can fill them in.
"""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpo_wrap.errors import ConfigError
from dpo_wrap.metrics.intervals import share

TEXTS = ("instruction", "output_1", "output_2")
"""What makes a record the question that it is."""
FIRST, SECOND, TIE = 1, 2, 1.5
_WORDS = {"output_1": FIRST, "output_2": SECOND, "tie": TIE}
_MEND = "write 1 or output_1, 2 or output_2, 1.5 or tie, and null where nobody judged"
_Key = tuple[str, ...]


def to_judge(
    samples: list[dict[str, Any]],
    seed: int,
    generators: tuple[str, str] = ("policy", "reference"),
) -> list[dict[str, Any]]:
    """Two records for each sample, one an order, shuffled by the seed; `pair` is its index.

    Answers that are equal but for white space need no judge and are left out: `win_rate` counts
    them as ties. Generators are named for who reads the file; a person who judges must not see
    them.
    """
    records = []
    for pair, sample in enumerate(samples):
        if _identical(sample):
            continue
        answers = [(sample["policy"], generators[0]), (sample["reference"], generators[1])]
        for (first, by_first), (second, by_second) in (answers, answers[::-1]):
            records.append(
                {
                    "instruction": sample["prompt"],
                    "output_1": first,
                    "output_2": second,
                    "generator_1": by_first,
                    "generator_2": by_second,
                    "preference": None,
                    "pair": pair,
                }
            )
    random.Random(seed).shuffle(records)
    return records


def read_verdicts(path: str | Path) -> list[dict[str, Any]]:
    """The records of a judged file, with `preference` as 1, 2, 1.5 (a tie) or None (no verdict).

    Passes: {"instruction": "Hi", "output_1": "a", "output_2": "b", "preference": 1.2}, for the
    first; 0 is a tie too. Does not: "preference": "b", or 3. Raises ConfigError with the place.
    """
    found = []
    for place, record in read_records(path):
        check_texts(place, record)
        if "preference" not in record:
            raise ConfigError(f"{place}: preference is missing; {_MEND}")
        found.append({**record, "preference": _preference(place, record["preference"])})
    return found


def read_records(path: str | Path) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a JSON Lines file or of one JSON array, each with its place.

    A place is `file:line`, in an array `file#record`. Raises ConfigError for anything else.
    """
    text = _read_text(path)
    if text.lstrip().startswith("["):
        values = enumerate(_load(text, path, 1), 1)
        found = [(f"{path}#{number}", value) for number, value in values]
    else:
        # Not splitlines: JSON may hold other line ends unescaped.
        lines = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        found = [(f"{path}:{number}", _load(line, path, number)) for number, line in lines]
    for place, value in found:
        if not isinstance(value, dict):
            raise ConfigError(f"{place}: {_clip(value)} is no object; write one record a line")
    if not found:
        raise ConfigError(f"{path}: holds no records; name the to_judge.jsonl of an evaluation")
    return found


def check_texts(place: str, record: dict[str, Any]) -> None:
    """Raise ConfigError where instruction, output_1 or output_2 is absent or no text."""
    for name in TEXTS:
        if name not in record:
            raise ConfigError(f"{place}: {name} is missing; a record needs {', '.join(TEXTS)}")
        if not isinstance(record[name], str):
            raise ConfigError(f"{place}: {name} is {_clip(record[name])}; write a text")


def win_rate(samples: list[dict[str, Any]], verdicts: list[dict[str, Any]]) -> dict[str, Any]:
    """How often the policy's answer wins over the reference's, by what `read_verdicts` found.

    A pair is judged when both its orders are: it is a win or a loss where both say so, else a tie
    of half a win. Several verdicts on one order are one by more than half of them, otherwise a tie.
    `inconsistent` (the orders say different things) and `identical` pairs are among the `ties`;
    `win_rate` is over wins + losses + ties = `pairs`, and None where no verdict decided any of
    them; its interval is a share's, ties being half wins, which is wide enough for ties as well.
    `position_bias` is the share of decisive verdicts on those pairs that name output_1.
    Raises ConfigError where no verdict meets a sample.
    """
    votes, counts = _votes(samples, verdicts)
    scores, named, judged = [], [], 0
    for sample in samples:
        if _identical(sample):
            counts["identical"] += 1
            scores.append(0.5)
            continue
        given = [_settled(votes[key]) for key in _orders(sample) if votes.get(key)]
        if len(given) < 2:
            counts["one_order" if given else "unjudged"] += 1
            continue
        judged += 1
        # The policy's answer is output_1 in the first order and output_2 in the second.
        first, second = 2 - given[0], given[1] - 1
        counts["inconsistent"] += first != second
        scores.append(first if first == second else 0.5)
        named += [verdict for verdict in given if verdict != TIE]
    firsts = [verdict == FIRST for verdict in named]
    decided = bool(scores) and (judged > 0 or len(scores) == len(samples))
    return {
        "win_rate": share(scores)[0] if decided else None,
        "win_rate_interval": list(share(scores)[1]) if decided else None,
        "pairs": len(scores),
        "wins": scores.count(1),
        "losses": scores.count(0),
        "ties": scores.count(0.5),
        **{name: counts[name] for name in ("inconsistent", "identical", "one_order", "unjudged")},
        **{name: counts[name] for name in ("foreign", "no_verdict")},
        "position_bias": share(firsts)[0] if firsts else None,
        "position_bias_interval": list(share(firsts)[1]) if firsts else None,
        "annotators": sorted({str(v["annotator"]) for v in verdicts if v.get("annotator")}),
    }


def _votes(
    samples: list[dict[str, Any]], verdicts: list[dict[str, Any]]
) -> tuple[dict[_Key, list[float]], Counter[str]]:
    """The preferences by question, and how many verdicts are `foreign` or `no_verdict`."""
    if not samples:
        raise ConfigError("there are no samples to be judged; run eval with --samples above 0")
    known = {key for sample in samples for key in _orders(sample)}
    votes: dict[_Key, list[float]] = defaultdict(list)
    counts: Counter[str] = Counter()
    for verdict in verdicts:
        key = _key(*(verdict[name] for name in TEXTS))
        if key not in known:
            counts["foreign"] += 1
        elif verdict["preference"] is None:
            counts["no_verdict"] += 1
        else:
            votes[key].append(verdict["preference"])
    if counts["foreign"] == len(verdicts) and not all(map(_identical, samples)):
        raise ConfigError(
            f"none of the {len(verdicts):,} verdicts is on one of the {len(samples):,} samples, "
            "which are those of another evaluation; judge the to_judge.jsonl that eval wrote last"
        )
    return votes, counts


def _orders(sample: dict[str, Any]) -> tuple[_Key, _Key]:
    prompt, policy, reference = sample["prompt"], sample["policy"], sample["reference"]
    return _key(prompt, policy, reference), _key(prompt, reference, policy)


def _key(*texts: str) -> _Key:
    """The texts but for white space, which tools for annotation trim."""
    return tuple(" ".join(text.split()) for text in texts)


def _identical(sample: dict[str, Any]) -> bool:
    return _key(sample["policy"]) == _key(sample["reference"])


def _settled(votes: Sequence[float]) -> float:
    """The one verdict of all annotators of an order."""
    return next((v for v in (FIRST, SECOND) if 2 * votes.count(v) > len(votes)), TIE)


def _read_text(path: str | Path) -> str:
    try:
        return Path(path).expanduser().read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; name a JSON Lines file of pairs") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name a file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is no UTF-8; save it as UTF-8") from None


def _load(text: str, path: str | Path, line: int) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        line, wrong = line + error.lineno - 1, f"{error.msg} at character {error.colno}"
    except (ValueError, RecursionError) as error:
        wrong = str(error)
    raise ConfigError(f"{path}:{line}: not valid JSON: {wrong}; mend the record or leave it out")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice in one object, so its value is unclear")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _preference(place: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, str) and (word := value.strip().casefold()) in _WORDS:
        return _WORDS[word]
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value in (0, TIE):
            return TIE
        if FIRST <= value <= SECOND:
            return FIRST if value < TIE else SECOND
    raise ConfigError(f"{place}: preference is {_clip(value)}; {_MEND}")


def _clip(value: Any, most: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."
