"""Known pairs written as rated answers, for the round trip."""

import random
from collections.abc import Callable

from shapes_ranked import Triples, ordered

_ASPECTS = ("helpfulness", "honesty", "instruction_following", "truthfulness")


def _annotations(mean: int, draw: random.Random) -> dict:
    """Ratings of that mean, one of them perhaps not given."""
    ratings = [str(mean - 1), str(mean + 1), str(mean), draw.choice([str(mean), "N/A"])]
    return {
        aspect: {"Rating": rating, "Rationale": "."}
        for aspect, rating in zip(_ASPECTS, ratings, strict=True)
    }


def _ultrafeedback(triples: Triples, draw: random.Random) -> list[dict]:
    return [
        {
            "source": "s",
            "instruction": prompt,
            "models": ["m"],
            "completions": [
                {"model": "m", "response": answer, "annotations": _annotations(mean, draw)}
                for answer, mean in ordered(chosen, rejected, draw, best=9, step=-2)
            ],
        }
        for prompt, chosen, rejected in triples
    ]


def _webgpt(triples: Triples, draw: random.Random) -> list[dict]:
    records = []
    for prompt, chosen, rejected in triples:
        answers = [(chosen, 0.25), (rejected, -0.25)]
        draw.shuffle(answers)
        (first, score), (second, other) = answers
        records.append(
            {"question": {"dataset": "d", "id": "i", "full_text": prompt}}
            | {"answer_0": first, "score_0": score, "quotes_0": {"title": [], "extract": []}}
            | {"answer_1": second, "score_1": other, "quotes_1": {"title": [], "extract": []}}
        )
    return records


def _stack_exchange(triples: Triples, draw: random.Random) -> list[dict]:
    return [
        {
            "qid": number,
            "question": prompt,
            "answers": [
                {"answer_id": place, "text": answer, "pm_score": score, "selected": False}
                for place, (answer, score) in enumerate(
                    ordered(chosen, rejected, draw, best=5, step=-1)
                )
            ],
        }
        for number, (prompt, chosen, rejected) in enumerate(triples)
    ]


def _distilabel(triples: Triples, draw: random.Random) -> list[dict]:
    records = []
    for prompt, chosen, rejected in triples:
        generations, ratings = zip(*ordered(chosen, rejected, draw, best=5, step=-1), strict=True)
        records.append(
            {"instruction": prompt, "generations": [*generations], "ratings": [*ratings]}
            | {"generation_models": ["m"] * len(ratings)}
        )
    return records


def _content(role: str, text: str, draw: random.Random) -> dict:
    """The text in one part or in two."""
    cut = draw.randint(0, len(text))
    return {"role": role, "parts": [{"text": text[:cut]}, {"text": text[cut:]}]}


def _vertex_gemini(triples: Triples, draw: random.Random) -> list[dict]:
    records = []
    for prompt, chosen, rejected in triples:
        answers = [(chosen, 1), (rejected, 0)]
        draw.shuffle(answers)
        completions = [
            {"score": score, "completion": _content("model", answer, draw)}
            for answer, score in answers
        ]
        records.append({"contents": [_content("user", prompt, draw)], "completions": completions})
    return records


def _scored_lists(triples: Triples, draw: random.Random) -> list[dict]:
    fields = draw.choice(
        [
            ("responses", "scores"),
            ("answers", "rewards"),
            ("all_generated_responses", "all_rm_scores"),
        ]
    )
    lists = [zip(*ordered(c, r, draw, best=5, step=-1), strict=True) for _, c, r in triples]
    return [
        {"prompt": prompt} | dict(zip(fields, map(list, two), strict=True))
        for (prompt, _, _), two in zip(triples, lists, strict=True)
    ]


SHAPES: dict[str, Callable[[Triples, random.Random], list[dict]]] = {
    "ultrafeedback": _ultrafeedback,
    "webgpt": _webgpt,
    "stack-exchange": _stack_exchange,
    "distilabel": _distilabel,
    "vertex-gemini": _vertex_gemini,
    "scored-lists": _scored_lists,
}
