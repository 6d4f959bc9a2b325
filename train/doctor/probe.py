"""``python -m train.doctor.probe``: imports torch, fbgemm and torchrec and prints what torch sees, a line of JSON
each.

A library that does not import ends the process with its own traceback, after the lines of those before it.
"""

import importlib
import json
import sys
from typing import Any

LIBRARIES = ("torch", "fbgemm_gpu", "torchrec")


def probe() -> None:
    """Print ``{"imported": NAME}`` for each library, then :func:`devices`."""
    for name in LIBRARIES:
        importlib.import_module(name)
        print(json.dumps({"imported": name}), flush=True)
    print(json.dumps(devices()), flush=True)


def devices() -> dict[str, Any]:
    """What torch was built with and the devices that it sees."""
    import torch  # may be what is broken: only after its turn in `probe`
    import torch.distributed as dist

    has_nccl = dist.is_available() and dist.is_nccl_available()
    return {
        "cuda": torch.version.cuda or "",
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "is_cuda_usable": torch.cuda.is_available(),
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if has_nccl else "",
        "has_gloo": dist.is_available() and dist.is_gloo_available(),
    }


if __name__ == "__main__":
    probe()
    sys.stdout.flush()
