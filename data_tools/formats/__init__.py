"""Raw record to pairs: every shape that is known, by name. A new one is a line here."""

from data_tools.formats import flat, sharegpt, transcripts
from data_tools.formats.shape import Format

FORMATS: dict[str, Format] = {
    shape.name: shape
    for shape in (
        *(flat.as_format(row) for row in flat.ROWS),
        transcripts.IMPLICIT,
        transcripts.HH,
        transcripts.CHATML,
        sharegpt.SHAREGPT,
    )
}
