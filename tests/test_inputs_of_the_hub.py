"""Data sets of the Hub as inputs, on a local stand-in for it."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from converting import convert
from reading import in_an_empty_folder, items, lines, refusal, rejects, sources  # noqa: F401


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the Hub: a repository O/N in the folder `repo`, and the calls for it."""
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    calls = []

    def download(repo_id, *, repo_type, revision, allow_patterns):
        calls.append((repo_id, repo_type, revision))
        if repo_id != "O/N":
            raise OSError("404 Client Error.\n\nRepository Not Found for url: https://x")
        for path in Path("repo").rglob("*"):
            name = str(path.relative_to("repo"))
            if path.is_file() and [*filter_repo_objects([name], allow_patterns=allow_patterns)]:
                Path("cache", name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, Path("cache", name))
        Path("cache").mkdir(exist_ok=True)
        return str(Path("cache").absolute())

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    for name, content in {
        "data/train.jsonl": lines(1),
        "data/test.jsonl": lines(2),
        "extra/more.jsonl": lines(3),
        "image.png": "x",
        "dataset_infos.json": "{}",
    }.items():
        Path("repo", name).parent.mkdir(parents=True, exist_ok=True)
        Path("repo", name).write_text(content)
    return calls


def card(text):
    Path("repo/README.md").write_text(f"---\n{text}\n---\n# N\n")


def test_a_data_set_of_the_hub_without_configs_is_all_its_known_files(hub):
    root = "hf://datasets/O/N"
    assert [*sources(root)] == [
        f"{root}/data/test.jsonl:1",
        f"{root}/data/train.jsonl:1",
        f"{root}/extra/more.jsonl:1",
    ]
    assert {*hub} == {("O/N", "dataset", None)}
    assert not Path("cache/image.png").exists()
    assert convert([f"{root}@main"], workers=1).output == "data/N"


def test_the_default_config_of_a_data_set_of_the_hub_is_read(hub):
    card(
        "configs:\n- config_name: x\n  data_files: extra/*\n- config_name: y\n  default: true\n"
        "  data_files:\n  - split: train\n    path: data/train*\n"
        "  - split: test\n    path: [data/test*]"
    )
    assert [*sources("hf://datasets/O/N@v1")] == [
        "hf://datasets/O/N@v1/data/test.jsonl:1",
        "hf://datasets/O/N@v1/data/train.jsonl:1",
    ]
    assert hub[-1][2] == "v1"
    assert [*sources("hf://datasets/O/N/extra")] == ["hf://datasets/O/N/extra/more.jsonl:1"]
    only = "hf://datasets/O/N@refs/convert/parquet/data/train.jsonl"
    assert [*sources(only)] == [f"{only}:1"]
    assert hub[-1][2] == "refs/convert/parquet"


def test_an_archive_that_the_card_of_a_data_set_of_the_hub_names_is_read(hub):
    card("configs:\n- config_name: x\n  data_files: data/*.zip")
    with zipfile.ZipFile("repo/data/all.zip", "w") as archive:
        archive.writestr("a.jsonl", lines(4))
    assert [*sources("hf://datasets/O/N")] == ["hf://datasets/O/N/data/all.zip/a.jsonl:1"]


def test_one_of_several_configs_is_not_guessed_and_the_advice_works(hub):
    card("configs:\n- config_name: x\n  data_files: extra/*\n- config_name: y\n  data_dir: data/")
    message = refusal("hf://datasets/O/N")
    advice = "hf://datasets/O/N/extra"
    assert message == (
        f"hf://datasets/O/N: has the configs x, y; name the files of one, such as {advice}"
    )
    assert [*sources(advice)] == ["hf://datasets/O/N/extra/more.jsonl:1"]


def test_data_sets_that_cannot_be_fetched_are_refused_in_one_sentence(hub):
    why = "404 Client Error. Repository Not Found for url: https://x"
    fix = "check the name, the network and your access token"
    assert refusal("hf://datasets/O/M") == (
        f"hf://datasets/O/M: cannot be fetched from the Hub ({why}); {fix}"
    )
    for path in ("hf://O/N", "hf://datasets/N", "hf://models/O/N"):
        assert refusal(path) == f"{path}: write it as hf://datasets/OWNER/NAME[@REVISION][/PATH]"
    assert "no such file" in refusal("hf://datasets/O/N/none.jsonl")


def test_a_data_set_that_is_not_in_the_cache_is_refused_offline():
    assert "cannot be fetched from the Hub" in refusal("hf://datasets/O/N")


# Rows as the Hub's server gives them.

ROWS = [{"prompt": f"P{n}", "chosen": f"C{n}", "rejected": f"R{n}"} for n in range(3)]
API = [{"row_idx": n, "row": row, "truncated_cells": []} for n, row in enumerate(ROWS)]


@pytest.mark.parametrize(
    "answer",
    [
        {"features": [{"feature_idx": 0, "name": "prompt"}], "rows": API, "num_rows_total": 3},
        {"rows": API},
    ],
)
def test_rows_as_the_server_of_the_hub_gives_them_are_records(answer):
    for indent in (None, 2):
        found = items("a.json", json.dumps(answer, indent=indent))
        assert [item.value for item in found] == ROWS


def test_a_row_whose_cells_the_server_cut_is_rejected():
    cut = API[0] | {"truncated_cells": ["prompt", "chosen"]}
    detail = "the server cut prompt, chosen short; fetch the files themselves, with "
    assert rejects("a.json", json.dumps({"rows": [API[1], cut]})) == [
        (1, "wrong_type", detail + "hf://datasets/OWNER/NAME", json.dumps(cut))
    ]
