"""How agents meet: on loopback where there is one machine, and nothing that a stranger wrote is run."""

import os
import pickle
import socket
from datetime import datetime
from pathlib import Path

import pytest
import torch.distributed.elastic.rendezvous.dynamic_rendezvous as elastic

from configs.errors import ConfigError
from configs.schema import HardwareConfig
from train.distributed.environment import check_environment
from train.distributed.meeting import Node, _own_address, _OwnTypesOnly, meeting_of


class Stranger:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.folder),)


def test_what_a_stranger_writes_into_a_rendezvous_is_not_run(tmp_path: Path):
    with pytest.raises(pickle.UnpicklingError, match="is no part of a rendezvous"):
        _OwnTypesOnly.loads(pickle.dumps(Stranger(tmp_path / "made")))
    assert not (tmp_path / "made").exists()


def test_the_state_of_a_rendezvous_is_read():
    state, node = elastic._RendezvousState(), elastic._NodeDesc("here", 1, 0)
    state.participants[node], state.last_heartbeats[node] = 0, datetime.now()
    state.wait_list.add(node)
    read = _OwnTypesOnly.loads(_OwnTypesOnly.dumps(state))
    assert (read.participants, read.wait_list) == (state.participants, state.wait_list)


def test_the_ranks_of_one_machine_start_again_with_an_empty_store():
    meeting = meeting_of(Node(num_ranks=2))
    first, second = meeting.next_rendezvous(), meeting.next_rendezvous()
    first.store.set("key", "value")
    assert not second.store.check(["key"])
    assert first.bootstrap_store_info is not None
    assert first.bootstrap_store_info.master_addr == "127.0.0.1"


def test_a_name_that_means_loopback_here_is_no_address_for_other_machines():
    assert _own_address("127.0.0.1") == "127.0.0.1"
    assert _own_address("no.such.name.invalid") == ""
    assert _own_address("192.0.2.1") == "", "a documentation address, which no machine has"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("TORCH_DISTRIBUTED_DEBUG", "DETAIL", "set it to INFO"),
        ("PYTHONWARNINGS", "error", "name your module in it"),
        ("PYTHONWARNINGS", "default,error::DeprecationWarning", "name your module in it"),
        ("GLOO_SOCKET_IFNAME", "eth9", "GLOO_SOCKET_IFNAME=eth9: this machine has no interface eth9, only"),
    ],
)
def test_what_would_end_every_rank_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=words) as error:
        check_environment(HardwareConfig(), 2)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["", *(name for _, name in socket.if_nameindex())])
def test_interfaces_that_are_there_are_taken(monkeypatch: pytest.MonkeyPatch, value: str):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", value)
    check_environment(HardwareConfig(), 2)
