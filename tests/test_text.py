"""Bytes to text: what decodes how, and which bytes are named instead of guessed."""

import io
import json

import pytest

from data_tools.readers.text import bad_strings, bad_text, open_text, printable
from data_tools.record import ConvertError


def decoded(content, encoding=None):
    with open_text(io.BytesIO(content), encoding) as text:
        return text.read()


def refusal(content, encoding):
    with pytest.raises(ConvertError) as caught:
        decoded(content, encoding)
    assert caught.value.status == 2
    return str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "é, ü".encode(),
        "é, ü".encode("utf-8-sig"),
        "é, ü".encode("utf-16"),
        b"\xfe\xff" + "é, ü".encode("utf-16-be"),
        "é, ü".encode("utf-32"),
        b"\x00\x00\xfe\xff" + "é, ü".encode("utf-32-be"),
    ],
)
def test_a_byte_order_mark_decides_and_is_no_part_of_the_text(content):
    assert decoded(content) == "é, ü"


def test_a_byte_order_mark_is_gone_again_after_going_back_to_the_start():
    for content in ("é\nü".encode("utf-8-sig"), "é\nü".encode("utf-16")):
        with open_text(io.BytesIO(content), None) as text:
            assert text.readline() == "é\n"
            text.seek(0)
            assert text.read() == "é\nü"


def test_line_ends_stay_as_they_are():
    assert decoded(b"a\r\nb\rc\nd") == "a\r\nb\rc\nd"


def test_the_encoding_is_the_one_that_the_user_names():
    assert decoded("naïve €".encode("cp1252"), "cp1252") == "naïve €"
    assert decoded("é".encode("utf-16-le"), "utf-16-le") == "é"
    assert decoded("é".encode(), "utf-8-sig") == decoded("é".encode("utf-8-sig"), "utf-8-sig")


def test_bytes_that_do_not_decode_are_marked_and_the_text_around_them_stays():
    text = decoded(b"caf\xe9 \xff ok")
    assert text == "caf\udce9 \udcff ok"
    assert printable(text) == r"caf\xe9 \xff ok"
    fault = bad_text(text, "the row")
    assert fault.reason == "bad_encoding"
    assert fault.detail == (
        r"the row holds bytes that do not decode (near 'caf\\xe9 \\xff ok'); "
        "name the file's encoding with --encoding, e.g. --encoding cp1252"
    )


def test_only_the_text_around_the_first_bad_byte_is_shown():
    fault = bad_text("x" * 50 + "before \udce9 after" + "y" * 50 + "\udce9", "the row")
    assert r"(near 'xxxxxbefore \\xe9 afteryyyyy')" in fault.detail


def test_a_byte_that_its_code_page_leaves_open_is_marked_too():
    assert bad_text(decoded(b"a\x81b", "cp1252"), "the row").reason == "bad_encoding"


def test_half_a_utf_16_character_at_the_end_is_marked():
    assert bad_text(decoded("ab".encode("utf-16")[:-1]), "the row").reason == "bad_encoding"


def test_a_nul_character_is_named():
    fault = bad_text("a\0b", "the row")
    assert (fault.reason, fault.detail) == (
        "nul_byte",
        "the row holds a NUL character; remove it, or name an --encoding of UTF-16",
    )
    assert bad_text("plain, ünd so weiter 😀", "the row") is None


@pytest.mark.parametrize("name", ["utf-9", "hex", "rot13", "base64", "utf\0"])
def test_what_is_no_encoding_of_text_is_refused_with_examples(name):
    message = refusal(b"a", name)
    assert message == (
        f"--encoding {name}: no such encoding; examples: utf-8, utf-16, cp1252, latin-1"
    )


def test_an_encoding_that_the_mark_denies_is_refused():
    assert refusal(b"\xef\xbb\xbfa", "cp1252") == (
        "--encoding cp1252: the file begins with the mark of UTF-8, so it is not cp1252; "
        "leave the option out"
    )


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (r'{"a": ["\ud83d"]}', "bad_encoding"),
        (r'{"\udc00": 1}', "bad_encoding"),
        (r'{"a": "\u0000"}', "nul_byte"),
        (r'["\u0000", "\ud800"]', "bad_encoding"),
        (r'{"a": "\ud83d\ude00", "b": [1, null, true]}', None),
    ],
)
def test_escapes_that_make_no_text_are_found_wherever_they_stand(source, reason):
    fault = bad_strings(json.loads(source))
    assert (fault and fault.reason) == reason
