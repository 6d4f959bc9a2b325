"""Load on a server, from a process of its own: ``python -m benchmarks.serve_load HOST PORT SECONDS < histories``.

Each line of the input is a JSON list of raw items. Connections stay open; each sends its next request when it has the
answer to the one before. Plain sockets: a client of its own weight would take the processors that the server needs.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field

CONNECTIONS = 32


@dataclass(slots=True)
class Counts:
    """Seconds of each answer, and requests that got none or one of another status than 200."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0


def request_of(history: list[object], host: str) -> bytes:
    """The bytes of a request for ten items."""
    body = json.dumps({"history": history, "k": 10}).encode()
    head = (
        f"POST /recommend HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    return f"{head}\r\n\r\n".encode() + body


async def load(host: str, port: int, seconds: float, requests: list[bytes]) -> Counts:
    """Send ``requests`` again and again for ``seconds``."""
    counts, end = Counts(), time.perf_counter() + seconds
    await asyncio.gather(*(_connection(host, port, end, requests[start:], counts) for start in range(CONNECTIONS)))
    return counts


async def _connection(host: str, port: int, end: float, requests: list[bytes], counts: Counts) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    number = 0
    while (start := time.perf_counter()) < end:
        writer.write(requests[number % len(requests)])
        number += CONNECTIONS
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
        except (OSError, asyncio.IncompleteReadError):
            counts.failed += 1
            reader, writer = await asyncio.open_connection(host, port)
            continue
        if head.startswith(b"HTTP/1.1 200"):
            counts.seconds.append(time.perf_counter() - start)
        else:
            counts.failed += 1
    writer.close()


def main() -> None:
    """Print the counts as JSON."""
    host, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    requests = [request_of(json.loads(line), host) for line in sys.stdin]
    counts = asyncio.run(load(host, port, seconds, requests))
    print(json.dumps({"seconds": counts.seconds, "failed": counts.failed}))


if __name__ == "__main__":
    main()
