"""``python -m configs.start MODULE ARGUMENTS...``: ``python -m MODULE ARGUMENTS...`` as a process of a job.

It ends with the process that started it, and goes on when nobody reads what it prints any more.
"""

import runpy
import sys

from configs.lifeline import end_with_starter
from configs.terminal import survive_lost_output


def main() -> None:
    """Become MODULE; its own imports come after this, so that nothing outlives its starter while it loads torch."""
    survive_lost_output()
    end_with_starter()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
