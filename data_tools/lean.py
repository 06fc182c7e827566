"""Keeps Arrow from loading pandas, for processes that do nothing but convert.

Arrow looks for pandas the first time that it is given anything, to know its types: a fifth of a
second and 40 MB in each process, for nothing.
"""

import sys
from importlib.abc import MetaPathFinder


class _NoPandas(MetaPathFinder):
    def find_spec(self, name: str, path=None, target=None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("pandas is not wanted here", name=name)


def stay() -> None:
    sys.meta_path.insert(0, _NoPandas())
