"""The file of answer pairs for a judge, and the win rate from a judged one.

eval writes the file as to_judge.jsonl and reads it back with --verdicts; in between, people,
AlpacaEval's annotators or dpo_wrap.judge set `preference`. The fields are AlpacaEval's.
"""

import json
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from dpo_wrap.errors import ConfigError
from dpo_wrap.metrics.intervals import share

TEXTS = ("instruction", "output_1", "output_2")
FIRST, SECOND, TIE = 1, 2, 1.5
_WORDS = {"output_1": FIRST, "output_2": SECOND, "tie": TIE}
_FIX = "set it to 1 or output_1, 2 or output_2, 1.5 or tie, or null if not judged"


def to_judge(samples: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Two records for each sample, one for each order of its answers, shuffled by the seed.

    `pair` is the index of the sample. Samples whose answers differ in white space only are left
    out; `win_rate` counts them as ties. A person who judges must not see the generators.
    """
    records = []
    for pair, sample in enumerate(samples):
        if _identical(sample):
            continue
        for first, second in (("policy", "reference"), ("reference", "policy")):
            records.append(
                {
                    "instruction": sample["prompt"],
                    "output_1": sample[first],
                    "output_2": sample[second],
                    "generator_1": first,
                    "generator_2": second,
                    "preference": None,
                    "pair": pair,
                }
            )
    random.Random(seed).shuffle(records)
    return records


def is_judged(path: Path) -> bool:
    """Whether a file may hold the work of a judge: a preference, or anything that is not read."""
    try:
        return any(record.get("preference") is not None for _, record in read_records(path))
    except ConfigError:
        return path.is_file() and path.stat().st_size > 0


def is_about(path: Path, questions: list[dict[str, Any]]) -> bool:
    """Whether a judged file has exactly these questions, in any order."""
    try:
        records = [record for _, record in read_records(path)]
    except ConfigError:
        return False
    return sorted(map(_question, records)) == sorted(map(_question, questions))


def _question(record: dict[str, Any]) -> list[str]:
    return [str(record.get(name)) for name in TEXTS]


def win_rate(samples: list[dict[str, Any]], verdicts: list[dict[str, Any]]) -> dict[str, Any]:
    """The share of pairs in which the policy's answer wins over the reference's.

    A pair counts when both orders are judged: as a win or a loss where they agree, otherwise as a
    tie, half a win. Several verdicts on one order count as one, by absolute majority, else a tie.
    `inconsistent` (the orders disagree) and `identical` pairs are among the `ties`. `win_rate` is
    over `pairs` = wins + losses + ties, None if nothing was judged; its interval is that of a
    share, which is wide enough for ties too. `position_bias` is the share of decisive verdicts that
    name output_1. `foreign` counts verdicts on other texts, `no_verdict` those without preference.
    Raises ConfigError if no verdict is on a sample.
    """
    votes, counts = _votes(samples, verdicts)
    scores, decisive, judged = [], [], 0
    for sample in samples:
        if _identical(sample):
            counts["identical"] += 1
            scores.append(0.5)
            continue
        given = [_majority(votes[key]) for key in _orders(sample) if key in votes]
        if len(given) < 2:
            counts["one_order" if given else "unjudged"] += 1
            continue
        judged += 1
        # The policy's answer is output_1 in the first order and output_2 in the second.
        first, second = 2 - given[0], given[1] - 1
        counts["inconsistent"] += first != second
        scores.append(first if first == second else 0.5)
        decisive += [verdict for verdict in given if verdict != TIE]
    firsts = [verdict == FIRST for verdict in decisive]
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


def read_verdicts(path: str | Path) -> list[dict[str, Any]]:
    """The records of a judged file, with `preference` as 1, 2, 1.5 (a tie) or None (no verdict).

    Numbers in between count for the nearer one, 0 is a tie. Raises ConfigError with the location.
    """
    records = []
    for place, record in read_records(path):
        if "preference" not in record:
            raise ConfigError(f"{place}: preference is missing; {_FIX}")
        records.append({**record, "preference": _preference(place, record["preference"])})
    return records


def read_records(path: str | Path) -> list[tuple[str, dict[str, Any]]]:
    """The records of a JSON Lines file or of one JSON array, each with its location.

    A location is `file:line`, in an array `file#record`; a record has the TEXTS. Raises ConfigError
    for anything else.
    """
    try:
        text = Path(path).expanduser().read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); give a JSON Lines file of pairs"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save it as UTF-8") from None
    if text.lstrip().startswith("["):
        found = [(f"{path}#{n}", value) for n, value in enumerate(_load(text, path, 1), 1)]
    else:
        # Not splitlines: strings in JSON may contain other line separators.
        lines = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        found = [(f"{path}:{n}", _load(line, path, n)) for n, line in lines]
    if not found:
        raise ConfigError(
            f"{path}: has no records; give the to_judge.jsonl of an evaluation, which has some "
            "where the answers of policy and reference differ"
        )
    for place, record in found:
        if not isinstance(record, dict):
            raise ConfigError(f"{place}: {record!r:.60} is not an object; write one record a line")
        for name in TEXTS:
            if not isinstance(record.get(name), str):
                fault = f"{record[name]!r:.60}, not a text" if name in record else "missing"
                raise ConfigError(f"{place}: {name} is {fault}; a record needs {', '.join(TEXTS)}")
    return found


def _load(text: str, path: str | Path, line: int) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        line, fault = line + error.lineno - 1, f"{error.msg} at character {error.colno}"
    except (ValueError, RecursionError) as error:
        fault = str(error)
    raise ConfigError(f"{path}:{line}: not valid JSON: {fault}; fix or remove the record")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object has the same key twice")
    return value


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
    raise ConfigError(f"{place}: preference is {value!r:.60}; {_FIX}")


_Key = tuple[str, ...]


def _votes(
    samples: list[dict[str, Any]], verdicts: list[dict[str, Any]]
) -> tuple[dict[_Key, list[float]], Counter[str]]:
    """The preferences by question, and the numbers of `foreign` and `no_verdict` records."""
    if not samples:
        raise ConfigError("the run has no sampled answers; run eval with --samples above 0")
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
    """The texts with white space folded, because annotation tools trim it."""
    return tuple(" ".join(text.split()) for text in texts)


def _identical(sample: dict[str, Any]) -> bool:
    return _key(sample["policy"]) == _key(sample["reference"])


def _majority(votes: list[float]) -> float:
    return next((v for v in (FIRST, SECOND) if 2 * votes.count(v) > len(votes)), TIE)
