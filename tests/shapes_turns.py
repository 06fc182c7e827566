"""Known pairs written as answers next to a shared history, for the round trip."""


def _user(text):
    return {"role": "user", "content": text}


def _assistant(text):
    return {"role": "assistant", "content": text}


def _blocks(*messages):
    return [m | {"content": [{"type": "text", "value": m["content"]}]} for m in messages]


def _llamafactory(pairs, rng):
    records = []
    for prompt, chosen, rejected in pairs:
        write = rng.choice([_blocks, lambda *messages: list(messages)])
        records.append(
            {
                "chosen_messages": write(_user(prompt), _assistant(chosen)),
                "rejected_messages": write(_user(prompt), _assistant(rejected)),
            }
        )
    return records


def _axolotl(pairs, rng):
    return [
        {
            "messages": [_user(prompt)],
            "chosen": rng.choice([_assistant(chosen), chosen]),
            "rejected": rng.choice([_assistant(rejected), rejected]),
        }
        for prompt, chosen, rejected in pairs
    ]


def _ms_swift(pairs, rng):
    return [
        {"messages": [_user(prompt), _assistant(chosen)]}
        | rng.choice(
            [
                {"rejected_response": rejected},
                {"rejected_response": [rejected]},
                {"rejected_messages": [_user(prompt), _assistant(rejected)]},
            ]
        )
        for prompt, chosen, rejected in pairs
    ]


def _openai(pairs, rng):
    return [
        {
            "input": {"messages": [_user(prompt)], "parallel_tool_calls": True},
            "preferred_output": [_assistant(chosen)],
            "non_preferred_output": [_assistant(rejected)],
        }
        for prompt, chosen, rejected in pairs
    ]


def _openpipe(pairs, rng):
    return [
        {
            "messages": [_user(prompt), _assistant(chosen)],
            "rejected_message": _assistant(rejected),
            "split": "TRAIN",
        }
        for prompt, chosen, rejected in pairs
    ]


def _context(pairs, rng):
    fields = rng.choice([("chosen", "rejected"), ("answer_w", "answer_l")])
    return [
        {"context": [{"from": "human", "content": prompt}]}
        | {
            name: [{"from": "assistant", "content": answer}]
            for name, answer in zip(fields, answers, strict=True)
        }
        for prompt, *answers in pairs
    ]


SHAPES = {
    "context-dialogue": _context,
    "llamafactory-v1": _llamafactory,
    "axolotl-chat": _axolotl,
    "ms-swift": _ms_swift,
    "openai": _openai,
    "openpipe": _openpipe,
}
