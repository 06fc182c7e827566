"""python -m dpo_wrap.suspects"""

from typing import NoReturn

from dpo_wrap.cli import exit_with
from dpo_wrap.suspects import main


def script() -> NoReturn:
    """The command that an installation adds."""
    exit_with(main())


if __name__ == "__main__":
    script()
