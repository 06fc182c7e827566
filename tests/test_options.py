"""The command line: every option with its default, and what cannot be used."""

import pytest

from data_tools.options import options_of, parse
from data_tools.record import ConvertError


def refusal(*argv):
    """The message about an option that cannot be used; the exit status is 2."""
    try:
        parse(argv)
    except ConvertError as error:
        assert error.status == 2
        return str(error)
    raise AssertionError(f"{argv} was accepted")


def test_the_defaults_of_the_command_are_those_for_python():
    assert parse(["raw.csv"]) == options_of(("raw.csv",))


def test_every_option_reaches_its_field():
    argv = (
        "a.csv b.csv -o out --format hh --label first=1,second=2 --keep x --keep y "
        "--exclude-rows rows.jsonl --test-size 0.1 --seed 7 --to jsonl --max-chars 9 "
        "--pairs all --min-margin 0.5 --annotators each --sheet S --workers 2 "
        "--encoding cp1252 --check --strict --json"
    )
    texts = {"output": "out", "format": "hh", "label": "first=1,second=2", "pairs": "all"}
    texts |= {"annotators": "each", "exclude_rows": "rows.jsonl", "to": "jsonl", "sheet": "S"}
    numbers = {"min_margin": 0.5, "test_size": 0.1, "seed": 7, "max_chars": 9, "workers": 2}
    flags = {"check": True, "strict": True, "json": True}
    others = {"inputs": ("a.csv", "b.csv"), "keep": ("x", "y"), "encoding": "cp1252"}
    assert parse(argv.split()) == options_of(**others, **texts, **numbers, **flags)


def test_a_label_from_python_may_be_a_mapping_as_a_map_may():
    found = options_of(("a.csv",), label={"first": [0, True], "second": 1, "tie": ("2..3", "x")})
    assert found.label == parse(["a.csv", "--label", "first=0|True,second=1,tie=2..3|x"]).label


def test_inputs_may_be_before_between_and_after_options():
    found = parse(["a.csv", "-o", "out", "b.csv", "--check", "-"])
    assert found.inputs == ("a.csv", "b.csv", "-")


def test_a_map_ends_at_the_first_word_without_an_equals_sign():
    for argv in (
        "raw.csv --map prompt=q chosen=c",
        "--map prompt=q chosen=c raw.csv",
        "--map prompt=q --map chosen=c raw.csv",
        "--map prompt=q chosen=c -- raw.csv",
        "--map prompt=q raw.csv --map chosen=c prompt=q",
        "--map prompt=q chosen=c --check raw.csv",
    ):
        found = parse(argv.split())
        assert (found.inputs, found.map) == (("raw.csv",), {"prompt": "q", "chosen": "c"})


def test_only_an_existing_file_is_no_part_of_a_map(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x=1.csv").write_text("")
    found = parse(["--map", "prompt=a=b", "x=1.csv"])
    assert (found.inputs, found.map) == (("x=1.csv",), {"prompt": "a=b"})


def test_listing_the_formats_needs_no_input():
    assert parse(["--list-formats"]) is None


SHARE = "is not a share; give 0 or more and less than 1"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("", "no input; name a file, e.g. python -m data_tools.convert raw.csv"),
        ("--map raw.csv", "--map raw.csv: write FIELD=COLUMN, e.g. prompt=question"),
        ("a.csv --map prompt=a --map prompt=b", "--map prompt=b: prompt is a already; map it once"),
        (
            "a.csv --workers 2 --scheduler tcp://h:1",
            "--workers and --scheduler: a scheduler has its own workers; remove --workers",
        ),
        ("a.csv --test-size 1", f"--test-size: 1.0 {SHARE}"),
        ("a.csv --test-size nan", f"--test-size: nan {SHARE}"),
        ("a.csv --test-size -0.1", f"--test-size: -0.1 {SHARE}"),
        ("a.csv --test-size some", "argument --test-size: invalid float value: 'some'"),
        ("a.csv --min-margin inf", "--min-margin: inf is not a margin; give 0 or more"),
        ("a.csv --max-chars 0", "--max-chars: 0 is too small; give 1 or more"),
        ("a.csv --max-chars few", "argument --max-chars: invalid int value: 'few'"),
        ("a.csv --workers 0", "--workers: 0 is too small; give 1 or more"),
        ("a.csv --to csv", "argument --to: invalid choice: 'csv' (choose from"),
        ("a.csv --nonsense", "unrecognized arguments: --nonsense"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused(argv, message):
    assert refusal(*argv.split()).startswith(message)


@pytest.mark.parametrize(
    "option", [{"test_size": 2}, {"to": "csv"}, {"max_chars": 0}, {"annotators": "some"}]
)
def test_from_python_too(option):
    with pytest.raises(ConvertError, match=f"--{[*option][0].replace('_', '-')}: "):
        options_of(["raw.csv"], **option)


def test_every_input_and_value_from_python_is_taken_as_it_is():
    inputs, values = ("-", "--odd.csv", "b c.csv"), {"seed": -3, "test_size": 0.0, "check": True}
    found = options_of(inputs, "out", keep=["a=b"], map={"prompt": "q=1", "a": "{x} y"}, **values)
    assert (found.inputs, found.keep) == (inputs, ("a=b",))
    assert found.map == {"prompt": "q=1", "a": "{x} y"}
    assert {name: getattr(found, name) for name in values} == values


def test_help_names_every_option_and_the_exit_statuses(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for name in vars(options_of(["raw.csv"])).keys() - {"inputs"}:
        assert f"--{name.replace('_', '-')}" in text
    assert "exit status: 0 at least one pair was kept; 1 none was" in text
