"""The table of formats: the rows of formats.json, and the functions and lists that these name.

A row says which field or path holds what; a new flat format is a new entry there and no code. The
row of a nested format has paths (see `paths`); what no path describes is code in a file of its
family. A label's numbers are decoded only where the format that defines the field says what they
mean, words everywhere.
"""

import re
from functools import partial

from data_tools.column_kinds import NAMES
from data_tools.formats import dialogues, label, paths
from data_tools.formats.format import entries
from data_tools.formats.label import FIRST, SECOND, codes
from data_tools.formats.rows import Row, every
from data_tools.record import BadRecord, Side

_STEMS = "response_{} response{} answer_{} answer{} output_{} completion_{} option_{} candidate_{} "
_STEMS += "model_{}_response"
_LISTS = {
    "PROMPTS": " | ".join(dialogues.PROMPTS),
    "ANSWERS": " | ".join(
        ", ".join(map(stem.format, ends))
        for stem in _STEMS.split()
        for ends in ("abcd", "1234")
        if "_" in stem or ends == "1234"  # response_a, response_1, response1
    ),
    "LABELS": "preference | preferred | preferred_response | winner | chosen | human_chosen | "
    "label | overall_preference | choice | vote | better | best",
    "ANNOTATORS": "annotator_id | annotator | annotator_index | worker_id | worker | rater_id | "
    "rater | judge",
    "LISTS": "responses[] | all_generated_responses[] | answers[] | completions[]",
    "RATINGS": "scores[] | rewards[] | all_rm_scores[]",
    "PAIR": "chosen | rejected | chosen_response | rejected_response",  # a finished one
}
_COMPARING = re.compile(  # a field name: the record has two answers
    "chosen|rejected|generations|^(better|responses|(response|answer|output|completion)_?[a-d0-4])$"
)
_BLOCKS = {"subreddit": "SUBREDDIT: r/", "title": "TITLE: ", "post": "POST: "}


def _is_implicit(record: dict) -> bool:
    """Whether the answers are dialogues, or messages where there are no others."""
    kinds = dialogues.kinds(record)
    return "dialogue" in kinds or "messages" in kinds and "messages" not in record


def _has_kind(kind: str, record: dict) -> bool:
    return kind in dialogues.kinds(record)


def _has_answers_alone(record: dict) -> bool:
    """Whether neither answer is a whole dialogue."""
    return dialogues.kinds(record) <= {"text", "messages", ""}


def _is_halos(record: dict) -> bool:
    """Whether the record names its type, or its answers are lists of messages."""
    answer = record["output_A"]
    are_messages = dialogues.kind(answer) in ("dialogue", "messages")
    return "type" in record or are_messages and not isinstance(answer, dict)


def _is_context_dialogue(record: dict) -> bool:
    """Whether the context is messages, and no other field may be the prompt."""
    others = {*dialogues.PROMPTS, *NAMES["turns"]} & record.keys()
    return not others and dialogues.is_dialogue(record["context"])


def _has_no_pair(record: dict) -> bool:
    return not {"chosen", "rejected"} <= record.keys()


def _judges_one_answer(record: dict) -> bool:
    return not any(_COMPARING.search(name.casefold()) for name in record)


def _mean_rating(annotations: object, where: str) -> float:
    """The mean of UltraFeedback's ratings that are not null or N/A. Raises BadRecord."""
    ratings = []
    for aspect, annotation in paths.check(annotations or {}, dict, where).items():
        if annotation is None:
            continue
        rating = paths.check(annotation, dict, f"{where}.{aspect}").get("Rating")
        if not label.is_null(rating):
            ratings.append(label.score(rating, f"{where}.{aspect}.Rating"))
    if not ratings:
        raise BadRecord("null_label", f"{where} has no Rating; rate the answer or remove it")
    return sum(ratings) / len(ratings)


def _webgpt_question(value: object, where: str) -> Side:
    """The full text of an object, also of one written as JSON; any other text as it is."""
    parsed = paths.parse_json(value, where)
    if isinstance(parsed, dict):
        value, where = parsed.get("full_text"), f"{where}.full_text"
    return dialogues.check_side(value, where)


def _post(info: object, where: str) -> str:
    """The post or article with the labels that the summariser was shown. Raises BadRecord."""
    info = paths.check(info, dict, where)
    names = (*_BLOCKS, "article")
    texts = {name: paths.check(info.get(name) or "", str, f"info.{name}") for name in names}
    given = [name for name in ("post", "article") if texts[name].strip()]
    if len(given) != 1:
        detail = "info must have either a post or an article with a text; add what was summarised"
        raise BadRecord("wrong_type" if given else "missing_field", detail)
    if given == ["article"]:
        return f"{texts['article']}\n\nTL;DR:"
    blocks = [mark + texts[name] for name, mark in _BLOCKS.items() if texts[name]]
    return "\n\n".join([*blocks, "TL;DR:"])


_FUNCTIONS = {
    "one_is_first": codes({1: FIRST, 0: SECOND}),
    "only_one_is_first": lambda number: FIRST if number == 1 else SECOND,  # HALOs' own rule
    "position": label.position,
    "ordinal": label.ordinal,
    "is_hh": partial(_has_kind, "hh"),
    "is_chatml": partial(_has_kind, "chatml"),
    "is_llama": partial(_has_kind, "llama"),
} | {
    function.__name__.removeprefix("_"): function
    for function in (
        *(label.sign, label.graded, label.rank, label.good_or_bad, _mean_rating),
        *(dialogues.check_dialogue, dialogues.transcript_prompt, _webgpt_question, _post),
        *(_is_implicit, _is_halos, _is_context_dialogue, _has_answers_alone, _has_no_pair),
        _judges_one_answer,
    )
}
"""What decodes a label or a score, reads a prompt, or tells a format from others."""


def _row(entry: dict[str, str]) -> Row:
    """The row of an entry: the fields of `Row`, with functions and lists of fields by their names.

    Besides, `labels` is the pattern of each annotator's label, and `without` are fields that the
    records of other formats have.
    """
    given = {key: _LISTS.get(value, value) for key, value in entry.items()}
    given["traits"] = tuple(given.get("traits", "").split())
    for key in {"decode", "read", "only_if"} & given.keys():
        given[key] = _FUNCTIONS[given[key]]
    if "labels" in given:
        given["label"] = re.compile(given.pop("labels"))
    if "without" in given:
        given["only_if"] = frozenset(every(given.pop("without"))).isdisjoint
    return Row(**given)


ROWS = {name: _row(entry["row"]) for name, entry in entries().items() if "row" in entry}
