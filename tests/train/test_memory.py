"""What a job frees goes back to the system when it is asked to."""

import subprocess
import sys

import pytest

from configs.process_environment import module_environment

SCATTERED = """
import resource
from pathlib import Path

import torch

from train.evaluation.memory import return_freed_memory


def resident_mib():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


blocks = [torch.ones(2**18) for _ in range(400)]
full = resident_mib()
del blocks[::2]
freed = resident_mib()
return_freed_memory()
print(full - freed, freed - resident_mib(), sum(block.sum().item() for block in blocks) == 200 * 2**18)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, and only glibc gives memory back")
def test_gaps_between_tensors_go_back_to_the_system_and_the_tensors_stay():
    environment = module_environment({})
    told = subprocess.run(
        [sys.executable, "-c", SCATTERED], env=environment, capture_output=True, text=True, check=True
    )
    kept_mib, returned_mib, are_whole = told.stdout.split()
    assert float(kept_mib) < 20, "glibc keeps the gaps by itself, else there is nothing to give back"
    assert float(returned_mib) > 150
    assert are_whole == "True"
