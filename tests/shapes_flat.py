"""Known pairs written in every flat format, and as dialogues and transcripts."""

import csv
import io
import json


def _won(prompt, chosen, rejected):
    """One record a pair whose fields name the winner."""

    def write(pairs, draw):
        return [{prompt: p, chosen: c, rejected: r} for p, c, r in pairs]

    return write


def _judged(prompt, first, second, label, words):
    """One record a pair, the winner at a random place; `words` are the labels of either."""

    def write(pairs, draw):
        records = []
        for p, c, r in pairs:
            place = draw.randint(0, 1)
            answers = (c, r) if place == 0 else (r, c)
            value = draw.choice(words[place])
            records.append({prompt: p, first: answers[0], second: answers[1], label: value})
        return records

    return write


def _several(pairs, draw):
    """Three annotators in columns, of whom two at least agree."""
    records = []
    for p, c, r in pairs:
        place = draw.randint(0, 1)
        labels = [place + 1, place + 1, draw.choice([0, 1, 2])]
        draw.shuffle(labels)
        answers = (c, r) if place == 0 else (r, c)
        columns = {f"annotator{i}": value for i, value in enumerate(labels, start=1)}
        record = {"instruction": p, "input": "", "response1": answers[0], "response2": answers[1]}
        records.append(record | columns)
    return records


def _dialogue(pairs, draw):
    return [
        {
            name: [{"role": "user", "content": p}, {"role": "assistant", "content": answer}]
            for name, answer in (("chosen", c), ("rejected", r))
        }
        for p, c, r in pairs
    ]


def _transcript(pairs, draw):
    return [
        {
            name: f"\n\nHuman: {p}\n\nAssistant: {answer}"
            for name, answer in (("chosen", c), ("rejected", r))
        }
        for p, c, r in pairs
    ]


def _chatml(pairs, draw):
    turn = "<|im_start|>{}\n{}<|im_end|>\n".format
    return [
        {
            name: turn("user", p) + turn("assistant", answer)
            for name, answer in (("chosen", c), ("rejected", r))
        }
        for p, c, r in pairs
    ]


def _llama(pairs, draw):
    return [
        {
            name: f"<s>[INST] {p} [/INST] {answer} </s>"
            for name, answer in (("chosen", c), ("rejected", r))
        }
        for p, c, r in pairs
    ]


def _sharegpt(pairs, draw):
    return [
        {
            "conversations": [{"from": "human", "value": p}],
            "chosen": {"from": "gpt", "value": c},
            "rejected": {"from": "gpt", "value": r},
        }
        for p, c, r in pairs
    ]


def _messages(pairs, draw):
    flat = _judged("prompt", "output_A", "output_B", "label", ([1], [0]))(pairs, draw)
    return [
        record
        | {"type": "pairwise_feedback"}
        | {
            name: [{"role": role, "content": record[name]}]
            for name, role in (
                ("prompt", "user"),
                ("output_A", "assistant"),
                ("output_B", "assistant"),
            )
        }
        for record in flat
    ]


SHAPES = {
    "preference": _won("prompt", "chosen", "rejected"),
    "orca": _won("question", "chosen", "rejected"),
    "llamafactory-alpaca": _won("instruction", "chosen", "rejected"),
    "argilla-chosen-response": _won("instruction", "chosen_response", "rejected_response"),
    "stack-exchange-paired": _won("question", "response_j", "response_k"),
    "shp": _judged("history", "human_ref_A", "human_ref_B", "labels", ([1], [0])),
    "alpaca-eval": _judged(
        "instruction", "output_1", "output_2", "preference", ([1, 1.0, 1.2], [2, 1.7])
    ),
    "pku-saferlhf": _judged("prompt", "response_0", "response_1", "better_response_id", ([0], [1])),
    "helpsteer2-preference": _judged(
        "prompt", "response_1", "response_2", "preference_strength", ([-3, -2, -1], [1, 2, 3])
    ),
    "helpsteer3": _judged(
        "context", "response1", "response2", "overall_preference", ([-3, -1], [1, 3])
    ),
    "halos": _messages,
    "pandalm": _several,
    "labelled-pairs": _judged(
        "prompt", "response_a", "response_b", "winner", (["A", "response_a"], ["B", "second"])
    ),
    "better-worse": _won("question", "accepted", "rejected"),
    "implicit-messages": _dialogue,
    "hh": _transcript,
    "chatml": _chatml,
    "llama": _llama,
    "sharegpt": _sharegpt,
}


def as_table(records):
    """The records as CSV with a header; columns that a record lacks are empty."""
    columns = list(dict.fromkeys(key for record in records for key in record))
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, columns, restval="")
    writer.writeheader()
    writer.writerows(as_cells(records))
    return table.getvalue()


def as_cells(records):
    """The same records as rows of a table: what is not text becomes JSON.

    A list of one text becomes that text: in a cell, a list of texts could as well be an answer.
    """
    return [{name: _cell(value) for name, value in record.items()} for record in records]


def _cell(value):
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        return value[0]
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value)
