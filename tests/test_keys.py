"""Keys of prompts and comparisons: what equals what, by their plain definitions."""

import random
import unicodedata

from converting import assistant, user

from data_tools.keys import Column, near_duplicate_keys, pair_key, prompt_key

PIECES = (
    *("word", "two words", "a  b", "line\nline", "\r\n", "\t", "\x0b", "\x1c", "\x1f", "\x85"),
    *("\xa0", "\u1680", "\u2003", "\u2028", "\u202f", "\u205f", "\u3000", "\u200b", "\ufeff"),
    *(
        "cafe\u0301",
        "café",
        "\u1112\u1161\u11ab",
        "한",
        "कि",
        "漢字",
        "😀",
        "Ⅳ",
        "Ⓐ",
        "ß",
        "İ",
        "–",
    ),
    *("\u0958", "\u212b", "\u0345", "\u200d", "ﬁ", "ẞ", "ς", "\U0001d15e", "\U000110ba", "\u0301"),
    *("\u0644\u0653", "\u0b47", "\u0b3e", "\x7f", "0", "²", "_", "A", " ", "", ".", "x" * 300),
)
EVERY = [chr(point) for point in range(1, 0x20000) if not 0xD800 <= point < 0xE000]


def random_columns():
    """Columns of texts with much white space and many scripts, some of them plain ASCII."""
    dice = random.Random(0)
    near, ascii_ = EVERY[:0x3000], EVERY[:0x7F]
    for number in range(200):
        pieces = (PIECES, near, EVERY, ascii_)[number % 4]
        yield [
            "".join(dice.choices(pieces, k=dice.randint(0, 8))) + dice.choice(("", " ", "a"))
            for _ in range(dice.choice((1, 3, 50)))
        ]


def normalized_by_column(texts):
    return Column(texts, "user").normalized


def normalized(text):
    return " ".join(unicodedata.normalize("NFC", text).split())


def letters(text):
    """The definition of what near duplicates have in common."""
    text = unicodedata.normalize("NFC", normalized(text).casefold())
    return "".join(c for c in text if unicodedata.category(c)[0] in "LNM")


def test_a_normalized_text_is_in_nfc_with_every_white_space_as_one_blank():
    around = [f"a{char}e {char} \u1100{char}o" for char in EVERY]
    alone = ([text] for text in around[:0xA000])
    for texts in (*random_columns(), around, *alone, []):
        assert normalized_by_column(texts) == [normalized(text).encode() for text in texts]


def digest(side, role="user"):
    return Column([side], role).digests[0]


def test_sides_that_a_chat_template_shows_alike_have_one_digest():
    for one, other in [
        ("P", [user("P")]),
        (" cafe\u0301\nx", [user("caf\u00e9  x")]),
        ([user("P", name=None)], [user("P")]),
        ([assistant(None, tool_calls=[1])], [assistant("", tool_calls=[1])]),
        ([user("P", a=1, b=2)], [user("P", b=2, a=1)]),
    ]:
        assert digest(one) == digest(other)


def test_another_text_role_or_key_is_another_digest():
    bare = ["P", "p", "P Q", [assistant("P")], [user("")], []]
    keyed = [[user("P", name="n")], [user("P", tool_calls=[])], [user("P"), user("")]]
    joined = [[user("a"), assistant("b c")], [user("a b"), assistant("c")], [user("a\x1fb")]]
    digests = [digest(side) for side in (*bare, *keyed, *joined, [user("a"), user("b")])]
    assert len({*digests}) == len(digests) and {*map(len, digests)} == {16}


def test_a_text_counts_as_a_message_of_its_columns_role():
    assert digest("P", "assistant") == digest([assistant("P")]) != digest("P", "user")


def test_a_column_gives_what_each_of_its_sides_gives_alone():
    dice = random.Random(1)
    for texts in random_columns():
        alone = [digest(text) for text in texts]
        assert Column(texts, "user").digests == alone
        sides = [[user(text)] * dice.randint(0, 3) for text in texts]
        column = Column(sides, "user")
        assert column.digests == [digest(side) for side in sides]
        assert column.sizes == [sum(len(m["content"]) for m in side) for side in sides]
        whole = ["\n".join(normalized(m["content"]) for m in side).encode() for side in sides]
        assert column.whole == whole
        owners = [at for at, side in enumerate(sides) for _ in side]
        assert [column.owner(text) for text in range(len(owners))] == owners


def test_both_orders_of_a_comparison_have_one_key():
    key, forward = pair_key("P", "a", "b")
    assert pair_key("P ", "b", "a\n") == (key, not forward)
    assert pair_key([user("P")], [assistant("a")], [assistant("b")]) == (key, forward)
    assert key[:8] == prompt_key("P")[:8]


def test_a_pair_that_differs_in_anything_else_has_another_key():
    sides = [("P", "a", "b"), ("Q", "a", "b"), ("P", "a", "c")]
    sides += [("P", "a", "b", "[]"), ("P", "a", "b", None, {})]
    sides += [("P", [assistant("a", tool_calls=[1])], "b")]
    assert len({pair_key(*one)[0] for one in sides}) == len(sides)


def test_near_duplicates_are_equal_but_for_case_white_space_and_punctuation():
    key_of = {}
    for texts in random_columns():
        for text, key in zip(texts, near_duplicate_keys(normalized_by_column(texts)), strict=True):
            assert key_of.setdefault(letters(text), key) == key
    assert key_of.pop("") == 0
    assert None not in key_of.values()
    assert len(set(key_of.values())) == len(key_of) > 2000
    assert near_duplicate_keys([]) == []


def test_letters_digits_and_marks_decide_what_is_a_near_duplicate():
    equal = [("What is 2 + 2?", "what is 2+2"), ("STRASSE", "straße!"), ("Café", "cafe\u0301…")]
    for one, other in equal:
        assert len({*near_duplicate_keys(normalized_by_column([one, other]))}) == 1
    devanagari = ["\u0915\u093f", "\u0915\u093e"]  # one letter, two vowel signs
    others = normalized_by_column(["two words", "two worlds", *devanagari])
    assert len({*near_duplicate_keys(others)}) == 4
