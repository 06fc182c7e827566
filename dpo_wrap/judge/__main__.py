"""python -m dpo_wrap.judge"""

from dpo_wrap.judge import main
from dpo_wrap.signals import exit_with

if __name__ == "__main__":
    exit_with(main())
