"""Win rates: pairs go to a judge in both orders, and eval --verdicts reads what comes back."""

import json
import shutil

import pytest
from evaluating import evaluated, figures_of, refused, run_of

from dpo_wrap import eval as eval_command
from dpo_wrap.errors import ConfigError
from dpo_wrap.evaluation.win_rate import read_verdicts, to_judge, win_rate
from dpo_wrap.metrics.intervals import wilson

RECORD = {"instruction": "P", "output_1": "A", "output_2": "B", "preference": 1}
RULES = {
    "win": lambda r: 1 if r["generator_1"] == "policy" else 2,
    "loss": lambda r: 2 if r["generator_1"] == "policy" else 1,
    "tie": lambda r: 1.5,
    "first": lambda r: 1,
    "second": lambda r: 2,
    "none": lambda r: None,
    "one order": lambda r: 1 if r["generator_1"] == "policy" else None,
    "win and tie": lambda r: 1 if r["generator_1"] == "policy" else 1.5,
}


def samples_of(count):
    return [
        {"prompt": f"P{n}", "policy": f"good {n}", "reference": f"bad {n}"} for n in range(count)
    ]


def judged(samples, *rules):
    """The records, each pair judged by its rule."""
    return [r | {"preference": RULES[rules[r["pair"]]](r)} for r in to_judge(samples, 0)]


def rate_of(*rules):
    samples = samples_of(len(rules))
    return win_rate(samples, judged(samples, *rules))


def test_a_sample_is_written_in_both_orders_with_the_fields_of_alpaca_eval():
    records = to_judge([{"prompt": "P", "policy": "A", "reference": "B", "more": 1}], seed=0)
    common = {"instruction": "P", "preference": None, "pair": 0}
    first = {"output_1": "A", "output_2": "B", "generator_1": "policy", "generator_2": "reference"}
    second = {"output_1": "B", "output_2": "A", "generator_1": "reference", "generator_2": "policy"}
    assert sorted(records, key=lambda r: r["output_1"]) == [common | first, common | second]


def test_the_seed_shuffles_records_and_orders():
    samples = samples_of(400)
    records = to_judge(samples, seed=3)
    assert records == to_judge(samples, seed=3) != to_judge(samples, seed=4)
    first = {}
    for record in records:
        first.setdefault(record["pair"], record["generator_1"])
    assert 150 < sum(name == "policy" for name in first.values()) < 250
    assert sorted(record["pair"] for record in records) == sorted([*range(400)] * 2)


def test_answers_that_differ_in_white_space_only_are_ties_that_are_not_judged():
    same = {"prompt": "P", "policy": " A b\n", "reference": "A  b"}
    samples = [same, *samples_of(1)]
    assert {record["pair"] for record in to_judge(samples, 0)} == {1}
    found = win_rate(samples, judged(samples, "none", "win"))
    assert (found["pairs"], found["wins"], found["ties"], found["identical"]) == (2, 1, 1, 1)
    assert found["win_rate"] == 0.75
    found = win_rate([same], [])
    assert (found["win_rate"], found["pairs"], found["identical"]) == (0.5, 1, 1)


def test_a_pair_is_won_if_both_orders_agree_and_tied_if_they_differ():
    found = rate_of("win", "win", "win", "loss", "tie", "first")
    assert found["win_rate"] == pytest.approx((3 + 2 / 2) / 6)
    counts = ("pairs", "wins", "losses", "ties", "inconsistent", "identical")
    assert [found[name] for name in counts] == [6, 3, 1, 2, 1, 0]
    assert found["win_rate_interval"] == pytest.approx([*wilson(4 / 6, 6)])
    # Decisive verdicts: 3 x 2 of wins, 2 of the loss, each once for either place, and 2 x first.
    assert found["position_bias"] == pytest.approx(6 / 10)
    assert found["position_bias_interval"] == pytest.approx([*wilson(6 / 10, 10)])


@pytest.mark.parametrize(
    ("rule", "count", "bias"), [("win and tie", 1, 1), ("first", 20, 1), ("second", 20, 0)]
)
def test_a_judge_that_prefers_a_position_has_a_rate_of_one_half_and_a_bias(rule, count, bias):
    found = rate_of(*[rule] * count)
    assert (found["win_rate"], found["ties"], found["inconsistent"]) == (0.5, count, count)
    assert found["position_bias"] == bias
    low, high = found["win_rate_interval"]
    assert low < 0.5 < high


def test_pairs_not_judged_in_both_orders_are_counted_and_not_in_the_rate():
    found = rate_of("win", "one order", "none", "win")
    assert (found["win_rate"], found["pairs"]) == (1, 2)
    assert (found["one_order"], found["unjudged"], found["no_verdict"]) == (1, 1, 3)
    nothing = rate_of(*["none"] * 4)
    assert (nothing["win_rate"], nothing["win_rate_interval"], nothing["pairs"]) == (None, None, 0)
    assert (nothing["position_bias"], nothing["position_bias_interval"]) == (None, None)


@pytest.mark.parametrize(
    ("votes", "rate"),
    [
        ([1, 1, 2], 1),
        ([2, 2, 1], 0),
        ([1, 2], 0.5),
        ([1, 1, 2, 1.5], 0.5),  # half of them are not more than half
        ([None, 1], 1),
    ],
)
def test_several_annotators_of_an_order_count_as_one_by_majority(votes, rate):
    samples = samples_of(1)
    verdicts = []
    for record in to_judge(samples, 0):
        for number, vote in enumerate(votes):
            swapped = vote and (vote if record["generator_1"] == "policy" else 3 - vote)
            verdicts.append(record | {"preference": swapped, "annotator": f"a{number}"})
    found = win_rate(samples, verdicts)
    assert found["win_rate"] == rate
    assert found["annotators"] == [f"a{number}" for number in range(len(votes))]


def test_the_order_of_records_and_trimmed_texts_change_nothing():
    samples = samples_of(9)
    verdicts = judged(samples, *["win", "loss", "first"] * 3)
    trimmed = [v | {"output_1": f" {v['output_1']}\r\n"} for v in reversed(verdicts)]
    assert win_rate(samples[::-1], trimmed) == win_rate(samples, verdicts)


def test_verdicts_on_other_texts_are_counted_and_refused_if_there_are_no_others():
    samples = samples_of(2)
    verdicts = judged(samples, "win", "win")
    found = win_rate(samples, [*verdicts, RECORD, RECORD])
    assert (found["foreign"], found["win_rate"]) == (2, 1)
    with pytest.raises(ConfigError) as caught:
        win_rate(samples, [RECORD])
    assert str(caught.value) == (
        "none of the 1 verdicts is on one of the 2 samples, which are those of another evaluation; "
        "judge the to_judge.jsonl that eval wrote last"
    )
    with pytest.raises(ConfigError, match="--samples above 0"):
        win_rate([], verdicts)


# Reading


def written(tmp_path, content):
    path = tmp_path / "verdicts.jsonl"
    if isinstance(content, list):
        content = "\n".join(map(json.dumps, content))
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("given", "read"),
    [
        *((1, 1), (2.0, 2), (1.5, 1.5), (0, 1.5), (1.49, 1), (None, None)),
        *(("output_1", 1), ("output_2", 2), (" Tie", 1.5)),
    ],
)
def test_a_preference_has_the_polarity_of_alpaca_eval(tmp_path, given, read):
    (found,) = read_verdicts(written(tmp_path, [RECORD | {"preference": given}]))
    assert found == RECORD | {"preference": read}


@pytest.mark.parametrize("given", [3, 0.5, True, "1", "", [1], float("nan")])
def test_any_other_preference_is_refused_with_its_line(tmp_path, given):
    path = written(tmp_path, [RECORD, RECORD | {"preference": given}])
    with pytest.raises(ConfigError) as caught:
        read_verdicts(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:2: preference is {given!r:.60}; set it to 1 or output_1,")


def test_lines_and_one_array_hold_the_same_records(tmp_path):
    records = [RECORD | {"instruction": text} for text in ("P", "line \u2028 end", "é")]
    lines = "\ufeff\n" + "\r\n\n".join(json.dumps(r, ensure_ascii=False) for r in records) + "\n"
    assert read_verdicts(written(tmp_path, lines)) == records
    assert read_verdicts(written(tmp_path, json.dumps(records, indent=2))) == records


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xff\xfe{", ": byte 0 is not UTF-8; save it as UTF-8"),
        ("[]", ": has no records; give the to_judge.jsonl of an evaluation"),
        ('{"a": 1}\n{"a": ', ":2: not valid JSON: Expecting value at character 7; fix"),
        (
            '{"preference": 1, "preference": 2}',
            ":1: not valid JSON: an object has the same key twice",
        ),
        ("[" * 100_000, ":1: not valid JSON: maximum recursion depth exceeded"),
        ('[\n{"a": 1},\n{"a" 1}]', ":3: not valid JSON: Expecting ':' delimiter at character 6"),
        ("7", ":1: 7 is not an object; write one record a line"),
        ('[{"instruction": "P", "output_1": "A"}]', "#1: output_2 is missing; a record needs"),
        ([RECORD, RECORD | {"output_1": None}], ":2: output_1 is None, not a text; a record needs"),
        ([{k: v for k, v in RECORD.items() if k != "preference"}], ":1: preference is missing;"),
    ],
)
def test_a_file_without_verdicts_is_refused_in_one_line(tmp_path, content, expected):
    path = written(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        read_verdicts(path)
    assert str(caught.value).startswith(str(path)) and expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_judged_records_are_read_by_convert_as_alpaca_eval(convert_file):
    samples = samples_of(3)
    done = convert_file(judged(samples, "win", "win", "loss"))
    assert done.status == 0 and done.report["format"] == "alpaca-eval"
    # The two orders of a pair are one pair of the dataset: the second is a duplicate of the first.
    assert {(row["prompt"], row["chosen"], row["rejected"]) for row in done.rows} == {
        ("P0", "good 0", "bad 0"),
        ("P1", "good 1", "bad 1"),
        ("P2", "bad 2", "good 2"),
    }
    back = read_verdicts(done.directory.parent / "raw.jsonl")
    assert win_rate(samples, back)["win_rate"] == pytest.approx(2 / 3)


# eval --verdicts


@pytest.fixture
def sampled(trained):
    """The run with new samples, and its records for judges."""
    evaluated(trained, "--samples", "5", "--seed", "3")
    text = (run_of(trained) / "to_judge.jsonl").read_text(encoding="utf-8")
    return trained, [json.loads(line) for line in text.splitlines()]


def test_eval_adds_the_win_rate_and_changes_nothing_else(sampled, tmp_path, capsys):
    config, records = sampled
    before = figures_of(config)
    for record in records:
        record["preference"] = 1 if record["generator_1"] == "policy" else 2
    file = tmp_path / "verdicts.json"
    file.write_text(json.dumps(records))  # an array, as alpaca_eval writes it
    assert eval_command.main([str(config), "--verdicts", str(file)]) == 0
    printed = capsys.readouterr().out
    found = figures_of(config)
    assert found.pop("win_rate")["wins"] == len(records) / 2
    assert len(found.pop("findings")) == len(before.pop("findings")) + 1
    assert found == before
    assert "win rate" in printed and f"page {run_of(config)}/report.html" in printed
    assert "win rate" in (run_of(config) / "report.html").read_text(encoding="utf-8")


def test_missing_verdicts_and_verdicts_on_other_answers_are_refused(sampled, tmp_path, capsys):
    config, records = sampled
    blank = run_of(config) / "to_judge.jsonl"
    assert "every preference is null" in refused(capsys, str(config), "--verdicts", str(blank))
    others = tmp_path / "others.jsonl"
    others.write_text(json.dumps(records[0] | {"output_1": "unknown", "preference": 1}))
    for file in (others, "", tmp_path / "none"):
        assert refused(capsys, str(config), "--verdicts", str(file))
    words = ("--verdicts", "v.jsonl", "--split", "train", "--max-new-tokens", "3")
    assert "--split, --max-new-tokens would be ignored" in refused(capsys, str(config), *words)
    assert "win_rate" not in figures_of(config)


def test_verdicts_without_samples_are_refused(trained, tmp_path, capsys):
    shutil.copytree(run_of(trained), tmp_path / "run")
    (tmp_path / "run/samples.jsonl").write_text("")
    where = ("--set", f"output_dir={tmp_path}/run")
    error = refused(capsys, str(trained), *where, "--verdicts", str(tmp_path / "verdicts"))
    assert "no sampled answers to judge" in error


def test_verdicts_on_a_policy_that_was_trained_further_are_refused(sampled, tmp_path, capsys):
    config, records = sampled
    shutil.copytree(run_of(config), tmp_path / "run")
    verdicts = tmp_path / "verdicts.jsonl"
    verdicts.write_text(json.dumps(records[0] | {"preference": 1}))
    where = ("--set", f"output_dir={tmp_path}/run")
    path = tmp_path / "run/run.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"steps": 999}))
    error = refused(capsys, str(config), *where, "--verdicts", str(verdicts))
    assert "was resumed after the answers were sampled" in error


def test_equal_answers_to_every_prompt_leave_nothing_to_judge(sampled, tmp_path, capsys):
    config, _ = sampled
    shutil.copytree(run_of(config), tmp_path / "run")
    samples = tmp_path / "run/samples.jsonl"
    same = [s | {"policy": s["reference"]} for s in map(json.loads, samples.open(encoding="utf-8"))]
    samples.write_text("".join(json.dumps(sample) + "\n" for sample in same))
    (tmp_path / "run/to_judge.jsonl").write_text("")
    where = ("--set", f"output_dir={tmp_path}/run")
    error = refused(capsys, str(config), *where, "--verdicts", str(tmp_path / "run/to_judge.jsonl"))
    assert (
        "policy and reference gave the same answers to all 5 sampled prompts, so there is" in error
    )
    assert "sample other answers (--samples, --seed, --max-new-tokens) or train longer" in error
