"""Any records at all, in any syntax: no traceback, and every figure of the report adds up."""

import json
import os
import tempfile
from pathlib import Path

from converting import convert
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_formats import EXAMPLES, FORMATS
from shapes_flat import as_table
from spoiled import spoiled

from data_tools.record import REASONS, ConvertError

WRITERS = {
    ".jsonl": lambda records: "\n".join(map(json.dumps, records)),
    ".json": lambda records: json.dumps(records, indent=1),
    ".csv": lambda records: as_table([r for r in records if isinstance(r, dict)]),
}


@settings(max_examples=500, deadline=None)
@given(
    data=st.data(),
    name=st.sampled_from(sorted(FORMATS)),
    ending=st.sampled_from(list(WRITERS)),
    pairs=st.sampled_from(["best-worst", "adjacent", "all"]),
    mode=st.sampled_from(["majority", "unanimous", "each"]),
    named=st.booleans(),
    test_size=st.sampled_from([0, 0.5]),
)
def test_records_of_any_format_valid_or_spoiled_add_up(
    data, name, ending, pairs, mode, named, test_size
):
    records = []
    for _ in range(data.draw(st.integers(1, 8))):
        other = (
            data.draw(st.sampled_from(sorted(FORMATS)))
            if data.draw(st.integers(0, 9)) == 0
            else name
        )
        records.append(EXAMPLES[other])
        for _ in range(data.draw(st.integers(0, 2))):
            records[-1] = spoiled(records[-1], data.draw)
    options = {"pairs": pairs, "annotators": mode, "test_size": test_size}
    if FORMATS[name].label is not None and data.draw(st.booleans()):
        options["label"] = "first=a,second=b,tie=1"
    adds_up(records, ending, format=name if named else None, **options)


def adds_up(records, ending, **options):
    """Convert the records, and compare every figure with the others and with the files."""
    with tempfile.TemporaryDirectory() as folder:
        raw, out = Path(folder, f"raw{ending}"), Path(folder, "out")
        raw.write_text(WRITERS[ending](records))
        try:
            done = convert((str(raw),), str(out), workers=1, **options)
        except ConvertError as error:
            assert error.status in (1, 2)
            assert len(str(error).splitlines()) == 1
            assert os.listdir(folder) == [raw.name]
            return
        found, rejects = done.figures, Path(done.rejects).read_text().splitlines()
        assert done.status == (0 if found["pairs"]["kept"] else 1)
        assert out.exists() == (done.status == 0)
    counts, pairs = found["records"], found["pairs"]
    assert counts["read"] == counts["converted"] + counts["rejected"]
    if ending != ".csv":
        assert counts["read"] == len(records)
    assert pairs["made"] == pairs["kept"] + pairs["rejected"]
    assert sum(found["splits"].values()) == pairs["kept"]
    assert found["prompts"]["shared"] == 0
    assert sum(found["reasons"].values()) == len(rejects)
    assert all(json.loads(line)["reason"] in REASONS for line in rejects)
