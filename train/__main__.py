"""``python -m train key=value ...``, alone or under torchrun."""

import os
import sys

from train.run import main

if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is written and the process group is gone. Native threads of torch have been seen to abort the
    # interpreter's own shutdown ("terminate called without an active exception"), which would fail a finished run.
    os._exit(code)
