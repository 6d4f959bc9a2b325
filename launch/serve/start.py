"""`shardrec serve export=E`: what can be said before torch is loaded, then the server in place of this process."""

import os
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from configs.errors import ConfigError, require
from configs.load import load_server
from configs.process_environment import module_environment
from launch.serve.access import token_of

DRY_RUN = "--dry-run"
MODULES = ("starlette", "uvicorn", "httptools", "uvloop", "pydantic", "prometheus_client")
"""What the extra brings."""


def start(words: Sequence[str]) -> int:
    """Check ``words`` and become the server: it has this process's id, so that signals reach it. Returns only after
    ``--dry-run``; raises :class:`ConfigError`."""
    overrides = [word for word in words if word != DRY_RUN]
    config = load_server(overrides)
    require(bool(config.export), "serve needs the folder of an export: shardrec serve export=RUN_DIR/export")
    token = token_of(config.serve)
    require(
        bool(token) or config.serve.is_loopback or config.serve.allow_no_token,
        f"serve.host={config.serve.host} is reached by other machines, and no token is set: whoever reaches it may "
        f"ask and post. Set serve.token_file=FILE or SHARDREC_SERVE_TOKEN, or serve.allow_no_token=true",
    )
    if DRY_RUN in words:
        print(f"would serve {config.export} at http://{config.serve.host}:{config.serve.port}")
        return 0
    if missing := [module for module in MODULES if find_spec(module) is None]:
        raise ConfigError(f"serve needs {', '.join(missing)}: pip install 'shardrec[serve]'")
    print(f"shardrec: {shlex.join(['-m', 'launch.serve', *overrides])}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    environment = module_environment(os.environ)
    os.execve(sys.executable, [sys.executable, "-m", "configs.start", "launch.serve", *overrides], environment)
