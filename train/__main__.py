"""``python -m train key=value ...``, alone or under torchrun."""

import sys

from train.run import main
from train.supervision.process_exit import run_and_exit

if __name__ == "__main__":
    run_and_exit(lambda: main(sys.argv[1:]))
