"""verdicts: pairs in both orders go out, what any judge says of them comes back as a win rate."""

import json
import random

import pytest
from test_structure import loaded_by

from dpo_wrap.errors import ConfigError
from dpo_wrap.evaluation.win_rate import read_verdicts, to_judge, win_rate
from dpo_wrap.metrics.intervals import wilson

RECORD = {"instruction": "P", "output_1": "A", "output_2": "B", "preference": 1}


def samples_of(count):
    return [
        {"prompt": f"P{n}", "policy": f"good {n}", "reference": f"bad {n}"} for n in range(count)
    ]


def judged(samples, *rules):
    """The records with each pair judged by its rule, a function or a name of one."""
    records = to_judge(samples, 0)
    fates = {
        "win": lambda r: 1 if r["generator_1"] == "policy" else 2,
        "loss": lambda r: 2 if r["generator_1"] == "policy" else 1,
        "tie": lambda r: 1.5,
        "first": lambda r: 1,
        "second": lambda r: 2,
        "none": lambda r: None,
    }
    return [r | {"preference": fates.get(rules[r["pair"]], rules[r["pair"]])(r)} for r in records]


def test_a_sample_goes_out_in_both_orders_under_the_field_names_of_alpaca_eval():
    records = to_judge([{"prompt": "P", "policy": "A", "reference": "B", "more": 1}], seed=0)
    common = {"instruction": "P", "preference": None, "pair": 0}
    first = {"output_1": "A", "output_2": "B", "generator_1": "policy", "generator_2": "reference"}
    second = {"output_1": "B", "output_2": "A", "generator_1": "reference", "generator_2": "policy"}
    assert sorted(records, key=lambda r: r["output_1"]) == [common | first, common | second]


def test_the_seed_draws_which_order_of_a_pair_stands_first():
    samples = samples_of(400)
    records = to_judge(samples, seed=3, generators=("new", "old"))
    assert records == to_judge(samples, seed=3, generators=("new", "old"))
    assert records != to_judge(samples, seed=4, generators=("new", "old"))
    first = {}
    for record in records:
        first.setdefault(record["pair"], record["generator_1"])
    assert 150 < sum(name == "new" for name in first.values()) < 250
    assert sorted(record["pair"] for record in records) == sorted([*range(400)] * 2)


def test_answers_that_differ_in_white_space_alone_are_ties_that_nobody_is_asked_about():
    samples = [{"prompt": "P", "policy": " A b\n", "reference": "A  b"}, *samples_of(1)]
    assert {record["pair"] for record in to_judge(samples, 0)} == {1}
    found = win_rate(samples, judged(samples, None, "win"))
    assert (found["pairs"], found["wins"], found["ties"], found["identical"]) == (2, 1, 1, 1)
    assert found["win_rate"] == 0.75


def test_samples_that_are_all_identical_need_no_verdict():
    found = win_rate([{"prompt": "P", "policy": "A", "reference": "A"}], [])
    assert (found["win_rate"], found["pairs"], found["identical"]) == (0.5, 1, 1)
    assert found["win_rate_interval"][0] < 0.5 < found["win_rate_interval"][1]


def test_a_pair_is_won_where_both_orders_say_so_and_halved_where_they_differ():
    samples = samples_of(6)
    found = win_rate(samples, judged(samples, "win", "win", "win", "loss", "tie", "first"))
    assert found["win_rate"] == pytest.approx((3 + 2 / 2) / 6)
    counts = ("pairs", "wins", "losses", "ties", "inconsistent", "identical")
    assert [found[name] for name in counts] == [6, 3, 1, 2, 1, 0]
    assert found["win_rate_interval"] == pytest.approx([*wilson(4 / 6, 6)])
    # Decisive verdicts: 3 x 2 of wins, 2 of the loss, each once for either place, and 2 x first.
    assert found["position_bias"] == pytest.approx(6 / 10)
    assert found["position_bias_interval"] == pytest.approx([*wilson(6 / 10, 10)])


def test_a_tie_in_one_order_and_a_win_in_the_other_is_an_inconsistent_tie():
    samples = samples_of(1)
    found = win_rate(samples, judged(samples, lambda r: 1 if r["generator_1"] == "policy" else 1.5))
    assert (found["win_rate"], found["ties"], found["inconsistent"]) == (0.5, 1, 1)
    assert found["position_bias"] == 1


def test_a_judge_of_places_has_a_bias_of_one_and_a_rate_of_one_half():
    samples = samples_of(20)
    for rule, bias in (("first", 1), ("second", 0)):
        found = win_rate(samples, judged(samples, *[rule] * 20))
        assert (found["win_rate"], found["inconsistent"], found["position_bias"]) == (0.5, 20, bias)
        low, high = found["win_rate_interval"]
        assert low < 0.5 < high


@pytest.mark.parametrize(("rule", "rate"), [("win", 1), ("loss", 0), ("tie", 0.5)])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_an_interval_is_never_one_point(rule, rate, count):
    samples = samples_of(count)
    found = win_rate(samples, judged(samples, *[rule] * count))
    low, high = found["win_rate_interval"]
    assert found["win_rate"] == rate and high - low > 0.1
    assert 0 <= low <= rate + 1e-9 and rate - 1e-9 <= high <= 1


def test_what_is_not_judged_in_both_orders_is_counted_beside_the_rate():
    samples = samples_of(4)
    one = lambda r: 1 if r["generator_1"] == "policy" else None  # noqa: E731
    found = win_rate(samples, judged(samples, "win", one, "none", "win"))
    assert (found["win_rate"], found["pairs"]) == (1, 2)
    assert (found["one_order"], found["unjudged"], found["no_verdict"]) == (1, 1, 3)
    nothing = win_rate(samples, judged(samples, *["none"] * 4))
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
def test_several_annotators_of_an_order_are_one_by_their_majority(votes, rate):
    samples = samples_of(1)
    verdicts = []
    for record in to_judge(samples, 0):
        for number, vote in enumerate(votes):
            turned = vote and (vote if record["generator_1"] == "policy" else 3 - vote)
            verdicts.append(record | {"preference": turned, "annotator": f"a{number}"})
    found = win_rate(samples, verdicts)
    assert found["win_rate"] == rate
    assert found["annotators"] == [f"a{number}" for number in range(len(votes))]


def test_the_order_of_samples_and_verdicts_and_trimmed_texts_change_nothing():
    samples = samples_of(9)
    verdicts = judged(samples, *["win", "loss", "first"] * 3)
    found = win_rate(samples, verdicts)
    random.Random(1).shuffle(verdicts)
    trimmed = [v | {"output_1": f" {v['output_1']}\r\n"} for v in verdicts]
    assert win_rate(samples[::-1], trimmed) == found


def test_verdicts_on_other_texts_are_foreign_and_all_of_them_a_refusal():
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


def written(tmp_path, content):
    path = tmp_path / "verdicts.jsonl"
    if isinstance(content, list):
        content = "\n".join(map(json.dumps, content))
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (1, 1),
        (2.0, 2),
        (1.5, 1.5),
        (0, 1.5),
        (1.49, 1),
        (1.51, 2),
        (None, None),
        ("output_1", 1),
        ("output_2", 2),
        (" Tie", 1.5),
    ],
)
def test_a_preference_has_the_polarity_of_alpaca_eval(tmp_path, given, read):
    (found,) = read_verdicts(written(tmp_path, [RECORD | {"preference": given}]))
    assert found == RECORD | {"preference": read}


@pytest.mark.parametrize("given", [3, -1, 0.5, True, "1", "A", "", [1], {"a": 1}, 10**400])
def test_any_other_preference_is_refused_with_its_line(tmp_path, given):
    path = written(tmp_path, [RECORD, RECORD | {"preference": given}])
    with pytest.raises(ConfigError) as caught:
        read_verdicts(path)
    said = str(caught.value)
    assert said.startswith(f"{path}:2: preference is {given!r:.60}")
    assert said.endswith(
        "; write 1 or output_1, 2 or output_2, 1.5 or tie, and null where nobody judged"
    )


def test_lines_and_one_array_hold_the_same_records(tmp_path):
    records = [RECORD | {"instruction": text} for text in ("P", "line \u2028 end", "é")]
    lines = "\ufeff\n" + "\r\n\n".join(json.dumps(r, ensure_ascii=False) for r in records) + "\n"
    assert read_verdicts(written(tmp_path, lines)) == records
    assert read_verdicts(written(tmp_path, json.dumps(records, indent=2))) == records


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe{", ": byte 0 is no UTF-8; save it as UTF-8"),
        ("", ": holds no records; name the to_judge.jsonl of an evaluation"),
        ("[]", ": holds no records; name the to_judge.jsonl of an evaluation"),
        ('{"a": 1}\n{"a": ', ":2: not valid JSON: Expecting value at character 7; mend"),
        ('[\n{"a": 1},\n{"a" 1}]', ":3: not valid JSON: Expecting ':' delimiter at character 6"),
        ('{"preference": NaN}', ":1: not valid JSON: NaN is no JSON value; mend"),
        ('{"a": 1, "a": 2}', ":1: not valid JSON: a key stands twice in one object, so its value"),
        ("[" * 10**5, "; mend the record or leave it out"),
        ("7", ":1: 7 is no object; write one record a line"),
        ('[{"instruction": "P", "output_1": "A"}]', "#1: output_2 is missing; a record needs"),
        ([RECORD, RECORD | {"output_1": None}], ":2: output_1 is None; write a text"),
        ([{k: v for k, v in RECORD.items() if k != "preference"}], ":1: preference is missing;"),
    ],
)
def test_a_file_that_holds_no_verdicts_is_refused_in_one_line(tmp_path, content, said):
    path = written(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        read_verdicts(path)
    assert str(caught.value).startswith(str(path)) and said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="nowhere.jsonl: no such file; name a JSON Lines file"):
        read_verdicts(tmp_path / "nowhere.jsonl")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_verdicts(tmp_path)


def test_filled_records_are_read_back_and_converted_as_alpaca_eval(convert_file):
    samples = samples_of(3)
    verdicts = judged(samples, "win", "win", "loss")
    done = convert_file(verdicts)
    assert done.status == 0 and done.report["format"] == "alpaca-eval"
    # The two orders of a pair are one pair of the dataset: the second is a duplicate of the first.
    assert {(row["prompt"], row["chosen"], row["rejected"]) for row in done.rows} == {
        ("P0", "good 0", "bad 0"),
        ("P1", "good 1", "bad 1"),
        ("P2", "bad 2", "good 2"),
    }
    back = read_verdicts(done.directory.parent / "raw.jsonl")
    assert win_rate(samples, back)["win_rate"] == pytest.approx(2 / 3)


def test_verdicts_are_read_without_any_library():
    heavy = {"torch", "transformers", "trl", "datasets", "numpy", "openai", "tqdm", "data_tools"}
    assert not heavy & loaded_by("import dpo_wrap.evaluation.win_rate")


def test_a_better_result_has_no_lower_bounds_and_the_truth_is_covered():
    def bounds(*verdicts):
        samples = samples_of(len(verdicts))
        return win_rate(samples, judged(samples, *verdicts))["win_rate_interval"]

    assert bounds(*["win"] * 9, "tie") < bounds(*["win"] * 10)
    assert bounds("win", "win", "tie")[0] < 0.5  # three prompts prove nothing
    draw, covered = random.Random(0), 0
    for _ in range(200):
        given = draw.choices(["win", "loss", "tie"], [0.8, 0.1, 0.1], k=20)
        low, high = bounds(*given)
        covered += low <= 0.85 <= high
    assert covered / 200 >= 0.93
