"""Known pairs written as ranked answers, for the round trip."""

import random
from collections.abc import Callable
from itertools import combinations

Triples = list[tuple[str, str, str]]


def ordered(chosen: str, rejected: str, draw: random.Random, best: int, step: int) -> list[tuple]:
    """(answer, score) in random order: the two, and none to two fillers scored between them."""
    between = draw.randint(0, 2)
    answers = [chosen, *(f"Filler {number}." for number in range(between)), rejected]
    listed = [(answer, best + step * place) for place, answer in enumerate(answers)]
    draw.shuffle(listed)
    return listed


def _nectar(triples: Triples, draw: random.Random) -> list[dict]:
    return [
        {
            "prompt": f"\n\nHuman: {prompt}\n\nAssistant: ",
            "answers": [
                {"answer": answer, "model": "m", "rank": float(rank)}
                for answer, rank in ordered(chosen, rejected, draw, best=1, step=1)
            ],
            "turns": 1,
        }
        for prompt, chosen, rejected in triples
    ]


def _nemo_rl(triples: Triples, draw: random.Random) -> list[dict]:
    return [
        {
            "context": [{"role": "user", "content": prompt}],
            "completions": [
                {"rank": rank, "completion": [{"role": "assistant", "content": answer}]}
                for answer, rank in ordered(chosen, rejected, draw, best=0, step=1)
            ],
        }
        for prompt, chosen, rejected in triples
    ]


def _fine_grained(triples: Triples, draw: random.Random) -> list[dict]:
    """All judgements but the one on the two answers are ties, which make no pair."""
    records = []
    for prompt, chosen, rejected in triples:
        answers = [chosen, rejected, "Filler 1.", "Filler 2."]
        draw.shuffle(answers)
        vector = [
            {(chosen, rejected): 1, (rejected, chosen): 2}.get(versus, 0)
            for versus in combinations(answers, 2)
        ]
        predictions = {f"prediction {n}": answer for n, answer in enumerate(answers, start=1)}
        records.append({"question": prompt, **predictions, "preference": vector})
    return records


def _ranked_lists(triples: Triples, draw: random.Random) -> list[dict]:
    records = []
    for prompt, chosen, rejected in triples:
        answers, ranks = zip(*ordered(chosen, rejected, draw, best=1, step=1), strict=True)
        records.append({"prompt": prompt, "responses": [*answers], "ranks": [*ranks]})
    return records


SHAPES: dict[str, Callable[[Triples, random.Random], list[dict]]] = {
    "nectar": _nectar,
    "nemo-rl": _nemo_rl,
    "ranked-lists": _ranked_lists,
    "fine-grained-rlhf": _fine_grained,
}
