"""``python -m launch.serve export=E``: the process that `shardrec serve` becomes."""

import sys

from configs.errors import exit_code_of
from configs.load import load_server
from configs.process_exit import exit_at_once
from launch.serve.server import serve

if __name__ == "__main__":
    exit_at_once(exit_code_of(lambda: serve(load_server(sys.argv[1:]))))
