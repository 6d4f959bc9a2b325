"""Checks of the address that gloo and torchrun take: other nodes must reach it."""

import fcntl
import ipaddress
import os
import socket
import struct
from pathlib import Path

from launch.doctor.row import Row, doubtful, failed, good

SIOCGIFADDR = 0x8915
"""Linux: the IPv4 address of an interface."""
ROUTES = Path("/proc/net/route")
IFNAME = "GLOO_SOCKET_IFNAME"
"""Makes gloo take an interface by name instead of the one that the host's name leads to."""


def check_host_name(num_nodes: int) -> Row:
    """Whether the host's name leads to an address of this machine, and to one that others can reach.

    torchrun hands its ranks the name (`socket.getfqdn`): one that does not resolve hangs them even on one machine.
    """
    host = socket.gethostname()
    addresses, error = addresses_of(host)
    public = sorted(set(interface_addresses().values()) - {"127.0.0.1"})
    if not addresses:
        line = f"{public[0] if public and num_nodes > 1 else '127.0.1.1'} {host}"
        return failed("host name", f"{host} does not resolve: {error}", f"echo '{line}' | sudo tee -a /etc/hosts")
    found = f"{host} is {', '.join(addresses)}"
    if not all(map(_is_loopback, addresses)):
        return good("host name", found)
    if num_nodes == 1 or os.environ.get(IFNAME):
        return good("host name", f"{found}: enough for one machine; other nodes need {IFNAME}")
    found = f"{found}, which other nodes cannot reach; gloo needs the name of an interface"
    return doubtful("host name", found, _export(_best(interface_addresses())))


def check_gloo(num_nodes: int) -> Row:
    """Which interface and address gloo takes, and whether it is right for ``num_nodes``."""
    interfaces = interface_addresses()
    best = _best(interfaces)
    named = os.environ.get(IFNAME, "")
    if "127.0.0.1" not in interfaces.values():
        return failed("gloo", "loopback is down, over which the ranks of one machine meet", "sudo ip link set lo up")
    if named:
        missing = [name for name in named.split(",") if name not in interfaces]
        if missing:
            found = (
                f"{IFNAME}={named}: {', '.join(missing)} has no IPv4 address here; there are {_listed(interfaces)}"
            )
            return failed("gloo", found, _export(best))
        chosen, address, why = named, interfaces[named.split(",")[0]], f"by {IFNAME}"
    else:
        chosen, address, why = _by_host_name(interfaces)
    found = f"{chosen} {address}, {why}"
    if _is_loopback(address) and num_nodes > 1:
        return failed("gloo", f"{found}: {num_nodes} nodes cannot reach a loopback address", _export(best))
    return good("gloo", found if named else f"{found}; {IFNAME}={best or 'NAME'} would choose the interface")


def addresses_of(host: str) -> tuple[list[str], str]:
    """The addresses that ``host`` resolves to, and why there are none."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        return [], str(error)
    return list(dict.fromkeys(str(each[4][0]) for each in found)), ""


def interface_addresses() -> dict[str, str]:
    """IPv4 address of each interface that has one, in the system's order."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(handle.fileno(), SIOCGIFADDR, request)
            except OSError:  # it has none
                continue
            if _is_up(name):
                found[name] = socket.inet_ntoa(answer[20:24])
    return found


def _by_host_name(interfaces: dict[str, str]) -> tuple[str, str, str]:
    """What gloo does without a name: the first address of the host that it can bind, else loopback; and why."""
    for address in addresses_of(socket.gethostname())[0]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as handle:
                handle.bind((address, 0))
        except OSError:
            continue
        owner = next((name for name, own in interfaces.items() if own == address), "")
        return owner or ("lo" if _is_loopback(address) else "interface of"), address, "by the host's name"
    return "lo", "127.0.0.1", "since the host's name gives no address that can be bound"


def _best(interfaces: dict[str, str]) -> str:
    """The interface of the default route, since a container's bridge has an address too; else the first but lo."""
    routes = [line.split() for line in ROUTES.read_text().splitlines()] if ROUTES.is_file() else []
    default = next((name for name, target, *_ in routes if target == "00000000"), "")
    others = [name for name, address in interfaces.items() if not _is_loopback(address)]
    return default if default in others else (others or [""])[0]


def _export(interface: str) -> str:
    if not interface:
        return "ip -brief address   # no interface is up but lo: connect one"
    return f"export {IFNAME}={interface} NCCL_SOCKET_IFNAME={interface}"


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _is_up(name: str) -> bool:
    """Not known to be down; a sandbox may have no /sys."""
    state = Path("/sys/class/net") / name / "operstate"
    return not state.is_file() or state.read_text().strip() != "down"


def _listed(interfaces: dict[str, str]) -> str:
    return ", ".join(f"{name} {address}" for name, address in interfaces.items())
