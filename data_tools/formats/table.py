"""The table of flat formats: which field holds what, and what its label's values mean.

A new flat format is a new row: its name, the fields of the prompt, those of the answers and what
names the better one; an entry in descriptions.json tells people about it. A label's numbers are
decoded only where the format that defines the field says what they mean, words everywhere.
"""

import re

from data_tools.formats.label import FIRST, SECOND, TIE, codes, graded, one_or_else, sign
from data_tools.formats.rows import Answers, Around, Row

_GENERAL = frozenset({"general"})
_PROMPTS = "prompt | question | instruction | query | input"
_FAMILIES = " | ".join(
    ", ".join(f"{stem}{end}" for end in ends)
    for stem in ("response_", "response", "answer_", "answer", "output_")
    for ends in ("abcd", "1234")
    if stem.endswith("_") or ends == "1234"  # response_a, response_1, response1
)
_LABELS = "preference | preferred | preferred_response | winner | chosen | human_chosen | label | "
_LABELS += "overall_preference"
_ANNOTATORS = (
    "annotator_id | annotator | annotator_index | worker_id | worker | rater_id | rater | "
)
_ANNOTATORS += "judge"

ROWS = (
    Row("preference", "prompt", Answers("chosen, rejected"), traits=_GENERAL),
    Row(
        "orca",
        "question | input | query",
        Answers("chosen, rejected"),
        unless=("prompt", "instruction"),
    ),
    Row(
        "llamafactory-alpaca",
        "instruction",
        Answers("chosen, rejected"),
        Around(context="input", history="history"),
        unless=("prompt", "question", "query"),
    ),
    Row(
        "argilla-chosen-response",
        "instruction | prompt",
        Answers("chosen_response, rejected_response"),
    ),
    Row("stack-exchange-paired", "question | prompt", Answers("response_j, response_k")),
    Row(
        "shp",
        "history",
        Answers("human_ref_A, human_ref_B", label="labels", numbers=codes({1: FIRST, 0: SECOND})),
    ),
    Row(
        "alpaca-eval",
        "instruction",
        Answers(
            "output_1, output_2",
            label="preference",
            numbers=graded,
            annotator="annotator | annotator_index",
        ),
        Around(context="input"),
    ),
    Row(
        "pku-saferlhf",
        "prompt",
        Answers(
            "response_0, response_1",
            label="better_response_id",
            numbers=codes({0: FIRST, 1: SECOND}),
        ),
    ),
    Row(
        "helpsteer2-preference",
        "prompt",
        Answers("response_1, response_2", label="preference_strength", numbers=sign),
    ),
    Row(
        "helpsteer3",
        "context",
        Answers("response1, response2", label="overall_preference", numbers=sign),
    ),
    Row(
        "halos",
        "prompt",
        Answers("output_A, output_B", label="label", numbers=one_or_else),
        only_if=lambda record: "type" in record or isinstance(record["output_A"], list),
    ),
    Row(
        "pandalm",
        "instruction",
        Answers(
            "response1, response2 | response_1, response_2",
            numbers=codes({1: FIRST, 2: SECOND, 0: TIE}),
            judges=re.compile(r"annotator_?\d+"),
        ),
        Around(context="input"),
    ),
    Row(
        "labelled-pairs",
        _PROMPTS,
        Answers(_FAMILIES, label=_LABELS, annotator=_ANNOTATORS),
        Around(context="input"),
        traits=_GENERAL,
    ),
    Row(
        "better-worse",
        _PROMPTS,
        Answers("better, worse | accepted, rejected | pos_resp, neg_resp"),
        Around(context="input"),
        unless=("chosen",),
    ),
)
