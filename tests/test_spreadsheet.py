"""XLSX: a sheet as a table of texts, each row by its number, and what is no such file."""

import datetime
import io
import re
import warnings
import zipfile
from pathlib import Path

import openpyxl
from openpyxl.chart import BarChart, Reference
from reading import in_an_empty_folder, items, notes, refusal, rejects  # noqa: F401

from data_tools import readers

NAME = "a.xlsx"


def write(*rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(NAME)


def read(*rows):
    """The value of every record, the reason of every reject, with these rows written before."""
    if rows:
        write(*rows)
    return [getattr(item, "value", None) or item.reason for item in items(NAME)]


def change(replaced):
    """Change every part of the file by `replaced(name, content)`."""
    out = io.BytesIO()
    with zipfile.ZipFile(NAME) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, replaced(name, old.read(name)))
    assert out.getvalue() != Path(NAME).read_bytes()
    Path(NAME).write_bytes(out.getvalue())


def test_a_record_has_a_number_and_no_line_and_is_of_cells():
    write(["a", "b"], ["x", 1], [None, None], ["y", 2])
    first, second = items(NAME)
    assert (str(first.location), first.location.line) == ("a.xlsx#1", None)
    assert (first.value, first.cells) == ({"a": "x", "b": "1"}, True)
    assert (str(second.location), second.value) == ("a.xlsx#2", {"a": "y", "b": "2"})


def test_every_cell_is_text():
    day, time = datetime.date(2024, 1, 1), datetime.time(9, 30)
    midnight, morning = (datetime.datetime.combine(day, at) for at in (datetime.time(), time))
    rows = [
        [7, 7.0, -0.5, 1e300, True, False],
        [day, midnight, morning, time, "007", "None"],
        ["2024-01-01", '{"a": 1}', " x\ny ", "line_x000D_\nend", "typed _x0041_", "x"],
    ]
    assert [[*value.values()] for value in read(list("abcdef"), *rows)] == [
        ["7", "7", "-0.5", "1e+300", "TRUE", "FALSE"],
        ["2024-01-01", "2024-01-01", "2024-01-01T09:30:00", "09:30:00", "007", "None"],
        ["2024-01-01", '{"a": 1}', " x\ny ", "line\r\nend", "typed _x0041_", "x"],
    ]


def test_a_whole_number_that_a_writer_stored_with_a_point_is_whole():
    write(["a"], [7])
    change(lambda _, part: part.replace(b"<v>7</v>", b"<v>7.0</v>"))
    assert read() == [{"a": "7"}]


def test_an_empty_cell_is_empty_text_and_an_empty_row_is_no_record():
    rows = [], [" ", None], ["a ", 5, "c"], [None, "x"], [], [" ", None], ["y", None, "z"]
    assert read(*rows) == [{"a": "", "5": "x", "c": ""}, {"a": "y", "5": "", "c": "z"}]


def test_a_sheet_without_rows_has_no_records_and_is_noted():
    for rows in ((), (["a", "b"],), ([None], [" "])):
        write(*rows)
        assert notes(NAME) == ["a.xlsx: has no records"]


def test_a_cell_without_a_column_is_rejected_with_its_row():
    rows = ["a", None, "b", None, " "], ["x", None, "y", " "], ["x", None, "y", "z"]
    assert read(*rows) == [{"a": "x", "": "", "b": "y"}, "ragged_row"]
    detail = (
        "row 3 has 4 cells where the header has 3; "
        "name that column in the header, or empty its cells"
    )
    assert rejects(NAME) == [(None, "ragged_row", detail, ["x", "", "y", "z"])]


def test_a_duplicate_column_is_refused_with_the_row_of_the_header():
    write([], ["a", "b", " a"], [1, 2, 3])
    fix = "rename them so that each is clear"
    assert refusal(NAME) == f"a.xlsx: row 2: the column 'a' appears 2 times; {fix}"


def test_one_column_may_have_no_name():
    assert read([None, "a"], [0, "x"]) == [{"": "0", "a": "x"}]  # as pandas writes its index
    write(["a", None, None, "b"], ["x", None, " ", "y"])
    fix = "columns without a name appear 2 times; rename them so that each is clear"
    assert refusal(NAME) == f"a.xlsx: row 1: {fix}"


def test_a_header_row_that_is_repeated_is_rejected():
    write(["a", "b"], [1, 2], ["a", "b "], [3, 4])
    detail = "row 3 repeats the header and is no record; join tables without it"
    assert rejects(NAME) == [(None, "wrong_type", detail, ["a", "b "])]


def test_an_escape_that_makes_no_text_is_rejected():
    assert read(["a"], ["x_x0000_y"], ["x_xD800_y"]) == ["nul_byte", {"a": "x_xD800_y"}]
    assert [raw for *_, raw in rejects(NAME)] == [["x\0y"]]


def test_rows_above_the_header_are_titles_and_noted():
    title, meta = ["Results of May"], ["exported", "2024-05-01", "by me"]
    rows = [["p", "a", "b", "label"], *[[f"{i}", "x", "y", "A"] for i in range(3)]]
    write(title, meta, [], *rows)
    assert [item.value["p"] for item in items(NAME)] == ["0", "1", "2"]
    note = "a.xlsx: 'p, a, b, label' is read as the header; --header-row names another row"
    assert notes(NAME) == [note]
    assert [item.value for item in items(NAME, header_row=6)] == [
        {"1": "2", "x": "x", "y": "y", "A": "A"}
    ]
    assert "--header-row: the sheet has no such row" in refusal(NAME, header_row=99)
    write(*rows)
    assert notes(NAME) == []


def test_a_cell_that_holds_a_formula_rejects_its_row_with_the_formula():
    assert read(["a", "b"], ["x", "=A1&B1"], ["y", "z"]) == ["wrong_type", {"a": "y", "b": "z"}]
    detail = "row 2 holds the formula '=A1&B1'; paste the values of its column over it"
    assert rejects(NAME) == [(None, "wrong_type", detail, ["x", "=A1&B1"])]
    change(
        lambda _, part: part.replace(b'<c r="B2"><f>A1&amp;B1</f>', b'<c r="B2" t="str"><f>A1</f>')
    )
    assert rejects(NAME)[0][1] == "wrong_type"


def test_text_that_begins_with_an_equals_sign_is_text():
    book = openpyxl.Workbook()
    book.active.append(["a"])
    book.active["A2"].value = "== x =="
    book.active["A2"].data_type = "s"
    book.save(NAME)
    assert read() == [{"a": "== x =="}]


def test_columns_that_are_empty_in_all_of_the_first_rows_are_noted():
    write(["a", "b", "c", "d"], ["1", "2"], ["3"])
    assert read() == [{"a": "1", "b": "2", "c": "", "d": ""}, {"a": "3", "b": "", "c": "", "d": ""}]
    assert notes(NAME) == ["a.xlsx: c, d are empty: no row has these cells"]


def write_two_sheets():
    book = openpyxl.Workbook()
    book.active.title = "one"
    for sheet, rows in ((book.active, (["a"], [1])), (book.create_sheet("two"), (["b"], [2]))):
        for row in rows:
            sheet.append(row)
    chart = BarChart()
    chart.add_data(Reference(book["one"], min_col=1, min_row=1, max_row=2))
    book.create_chartsheet("chart").add_chart(chart)
    book.save(NAME)


def test_the_first_sheet_is_read_unless_another_is_named():
    write_two_sheets()
    assert read() == [{"a": "1"}]
    note = "a.xlsx: of the sheets 'one', 'two' the first is read; --sheet names another"
    assert notes(NAME) == [note]
    assert [item.value for item in items(NAME, sheet="two")] == [{"b": "2"}]
    assert notes(NAME, sheet="two") == []
    for name in ("Two", "chart", ""):
        message = f"a.xlsx: --sheet {name}: no such sheet; there are 'one', 'two'"
        assert refusal(NAME, sheet=name) == message


def test_a_first_sheet_that_holds_only_a_title_is_passed_over():
    book = openpyxl.Workbook()
    book.active.title = "about"
    book.active["A2"] = "Preferences, May 2024"
    data = book.create_sheet("data")
    data.append(["a", "b"])
    data.append(["x", "y"])
    book.save(NAME)
    assert read() == [{"a": "x", "b": "y"}]
    note = "a.xlsx: of the sheets 'about', 'data' 'data' is read; --sheet names another"
    assert notes(NAME) == [note]
    assert notes(NAME, sheet="about") == ["a.xlsx: has no records"]


def test_a_sheet_whose_stored_size_is_too_small_is_read_to_its_end():
    write(["a", "b"], ["x", "y"], ["z", "w"])
    change(lambda _, part: part.replace(b'ref="A1:B3"', b'ref="A1"'))
    assert read() == [{"a": "x", "b": "y"}, {"a": "z", "b": "w"}]


def test_a_warning_of_openpyxl_is_not_shown():
    write(["a"], [datetime.date(2024, 1, 1)])
    change(lambda _, part: re.sub(rb"<v>45292</v>", b"<v>99999999999</v>", part))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(read()) == 1
    assert [str(w.message) for w in caught if "date" in str(w.message)] == []


def test_a_sheet_that_is_damaged_in_its_middle_is_refused():
    write(["a"], *[[f"x{i}"] for i in range(3000)])
    change(lambda _, part: part.replace(b'<row r="2500"', b"<row & "))
    assert "this is no readable spreadsheet, or it is damaged (not well-formed" in refusal(NAME)


def test_the_file_is_closed_however_reading_ends():
    write_two_sheets()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        records = iter(readers.FileReader(NAME))
        next(records)
        records.close()
        refusal(NAME, sheet="none")
