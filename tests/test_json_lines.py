"""JSON Lines: each line parsed by itself, and the reason for each line that is no record."""

import pytest
from reading import in_an_empty_folder, items, read, refusal, rejects  # noqa: F401

FIX = "fix the record or remove it"


def fault(line):
    """(reason, detail) of one line whose neighbours are read."""
    found = read("f.jsonl", f"1\n{line}\n3\n")
    assert (found[0], found[2]) == ((1, 1), (3, 3))
    ((number, reason, detail, raw),) = rejects("f.jsonl")
    assert (number, raw) == (2, line)
    return reason, detail


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_blank_lines_are_no_records_but_count_as_lines(end):
    found = items("f.jsonl", end.join(["1", "", "  ", "2", "\t", "{", "3"]))
    locations = [item.location for item in found]
    assert [(at.line, at.record) for at in locations] == [(1, 1), (4, 2), (6, 3), (7, 4)]


def test_values_keep_their_types():
    line = '{"a": null, "b": true, "c": 7, "d": 0.5, "e": "007", "f": [], "g": "x\u2028y\x85z"}'
    value = {"a": None, "b": True, "c": 7, "d": 0.5, "e": "007", "f": [], "g": "x\u2028y\x85z"}
    (item,) = items("f.jsonl", line)
    assert (item.value, item.cells) == (value, False)
    assert read("f.jsonl", '[1]\n"text"\nnull\n') == [(1, [1]), (2, "text"), (3, None)]


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        ('{"a": 1', "this is not valid JSON: EOF while parsing an object at byte 7"),
        ("{'a': 1}", "this is not valid JSON: key must be a string at byte 2"),
        ('{"a": 1} {"b": 2}', "this is not valid JSON: trailing characters at byte 10"),
        ('{"a": NaNs}', "this is not valid JSON: expected `,` or `}` at byte 11"),
        ('{"a": -Infinity}', "this is not valid JSON: invalid number at byte 8"),
        ('{"a": [1e999]}', "a number is too large"),
        (
            '{"a": 1, "b": {"c": 2, "c": 3}}',
            'this is not valid JSON: Detected duplicate key "c" at byte 28',
        ),
        ("[" * 9999 + "]" * 9999, "this is not valid JSON: recursion limit exceeded at byte 202"),
        ("1" * 5000, "this is not valid JSON: number out of range at byte 4302"),
    ],
    ids=range(9),
)
def test_a_line_that_is_not_valid_json_is_rejected_alone(line, detail):
    assert fault(line) == ("bad_json", f"{detail}; {FIX}")


def test_nan_is_null_as_a_missing_number_of_pandas_and_in_texts_it_stays():
    lines = '{"a": NaN, "b": [NaN,1], "c": "NaN, \\" NaN"}\n[NaN]\nNaN\n'
    assert read("f.jsonl", lines) == [
        (1, {"a": None, "b": [None, 1], "c": 'NaN, " NaN'}),
        (2, [None]),
        (3, None),
    ]
    assert read("f.json", f"[{lines.strip().replace(chr(10), ',')}]")[1] == (1, [None])


@pytest.mark.parametrize("column", ["rating", "chosen"])
def test_nan_rejects_a_record_only_where_it_is_read(convert_file, column):
    record = {"prompt": "P", "chosen": "C", "rejected": "R"} | {column: float("nan")}
    done = convert_file([record, {"prompt": "Q", "chosen": "C", "rejected": "R"}])
    reasons = [reject["reason"] for reject in done.rejects]
    assert reasons == ([] if column == "rating" else ["missing_field"])


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\r"])
def test_the_end_of_the_line_is_no_part_of_the_record(end):
    detail = f"this is not valid JSON: EOF while parsing a string at byte 8; {FIX}"
    assert rejects("f.jsonl", f'{{"a": "x{end}') == [(1, "bad_json", detail, '{"a": "x')]


def test_200_levels_of_nesting_and_4300_digits_are_read():
    brackets = '\\"[{' * 300  # in a string, so no nesting
    lines = ["1", "[" * 200 + "]" * 200, "1" * 4300, f'["{brackets}\\\\", [[]]]']
    _, nested, number, text = [item.value for item in items("f.jsonl", "\n".join(lines))]
    assert str(nested) == lines[1]
    assert number == int(lines[2])
    assert text == ['"[{' * 300 + "\\", [[]]]


def test_a_lone_surrogate_is_no_text():
    detail = (
        "a string holds a lone surrogate (\\ud800 to \\udfff), which is no text; "
        "write the character itself or both halves of the pair"
    )
    for line in (r'{"a": "x\ud800y"}', r'{"\udc00": 1}', r'["\u0000", "\ud83d\ud83d"]'):
        assert fault(line) == ("bad_encoding", detail)
    assert fault(r'["\ud83d\ude00 \uZZZZ"]')[0] == "bad_json"
    assert read("f.jsonl", r'{"a": "\ud83d\ude00"}') == [(1, {"a": "😀"})]


def test_nul_characters_are_found_plain_and_escaped():
    fix = "name the file's encoding with --encoding, e.g. cp1252 or utf-16-le"
    detail = f"the record holds a NUL character; remove it, or {fix}"
    assert fault('{"a": "\0"}') == ("nul_byte", detail)
    for line in (r'{"a": ["\u0000"]}', r'{"\u0000": 1}'):
        assert fault(line) == ("nul_byte", r"a string holds a NUL character (\u0000); remove it")


def test_an_undecodable_byte_is_shown_in_the_reject_as_it_is_in_the_file():
    fix = "name the file's encoding with --encoding, e.g. cp1252 or utf-16-le"
    for line, shown, near in (
        (b'{"a": "caf\xe9"}', r'{"a": "caf\xe9"}', r'{"a": "caf\xe9"}'),
        (b'["\xed\xa0\x80"', r'["\xed\xa0\x80"', r'["\xed\xa0\x80"'),
        ("é".encode() * 14 + b"x\xff", "é" * 14 + r"x\xff", "é" * 11 + r"x\xff"),
    ):
        ((_, reason, detail, raw),) = rejects("f.jsonl", line)
        assert (reason, raw) == ("bad_encoding", shown)
        assert detail == f"the record holds bytes that do not decode (near {near!r}); {fix}"


@pytest.mark.parametrize("text", ['[\n{"a": 1},\n{"a": 2}\n]', '\n [{"a": 1},\n{"a": 2}]', "["])
def test_an_array_over_several_lines_is_refused_instead_of_rejected_line_by_line(text):
    assert refusal("f.jsonl", text) == "f.jsonl: its content is a JSON array; rename it to .json"


def test_a_first_line_that_is_a_whole_list_or_undecodable_refuses_no_file():
    digits, deep = b"[" + b"1" * 5000 + b"]", b"[" * 300 + b"]" * 300
    for line in (b"[1]", b"[NaN]", digits, deep, b'["caf\xe9'):
        assert [number for number, _ in read("f.jsonl", line + b"\n2\n")] == [1, 2]
