"""One record through format and rules: pairs, faults, warnings and kept columns side by side."""

from data_tools import block
from data_tools.formats import FORMATS
from data_tools.formats.shape import Meaning
from data_tools.record import Fault, Pair, Place, Raw, Reject
from data_tools.rules import Limits

PLACE = Place("f", 3, 2)


def checked(value, shape="preference", keep=(), **limits):
    """What becomes of one record; `value` may also be a Reject of its reader."""
    task = block.Task(FORMATS[shape], Meaning(), Limits(**limits), keep)
    item = value if isinstance(value, Reject) else Raw(PLACE, value)
    (found,) = block.check([item], task)
    return found


def fault(value, shape="preference"):
    found = checked(value, shape)
    assert found.made == 0
    (result,) = found.results
    return result.reason, result.detail


def test_what_a_reader_rejected_passes_with_its_place_and_text():
    reject = Reject(PLACE, Fault("bad_json", "why"), "{")
    found = checked(reject)
    assert (found.place, found.raw, found.made, found.results) == (PLACE, "{", 0, (reject.fault,))


def test_a_record_that_is_no_object_is_shown_shortened():
    assert fault([1]) == ("wrong_type", "the record is [1], not an object with fields")
    assert fault("x" * 900) == (
        "wrong_type",
        f"the record is '{'x' * 58}…, not an object with fields",
    )


def test_a_stray_is_told_every_shape_that_it_looks_like():
    turns = [{"role": "user", "content": "x"}]
    assert fault({"chosen": turns, "rejected": turns}) == (
        "missing_field",
        "prompt is missing or null; give it a text; it looks like implicit-messages",
    )
    both = FORMATS["implicit-messages"].passing | FORMATS["sharegpt"].passing
    assert fault(both)[1].endswith("; it looks like sharegpt")
    assert fault({"prompt": "P", "chosen": "C"}) == (
        "missing_field",
        "rejected is missing or null; give it a text",
    )


def test_each_pair_of_a_record_is_judged_by_itself():
    record = {
        "prompt": "P",
        "answer_a": "<br>",
        "answer_b": " ",
        "answer_c": "C",
        "label": "a",
    }
    found = checked(record, "labelled-pairs")
    assert found.made == 2
    first, second = found.results
    assert (first.reason, second) == ("empty_response", Pair("P", "<br>", "C", True))
    assert found.odd == ((), ("html",))


def test_the_source_that_limits_speak_of_is_the_records_place():
    record = {"prompt": "P", "chosen": "C", "rejected": "R"}
    (result,) = checked(record, excluded=frozenset({"f:3"})).results
    assert result.reason == "excluded"


def test_kept_columns_are_text_and_found_under_their_tidy_names():
    record = {"prompt": "P", "chosen": "C", "rejected": "R", " a ": 7, "b": "é", "c": {"é": 1.5}}
    found = checked(record, keep=("a", "b", "c", "d"))
    assert found.kept == ("7", "é", '{"é": 1.5}', None)
    assert found.raw == record
