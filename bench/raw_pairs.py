"""Raw preference files for bench.convert: invented prose with 3 % of each fault, always the same.

A record has about 2.2 kB, or a few words with `short`. All texts are ASCII except those of `wide`,
where a quarter of the words has an accented letter and a tenth is Chinese.
"""

import csv
import json
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

Pair = tuple[str, str, str]  # prompt, better answer, worse answer

ANNOTATORS = ("ann", "bob", "cleo")
_FAULT = 0.03  # share of the records with each fault
_WORDS, _TEXTS = 3000, 2000  # distinct words and texts
_LETTERS = "etaoinshrdlucmfwypvbgkqjxz"
_ACCENTED = "áàâäãåçéèêëíìîïñóòôöõøúùûüýÿœæß"
_CHINESE = [chr(code) for code in range(0x4E00, 0x9FA0)]
_COLUMNS = ["prompt", "response_a", "response_b", "preference"]
_PAIR_FAULTS = ("duplicate", "contradiction", "no prompt", "no answer", "equal", "markup")
_LABEL_FAULTS = ("tie", "", "the long one", "ragged")  # labels, and a row without its last cell


def labelled(texts: Sequence[str], records: int) -> Iterator[list[str]]:
    """CSV rows of a prompt, two answers and the label that names the better one."""
    dice = random.Random(1)
    yield _COLUMNS
    for pair in _pairs(texts, records):
        yield _cut(_judgement(dice, pair))


def annotated(texts: Sequence[str], records: int) -> Iterator[list[str]]:
    """CSV rows as of `labelled`, with a column that names the annotator.

    Three annotators judge each comparison, one after the other, so that the three rows of a
    comparison are a third of the file apart.
    """
    dice = random.Random(1)
    yield [*_COLUMNS, "annotator_id"]
    for annotator in ANNOTATORS:
        for prompt, better, worse in _pairs(texts, -(-records // 3)):
            agrees = dice.random() < 0.85
            pair = (prompt, better, worse) if agrees else (prompt, worse, better)
            yield _cut([*_judgement(dice, pair), annotator])


def messages(texts: Sequence[str], records: int) -> Iterator[dict]:
    """TRL's conversational records."""
    dice = random.Random(1)
    for prompt, better, worse in _pairs(texts, records):
        fault = _fault(dice, ("no rejected", "wrong role"))
        role = "user" if fault == "wrong role" else "assistant"
        rejected = [{"role": "assistant", "content": worse}]
        yield {
            "prompt": [{"role": "user", "content": prompt}],
            "chosen": [{"role": role, "content": better}],
            "rejected": None if fault == "no rejected" else rejected,
        }


def ranked(texts: Sequence[str], records: int) -> Iterator[dict]:
    """Nectar's records: a prompt and four answers with their ranks, in random order."""
    dice = random.Random(1)
    for prompt, better, worse in _pairs(texts, records):
        middle = [f"{dice.choice(texts)} {word}." for word in ("Rather", "Hardly")]
        answers = [
            {"answer": answer, "model": f"model-{dice.randint(1, 9)}", "rank": rank}
            for rank, answer in enumerate((better, *middle, worse), start=1)
        ]
        fault = _fault(dice, ("tie", "no rank"))
        for answer in answers if fault == "tie" else answers[:1] if fault else ():
            answer["rank"] = 1 if fault == "tie" else None
        dice.shuffle(answers)
        yield {"prompt": f"\n\nHuman: {prompt}\n\nAssistant: ", "answers": answers}


KINDS = {
    "ascii": labelled,
    "wide": labelled,
    "jsonl": messages,
    "ranked": ranked,
    "annotated": annotated,
}


def write(folder: Path, kind: str, records: int, short: bool = False, broken: bool = False) -> Path:
    """Write `records` records; `broken` adds a line with an unclosed quote in the middle."""
    words = (1, 6) if short else (30, 90) if kind == "ranked" else (60, 220)
    rows = KINDS[kind](_texts(kind == "wide", words), records)
    name = f"{kind}-broken" if broken else kind
    path = folder / f"{name}.{'jsonl' if kind in ('jsonl', 'ranked') else 'csv'}"
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            return path
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows(islice(rows, 1 + (records // 2 if broken else records)))
        if broken:
            file.write('"broken\n')
            writer.writerows(rows)
    return path


def _texts(wide: bool, lengths: tuple[int, int]) -> list[str]:
    """Texts with a number of words between two `lengths`."""
    dice = random.Random(0)
    words = ["".join(dice.choices(_LETTERS, k=dice.randint(1, 11))) for _ in range(_WORDS)]
    if wide:
        for at in range(_WORDS // 4):
            middle = len(words[at]) // 2
            words[at] = words[at][:middle] + dice.choice(_ACCENTED) + words[at][middle + 1 :]
        for at in range(_WORDS // 4, _WORDS // 4 + _WORDS // 10):
            words[at] = "".join(dice.choices(_CHINESE, k=dice.randint(1, 4)))
    found = []
    for _ in range(_TEXTS):
        count = dice.randint(*lengths)
        ends = dice.choices([" ", ", ", ". ", "\n\n", ' "'], (84, 8, 6, 1, 1), k=count)
        found.append("".join(dice.choice(words) + end for end in ends).strip())
    return found


def _pairs(texts: Sequence[str], count: int) -> Iterator[Pair]:
    """The same pairs at every call, with the faults of `_PAIR_FAULTS`."""
    dice, earlier = random.Random(0), []
    for number in range(count):
        prompt = f"{number}: {dice.choice(texts)[: dice.randint(50, 500)]}"
        better, worse = f"{dice.choice(texts)} Yes.", f"{dice.choice(texts)} No."
        match _fault(dice, _PAIR_FAULTS):
            case "duplicate" if earlier:
                prompt, better, worse = dice.choice(earlier)
            case "contradiction" if earlier:
                prompt, worse, better = dice.choice(earlier)
            case "no prompt":
                prompt = ""
            case "no answer":
                better = " \n"
            case "equal":
                worse = f"{better} "
            case "markup":
                better = f"<p>{better}</p>"
            case _ if len(earlier) < 10_000:
                earlier.append((prompt, better, worse))
        yield prompt, better, worse


def _judgement(dice: random.Random, pair: Pair) -> list[str]:
    """The prompt, the answers in random order and the label, perhaps one of `_LABEL_FAULTS`."""
    prompt, better, worse = pair
    if dice.random() < 0.5:
        answers, label = (better, worse), "response_a"
    else:
        answers, label = (worse, better), "response_b"
    fault = _fault(dice, _LABEL_FAULTS)
    return [prompt, *answers, label if fault is None else fault]


def _cut(row: list[str]) -> list[str]:
    """The row; without its last cell if the fault is `ragged`."""
    return row[:-1] if row[3] == "ragged" else row


def _fault(dice: random.Random, names: Sequence[str]) -> str | None:
    """One of the names, each for 3 % of the records, or None."""
    at = int(dice.random() / _FAULT)
    return names[at] if at < len(names) else None
