"""Known pairs written as trees of messages, for the round trip."""

import random
from collections.abc import Callable

from shapes_ranked import Triples, ordered


def _trees(triples: Triples, draw: random.Random) -> list[dict]:
    return [
        {
            "message_tree_id": f"t{number}",
            "tree_state": "ready_for_export",
            "prompt": _message_of(
                "prompter",
                prompt,
                None,
                [
                    _message_of(
                        "assistant", answer, rank, [_message_of("prompter", "Thanks.", None, [])]
                    )
                    for answer, rank in ordered(chosen, rejected, draw, best=0, step=1)
                ],
            ),
        }
        for number, (prompt, chosen, rejected) in enumerate(triples)
    ]


def _message_of(role: str, text: str, rank: int | None, replies: list[dict]) -> dict:
    return {"text": text, "role": role, "lang": "en", "rank": rank, "replies": replies}


def _messages(triples: Triples, draw: random.Random) -> list[dict]:
    """Each question somewhere before or behind its two answers, the pairs in order."""
    records, waiting = [], []
    for number, (prompt, chosen, rejected) in enumerate(triples):
        question = _turn(f"q{number}", None, "prompter", prompt, None)
        answers = [
            _turn(f"{name}{number}", f"q{number}", "assistant", text, rank)
            for rank, (name, text) in enumerate((("c", chosen), ("r", rejected)))
        ]
        draw.shuffle(answers)
        (records if draw.random() < 0.7 else waiting).append(question)
        records.append(answers[0])
        waiting.append(answers[1])
        draw.shuffle(waiting)
        records += [waiting.pop() for _ in range(draw.randint(0, len(waiting)))]
    return records + waiting


def _turn(key: str, parent: str | None, role: str, text: str, rank: int | None) -> dict:
    return {"message_id": key, "parent_id": parent, "text": text, "role": role} | {
        "lang": "en",
        "rank": rank,
        "message_tree_id": "t",
    }


SHAPES: dict[str, Callable[[Triples, random.Random], list[dict]]] = {
    "oasst-tree": _trees,
    "oasst-flat": _messages,
}
