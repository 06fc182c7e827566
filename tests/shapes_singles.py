"""Known pairs written as one judged answer per record, for the round trip."""

import random
from collections.abc import Callable, Iterator
from functools import partial

from shapes_ranked import Triples


def _apart(triples: Triples, draw: random.Random) -> Iterator[tuple[str, str, bool]]:
    """(prompt, answer, whether it won): each pair's first answer in order, its second later."""
    waiting = []
    for prompt, chosen, rejected in triples:
        answers = [(prompt, chosen, True), (prompt, rejected, False)]
        draw.shuffle(answers)
        yield answers[0]
        waiting.append(answers[1])
        while waiting and draw.random() < 0.6:
            yield waiting.pop(draw.randrange(len(waiting)))
    draw.shuffle(waiting)
    yield from waiting


def _label(won: bool, draw: random.Random) -> object:
    return draw.choice([won, str(won), str(won).lower()])


def _kto(triples: Triples, draw: random.Random) -> list[dict]:
    return [
        {"prompt": prompt, "completion": answer, "label": _label(won, draw)}
        for prompt, answer, won in _apart(triples, draw)
    ]


def _dialogue(
    name: str, turn: Callable[[str, str], dict], triples: Triples, draw: random.Random
) -> list[dict]:
    tag = draw.choice(["label", "kto_tag"])
    return [
        {name: [turn("user", prompt), turn("assistant", answer)], tag: _label(won, draw)}
        for prompt, answer, won in _apart(triples, draw)
    ]


def _message(role: str, text: str) -> dict:
    return {"role": role, "content": text}


def _from_value(role: str, text: str) -> dict:
    return {"from": {"user": "human", "assistant": "gpt"}[role], "value": text}


def _helpsteer2(triples: Triples, draw: random.Random) -> list[dict]:
    bars = {prompt: draw.randint(1, 4) for prompt, *_ in triples}
    return [
        {
            "prompt": prompt,
            "response": answer,
            "helpfulness": draw.randint(bars[prompt], 4) if won else bars[prompt] - 1,
            "correctness": draw.randint(0, 4),
            "coherence": draw.randint(0, 4),
            "complexity": draw.randint(0, 4),
            "verbosity": draw.randint(0, 4),
        }
        for prompt, answer, won in _apart(triples, draw)
    ]


def _rated(triples: Triples, draw: random.Random) -> list[dict]:
    field, bars = (
        draw.choice(["score", "rating", "reward"]),
        {p: draw.random() for p, *_ in triples},
    )
    return [
        {"prompt": prompt, "response": answer, field: bars[prompt] + (0.5 if won else -0.5)}
        for prompt, answer, won in _apart(triples, draw)
    ]


SHAPES: dict[str, Callable[[Triples, random.Random], list[dict]]] = {
    "kto": _kto,
    "kto-messages": partial(_dialogue, "messages", _message),
    "kto-sharegpt": partial(_dialogue, "conversations", _from_value),
    "helpsteer2": _helpsteer2,
    "rated-singles": _rated,
}
