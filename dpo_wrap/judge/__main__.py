"""python -m dpo_wrap.judge"""

from dpo_wrap.cli import exit_with
from dpo_wrap.judge import main

if __name__ == "__main__":
    exit_with(main())
