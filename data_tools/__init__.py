"""Raw preference files in, a checked Hugging Face dataset out; knows nothing of models.

from data_tools import convert
report = convert("raw.csv", output="data/raw", test_size=0.1)
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:  # otherwise the module, which can be called like the function
    from data_tools.convert import convert as convert
