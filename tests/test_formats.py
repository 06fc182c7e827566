"""Every shape by its own samples, and the words of --label."""

import pytest

from data_tools.formats import FORMATS
from data_tools.formats.shape import Meaning, parse_label, tidy_keys
from data_tools.record import ConvertError, Fault


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_reads_its_passing_record_and_knows_its_failing_one(name):
    shape = FORMATS[name]
    assert shape.matches(shape.passing)
    (pair,) = shape.pairs(shape.passing, Meaning())
    assert pair.prompt
    assert "shrub" in str(pair.chosen) or "Hello" in str(pair.chosen)
    assert pair.chosen != pair.rejected
    assert isinstance(shape.pairs(shape.failing, Meaning()), Fault)
    assert shape.sentence.endswith(".")
    assert shape.fields and shape.polarity


@pytest.mark.parametrize("name", FORMATS)
def test_no_format_takes_the_record_of_another(name):
    assert [other for other in FORMATS if FORMATS[other].matches(FORMATS[name].passing)] == [name]


@pytest.mark.parametrize(
    "text",
    [
        "1,2",
        "first=1",
        "first=1,second=2,third=3",
        "first=1,second=2,tie",
        "first=,second=2",
        "",
        "first=1,second=2,first=3",
    ],
)
def test_a_label_key_that_is_not_whole_is_refused(text):
    with pytest.raises(ConvertError) as caught:
        parse_label(text)
    assert str(caught.value) == (
        f"--label {text}: write --label first=X,second=Y or first=X,second=Y,tie=Z, where X, Y "
        "and Z are values of the label column"
    )


def test_a_label_key_with_one_value_for_two_outcomes_is_refused():
    with pytest.raises(ConvertError, match="--label first=A,second=a: one value cannot mean two"):
        parse_label("first=A,second=a")


def test_white_space_around_field_names_is_taken_off_unless_two_would_meet():
    assert tidy_keys({" prompt ": 1, "chosen": 2}) == {"prompt": 1, "chosen": 2}
    assert tidy_keys({" a": 1, "a": 2}) == {" a": 1, "a": 2}
