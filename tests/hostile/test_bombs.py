"""Small inputs that unpack to much: refused in bounded memory, with what is wrong."""

import gzip
import multiprocessing
import zipfile

import pyarrow as pa
import pytest
from openpyxl import Workbook
from pyarrow import parquet

from data_tools.convert import main
from data_tools.readers import opening, spreadsheet
from data_tools.readers import parquet as parquet_reader


@pytest.fixture
def refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def convert(*arguments, status=2):
        capsys.readouterr()
        assert main([*arguments, "-o", "out"]) == status
        return capsys.readouterr().err

    return convert


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("raw.jsonl.gz", b'{"prompt": "'),
        ("raw.csv.gz", b"prompt,chosen,rejected\n"),
        ("raw.json.gz", b'[{"prompt": "'),
        ("raw.jsonl", b'{"prompt": "'),
    ],
)
def test_a_record_without_end_is_refused(refused, tmp_path, monkeypatch, name, head):
    monkeypatch.setattr(opening, "LONGEST", 1 << 22)
    data = head + b"a" * (1 << 24)
    (tmp_path / name).write_bytes(gzip.compress(data, 1) if name.endswith("gz") else data)
    assert f"{name}: a record has more than 4 MB" in refused(name)


def test_a_parquet_file_of_long_values_is_read_a_few_rows_at_a_time(tmp_path, monkeypatch):
    table = pa.table({"prompt": ["a" * 1000] * 300, "chosen": ["b"] * 300, "rejected": ["c"] * 300})
    parquet.write_table(table, tmp_path / "raw.parquet")
    monkeypatch.setattr(parquet_reader, "_BYTES", 20_000)
    with (tmp_path / "raw.parquet").open("rb") as file:
        sizes = [len(batch) for batch in parquet_reader._parquet_batches(file)]
    assert sum(sizes) == 300 and max(sizes) < 25


def test_an_archive_that_does_not_fit_on_the_disk_is_not_unpacked(refused, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "raw.zip", "w") as archive:
        archive.writestr("raw.csv", "prompt,chosen,rejected\nP,C,R\n")
    monkeypatch.setattr(opening.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    assert "raw.zip: the archive cannot be unpacked (it unpacks to 0 GB" in refused("raw.zip")


def test_a_workbook_that_does_not_fit_into_memory_is_refused(refused, tmp_path, monkeypatch):
    Workbook().save(tmp_path / "raw.xlsx")
    monkeypatch.setattr(spreadsheet, "_MOST_BYTES", 100)
    assert "it unpacks to" in refused("raw.xlsx")


def test_processes_that_cannot_start_are_not_blamed_on_the_output(refused, tmp_path, monkeypatch):
    rows = "".join(f"P{n},C,R\n" for n in range(300_000))
    (tmp_path / "raw.csv").write_text("prompt,chosen,rejected\n" + rows)

    def without_shared_memory(method):
        raise OSError(2, "No such file or directory")

    context = multiprocessing.get_context("spawn")
    monkeypatch.setattr(type(context), "Pipe", lambda *_, **__: without_shared_memory(None))
    error = refused("raw.csv", "--workers", "2", status=1)
    assert "no process can be started" in error and "--workers 1" in error
