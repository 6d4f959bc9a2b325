"""A shell completes verbs, keys and the names that keys take."""

import shutil
import subprocess

import pytest

from configs.errors import ConfigError
from launch.cli import main
from launch.completion import completion_script

ASK = """
source /dev/stdin <<< "$SCRIPT"
COMP_LINE="$1"; COMP_POINT=${#COMP_LINE}; COMP_CWORD=$2
compopt() { :; }
_shardrec
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(line: str, place: int) -> list[str]:
    """What bash offers behind ``line``, whose last word is the ``place``-th."""
    script = completion_script(["bash"])
    command = ["bash", "-c", ASK, "bash", line, str(place)]
    return subprocess.run(command, env={"SCRIPT": script}, capture_output=True, text=True, check=True).stdout.split()


def test_bash_completes_verbs_keys_and_names() -> None:
    assert completed("shardrec tr", 1) == ["train"]
    assert completed("shardrec train num_e", 2) == ["num_epochs="]
    assert completed("shardrec train num_epochs=1 loss=s", 4) == ["sampled_softmax"]
    assert completed("shardrec launch cluster=", 3) == ["local", "torchrun", "slurm", "kubernetes"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_a_script_that_it_can_read(shell: str) -> None:
    script = completion_script([shell])
    assert "cluster.partition" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize("words", [[], ["csh"], ["bash", "zsh"]])
def test_another_shell_is_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="bash, zsh, fish"):
        completion_script(words)


def test_the_verb_prints_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    assert capsys.readouterr().out == completion_script(["bash"])
