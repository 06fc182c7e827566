"""Known pairs written as battles of two answers, the winner at a random place."""

import json


def _conversation(prompt, answer):
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def _shown(chosen, rejected, rng):
    """The two answers in the order shown, and the position of the winner."""
    place = rng.randrange(2)
    return ((rejected, chosen) if place else (chosen, rejected)), place


def _arena(pairs, rng):
    records = []
    for number, (prompt, chosen, rejected) in enumerate(pairs):
        (first, second), place = _shown(chosen, rejected, rng)
        record = {
            "question_id": str(number),
            "model_a": "model-x",
            "model_b": "model-y",
            "winner": ("model_a", "model_b")[place],
            "conversation_a": _conversation(prompt, first),
            "conversation_b": _conversation(prompt, second),
            "turn": 1,
        }
        records.append(record | ({"judge": f"arena_user_{number}"} if rng.random() < 0.5 else {}))
    return records


def _arena_55k(pairs, rng):
    records = []
    for number, (prompt, chosen, rejected) in enumerate(pairs):
        (first, second), place = _shown(chosen, rejected, rng)
        record = {"id": number, "model_a": "model-x", "model_b": "model-y"}
        cells = {"prompt": prompt, "response_a": first, "response_b": second}
        record |= {name: json.dumps([text]) for name, text in cells.items()}
        record |= {"winner_model_a": 1 - place, "winner_model_b": place, "winner_tie": 0}
        records.append(record)
    return records


def _summaries(pairs, rng):
    """Articles, whose frame is least: a prompt comes back with a blank line and TL;DR: after it."""
    records = []
    for prompt, chosen, rejected in pairs:
        shown, place = _shown(chosen, rejected, rng)
        record = {
            "info": {"article": prompt, "site": "news"},
            "summaries": [{"text": text, "policy": "sup", "note": ""} for text in shown],
            "choice": place,
        }
        records.append(record | ({"worker": "w"} if rng.random() < 0.5 else {}))
    return records


def _tinker(pairs, rng):
    records = []
    for prompt, chosen, rejected in pairs:
        shown, place = _shown(chosen, rejected, rng)
        sides = {
            f"completion_{x}": _conversation("", s)[1:] for x, s in zip("AB", shown, strict=True)
        }
        comparison = {"prompt_conversation": [{"role": "user", "content": prompt}]} | sides
        records.append({"comparison": comparison, "label": "AB"[place]})
    return records


def _nova(pairs, rng):
    records = []
    for prompt, chosen, rejected in pairs:
        shown, place = _shown(chosen, rejected, rng)
        labels = ("non-preferred", "preferred") if place else ("preferred", "non-preferred")
        candidates = [
            {"content": [{"text": text}], "preferenceLabel": label}
            for text, label in zip(shown, labels, strict=True)
        ]
        question = {"role": "user", "content": [{"text": prompt}]}
        messages = [question, {"role": "assistant", "candidates": candidates}]
        records.append({"schemaVersion": "bedrock-conversation-2024", "messages": messages})
    return records


def _open_webui(pairs, rng):
    records = []
    for prompt, chosen, rejected in pairs:
        shown, place = _shown(chosen, rejected, rng)
        rated = rng.randrange(2)
        answers = [
            {"parentId": "q", "childrenIds": [], "role": "assistant", "content": text}
            for text in shown
        ]
        question = {"parentId": None, "childrenIds": ["0", "1"], "role": "user", "content": prompt}
        messages = {"q": question, "0": answers[0], "1": answers[1]}
        chat = {"title": "t", "chat": {"history": {"messages": messages, "currentId": "0"}}}
        data = {"rating": 1 if rated == place else -1, "sibling_model_ids": ["m"]}
        records.append(
            {"type": "rating", "data": data, "meta": {"message_id": str(rated), "chat_id": "c"}}
            | {"snapshot": {"chat": chat}}
        )
    return records


SHAPES = {
    "amazon-nova": _nova,
    "open-webui": _open_webui,
    "tinker": _tinker,
    "arena": _arena,
    "arena-55k": _arena_55k,
    "summarize-from-feedback": _summaries,
}
