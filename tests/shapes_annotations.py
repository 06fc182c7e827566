"""Known pairs written as the annotation tools export them, for the round trip."""

import random

Pairs = list[tuple[str, str, str]]


def shown(pair, dice, names):
    """The task's fields, and the position of the winner."""
    prompt, chosen, rejected = pair
    winner = dice.randrange(2)
    texts = (rejected, chosen) if winner else (chosen, rejected)
    return {"prompt": prompt} | dict(zip(names, texts, strict=True)), winner


def argilla_responses(pairs: Pairs, dice: random.Random) -> list[dict]:
    records = []
    for pair in pairs:
        names = ("response_a", "response_b")
        task, winner = shown(pair, dice, names)
        values = [names[winner], names[winner], names[1 - winner]]
        records.append(
            {"id": str(len(records)), "status": "completed"}
            | task
            | {"better.responses": values, "comment.responses": ["well", "so so", ""]}
            | {"better.responses.users": ["u1", "u2", "u3"]}
            | {"better.responses.status": ["submitted", "submitted", "discarded"]}
            | {"comment.responses.users": ["u1", "u2", "u3"]}
            | {"comment.responses.status": ["submitted", "submitted", "discarded"]}
            | {"better.suggestion": names[1 - winner], "better.suggestion.score": 0.9}
        )
    return records


def argilla_nested(pairs: Pairs, dice: random.Random) -> list[dict]:
    records = []
    for pair in pairs:
        names = ("response_a", "response_b")
        task, winner = shown(pair, dice, names)
        order = [names[winner], names[1 - winner]]
        values = [order[0], order[0], order[1]]
        if len(pairs) % 2:
            values = [order, order, order[::-1]]
        given = [{"value": value, "user_id": f"u{n}"} for n, value in enumerate(values)]
        notes = [{"value": "well", "user_id": "u1"}]
        records.append(
            {"id": str(len(records)), "fields": task, "metadata": {}, "suggestions": {}}
            | {"responses": {"better": given, "comment": notes}, "vectors": {}}
        )
    return records


def label_studio(pairs: Pairs, dice: random.Random) -> list[dict]:
    records = []
    for pair in pairs:
        task, winner = shown(pair, dice, ("answer1", "answer2"))
        result = dice.choice(
            [
                {"type": "pairwise", "value": {"selected": ("left", "right")[winner]}},
                {"type": "choices", "value": {"choices": [("Answer A", "Answer B")[winner]]}},
            ]
        )
        good = {"completed_by": 1, "was_cancelled": False, "result": [{"from_name": "x", **result}]}
        none = {"completed_by": {"id": 2, "email": "a@b"}, "was_cancelled": True, "result": []}
        annotations = dice.sample([good, none], 2)
        records.append({"id": len(records), "data": task, "annotations": annotations})
    return records


def label_studio_rows(pairs: Pairs, dice: random.Random) -> list[dict]:
    records = []
    for number, pair in enumerate(pairs):
        task, winner = shown(pair, dice, ("answer1", "answer2"))
        side = ("left", "right")[winner]
        for who in range(1, dice.randint(1, 3) + 1):
            value = dice.choice([side, [{"selected": side}], f'[{{"selected": "{side}"}}]'])
            made = {"annotator": who, "annotation_id": len(records), "lead_time": 4.5}
            records.append(task | {"id": number, "comparison": value} | made)
    return records


def label_studio_ranker(pairs: Pairs, dice: random.Random) -> list[dict]:
    records = []
    for pair in pairs:
        task, winner = shown(pair, dice, ("m1", "m2"))
        items = [{"id": name, "title": name, "body": task.pop(name)} for name in ("m1", "m2")]
        order = ["m2", "m1"] if winner else ["m1", "m2"]
        value = {"ranker": dice.choice([order, {"_": order}, {"rank": order}])}
        result = [{"from_name": "rank", "type": "ranker", "value": value}]
        annotations = [{"completed_by": 1, "was_cancelled": False, "result": result}]
        records.append({"data": task | {"items": items}, "annotations": annotations})
    return records


SHAPES = {
    "argilla-responses": argilla_responses,
    "argilla-nested": argilla_nested,
    "label-studio": label_studio,
    "label-studio-rows": label_studio_rows,
    "label-studio-ranker": label_studio_ranker,
}
