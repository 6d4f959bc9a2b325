"""``python -m train key=value ...``, alone or under torchrun."""

import sys

from train.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
