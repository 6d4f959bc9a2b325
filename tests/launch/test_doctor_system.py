"""Each check of the system: what fails it, and the line that mends it."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from configs import machine
from configs.load import load_config
from configs.process_environment import BOUND_KERNEL_CACHES
from configs.schema import HardwareConfig
from launch.doctor import disk, limits, network, slurm
from launch.doctor.row import Mark, Row
from programs import Programs

ROOT = Path(__file__).resolve().parents[2]
CPU, GPU = HardwareConfig(), HardwareConfig(device="cuda", num_ranks=2)
FOREVER = resource.RLIM_INFINITY


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    folder = tmp_path / "bin"
    folder.mkdir()
    return Programs(folder, monkeypatch)


def assert_failed(row: Row, told: str, fix: str) -> None:
    assert row.mark is Mark.FAIL, row
    assert told in row.found
    assert fix in row.fix


def network_of(monkeypatch: pytest.MonkeyPatch, addresses: list[str], **interfaces: str) -> None:
    monkeypatch.setattr(network.socket, "gethostname", lambda: "n1")
    monkeypatch.setattr(network, "addresses_of", lambda host: (addresses, "" if addresses else "Name not known"))
    monkeypatch.setattr(network, "interface_addresses", lambda: {"lo": "127.0.0.1", **interfaces})
    monkeypatch.delenv(network.IFNAME, raising=False)


@pytest.mark.parametrize(("num_nodes", "line"), [(1, "127.0.1.1 n1"), (2, "10.0.0.7 n1")])
def test_a_host_name_that_does_not_resolve_fails(num_nodes: int, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network_of(monkeypatch, [], eth0="10.0.0.7")
    assert_failed(network.check_host_name(num_nodes), "does not resolve", f"echo '{line}' | sudo tee -a /etc/hosts")


def test_loopback_is_enough_for_one_node_and_fails_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (routes := tmp_path / "route").write_text(
        "Iface Destination Gateway\ndocker0 000011AC 0\neth0 00000000 0100000A\n"
    )
    network_of(monkeypatch, ["127.0.1.1"], eth0="10.0.0.7")
    assert network.check_host_name(1).mark is network.check_gloo(1).mark is Mark.OK
    assert network.check_host_name(2).mark is Mark.WARN
    assert_failed(network.check_gloo(2), "127.0.1.1", "export GLOO_SOCKET_IFNAME=eth0 NCCL_SOCKET_IFNAME=eth0")
    network_of(monkeypatch, ["127.0.1.1"], docker0="172.17.0.1", eth0="10.0.0.7")
    monkeypatch.setattr(network, "ROUTES", routes)
    assert_failed(network.check_gloo(2), "127.0.1.1", "GLOO_SOCKET_IFNAME=eth0")
    monkeypatch.setenv(network.IFNAME, "eth0")
    assert network.check_host_name(2).mark is network.check_gloo(2).mark is Mark.OK
    assert "eth0 10.0.0.7" in network.check_gloo(2).found
    monkeypatch.setenv(network.IFNAME, "ib0")
    assert_failed(network.check_gloo(1), "ib0", "export GLOO_SOCKET_IFNAME=eth0")


def test_without_another_interface_than_lo_the_fix_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    network_of(monkeypatch, ["127.0.1.1"])
    assert_failed(network.check_gloo(2), "loopback", "no interface is up but lo")


def test_a_machine_whose_loopback_is_down_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    network_of(monkeypatch, ["127.0.0.1"])
    monkeypatch.setattr(network, "interface_addresses", dict)
    assert_failed(network.check_gloo(1), "loopback is down", "sudo ip link set lo up")


def test_interfaces_are_those_of_the_system() -> None:
    assert network.interface_addresses()["lo"] == "127.0.0.1"
    assert network.addresses_of("localhost")[0]
    assert network.addresses_of("no-such-host.invalid")[0] == []


def test_the_line_that_raises_open_files_mends_them() -> None:
    program = (
        "from configs.schema import HardwareConfig; from launch.doctor.limits import check_open_files; "
        "row = check_open_files(HardwareConfig(), 1); print(row.mark.value, row.fix, sep='|')"
    )
    asked = f'{sys.executable} -c "{program}"'
    shell = ["sh", "-c", f"ulimit -S -n 128; {asked}"]
    mark, fix = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip().split("|")
    assert (mark, fix.split()[:2]) == ("FAIL", ["ulimit", "-n"])
    shell = ["sh", "-c", f"ulimit -S -n 128; {fix} && {asked}"]
    assert subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() == "ok|"


@pytest.mark.parametrize(
    ("hard", "fix"), [(FOREVER, "ulimit -n 65536"), (4096, "ulimit -n 4096"), (100, "* - nofile 65536")]
)
def test_a_limit_is_raised_as_far_as_it_may_be(hard: int, fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.resource, "getrlimit", lambda kind: (100, hard))
    assert_failed(limits.check_open_files(CPU, 1), "100 (ulimit -n)", fix)
    assert_failed(limits.check_processes(CPU), "100 (ulimit -u)", fix.replace("-n", "-u").replace("nofile", "nproc"))


def test_more_ranks_need_more_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.resource, "getrlimit", lambda kind: (1024, FOREVER))
    assert limits.check_open_files(CPU, 1).mark is Mark.OK
    assert limits.check_open_files(CPU, 1000).mark is Mark.FAIL


def test_locked_memory_matters_where_there_is_infiniband(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.resource, "getrlimit", lambda kind: (65536, FOREVER))
    monkeypatch.setattr(limits, "INFINIBAND", tmp_path / "infiniband")
    assert limits.check_locked_memory().mark is Mark.OK
    (tmp_path / "infiniband" / "mlx5_0").mkdir(parents=True)
    assert_failed(limits.check_locked_memory(), "64 KiB", "ulimit -l unlimited")


def test_little_shared_memory_fails_several_gpus_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = SimpleNamespace(f_blocks=16384, f_bavail=16000, f_frsize=4096)
    monkeypatch.setattr(limits.os, "statvfs", lambda path: small)
    assert limits.check_shared_memory(CPU).mark is Mark.OK
    assert_failed(limits.check_shared_memory(GPU), "0.1 GiB", "sudo mount -o remount,size=8G /dev/shm")
    monkeypatch.undo()
    monkeypatch.setattr(limits, "SHARED_MEMORY", tmp_path / "none")
    assert limits.check_shared_memory(CPU).mark is Mark.WARN
    assert_failed(limits.check_shared_memory(GPU), "No such file", "mount -t tmpfs")


def test_too_little_memory_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(limits, "available_memory_gib", lambda: (4.0, 0.6))
    assert_failed(limits.check_memory(CPU), "0.6 available", "hardware.num_ranks=1")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert_failed(limits.check_memory(CPU), "0.6 available", "salloc --mem=3G")


def test_memory_and_cores_are_those_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text(f"{2**28}\n")
    (tmp_path / "memory.current").write_text(f"{2**27}\n")
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    monkeypatch.setattr(machine, "_cgroups", lambda controller: [tmp_path, tmp_path / "without-files"])
    assert machine.available_memory_gib() == (0.25, 0.125)
    assert machine.usable_cores() == 1
    row = limits.check_cores(HardwareConfig(num_ranks=2, num_threads=4))
    assert row.mark is Mark.WARN
    assert "hardware.num_ranks=1 hardware.num_threads=1" in row.fix


def test_unbounded_kernel_caches_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in BOUND_KERNEL_CACHES:
        monkeypatch.delenv(name, raising=False)
    assert limits.check_kernel_caches().mark is Mark.OK
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "1024")
    row = limits.check_kernel_caches()
    assert row.mark is Mark.WARN
    assert row.fix == "export ONEDNN_PRIMITIVE_CACHE_CAPACITY=64 LRU_CACHE_CAPACITY=64"
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "64")
    assert limits.check_kernel_caches().mark is Mark.OK


def test_the_disk_of_a_run_is_the_deepest_folder_that_is_there(tmp_path: Path) -> None:
    row = disk.check_run_dir(load_config([f"run_dir={tmp_path}/a/b"]))
    assert row.mark is not Mark.FAIL
    assert row.found.startswith(f"{tmp_path}: ")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, mark in ((2**29, Mark.FAIL), (2**31, Mark.WARN), (2**40, Mark.OK)):
        monkeypatch.setattr(
            disk.shutil, "disk_usage", lambda path, free=free: SimpleNamespace(total=2**41, free=free)
        )
        row = disk.check_run_dir(load_config([f"run_dir={tmp_path}/run"]))
        assert row.mark is mark
        assert mark is Mark.OK or row.fix == "shardrec train ... run_dir=/another/disk/run"


@pytest.mark.parametrize(
    ("number", "fix"), [(errno.EACCES, "run && sudo chown $USER"), (errno.EROFS, "run_dir=/another")]
)
def test_a_folder_that_cannot_be_written_fails(
    number: int, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*, dir: Path) -> None:
        raise OSError(number, os.strerror(number), str(dir))

    monkeypatch.setattr(disk.tempfile, "TemporaryFile", refuse)
    row = disk.check_run_dir(load_config([f"run_dir={tmp_path}/run"]))
    assert_failed(row, f"{tmp_path} cannot be written: {os.strerror(number)}", fix)


def test_a_file_in_the_place_of_a_folder_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    row = disk.check_run_dir(load_config([f"run_dir={tmp_path}/file/run"]))
    assert_failed(row, "Not a directory", "run_dir=/another/disk/run")


def test_a_store_is_read_where_it_is_and_its_disk_looked_at_where_it_is_not(tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert str(tmp_path) in disk.check_store(load_config([f"data.store={store}"])).found
    (store / "manifest.json").mkdir(parents=True)
    assert_failed(disk.check_store(load_config([f"data.store={store}"])), "cannot be read", "sudo chown -R $USER")
    (store / "manifest.json").rmdir()
    (store / "manifest.json").write_text("{}")
    assert "can be read" in disk.check_store(load_config([f"data.store={store}"])).found
    assert disk.check_store(load_config([])).mark is Mark.OK


def test_a_machine_without_slurm_is_well(programs: Programs) -> None:
    row = slurm.check_slurm()
    assert (row.mark, "not installed" in row.found) == (Mark.OK, True)


def test_slurm_is_told_with_its_version_and_partitions(programs: Programs) -> None:
    programs.put("sbatch", "echo slurm 22.05.8")
    programs.put("sinfo", "echo 'main* 2 idle'; echo 'high 2 idle'")
    row = slurm.check_slurm()
    assert row.mark is Mark.OK
    assert "slurm 22.05.8" in row.found
    assert "main* 2 idle; high 2 idle" in row.found


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        ("Unable to contact slurm controller (connect failure)", "systemctl restart slurmctld"),
        ("If munged is up, restart with --num-threads=10", "systemctl restart munge"),
        ("slurm_load_partitions: Protocol authentication error", "systemctl restart munge"),
    ],
)
def test_a_controller_that_does_not_answer_fails(error: str, fix: str, programs: Programs) -> None:
    programs.put("sbatch", "echo slurm 22.05.8")
    assert_failed(slurm.check_slurm(), "sinfo: ", "apt-get install slurm-client")
    programs.put("sinfo", f"echo '{error}' >&2; exit 1")
    assert_failed(slurm.check_slurm(), error, fix)


def test_an_sbatch_that_does_not_start_is_not_taken_for_none(programs: Programs) -> None:
    programs.put("sbatch", "echo 'error while loading shared libraries: libslurm.so' >&2; exit 127")
    assert_failed(slurm.check_slurm(), "libslurm.so", "--reinstall slurm-client")


def test_a_slurm_that_hangs_fails(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "TIMEOUT_S", 0.5)
    programs.put("sbatch", "echo slurm 22.05.8")
    programs.put("sinfo", "exec sleep 60")
    assert_failed(slurm.check_slurm(), "no answer after 0.5 s", "scontrol ping")


def test_an_sbatch_without_a_cluster_is_a_warning(programs: Programs) -> None:
    programs.put("sbatch", "echo 'sbatch: fatal: Could not establish a configuration source' >&2; exit 1")
    row = slurm.check_slurm()
    assert row.mark is Mark.WARN
    assert "export SLURM_CONF=" in row.fix


def two_nodes(programs: Programs, second: str) -> None:
    """An srun that runs its task as n1 sees the files, and as n2 does after ``second``."""
    start = 'echo "$@" > "$0.words"; while [ "$1" != sh ]; do shift; done'
    programs.put("srun", f'{start}\nSLURMD_NODENAME=n1 "$@"\n{second}\nSLURMD_NODENAME=n2 "$@"')


@pytest.mark.parametrize("is_inside", [True, False])
def test_a_folder_that_every_node_sees_passes(
    is_inside: bool, tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if is_inside:
        monkeypatch.setenv("SLURM_JOB_ID", "7")
    two_nodes(programs, "")
    row = slurm.check_shared_folder(f"{tmp_path}/run", 2)
    assert (row.mark, row.found) == (Mark.OK, f"{tmp_path} is seen by n1, n2")
    words = (programs.folder / "srun.words").read_text()
    assert "--nodes=2 --ntasks=2" in words
    assert ("--overlap" in words, "--immediate" in words) == (is_inside, not is_inside)
    assert [file.name for file in tmp_path.iterdir()] == ["bin"]


def test_a_folder_that_a_node_does_not_see_fails(
    tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "SEARCH_S", 0)
    two_nodes(programs, 'set -- sh -c "$3" sh /not/shared')
    assert_failed(slurm.check_shared_folder(f"{tmp_path}/run", 2), f"{tmp_path} is not the same on n2", "run_dir=")


def test_nodes_that_cannot_be_asked_fail(tmp_path: Path, programs: Programs) -> None:
    assert slurm.check_shared_folder(str(tmp_path), 1).found == "one node"
    assert_failed(slurm.check_shared_folder(str(tmp_path), 2), "no srun", "apt-get install slurm-client")
    programs.put("srun", "echo 'Unable to allocate resources: Requested nodes are busy' >&2; exit 1")
    assert_failed(slurm.check_shared_folder(str(tmp_path), 2), "nodes are busy; 0 answered", "salloc --nodes=2")
    (tmp_path / "file").write_text("")
    assert_failed(slurm.check_shared_folder(f"{tmp_path}/file/run", 2), "Not a directory", "run_dir=/shared/run")
