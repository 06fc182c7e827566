"""Every known format, by name."""

from data_tools.formats import label_studio, plans, questions, special, table
from data_tools.formats.format import Format, entries

_FORMATS = {
    format.name: format
    for format in (
        *(plans.as_format(name, row) for name, row in table.ROWS.items()),
        *special.FORMATS,
        *questions.FORMATS,
        *label_studio.FORMATS,
    )
}

# In the order of formats.json, in which --list-formats and the documents show them.
FORMATS: dict[str, Format] = {name: _FORMATS[name] for name in entries() if name in _FORMATS}
