"""What eval and the page take from the converter's reports."""

import json

import pytest

from dpo_wrap.data.conversion_reports import agreement, ordered, reports


def test_reports_stand_beside_a_converted_directory_or_in_the_run(tmp_path):
    for folder, name in (("data", "one"), ("run/dataset-2", "two")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "report.json").write_text(json.dumps({"format": name}))
    raw = tmp_path / "raw.csv"
    found = reports(tmp_path / "run", [str(tmp_path / "data"), str(raw), "a/hub-name"])
    assert found == {str(tmp_path / "data"): {"format": "one"}, str(raw): {"format": "two"}}
    (tmp_path / "data/report.json").write_text("{broken")
    assert reports(tmp_path / "run", [str(tmp_path / "data")]) == {}


def test_who_was_shown_first_is_summed_over_the_reports_of_a_split():
    one = {"order_by_split": {"test": {"pairs": 10, "first_wins": 6}}}
    other = {"order_by_split": {"test": {"pairs": 5, "first_wins": 1}, "train": {"pairs": 9}}}
    assert ordered([one, other, {"format": "an older report"}], "test") == (15, 7)
    assert ordered([], "train") == (0, 0)


def test_agreement_is_weighed_by_how_much_each_was_compared():
    def report(*rows):
        names = ("compared", "differs")
        rows = [dict(zip(names, row, strict=True)) for row in rows]
        return {"agreement": {"alpha": 0.4, "per_annotator": rows}}

    found = agreement([report((30, 0.1), (10, 0.5), (0, None))])
    assert found == {"share": pytest.approx((27 + 5) / 40), "judgements": 40, "alpha": 0.4}
    assert agreement([report((10, 0.0)), report((10, 1.0))])["share"] == 0.5
    assert agreement([{"agreement": None}, {}]) is None
