"""``python -m train key=value ...``, alone or under torchrun."""

import sys

from train.ending import end_with
from train.run import main

if __name__ == "__main__":
    end_with(lambda: main(sys.argv[1:]))
