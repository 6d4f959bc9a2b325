"""What another program answers, waited for no longer than is useful; one that is not there has an answer too."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from configs.process_environment import module_environment

NOT_FOUND = 1127
"""The code of a program that is not there; beyond 255, so that no program's own code is taken for it."""
TIMED_OUT = 1124
"""The code of one that did not end in time."""
GRACE_S = 10
"""For a program that was told to end: the ranks that it has started end first."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Exit code (negative: the signal that ended it) and what was written."""

    code: int
    output: str
    error: str

    @property
    def reason(self) -> str:
        """Why it failed, in one line: the last exception, else the last line that was written."""
        lines = [line.strip() for line in (self.error.strip() or self.output.strip()).splitlines() if line.strip()]
        errors = [line for line in lines if re.match(r"(\w+\.)*\w*(Error|Exception|Exit)\b", line)]
        told = (errors or lines or [""])[-1]
        if self.code < 0:
            return f"ended by signal {-self.code}. {told}".strip()
        return told or f"exit code {self.code}"


def answer_of(command: Sequence[str], *, timeout_s: float, environment: dict[str, str] | None = None) -> Answer:
    """Run ``command`` and read what it writes; after ``timeout_s`` it is told to end, then killed."""
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, errors="replace", env=environment
        )
    except OSError as error:
        return Answer(NOT_FOUND, "", str(error))
    with process:
        try:
            output, error_text = process.communicate(timeout=timeout_s)
            return Answer(process.returncode, output, error_text)
        except subprocess.TimeoutExpired:
            return Answer(TIMED_OUT, "", f"no answer after {timeout_s:g} s. {_ended(process)}".strip())


def module_answer(module: str, *arguments: str, timeout_s: float) -> Answer:
    """:func:`answer_of` ``python -m module arguments``, started as every verb starts its modules."""
    return answer_of(
        [sys.executable, "-m", module, *arguments], timeout_s=timeout_s, environment=module_environment(os.environ)
    )


def _ended(process: "subprocess.Popen[str]") -> str:
    """End ``process``; the last line that it wrote on stderr, where it ended in time."""
    process.terminate()
    try:
        lines = process.communicate(timeout=GRACE_S)[1].strip().splitlines()
    except subprocess.TimeoutExpired:
        process.kill()
        return ""
    return lines[-1] if lines else ""
