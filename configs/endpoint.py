"""``HOST:PORT`` of a node: the one place that reads and writes it."""

import re

_HOST = re.compile(r"[A-Za-z0-9._-]+")
_ADDRESS_V6 = re.compile(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` or ``[IPV6]:PORT``, without the brackets.

    Raises ``ValueError``, whose text says what is wrong: no port, one outside 1 to 65535, an IPv6 address that
    lacks its brackets.
    """
    host, _, port = endpoint.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    name = host[1:-1] if is_bracketed else host
    if not is_bracketed and ":" in host:
        raise ValueError("an IPv6 address is written in brackets, [ADDRESS]:PORT")
    if not (_ADDRESS_V6 if is_bracketed else _HOST).fullmatch(name):
        raise ValueError("write HOST:PORT of node 0, as every node reaches it")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ValueError(f"port {port or 'is missing and'} must lie in 1 to 65535")
    return name, int(port)


def join_endpoint(host: str, port: int) -> str:
    """The inverse of :func:`split_endpoint`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
