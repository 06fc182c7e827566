"""Real preference data, where its folder stands beside the checkout: known counts, known faults."""

import json
from pathlib import Path

import pytest

from data_tools.convert import main

DATA = Path(__file__).parents[2] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here")


@pytest.fixture
def converted(tmp_path, capsys):
    """(status, report, rejects, message) of a file of the folder."""

    def run(name, *options):
        out = tmp_path / "out"
        status = main([str(DATA / name), "-o", str(out), "--json", *options])
        printed = capsys.readouterr()
        report = json.loads(printed.out) if printed.out else None
        rejects = out / "rejects.jsonl"
        lines = rejects.read_text("utf-8").splitlines() if rejects.exists() else []
        return status, report, [json.loads(line) for line in lines], printed.err

    return run


def test_hh_transcripts_keep_all_but_their_known_faults(converted):
    status, report, rejects, _ = converted("hh-harmless-base-test.jsonl.gz")
    assert status == 0
    assert report["format"] == "hh"
    assert report["records"] == {"read": 2312, "converted": 2299, "rejected": 13}
    assert report["reasons"] == {"history_mismatch": 5, "bad_roles": 4, "empty_response": 4}
    lines = {reason: [] for reason in report["reasons"]}
    for item in rejects:
        lines[item["reason"]].append(item["line"])
    assert lines["history_mismatch"] == [1255, 1689, 1951, 1953, 2037]
    assert lines["bad_roles"][0] == 668
    assert lines["empty_response"][0] == 87


def test_sharegpt_records_keep_all_but_their_duplicates(converted):
    status, report, rejects, _ = converted("llamafactory-dpo-en.json")
    assert status == 0
    assert report["format"] == "sharegpt"
    assert report["records"] == {"read": 300, "converted": 295, "rejected": 5}
    assert report["reasons"] == {"duplicate": 5}
    source = (DATA / "llamafactory-dpo-en.json").read_text("utf-8").splitlines()
    assert all(source[item["line"] - 1].strip() == "{" for item in rejects)


def test_a_git_lfs_pointer_is_refused_by_name(converted):
    status, _, _, message = converted("lfs-pointer.jsonl.gz")
    assert status == 2
    assert "lfs-pointer.jsonl.gz: this is a Git LFS pointer, not the data; run 'git lfs pull'" in (
        message
    )


def test_numbered_labels_are_refused_until_they_are_explained(converted):
    status, _, _, message = converted("llmbar-natural.json")
    assert status == 2
    assert "the label holds bare numbers or booleans (1, 2)" in message
    status, report, _, _ = converted("llmbar-natural.json", "--label", "first=1,second=2")
    assert status == 0
    assert report["pairs"] == {"made": 100, "kept": 100, "rejected": 0}
    raw = json.loads((DATA / "llmbar-natural.json").read_text("utf-8"))
    first = sum(record["label"] == 1 for record in raw)
    assert report["first_answer_wins"] == first / 100


def test_a_processed_benchmark_loses_its_duplicates_only(converted):
    status, report, _, _ = converted("llmbar-mt-bench.json", "--label", "first=1,second=2")
    assert status == 0
    assert report["records"] == {"read": 200, "converted": 195, "rejected": 5}
    assert report["reasons"] == {"duplicate": 5}
    assert sum(report["prompts"].values()) <= 75


@pytest.mark.parametrize("name", ["pandalm-testset-v1.json", "oasst-en-100-tree.jsonl"])
def test_a_shape_that_is_not_known_is_refused_with_its_columns(converted, name):
    status, _, _, message = converted(name)
    assert status == 2
    assert "no known shape has the columns" in message
