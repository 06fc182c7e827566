"""python -m dpo_wrap.suspects"""

from dpo_wrap.cli import exit_with
from dpo_wrap.suspects import main

if __name__ == "__main__":
    exit_with(main())
