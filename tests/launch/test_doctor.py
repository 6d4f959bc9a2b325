"""The doctor as a whole: exit codes, the table, JSON, and what it answers on a sick machine."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.schema import HardwareConfig
from launch import cli
from launch.doctor import devices, examination, network, sharded_step, subject
from launch.doctor.answer import NOT_FOUND, TIMED_OUT, Answer, answer_of
from launch.doctor.row import Mark, Row, doubtful, failed, good
from launch.doctor.table import WIDTH, head, lines_of
from programs import Programs

ROOT = Path(__file__).resolve().parents[2]
CPU, GPU = HardwareConfig(), HardwareConfig(device="cuda", num_ranks=2)
SELFCHECK = {
    "one_rank": [4.5, 4.25],
    "two_ranks": [[4.5, 4.25], [4.5, 4.25]],
    "placement": "item row_wise",
    "peak_gib_per_rank": 0.5,
    "agrees": True,
}
SEEN = {"cuda": "13.0", "gpus": ["H100", "H100"], "is_cuda_usable": True, "nccl": "2.28", "has_gloo": True}
SMI = "| NVIDIA-SMI 580.65 Driver Version: 580.65 CUDA Version: {cuda} |"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    folder = tmp_path / "bin"
    folder.mkdir()
    return Programs(folder, monkeypatch)


def answering(monkeypatch: pytest.MonkeyPatch, module: object, answer: Answer) -> list[tuple[str, ...]]:
    """Make ``module`` hear ``answer`` from the modules that it starts; returns what it asked."""
    asked: list[tuple[str, ...]] = []

    def module_answer(*words: str, timeout_s: float) -> Answer:
        asked.append(words)
        return answer

    monkeypatch.setattr(module, "module_answer", module_answer)
    return asked


def examined_rows(monkeypatch: pytest.MonkeyPatch, *rows: Row) -> None:
    monkeypatch.setattr(examination, "rows_of", lambda examined: iter(rows))


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([good("memory", "much")], 0),
        ([good("memory", "much"), doubtful("disk", "little", "rm")], 0),
        ([failed("memory", "none", "buy some"), good("disk", "much")], 1),
    ],
)
def test_the_exit_code_is_1_where_a_check_failed(
    rows: list[Row], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    examined_rows(monkeypatch, *rows)
    assert cli.main(["doctor"]) == code
    text = capsys.readouterr().out
    assert ("this machine can train" in text) == (code == 0)
    assert cli.main(["doctor", "--json"]) == code
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] == (code == 0)
    assert [(each["name"], each["mark"], each["fix"]) for each in report["checks"]] == [
        (row.name, row.mark.value, row.fix) for row in rows
    ]


@pytest.mark.parametrize("word", ["hardware.num_rnaks=3", "doctor.nodes=many", "doctor.nodes=0", "doctor.node=2"])
def test_a_wrong_key_is_one_line_and_exit_code_2(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", word]) == 2
    told = capsys.readouterr()
    assert word.split("=")[0] in told.err
    assert told.err.count("\n") == 1
    assert not told.out


def test_a_failure_cannot_be_told_without_what_mends_it() -> None:
    with pytest.raises(AssertionError, match="needs a fix"):
        Row("memory", Mark.FAIL, "none")


def test_the_table_is_aligned_narrow_and_plain_and_breaks_no_command() -> None:
    command = "pip install " + "torch==2.13.0 " * 20
    lines = lines_of(failed("torch triple", "one two three " * 30, f"{command}\nsecond"), is_coloured=False)
    *found, first, second = lines
    assert (first.strip(), second.strip()) == (f"$ {command}".strip(), "$ second")
    assert max(map(len, [head(), *found])) <= WIDTH
    column = head().index("found")
    assert {line[:column].strip() for line in found[1:]} == {""}
    assert found[0][:column].split() == ["torch", "triple", "FAIL"]
    assert "\033" not in "".join(lines)
    assert "\033[31mFAIL" in lines_of(failed("disk", "full", "rm"), is_coloured=True)[0]


def test_the_nodes_are_those_of_the_allocation_or_the_given_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_NUM_NODES", raising=False)
    assert subject.subject_of([]).num_nodes == 1
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "4")
    assert subject.subject_of(["hardware=h100"]).num_nodes == 4
    assert subject.subject_of(["doctor.nodes=2"]).num_nodes == 2


def test_the_ranks_of_the_job_are_shared_out_over_its_nodes(monkeypatch: pytest.MonkeyPatch):
    """The documented two nodes of eight GPUs, as `launch` and as the doctor of one of the nodes see them."""
    words = ["hardware=h100", "hardware.num_ranks=16", "doctor.nodes=2"]
    examined = subject.subject_of(words)
    assert examined.here.num_ranks == 8
    assert "num_ranks=16 on cuda; nodes: 2, 8 ranks each" in examined.row.found
    answering(monkeypatch, devices, Answer(0, json.dumps(SEEN | {"gpus": ["H100"] * 8}) + "\n", ""))
    monkeypatch.setattr(devices, "answer_of", lambda *_, **__: Answer(0, SMI.format(cuda="13.0"), ""))
    gpus = next(row for row in devices.look_at_devices(examined.here).rows if row.name == "GPUs")
    assert gpus.mark is Mark.OK
    with pytest.raises(ConfigError, match=r"hardware.num_ranks=15"):
        subject.subject_of(["hardware.num_ranks=15", "doctor.nodes=2"])


def test_ranks_that_nobody_set_are_those_that_fit_each_node():
    assert subject.subject_of(["doctor.nodes=3"]).here.num_ranks == subject.subject_of([]).here.num_ranks


def test_without_hydra_the_defaults_are_examined_and_the_row_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "configs.load", None)
    found = subject.subject_of(["hardware=h100"])
    assert (found.row.mark, found.config.hardware.device) == (Mark.FAIL, "cpu")
    assert " -m pip install torch==" in found.row.fix


def test_another_system_than_linux_is_told_and_nothing_else_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination.platform, "system", lambda: "Darwin")
    *_, last = examination.rows_of(subject.subject_of([]))
    assert (last.mark, last.name) == (Mark.FAIL, "system")
    assert "docker run" in last.fix


def test_an_old_python_is_told_before_anything_is_imported() -> None:
    program = (
        "import runpy, sys; sys.version_info = (3, 10, 4); sys.argv = ['launch', 'doctor']; "
        "runpy.run_module('launch', run_name='__main__')"
    )
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert answer.stderr == "shardrec needs Python 3.11 or newer: make setup PYTHON=python3.11\n"


def test_a_program_that_is_not_there_hangs_or_is_killed_is_an_answer() -> None:
    assert answer_of(["no-such-program"], timeout_s=5).code == NOT_FOUND
    killed = answer_of(["sh", "-c", "kill -9 $$"], timeout_s=5)
    assert (killed.code, killed.reason) == (-9, "ended by signal 9.")
    start = time.monotonic()
    hanging = answer_of(["sh", "-c", "echo waiting >&2; exec sleep 60"], timeout_s=0.5)
    assert (hanging.code, hanging.reason) == (TIMED_OUT, "no answer after 0.5 s. waiting")
    assert time.monotonic() - start < 30, "it must be ended, not waited for"


def broken(folder: Path, monkeypatch: pytest.MonkeyPatch, **sources: str) -> None:
    """Put libraries of such sources before the installed ones."""
    for name in ("torch", "fbgemm_gpu", "torchrec"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(sources.get(name, ""))
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.parametrize(
    ("library", "source", "told", "fix"),
    [
        ("torch", "raise ModuleNotFoundError('No module named torch')", "No module named torch", "install torch=="),
        ("fbgemm_gpu", "raise OSError('undefined symbol: x')", "undefined symbol", "--force-reinstall"),
        ("torchrec", "import os; os.kill(os.getpid(), 11)", "ended by signal 11", "--force-reinstall"),
    ],
)
def test_a_library_that_does_not_import_is_named(
    library: str,
    source: str,
    told: str,
    fix: str,
    tmp_path: Path,
    programs: Programs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken(tmp_path, monkeypatch, **{library: source})
    seen = devices.look_at_devices(CPU)
    row = seen.rows[0]
    assert not seen.is_ready
    assert (row.name, row.mark) == ("imports", Mark.FAIL)
    assert row.found.startswith(f"{library}: ")
    assert told in row.found
    assert fix in row.fix


def gpu_rows(
    monkeypatch: pytest.MonkeyPatch, hardware: HardwareConfig, lines: dict[str, object] | None = None
) -> dict[str, Row]:
    output = "\n".join(map(json.dumps, [{"imported": "torch"}, SEEN | (lines or {})]))
    answering(monkeypatch, devices, Answer(0, f"a notice\n{output}\n", ""))
    return {row.name: row for row in devices.look_at_devices(hardware).rows}


def test_a_machine_without_gpu_is_well_unless_one_is_wanted(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gpu_rows(monkeypatch, CPU)["CUDA"].mark is Mark.OK
    row = gpu_rows(monkeypatch, GPU)["CUDA"]
    assert row.mark is Mark.FAIL
    assert "nvidia-driver" in row.fix
    assert "hardware=cpu" in row.fix


def test_gpus_driver_and_nccl_are_told(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    programs.put("nvidia-smi", f"echo '{SMI.format(cuda='13.0')}'")
    rows = gpu_rows(monkeypatch, GPU)
    assert {row.mark for row in rows.values()} == {Mark.OK}
    assert "580.65" in rows["CUDA driver"].found
    assert all(part in rows["GPUs"].found for part in ("2 x H100", "13.0", "2.28"))


@pytest.mark.parametrize(
    ("driver", "seen", "name", "fix"),
    [
        (
            "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
            {},
            "CUDA driver",
            "sudo reboot",
        ),
        ("echo 'NVIDIA-SMI has failed'; exit 9", {}, "CUDA driver", "sudo modprobe nvidia"),
        (None, {"gpus": ["H100"]}, "GPUs", "shardrec train ... hardware.num_ranks=1"),
        (None, {"cuda": ""}, "GPUs", "fbgemm-gpu==1.8.0"),
        (None, {"is_cuda_usable": False, "gpus": []}, "GPUs", "unset CUDA_VISIBLE_DEVICES"),
        (None, {"is_cuda_usable": False, "gpus": [], "cuda": "14.0"}, "GPUs", "--only-upgrade nvidia-driver"),
        (None, {"nccl": ""}, "GPUs", "fbgemm-gpu==1.8.0"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_mended(
    driver: str | None,
    seen: dict[str, object],
    name: str,
    fix: str,
    programs: Programs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    programs.put("nvidia-smi", driver or f"echo '{SMI.format(cuda='13.0')}'")
    row = gpu_rows(monkeypatch, GPU, seen)[name]
    assert row.mark is Mark.FAIL
    assert fix in row.fix
    if driver:
        assert gpu_rows(monkeypatch, CPU, seen)[name].mark is Mark.OK


def test_torch_without_gloo_is_not_ready(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    row = gpu_rows(monkeypatch, CPU, {"has_gloo": False})["imports"]
    assert row.mark is Mark.FAIL
    assert "pip install" in row.fix


def test_a_step_on_which_the_ranks_agree_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, sharded_step, Answer(0, f"a notice\n{json.dumps(SELFCHECK)}\n", ""))
    row = sharded_step.check_sharded_step(CPU, [])
    assert row.mark is Mark.OK
    assert "item row_wise, gloo" in row.found
    assert sharded_step.check_sharded_step(GPU, ["H100"]).found.count("gloo") == 1
    assert "nccl" in sharded_step.check_sharded_step(GPU, ["H100", "H100"]).found
    assert asked == [
        ("train.doctor.selfcheck", "cpu"),
        ("train.doctor.selfcheck", "cpu"),
        ("train.doctor.selfcheck", "cuda"),
    ]


@pytest.mark.parametrize(
    ("answer", "told", "fix"),
    [
        (Answer(1, json.dumps(SELFCHECK | {"agrees": False}), ""), "on one rank [4.5, 4.25]", "--force-reinstall"),
        (Answer(TIMED_OUT, "", "no answer after 90 s."), "no answer", "GLOO_SOCKET_IFNAME=lo"),
        (Answer(1, "", "a\nOSError: [Errno 28] No space left on device"), "No space left", "TMPDIR"),
        (Answer(1, "", "ModuleNotFoundError: No module named 'polars'"), "polars", "pip install"),
        (Answer(-11, "", ""), "signal 11", "-m train.doctor.selfcheck cpu"),
    ],
)
def test_a_step_that_fails_says_why_and_what_to_do(
    answer: Answer, told: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, sharded_step, answer)
    row = sharded_step.check_sharded_step(CPU, [])
    assert row.mark is Mark.FAIL
    assert told in row.found
    assert fix in row.fix


def test_where_the_libraries_do_not_import_no_step_is_tried(
    tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(tmp_path, monkeypatch, torch="raise ImportError('libgomp.so.1')")
    *_, last = examination.rows_of(subject.subject_of([f"run_dir={tmp_path}/run"]))
    assert (last.name, last.mark) == ("sharded step", Mark.FAIL)
    assert "not run" in last.found


def test_where_the_host_name_does_not_resolve_no_step_is_tried(
    tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_rows(monkeypatch, CPU)
    monkeypatch.setattr(network, "addresses_of", lambda host: ([], "Name or service not known"))
    rows = {row.name: row for row in examination.rows_of(subject.subject_of([f"run_dir={tmp_path}/run"]))}
    assert "wait for the host's name" in rows["sharded step"].found
    assert rows["sharded step"].fix == rows["host name"].fix != ""


def test_the_page_of_the_doctor_explains_every_row(
    tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs.put("nvidia-smi", f"echo '{SMI.format(cuda='13.0')}'")
    gpu_rows(monkeypatch, GPU)
    answering(monkeypatch, sharded_step, Answer(0, json.dumps(SELFCHECK), ""))
    examined = subject.subject_of(["hardware=h100", f"run_dir={tmp_path}/run"])
    page = (ROOT / "docs" / "doctor.md").read_text()
    names = {row.name for row in examination.rows_of(examined)}
    assert {"configuration", "GPUs", "shared folder", "sharded step"} <= names
    assert {name for name in names if f"`{name}`" not in page} == set()


@pytest.mark.slow
def test_this_machine_passes(tmp_path: Path) -> None:
    words = ["doctor", f"run_dir={tmp_path}/run", f"data.store={tmp_path}/store", "--json"]
    command = [sys.executable, "-m", "launch", *words]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    report = json.loads(answer.stdout)
    assert {each["name"]: each["found"] for each in report["checks"] if each["mark"] == "FAIL"} == {}
    assert answer.returncode == 0
    assert report["passed"]
    assert "item row_wise, gloo on the CPU" in report["checks"][-1]["found"]
    assert not list(tmp_path.iterdir()), "an examination leaves nothing behind"
