"""columnar: plain rows a column at a time, to the last byte what the other lane makes of them."""

import csv
import gzip
import io
import json
import os
import random
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_tools import block, first_pass, odd, rules
from data_tools.columnar import delimited, lane, letters, probe
from data_tools.columnar.texts import Texts
from data_tools.convert import main
from data_tools.formats import FORMATS
from data_tools.formats.shape import Meaning
from data_tools.readers import Stretch, stretches
from data_tools.readers.delimited import Head
from data_tools.side import fold

PIECES = (
    *("word", "two words", "a  b", "line\nline", "\r\n", "\t", "\x0b", "\x1c", "\x85", "\xa0"),
    *("\u2003", "\u3000", "\u200b", "\ufeff", "\ufffd", "cafe\u0301", "café", "\u1112\u1161\u11ab"),
    *("한", "कि", "漢字", "😀", "Ⅳ", "Ⓐ", "ß", "İ", "–", "<br>", "&amp;", "<|im_start|>", "[INST]"),
    *("\nCopy code\n", "Regenerate response", "[[A]]", '"', '""', ",", ";", "x" * 300, " ", "."),
    *("\u0958", "\u212b", "\u0345", "\u200d", "ﬁ", "ẞ", "ς", "\U0001d15e", "\U000110ba", "e"),
    *("A", "<s>", "▌", "\u0644\u0653", "\u0b47", "\u0b3e", "\u2028", "\x7f", "\x1f", "0", "²", "_"),
)
WHOLE = (
    *(
        "",
        " ",
        "\n",
        "\u3000",
        "[1, 2]",
        "[broken",
        '{"a": 1}',
        '[{"role": "user", "content": "u"}]',
        '[{"from": "human", "value": "u"}, {"from": "gpt", "value": "v"}]',
        " [x] ",
        '"quoted"',
        "\u200b",
        "\u0301",
        "Same",
    ),
    *("prompt", " prompt ", "chosen", "response_a", "a", "P", "same", "same "),
)
WORDS = (
    "a",
    "b",
    "a",
    "b",
    "response_a",
    "B",
    "tie",
    "",
    "null",
    "the long one",
    "A ",
    "left",
    "[",
)
NUMBERS = ("1", "0", "1", "0", "2", " 1", "1.0", "-1", "", "null", "a", "true")


def text(dice):
    if dice.random() < 0.3:
        return dice.choice(WHOLE)
    return "".join(dice.choices(PIECES, k=dice.randint(1, 6)))


def table(names, delimiter=",", worths=WORDS):
    """A generator of dirty tables under these names, some of which hold labels."""

    def made(dice):
        out = io.StringIO()
        end = dice.choice(("\n", "\n", "\r\n"))
        quoting = dice.choice((csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
        rows = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting)
        rows.writerow([f" {name} " if dice.random() < 0.01 else name for name in names])
        earlier = []
        for _ in range(dice.randint(1, 12)):
            row = [dice.choice(worths) if name in LABELLED else text(dice) for name in names]
            for at, name in enumerate(names):
                if name in EMPTY and dice.random() < 0.8:
                    row[at] = ""
            if earlier and dice.random() < 0.2:
                row = list(dice.choice(earlier))
                if dice.random() < 0.3 and names[-1] in LABELLED:
                    row[-1] = dice.choice(worths)
            earlier.append(row)
            if dice.random() < 0.05:
                row = dice.choice((row[:-1], [*row, "more"], row[:1], [""] * len(row)))
            rows.writerow(names if dice.random() < 0.02 else row)
            if dice.random() < 0.06:
                out.write(dice.choice(SOUP) + dice.choice(("", end)))
        data = out.getvalue().encode()
        if dice.random() < 0.1:
            at = dice.randrange(len(data))
            data = data[:at] + dice.choice((b"\xff", b"\0", b"\r", b'"')) + data[at:]
        if dice.random() < 0.05:
            data = b"\xef\xbb\xbf" + data
        return data if dice.random() < 0.8 else data.rstrip(b"\r\n")

    return made


SOUP = (
    *("\n", "  \n", '"open\n', 'a"b,c"d\n', '"a"b,c,d\n', "\u3000\n", "\t\t\n", "x\n", "\r\n"),
    *(
        '"a" ,b,c\n',
        ' "a",b,c\n',
        '"","",""\n',
        ",,\n",
        '"a""",b,c\n',
        'a,b,"c\n"\n',
        "\ufeffa,b,c",
    ),
    *('""a,b,c\n', 'a,"b\nc,d\n"e,f"\n', "a\tb\tc\n", '"a\tb"\t"\n"\tc\n', "a;b;c;a\n", '"'),
)
EMPTY = ("system", "input", "tools", "annotator_id", "images", "response_c", "history")
LABELLED = ("preference", "labels", "better_response_id")


EXTRAS = (
    *({"name": "n"}, {"tool_calls": [1]}, {"content": None}, {"content": ["x"]}, {"role": "tool"}),
    *({"role": None}, {"role": 1}, {"role": "human"}, {"tool_calls": None}, {"content": 1}),
    {"content": [{"type": "text", "text": "part"}]},
)


BESIDE = (
    *({"id": 7}, {"tools": "[]"}, {"system": "s"}, {"note": "n"}, {"tools": None}, {"images": []}),
    *({"tools": [{"type": "function"}]}, {"chat_template_kwargs": {"a": 1}}, {"Prompt": "again"}),
    *({"images": ["i.png"]}, {"chosen ": "again"}, {"score": 1.5}, {"system": ""}, {"history": []}),
)


def lines(kind):
    """A generator of dirty JSON Lines: sides as text, as messages, or as either."""

    def side(dice, role):
        content = text(dice)
        if kind == "text" or (kind == "mixed" and dice.random() < 0.5):
            return content
        messages = [{"role": role, "content": content}]
        if dice.random() < 0.1:
            messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}] * 2
        if dice.random() < 0.05:
            messages.insert(0, {"role": "system", "content": text(dice)})
        if dice.random() < 0.05:
            messages[0] |= dice.choice(EXTRAS)
        return messages

    def made(dice):
        found = []
        for _ in range(dice.randint(1, 12)):
            roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
            record = {name: side(dice, role) for name, role in roles.items()}
            if dice.random() < 0.15:
                record[dice.choice([*record])] = dice.choice((None, 1, True, [], {}, ["x"], 1.5))
            if dice.random() < 0.1:
                record |= dice.choice(BESIDE)
            if dice.random() < 0.1:
                record = dict(reversed(record.items()))
            line = json.dumps(record, ensure_ascii=dice.random() < 0.3)
            if dice.random() < 0.06:
                line = dice.choice(
                    (
                        *(
                            "",
                            "  ",
                            "{",
                            "[1]",
                            '{"a": NaN}',
                            '{"a": 1, "a": 2}',
                            line[:-1],
                            "null",
                        ),
                        *("\ufeff" + line, line + " ", "\t" + line, line + line, "[" * 300, "\x85"),
                        line[:-1] + ', "prompt": "P"}',
                    )
                )
            if dice.random() < 0.03:
                line = line.replace("word", dice.choice(("\\ud800", "\\u0000", "\\n")))
            found += [line] * (1 + (dice.random() < 0.1))
        return ("\n".join(found) + dice.choice(("\n", ""))).encode()

    return made


def labelled(names, worths):
    """A generator of JSON Lines whose labels are of any type."""

    def made(dice):
        found = []
        usual = dice.choices(worths, k=2) if worths else []
        for _ in range(dice.randint(1, 12)):
            record = {
                name: text(dice) for name in names if name not in EMPTY or dice.random() < 0.3
            }
            for name in record:
                if name in LABELLED:
                    record[name] = dice.choice(usual if dice.random() < 0.8 else worths)
                elif dice.random() < 0.03:
                    record[name] = dice.choice((None, 0, True, [], {}, ["x"], 1e300, -0.0))
                elif name in EMPTY:
                    record[name] = dice.choice((None, None, "", [], [["q", "r"]], "s"))
            if dice.random() < 0.03:
                record |= {dice.choice([*record]).capitalize(): "again"}
            if dice.random() < 0.03:
                record.pop(dice.choice([*record]))
            line = json.dumps(record, ensure_ascii=dice.random() < 0.3)
            if dice.random() < 0.04:
                line = line.replace("word", dice.choice(("\\ud800", "\\u0000", "\\ud83d\\ude00")))
            if dice.random() < 0.04:
                line = line[:-1] + ', "prompt": "P"}'
            found += [line] * (1 + (dice.random() < 0.1))
        return dice.choice(("\n", "\n", "\r\n")).join(found).encode()

    return made


SAID = (*WORDS, None, [1], {"a": 1}, "response_c", "first", "\u0301", ["a"], "é", "same")
COUNTED = (1, 0, 1.0, 0.0, True, False, "1", "0", 1.5, -1, 2, 10**30, None, "", [1], "a", -0.0)


def zipped(make):
    return lambda dice: gzip.compress(make(dice))


def sound(line):
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def array(make):
    """The lines of a generator that are JSON, as one array, some of them beside each other."""

    def made(dice):
        found = [line for line in make(dice).decode().split("\n") if sound(line)]
        return ("[" + dice.choice((",", ",\n")).join(found) + "]").encode()

    return made


def parquet(dice):
    rows = [{name: text(dice) for name in [*PAIR, "note"]} for _ in range(dice.randint(1, 12))]
    for row in rows:
        if dice.random() < 0.1:
            row[dice.choice([*row])] = None
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


LABEL = ["prompt", "response_a", "response_b", "preference"]
PAIR = ["prompt", "chosen", "rejected"]
KINDS = {
    "labelled.csv": (table(LABEL), ["--format", "labelled-pairs"]),
    "capitals.csv": (table(["Prompt", "Response A", "Response B", "preference"]), []),
    "semicolons.csv": (table(LABEL, ";"), ["--format", "labelled-pairs", "--test-size", "0.3"]),
    "pairs.csv": (table(PAIR), ["--format", "preference", "--max-chars", "60"]),
    "kept.csv": (table([*PAIR, "note", "system"]), ["--format", "preference", "--keep", "note"]),
    "alpaca.csv": (
        table(["instruction", "input", "chosen", "rejected"]),
        ["--format", "llamafactory-alpaca"],
    ),
    "orca.csv": (table(["system", "question", "chosen", "rejected"]), ["--format", "orca"]),
    "shp.csv": (
        table(["history", "human_ref_A", "human_ref_B", "labels"], worths=NUMBERS),
        ["--format", "shp"],
    ),
    "mapped.csv": (
        table(["q", "x", "y", "preference"], worths=NUMBERS),
        ["--map", "prompt=q", "a=x", "b=y", "label=preference", "--label", "first=1,second=0"],
    ),
    "annotated.csv": (
        table([*LABEL, "annotator_id"]),
        ["--format", "labelled-pairs", "--annotators", "each", "--keep", "annotator_id"],
    ),
    "judged.csv": (table([*LABEL, "annotator_id"]), ["--format", "labelled-pairs"]),
    "unmapped.csv": (
        table(["q", "x", "y", "other", "images"]),
        ["--map", "prompt=q", "chosen=x", "rejected=y", "--keep", "other", "--keep", "q"],
    ),
    "alpaca.tsv": (
        table(["input", "instruction", "system", "chosen", "rejected", "history"], "\t"),
        ["--format", "llamafactory-alpaca", "--keep", "input", "--to", "jsonl"],
    ),
    "saferlhf.csv": (
        table(["response_0", "response_1", "prompt", "better_response_id"], worths=NUMBERS),
        ["--format", "pku-saferlhf", "--label", "first=1,second=0,tie=2", "--seed", "3"],
    ),
    "labelled.jsonl": (
        labelled([*LABEL, "annotator_id", "system", "response_c", "history"], SAID),
        ["--format", "labelled-pairs", "--keep", "preference", "--test-size", "0.3"],
    ),
    "alpaca.jsonl": (
        labelled(["instruction", "input", "chosen", "rejected", "history", "system", "images"], ()),
        ["--format", "llamafactory-alpaca", "--keep", "history"],
    ),
    "numbered.jsonl": (
        labelled([*LABEL, "system"], COUNTED),
        ["--format", "labelled-pairs", "--label", "first=1,second=0,tie=2"],
    ),
    "shp.jsonl": (
        labelled(["history", "human_ref_A", "human_ref_B", "labels", "tools"], COUNTED),
        ["--format", "shp", "--max-chars", "400"],
    ),
    "excluded.csv": (table(PAIR), ["--format", "preference", "--exclude-rows", "rows"]),
    "pairs.tsv": (table(PAIR, "\t"), ["--format", "preference", "--test-size", "0.3"]),
    "texts.jsonl": (lines("text"), ["--format", "preference"]),
    "messages.jsonl": (lines("messages"), ["--format", "preference", "--test-size", "0.3"]),
    "labelled.csv.gz": (zipped(table(LABEL)), ["--format", "labelled-pairs"]),
    "texts.jsonl.gz": (zipped(lines("text")), ["--format", "preference", "--test-size", "0.3"]),
    "messages.json": (array(lines("messages")), ["--format", "preference"]),
    "excluded.json": (array(lines("text")), ["--format", "preference", "--exclude-rows", "rows"]),
    "pairs.parquet": (parquet, ["--format", "preference", "--keep", "note"]),
    "mixed.jsonl": (lines("mixed"), ["--format", "preference", "--max-chars", "90"]),
}


def converted(names, options):
    """Everything that a conversion leaves, and how it ended."""
    status = main([*names, *options, "-o", "out", "--workers", "1"])
    found = {
        str(path): path.read_bytes() for path in sorted(Path().glob("out*/**/*")) if path.is_file()
    }
    if Path("out.rejects.jsonl").exists():
        found["rejects"] = Path("out.rejects.jsonl").read_bytes()
        os.remove("out.rejects.jsonl")
    shutil.rmtree("out", ignore_errors=True)
    return status, found


def counted(monkeypatch):
    """The pairs that went each way, fast and row by row, of every block that the lane took."""
    found, merge = [], lane.parts.merge

    def merged(fast, slow):
        found.append((len(fast.entries) // 16, len(slow.entries) // 16))
        return merge(fast, slow)

    monkeypatch.setattr(lane.parts, "merge", merged)
    return found


def both(names, options, monkeypatch, capsys):
    """What either lane leaves of the same files, and what it says."""
    fast = *converted(names, options), capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(first_pass, "_columnar", lambda *_: None)
        return fast, (*converted(names, options), capsys.readouterr())


FILES = (
    1,
    14,
) * 10  # a conversion each: alone, since a file may be refused; or many, since quicker


@pytest.mark.parametrize("name", KINDS)
def test_both_lanes_write_the_same_bytes(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make, options = KINDS[name]
    taken = counted(monkeypatch)
    made = 0
    for seed, count in enumerate(FILES):
        dice = random.Random(f"{name} {seed}")
        names = [f"{number}{name}" for number in range(count)]
        for one in names:
            Path(one).write_bytes(make(dice))
        marks = [f"{one}{mark}{n}" for one in names for n in range(2, 40, 3) for mark in ":#"]
        Path("rows").write_text("".join(json.dumps({"source": mark}) + "\n" for mark in marks))
        monkeypatch.setattr(
            stretches, "SIZE", dice.choice((1000, 1 << 20)) if count == 1 else 1 << 20
        )
        fast, slow = both(names, options, monkeypatch, capsys)
        assert fast == slow, seed
        made += fast[0] == 0
    assert made > 3
    # An empty cell for the annotator is never plain, and few numbers of shp's are a label of it.
    few = {"annotated.csv": 0, "judged.csv": 0, "shp.jsonl": 0, "labelled.jsonl": 1}
    assert sum(fast > 0 for fast, _ in taken) >= few.get(name, 10)


def message(role, content):
    return [{"role": role, "content": content}]


def test_messages_that_were_all_rejected_do_not_make_messages_of_texts(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    same = message("assistant", "same")
    records = [{"prompt": "P", "chosen": "C", "rejected": "R"}]
    records += [
        {"prompt": message("user", str(n)), "chosen": same, "rejected": same} for n in (1, 2)
    ]
    Path("raw.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    fast, slow = both(["raw.jsonl"], ["--test-size", "0"], monkeypatch, capsys)
    assert fast == slow


def test_records_that_wait_for_others_may_stand_beside_plain_ones(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    one = dict(zip(LABEL, ("P", "C", "R", "a"), strict=True))
    records = [one, one | {"prompt": "Q", "annotator_id": "x"}]
    Path("raw.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    fast, slow = both(["raw.jsonl"], ["--test-size", "0"], monkeypatch, capsys)
    assert fast == slow


@pytest.mark.parametrize("name", ["labelled.csv", "pairs.tsv", "texts.jsonl", "messages.jsonl"])
def test_clean_files_go_the_fast_way_whole(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind = name.split(".")[0]
    names = LABEL if kind == "labelled" else PAIR
    rows = [[f"P {n}", f"one – {n}", f'two "{n}"', "a"][: len(names)] for n in range(50)]
    if name.endswith("jsonl"):
        roles = ("user", "assistant", "assistant")
        records = [
            dict(zip(names, row, strict=True))
            if kind == "texts"
            else {n: [{"role": r, "content": t}] for n, r, t in zip(names, roles, row, strict=True)}
            for row in rows
        ]
        Path(name).write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        with open(name, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter="\t" if name.endswith("tsv") else ",").writerows(
                [names, *rows]
            )
    found = counted(monkeypatch)
    assert main([name, "-o", "out"]) == 0
    assert found == [(50, 0)]


def strings():
    dice = random.Random(0)
    near = [chr(point) for point in range(1, 0x3000)]
    every = [chr(point) for point in range(1, 0x20000) if not 0xD800 <= point < 0xE000]
    for _ in range(3000):
        yield text(dice)
        yield "".join(dice.choices(near, k=dice.randint(0, 8)))
        yield "".join(dice.choices(every, k=dice.randint(0, 8))) + dice.choice((" ", "", "a"))


def test_what_is_asked_of_a_column_is_what_is_asked_of_each_text():
    whole = list(strings())
    for at in range(0, len(whole), 50):
        some = whole[at : at + 50]
        texts = Texts(pa.array(["x", *some, "y"], pa.string())[1:-1])
        assert texts.folded == [fold(one).encode() for one in some]
        assert texts.sizes.tolist() == list(map(len, some))
        assert texts.loose() == list(map(odd.loose_key, some))
        hinted = {row for row, one in enumerate(some) if any(hint in one for hint in odd.HINTS)}
        assert hinted == set(texts.hinted.tolist())


def test_a_character_that_is_not_wild_is_folded_alone_and_among_others():
    kinds = {
        point: letters._kind(point) for point in range(0x80, 0x20000) if not 0xD7FF < point < 0xE000
    }
    dice = random.Random(0)
    tame = [chr(point) for point, kind in kinds.items() if kind != letters.WILD]
    for point, kind in kinds.items():
        if kind != letters.WILD:
            one, other = dice.choices(tame, k=2)
            around = f"a{chr(point)}e {chr(point)} \u1100{chr(point)}o{one}{chr(point)}{other}"
            assert fold(around) == around, hex(point)
            loose = unicodedata.normalize("NFC", chr(point).casefold())
            dropped = not any(unicodedata.category(c)[0] in "LNM" for c in loose)
            assert dropped == (kind == letters.MARK), hex(point)
    assert {letters._kind(ord(c)) for c in "é漢ßя"} == {letters.LETTER}
    assert {letters._kind(ord(c)) for c in "–…“😀"} == {letters.MARK}
    assert {letters._kind(ord(c)) for c in "\u0301\xa0\u3000\u1161"} == {letters.WILD}


def test_every_rule_is_known_to_the_lane():
    assert list(lane.PROVEN) == list(rules.RULES)


@pytest.mark.parametrize("name", [name for name, shape in FORMATS.items() if shape.plain])
def test_the_probe_finds_the_sides_of_every_flat_shape(name):
    shape = FORMATS[name]
    record = {k: v for k, v in shape.passing.items() if k.casefold() not in shape.plain.others}
    if not all(isinstance(value, str | int | float) for value in record.values()):
        record = {k: v if isinstance(v, str | int) else "text" for k, v in record.items()}
    task = block.Task(shape, Meaning(), rules.Limits())
    kinds = probe.kinds(tuple(record), task)
    label = record[kinds.labels[0]] if kinds.labels else None
    found = probe.outcome(
        label, dict.fromkeys(kinds.texts), tuple(record), kinds, None, False, task
    )
    if isinstance(found, probe.Outcome):
        (pair,) = shape.pairs(record, Meaning())
        sides = record[found.prompt], record[found.chosen], record[found.rejected]
        assert sides == (pair.prompt, pair.chosen, pair.rejected)
    else:
        assert name == "halos"  # whose answers must be messages, or a type beside them


def test_positions_of_no_bytes_are_none():
    assert Texts(pa.array([], pa.string())).folded == []
    assert np.array_equal(Texts(pa.array(["", ""])).hinted, [])


def test_a_ragged_row_with_a_huge_cell_is_read_where_no_other_row_was():
    """csv's own limit of a field is a process's, and a fresh worker has the small one."""
    source = f"Q,{'x' * 200_000}\n"
    stretch = Stretch("raw.csv", 0, len(source), Head(("prompt", "chosen", "rejected"), ","))
    csv.field_size_limit(131_072)
    found = delimited.read(stretch, source.encode())
    ((index, reject),) = found.others
    assert (index, reject.place.line, reject.fault.reason) == (0, 1, "ragged_row")
