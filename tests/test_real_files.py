"""Real preference data, where its folder is next to the checkout: known counts, known faults."""

import json
from collections import Counter
from pathlib import Path

import pytest

from data_tools.convert import main

DATA = Path(__file__).parents[2] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is missing")


@pytest.fixture
def converted(tmp_path, capsys):
    """Convert a file of the folder to (status, report, rejects, message)."""

    def run(name, *options):
        out = tmp_path / "out"
        status = main([str(DATA / name), "-o", str(out), "--json", *options])
        printed = capsys.readouterr()
        if status:
            return status, None, [], printed.err
        lines = (out / "rejects.jsonl").read_text("utf-8").splitlines()
        return status, json.loads(printed.out), [*map(json.loads, lines)], printed.err

    return run


def starts_a_record(name, rejects):
    lines = (DATA / name).read_text("utf-8").splitlines()
    return all(lines[item["line"] - 1].strip() == "{" for item in rejects)


def test_hh_transcripts_keep_all_but_their_known_faults(converted):
    status, report, rejects, _ = converted("hh-harmless-base-test.jsonl.gz")
    assert (status, report["format"]) == (0, "hh")
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
    assert (status, report["format"]) == (0, "sharegpt")
    assert report["records"] == {"read": 300, "converted": 295, "rejected": 5}
    assert report["reasons"] == {"duplicate": 5}
    assert starts_a_record("llamafactory-dpo-en.json", rejects)


def test_a_git_lfs_pointer_is_refused_by_name(converted):
    status, _, _, message = converted("lfs-pointer.jsonl.gz")
    assert status == 2
    assert "its content is that of a Git LFS pointer file; run 'git lfs pull'" in message


def test_numbered_labels_are_refused_until_they_are_defined(converted):
    status, _, _, message = converted("llmbar-natural.json")
    assert status == 2
    assert "the label holds bare numbers or booleans (1, 2)" in message
    status, report, _, _ = converted("llmbar-natural.json", "--label", "first=1,second=2")
    assert status == 0
    assert report["pairs"] == {"made": 100, "kept": 100, "rejected": 0}
    raw = json.loads((DATA / "llmbar-natural.json").read_text("utf-8"))
    assert report["first_answer_wins"] == sum(record["label"] == 1 for record in raw) / 100


def test_a_processed_benchmark_loses_its_duplicates_alone(converted):
    status, report, _, _ = converted("llmbar-mt-bench.json", "--label", "first=1,second=2")
    assert status == 0
    assert report["records"] == {"read": 200, "converted": 195, "rejected": 5}
    assert report["reasons"] == {"duplicate": 5}
    assert sum(report["prompts"].values()) <= 75


def test_several_annotators_are_one_judgement_and_their_disagreement_is_reported(converted):
    status, report, rejects, _ = converted("pandalm-testset-v1.json")
    assert (status, report["format"]) == (0, "pandalm")
    agreement = report["agreement"]
    assert (agreement["annotators"], agreement["comparisons"]) == (3, 999)
    assert (agreement["disagreeing"], agreement["majority_ties"]) == (120, 105)
    raw = json.loads((DATA / "pandalm-testset-v1.json").read_text("utf-8"))
    wanted = Counter(filter(None, map(pandalm_reason, raw)))
    assert wanted["wrong_type"] == 6 and 95 < wanted["tie"] <= 105
    found = {code: n for code, n in report["reasons"].items() if code in wanted}
    assert found == dict(wanted)
    assert set(report["reasons"]) - set(wanted) <= {"duplicate", "contradictory"}
    assert report["records"]["read"] == 999
    assert starts_a_record("pandalm-testset-v1.json", rejects)


def pandalm_reason(record):
    """The reason for which a record is rejected by itself, or None."""
    answers = record["response1"], record["response2"]
    if not all(isinstance(answer, str) for answer in answers):
        return "wrong_type"
    (value, count), *_ = Counter(record[f"annotator{i}"] for i in (1, 2, 3)).most_common()
    if count < 2:
        return "disagreement"
    if value == 0:
        return "tie"
    if not all(answer.strip() for answer in answers):
        return "empty_response"
    return "identical_pair" if answers[0].split() == answers[1].split() else None


def test_unanimous_and_each_count_judgements_in_another_way(converted):
    _, report, _, _ = converted("pandalm-testset-v1.json", "--annotators", "unanimous")
    assert report["reasons"]["disagreement"] in range(110, 121)  # 6 of the 120 are not text
    _, report, _, _ = converted("pandalm-testset-v1.json", "--annotators", "each")
    assert "disagreement" not in report["reasons"]
    assert report["pairs"]["made"] > 2000


@pytest.mark.parametrize("mode", ["best-worst", "adjacent", "all"])
def test_trees_give_the_pairs_of_every_ranked_group(converted, mode):
    status, report, _, _ = converted("oasst-en-100-tree.jsonl", "--pairs", mode)
    assert (status, report["format"]) == (0, "oasst-tree")
    assert report["records"]["read"] == 100
    sizes, nulls = oasst_groups()
    assert len(sizes) == 211 and nulls == 3
    made = {"best-worst": 211, "adjacent": sum(sizes) - 211}
    made["all"] = sum(n * (n - 1) // 2 for n in sizes)
    assert report["pairs"]["made"] == made[mode] + nulls
    assert report["reasons"]["null_label"] == nulls
    assert mode != "best-worst" or report["pairs"]["kept"] == 211


def oasst_groups():
    """The number of replies of each fully ranked group of answers, and of groups that are not."""
    sizes, nulls = [], 0
    lines = (DATA / "oasst-en-100-tree.jsonl").read_text("utf-8").splitlines()
    waiting = [json.loads(line)["prompt"] for line in lines]
    while waiting:
        message = waiting.pop()
        replies = message.get("replies") or []
        waiting += replies
        if message["role"] == "prompter" and len(replies) > 1:
            if any(reply.get("rank") is None for reply in replies):
                nulls += 1
            else:
                sizes.append(len(replies))
    return sizes, nulls


def test_unpaired_answers_pair_where_one_prompt_has_both_labels(converted):
    status, report, rejects, _ = converted("llamafactory-kto-en.json")
    assert status == 0
    assert report["records"] == {"read": 300, "converted": 2, "rejected": 298}
    assert report["pairs"] == {"made": 1, "kept": 1, "rejected": 0}
    assert report["reasons"] == {"unpaired": 298}
    assert len({item["record"] for item in rejects}) == 298
