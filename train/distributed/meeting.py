"""How the agents of a job meet, and the store through which their ranks find each other.

On one machine the store listens on loopback alone. Several machines meet at the address of the first one. Nothing
that a stranger may have written there is unpickled: torch's elastic rendezvous, which does that, is used by elastic
jobs and jobs with restarts over several machines only, and reads its own types.
"""

import io
import pickle
import socket
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as dist
import torch.distributed.elastic.rendezvous.dynamic_rendezvous as elastic
from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousInfo, RendezvousParameters
from torch.distributed.elastic.rendezvous.api import RendezvousConnectionError, RendezvousStoreInfo
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

LOOPBACK = "127.0.0.1"
"""Not "localhost", which need not resolve, and may to an address that is not there."""
LAST_CALL_S = 5
"""How long an elastic job that has enough nodes waits for more."""
_BACKLOG = 2048


@dataclass(kw_only=True, slots=True)
class Node:
    """This machine's part of a job; the defaults are a job of one machine."""

    num_ranks: int
    node: int = 0
    """Which of the nodes this is, from 0, where the meeting point is."""
    min_nodes: int = 1
    max_nodes: int = 1
    endpoint: str = f"{LOOPBACK}:0"
    """``HOST:PORT`` where several nodes meet."""
    run_id: str = ""
    """The same on all nodes of one start of a job."""
    max_restarts: int = 0
    join_timeout_s: int = 60
    """How long the nodes wait for one another."""


def meeting_of(node: Node) -> RendezvousHandler:
    """The way in which the agents of ``node``'s job meet."""
    if node.max_nodes == 1:
        return _OneMachine()
    if node.min_nodes == node.max_nodes and node.max_restarts == 0:
        return _KnownNodes(node)
    elastic.pickle = _OwnTypesOnly  # type: ignore[assignment]
    choices: dict[str, Any] = {"timeout": node.join_timeout_s, "join_timeout": node.join_timeout_s}
    if node.min_nodes < node.max_nodes:
        choices["last_call_timeout"] = LAST_CALL_S
    return get_rendezvous_handler(
        RendezvousParameters(
            backend="c10d",
            endpoint=node.endpoint,
            run_id=node.run_id or uuid.uuid4().hex,
            min_nodes=node.min_nodes,
            max_nodes=node.max_nodes,
            is_host=node.node == 0,  # torchrun would guess by the name of the machine
            **choices,
        )
    )


class _Static(RendezvousHandler):
    """Of nodes that are known beforehand; their ranks use the agents' store."""

    def get_backend(self) -> str:
        return "static"

    @property
    def use_agent_store(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        """Nobody is waited for."""

    def num_nodes_waiting(self) -> int:
        return 0

    def get_run_id(self) -> str:
        return "shardrec"

    def shutdown(self) -> bool:
        return True


class _OneMachine(_Static):
    """A store on loopback; ranks that start again get a new one, without what the ones before left in it."""

    def next_rendezvous(self) -> RendezvousInfo:
        listener = listen_on_loopback()
        port = int(listener.getsockname()[1])
        store = served_store(listener, LOOPBACK, port)
        return RendezvousInfo(store, 0, 1, RendezvousStoreInfo(LOOPBACK, port))


class _KnownNodes(_Static):
    """A store at the endpoint, on the address that its name has there and no other."""

    def __init__(self, node: Node) -> None:
        self._node = node
        host, _, port = node.endpoint.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)

    def next_rendezvous(self) -> RendezvousInfo:
        node = self._node
        try:
            store = self._store()
        except (OSError, dist.DistError) as error:
            raise RendezvousConnectionError(" ".join(str(error).split())) from error
        found = RendezvousStoreInfo(self._host, self._port)
        return RendezvousInfo(dist.PrefixStore(node.run_id, store), node.node, node.max_nodes, found)

    def _store(self) -> dist.TCPStore:
        if self._node.node == 0:
            listener = _listener(_own_address(self._host), self._port)
            return served_store(listener, self._host, self._port)
        timeout = timedelta(seconds=self._node.join_timeout_s)
        return dist.TCPStore(self._host, self._port, is_master=False, timeout=timeout)


def listen_on_loopback() -> socket.socket:
    """A socket at a free port of loopback, for :func:`served_store`."""
    return _listener(LOOPBACK, 0)


def served_store(listener: socket.socket, host: str, port: int) -> dist.TCPStore:
    """The store of a job, served by this process at ``listener``; it ends with the returned object."""
    return dist.TCPStore(
        host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach(), multi_tenant=False
    )


def _listener(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if not address and socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True)
    return socket.create_server((address, port), family=family, backlog=_BACKLOG)


def _own_address(host: str) -> str:
    """The address of this machine that ``host`` means for the others; empty, for all, where it cannot be told: a name
    that is loopback here (Debian's 127.0.1.1), or an address that is translated on the way."""
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return ""
    address = found.pop()
    if found or (address.startswith("127.") and host not in (address, "localhost")) or not _can_bind(address):
        return ""
    return address


def _can_bind(address: str) -> bool:
    try:
        _listener(address, 0).close()
    except OSError:
        return False
    return True


class _OwnTypesOnly:
    """Stands in for the module ``pickle`` in torch's elastic rendezvous."""

    PickleError = pickle.PickleError
    dumps = staticmethod(pickle.dumps)

    @staticmethod
    def loads(content: bytes) -> Any:
        """The state of a rendezvous; ``PickleError`` for anything else that was written in its place."""
        return _StateReader(io.BytesIO(content)).load()


class _StateReader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        own = module == elastic.__name__ and name in ("_RendezvousState", "_NodeDesc")
        time = module == "datetime" and name in ("datetime", "timezone", "timedelta")
        if own or time or (module, name) == ("builtins", "set"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a rendezvous")
